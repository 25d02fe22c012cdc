"""What a consensus is asked and what it answers: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from floodem.errors import OptionError
from floodem.geometry import Box
from floodem.volumes import open_volume
from floodem.volumes.volume import Volume

ADVISED_SPLIT_MIN_SIZE = 1000
"""Voxels; what the authors of the method advise, and their smallest segment as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsensusOptions:
    """How two segmentations are compared.

    Attributes
    ----------
    split_components
        Split the objects of both into 6-connected components first.
    min_size
        Objects of either (components, where they are split) with fewer voxels become
        background before they are compared. The reference's default keeps all.
    split_min_size
        Pieces of the result with fewer voxels become background.

    Raises
    ------
    OptionError
        When a size is negative.
    """

    split_components: bool = True
    min_size: int = 0
    split_min_size: int = ADVISED_SPLIT_MIN_SIZE

    def __post_init__(self) -> None:
        for name in ("min_size", "split_min_size"):
            size = getattr(self, name)
            if size < 0:
                raise OptionError(f"{name} {size} is negative: give voxels, 0 to keep all")

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Consensus:
    """What a finished consensus has made.

    Attributes
    ----------
    uri
        Where the labels are (uint64).
    box
        Which voxels they hold.
    folder
        Where the record of the run is: a path or a remote address.
    summary
        As in run.json: ``segments``; ``covered``, the part of the voxels that is in one;
        ``objects_a``, ``objects_b`` that came in; ``segments_a``, ``segments_b`` after both were
        split and cleaned; ``pairs`` of these; ``dropped`` pieces that were too small;
        ``labelled_a`` voxels of A, ``labelled`` of the result, and ``kept``, the second over
        the first; ``blocks``.
    was_finished
        Whether an earlier call had done all the work.
    """

    uri: str
    box: Box
    folder: str
    summary: Mapping[str, Any]
    was_finished: bool

    @property
    def segments(self) -> int:
        """How many segments there are."""
        return int(self.summary["segments"])

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "uri": self.uri,
            "box": str(self.box),
            "folder": self.folder,
            "was_finished": self.was_finished,
            **self.summary,
        }

    def open(self) -> Volume:
        """Open the labels."""
        return open_volume(self.uri)
