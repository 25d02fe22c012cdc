"""Volumes whose voxels are computed when they are read, as sources of conversions.

An open volume and a rule come in; a volume goes out that `convert` copies as any
other, with receipts, resuming and verification. What was computed is part of the
conversion's identity.
"""

from __future__ import annotations

from typing import Any

from floodem.volumes.stored import StoredVolume


class DerivedVolume(StoredVolume):
    """A volume computed from another one, which stays open.

    Its `uri` is that of the other one, whose file tells whether the source is still
    the same. Several threads may read it at once.

    Attributes
    ----------
    recipe
        Plain values that tell how the voxels are computed; they must come back
        equal from JSON.
    """

    recipe: dict[str, Any]
