"""Old results as volumes: what ``seg-X_Y_Z.npz``, ``.prob`` and ``.cpoint`` hold, by address.

The volume layer finds what stands here by entry points. The npz of a segmentation is an
npz as any other, only that its name tells the corner, which becomes the volume's offset.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from floodem.legacy.results.paths import CHECKPOINT, PROBABILITY, corner_of
from floodem.volumes.registry import OpenRequest, VolumeFormat

if TYPE_CHECKING:
    from floodem.volumes.description import Description
    from floodem.volumes.volume import Volume

_PROBABILITY_KEY, _SEGMENTATION_KEY = "qprob", "segmentation"


def describe(name: str) -> Description | None:
    """Return offset and kind of a file of the older programs, by its name."""
    from floodem.volumes.description import Description
    from floodem.volumes.volume import Kind

    path = Path(name)
    corner = corner_of(path)
    if corner is None:
        return None
    kind = Kind.IMAGE if path.suffix == PROBABILITY else Kind.LABELS
    return Description(offset=corner, kind=kind)


def _open(request: OpenRequest) -> Volume:
    from floodem.legacy.results.excluding import WithoutMarks
    from floodem.volumes.arrays.npz import NPZ

    is_checkpoint = request.location.path.lower().endswith(CHECKPOINT)
    key = _SEGMENTATION_KEY if is_checkpoint else _PROBABILITY_KEY
    volume = NPZ.open(replace(request, location=replace(request.location, dataset=key)))
    return WithoutMarks(volume) if is_checkpoint else volume


def _recognises(path: Path) -> bool:
    # Other npz archives look alike, so the ending decides.
    return False


OLD_RESULT = VolumeFormat(
    name="ffn",
    summary="probabilities (.prob) and checkpoints (.cpoint) of the older programs",
    extensions=(PROBABILITY, CHECKPOINT),
    reads_axes=True,
    remote="read",
    recognises=_recognises,
    open=_open,
)
