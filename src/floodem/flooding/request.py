"""What `segment` is asked and what it answers: plain values, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floodem.errors import OptionError
from floodem.flooding.options import FloodOptions
from floodem.geometry import Box
from floodem.volumes import open_volume
from floodem.volumes.volume import Volume

if TYPE_CHECKING:
    from floodem.flooding.masks import MaskRule

DEFAULT_CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRequest:
    """Everything a user may choose about a run besides image, model and destination.

    Attributes
    ----------
    options
        Of the floods.
    box
        Part of the image, in its frame; None for all of it.
    masks, seed_masks
        Where no field of view may be centred, where no seed may lie.
    barriers
        Where no field of view may be centred either; seed policies do not look at
        these, and skip a seed that lies in one.
    init_segmentation
        Address of labels that are there already and are kept.
    device, dtype
        Names, see `floodem.network.device`.
    probabilities
        Address for the probability (uint8, quantised) of every voxel, or None.
    overwrite
        Begin again where an earlier run or another volume is.
    checkpoint_seconds
        How often the state is saved.
    """

    options: FloodOptions = field(default_factory=FloodOptions)
    box: Box | None = None
    masks: Sequence[MaskRule] = ()
    seed_masks: Sequence[MaskRule] = ()
    barriers: Sequence[MaskRule] = ()
    init_segmentation: str | Path | None = None
    device: str = "auto"
    dtype: str = "auto"
    probabilities: str | Path | None = None
    overwrite: bool = False
    checkpoint_seconds: float = DEFAULT_CHECKPOINT_SECONDS

    def __post_init__(self) -> None:
        if not self.checkpoint_seconds >= 0:
            raise OptionError(
                f"checkpoint_seconds {self.checkpoint_seconds} is not 0 or above: give seconds"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """What a finished run has made.

    Attributes
    ----------
    uri
        Where the labels are: uint64, 1 to n in the order of their seeds.
    box
        Which voxels of the image were segmented.
    folder
        Where origins, overlaps, rejected seeds and the log are.
    summary
        As in run.json: segments, covered, ``cut_short`` (ids whose flood hit a
        limit), ``counters`` (see `BlockFlooder`, and ``seeds``), ``labels_sha256``.
    was_finished
        Whether an earlier call had done all the work.
    notices
        Sentences a user may want to read.
    """

    uri: str
    box: Box
    folder: Path
    summary: Mapping[str, Any]
    was_finished: bool
    notices: tuple[str, ...] = ()

    @property
    def segments(self) -> int:
        """How many segments there are."""
        return int(self.summary["segments"])

    @property
    def covered(self) -> float:
        """Fraction of the voxels that are in a segment."""
        return float(self.summary["covered"])

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "uri": self.uri,
            "box": str(self.box),
            "folder": str(self.folder),
            "was_finished": self.was_finished,
            "notices": list(self.notices),
            **self.summary,
        }

    def open(self) -> Volume:
        """Open the labels."""
        return open_volume(self.uri)
