"""What a project file may say: one frozen dataclass for each of its tables, with defaults.

The text of each key is its line in the documentation and in a file that
``floodem run --init`` writes. Triples are z, y, x; relative paths begin at the folder of
the project file. Keys that are marked with ``decides=False`` say how and where work is
done, not what comes out: changing them makes nothing stale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from floodem.errors import OptionError
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.project.pipeline.checking import about
from floodem.project.pipeline.flood_tables import (
    AGGLOMERATE,
    SEGMENT,
    AgglomerateTable,
    SegmentTable,
)

BEST, NEWEST = "best", "newest"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectTable:
    """What the project is called. Table ``project``."""

    name: str | None = field(
        default=None, metadata=about("Of pages; default: the name of this file.", decides=False)
    )
    folder: str | None = field(
        default=None,
        metadata=about("Where all results go; default: named as this file.", decides=False),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaheTable:
    """How contrast is equalised. Table ``image.clahe``."""

    block: int = field(default=127, metadata=about("Edge of the window in pixels, odd."))
    bins: int = field(default=256, metadata=about("Bins of its histogram, at most 256."))
    slope: float = field(default=1.5, metadata=about("How much contrast may grow at most."))
    range: tuple[int, int] | None = field(
        default=None, metadata=about("Grey values that the bins span; default: 0 to 255.")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTable:
    """The image that is segmented. Table ``image``."""

    source: str = field(default="", metadata=about("Address of the image."))
    box: Box | None = field(default=None, metadata=about("Use only these voxels."))
    voxel_size: VoxelSize | None = field(
        default=None, metadata=about("Voxel edges in nm, where the file is wrong or silent.")
    )
    offset: Zyx | None = field(default=None, metadata=about("Where the first voxel lies."))
    axes: str | None = field(
        default=None, metadata=about("Names of the stored axes, where the file is wrong: xyz.")
    )
    channel: int | None = field(default=None, metadata=about("Which channel, from 0."))
    level: int = field(default=0, metadata=about("Which level of a pyramid; 0 is the finest."))
    dtype: str | None = field(default=None, metadata=about("Another type: uint8, uint16."))
    window: tuple[float, float] | None = field(
        default=None, metadata=about("Map these grey levels to the full range of dtype.")
    )
    clahe: ClaheTable | None = field(default=None, metadata=about("Equalise the contrast."))
    allow_external: bool = field(
        default=False, metadata=about("Follow HDF5 links that leave the file.", decides=False)
    )

    @property
    def is_copied(self) -> bool:
        """Whether the image must be prepared, not used as it is."""
        said = (self.box, self.voxel_size, self.offset, self.axes, self.channel, self.dtype)
        others = (self.window, self.clahe)
        return any(one is not None for one in (*said, *others)) or self.level > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsTable:
    """True labels of the image, to learn from or to score against. Table ``labels``."""

    source: str = field(default="", metadata=about("Address of the labels."))
    box: Box | None = field(default=None, metadata=about("Use only these voxels."))
    voxel_size: VoxelSize | None = field(
        default=None, metadata=about("Voxel edges in nm, where the file is wrong or silent.")
    )
    offset: Zyx | None = field(default=None, metadata=about("Where the first voxel lies."))
    axes: str | None = field(default=None, metadata=about("Names of the stored axes."))
    channel: int | None = field(default=None, metadata=about("Which channel, from 0."))
    level: int = field(default=0, metadata=about("Which level of a pyramid; 0 is the finest."))
    allow_external: bool = field(
        default=False, metadata=about("Follow HDF5 links that leave the file.", decides=False)
    )

    @property
    def is_copied(self) -> bool:
        """Whether the labels must be prepared, not used as they are."""
        said = (self.box, self.voxel_size, self.offset, self.axes, self.channel)
        return any(one is not None for one in said) or self.level > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTable:
    """A network that is there already. Table ``model``."""

    name: str | None = field(
        default=None, metadata=about("A network that floodem ships or has fetched.")
    )
    file: str | None = field(default=None, metadata=about("A model file (.safetensors)."))
    network: str | None = field(
        default=None, metadata=about("Code of its network, if not ours: package:factory.")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateTable:
    """What the result is scored against. Table ``evaluate``; see docs/scores.md."""

    truth: str | None = field(
        default=None, metadata=about("Address of true labels; default: those of labels.source.")
    )
    border: Zyx = field(default=(0, 0, 0), metadata=about("Voxels left out at each face."))
    box: Box | None = field(default=None, metadata=about("Compare only these voxels."))
    ignore: tuple[int, ...] = field(default=(0,), metadata=about("Truth ids that do not count."))
    worst: int = field(default=10, metadata=about("Splits and mergers to list."))
    cremi_border_nm: float | None = field(
        default=None, metadata=about("Leave out what is so near to a border of the truth.")
    )
    skeletons: str | None = field(
        default=None, metadata=about("True skeletons, for the expected run length.")
    )
    merge_nodes: int = field(
        default=1, metadata=about("Nodes by which a segment must hold two skeletons to join them.")
    )
    bootstrap: int = field(
        default=0, metadata=about("Draw the objects so often again, for intervals of the scores.")
    )
    seed: int = field(default=0, metadata=about("Of these drawings."))
    report: bool = field(default=True, metadata=about("Write report.html with pictures."))

    def __post_init__(self) -> None:
        if self.worst < 0 or any(label < 0 for label in self.ignore):
            raise OptionError(f"worst {self.worst} and ignored ids must not be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshTable:
    """How objects are meshed. Table ``mesh``."""

    min_voxels: int = field(default=0, metadata=about("Smaller objects get no mesh."))
    ids: tuple[int, ...] | None = field(default=None, metadata=about("Only these objects."))
    error: float | None = field(
        default=None, metadata=about("How far simplification may go in nm; default: a voxel.")
    )
    block_size: int | None = field(default=None, metadata=about("Edge of blocks in voxels."))
    format: str | None = field(
        default=None, metadata=about("One file an object instead: obj, ply, stl or glb.")
    )
    sharded: bool | None = field(default=None, metadata=about("Objects share files."))


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneTable:
    """The folder to show. Table ``scene``."""

    title: str | None = field(default=None, metadata=about("Of the page; default: the project."))
    skeletons: bool = field(default=True, metadata=about("Make skeletons, too."))
    sharded: bool = field(default=False, metadata=about("Pack files, for object stores."))
    client: bool = field(default=True, metadata=about("Put the viewer into the folder."))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterTable:
    """Who does the work. Table ``cluster``; nothing in it makes results stale."""

    workers: int | None = field(
        default=None, metadata=about("Processes; default: one for each core.", decides=False)
    )
    cluster: str | None = field(
        default=None,
        metadata=about("Workers of Dask: local:4, tls://HOST:PORT or a TOML file.", decides=False),
    )
    insecure: bool = field(
        default=False, metadata=about("Allow a tcp:// scheduler.", decides=False)
    )

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise OptionError(f"workers {self.workers} cannot work: give 1 or more")
        if self.workers is not None and self.cluster is not None:
            raise OptionError("workers and cluster exclude each other: give one (local:N has N)")


TABLES: Mapping[str, type] = {
    "project": ProjectTable,
    "image": ImageTable,
    "labels": LabelsTable,
    "model": ModelTable,
    SEGMENT: SegmentTable,
    AGGLOMERATE: AgglomerateTable,
    "evaluate": EvaluateTable,
    "mesh": MeshTable,
    "scene": SceneTable,
    "cluster": ClusterTable,
}
"""Every table with keys of its own; ``train`` has those of a configuration of training."""
