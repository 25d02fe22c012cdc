"""Addresses in a project file: text as the user wrote it in, text that means it anywhere out."""

from __future__ import annotations

import os
from pathlib import Path

from floodem.volumes.servers.addresses import is_remote


def resolved(text: str, *, base: Path) -> str:
    """Return an address whose relative path begins at `base`.

    Addresses of servers stay; a format's prefix (``zarr://``) and a dataset behind
    ``@`` or ``:`` stay around the path.
    """
    prefix, sign, rest = text.partition("://")
    if sign and (is_remote(text) or is_remote(rest) or prefix.lower() == "file"):
        return text
    path = rest if sign else text
    return f"{prefix}{sign}" * bool(sign) + os.path.normpath(os.path.join(base, path))


def looks_like_path(text: str) -> bool:
    """Tell a path from the name of a network."""
    return text.endswith(".safetensors") or "/" in text or os.sep in text
