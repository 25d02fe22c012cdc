"""What the page of a report is made from: plain records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from floodem.evaluation import Evaluation
from floodem.geometry import VoxelSize
from floodem.project.report.scene import Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One picture: a slice through a place.

    Attributes
    ----------
    axis, index
        Which axis is cut (0 for z), and at which voxel of the volumes' frame.
    width, height
        In pixels.
    png
        The file.
    """

    axis: int
    index: int
    width: int
    height: int
    png: bytes


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Pictured:
    """A place with its pictures.

    Attributes
    ----------
    panels
        Three for each segmentation.
    has_both
        Whether both parts lie in what is shown.
    link_end
        What its link ends in, from the # on; None without a viewer.
    """

    seen: Seen
    panels: Sequence[Sequence[Panel]]
    has_both: bool
    link_end: str | None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Contents:
    """All of a page.

    Attributes
    ----------
    path
        Where it will lie; its name stands in what it says about opening it.
    evaluations, names, addresses
        At least one, what each is called, and where its segmentation is.
    truth, image
        Where these are.
    pictured
        The places with their pictures, in the order of the page.
    scene
        The folder beside the page that links lead to; None without one.
    remarks
        Sentences on what is otherwise than one may think.
    """

    path: Path
    title: str
    evaluations: Sequence[Evaluation]
    names: Sequence[str]
    addresses: Sequence[str]
    truth: str
    image: str | None
    voxel_size: VoxelSize | None
    pictured: Sequence[Pictured]
    scene: Path | None
    remarks: Sequence[str]
