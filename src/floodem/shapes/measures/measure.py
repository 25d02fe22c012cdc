"""Size, surface and place of every object: a label volume in, columns out.

The counts come from `floodem.shapes.measures.blocks`; here they become nanometres. The
columns go to a CSV (`floodem.shapes.measures.table_file`), to `floodem measure` and,
as sizes of segments, into scenes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt64

from floodem.cluster import ALONE, Crew
from floodem.geometry import VoxelSize
from floodem.progress import Progress, ProgressListener
from floodem.shapes.measures.blocks import count_source, count_volume
from floodem.shapes.measures.surface import area_per_crossing, crossing_directions
from floodem.shapes.measures.table import ObjectTable
from floodem.shapes.skeletons.folder import SkeletonFolder
from floodem.shapes.source import LabelSource, require_voxel_size
from floodem.volumes.volume import Volume

_TOLD_EVERY = 256
"""Skeletons that are read between two reports."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measures:
    """One row for each object, by ascending id.

    Attributes
    ----------
    voxel_size
        What the numbers in nanometres are made with.
    ids
        Background (0) is none.
    voxels
        How many voxels.
    surface_nm2
        Area of the surface, estimated (see `floodem.shapes.measures.surface` for its
        errors). Where an object is cut by the volume's faces is no surface.
    box_start, box_stop
        The smallest box around it, half-open, in voxels of the volume's frame; z, y, x.
    centroid
        Mean of its voxels' centres in voxels of the volume's frame, z, y, x: the
        centre of voxel v is v + 0.5.
    length_nm
        Cable length of its skeleton, NaN where it has none; None when not asked for.
    """

    voxel_size: VoxelSize
    ids: UInt64[np.ndarray, "objects"]
    voxels: Int64[np.ndarray, "objects"]
    surface_nm2: Float64[np.ndarray, "objects"]
    box_start: Int64[np.ndarray, "objects 3"]
    box_stop: Int64[np.ndarray, "objects 3"]
    centroid: Float64[np.ndarray, "objects 3"]
    length_nm: Float64[np.ndarray, "objects"] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def volume_nm3(self) -> Float64[np.ndarray, "objects"]:
        """Volume of each object."""
        z, y, x = self.voxel_size.zyx_nm
        volumes: Float64[np.ndarray, "objects"] = self.voxels * float(z * y * x)
        return volumes

    def with_lengths(
        self, ids: UInt64[np.ndarray, "skeletons"], lengths_nm: Float64[np.ndarray, "skeletons"]
    ) -> Measures:
        """Return the same rows with cable lengths; ids that have no row are passed over."""
        order = np.argsort(ids, kind="stable")
        at = np.searchsorted(ids[order], self.ids)
        rows = order[np.minimum(at, max(len(ids) - 1, 0))] if len(ids) else np.zeros(0, np.int64)
        found = np.full(len(self), np.nan)
        if len(ids):
            is_there = ids[rows] == self.ids
            found[is_there] = lengths_nm[rows[is_there]]
        return replace(self, length_nm=found)


def measure(
    segmentation: Volume | LabelSource,
    *,
    voxel_size: VoxelSize | None = None,
    crew: Crew = ALONE,
    work: Path | None = None,
    progress: ProgressListener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Measures:
    """Measure every object of a segmentation, whatever its size.

    Parameters
    ----------
    segmentation
        An open volume of labels is measured in this process; a source by a crew.
    voxel_size
        By default what the volume states.
    crew
        Who measures a source; see `floodem.cluster.run_tasks`.
    work
        Folder for what they leave, with which a stopped run goes on; needed for a
        source. Shards and clusters see the same one.
    progress
        Called after every block.
    should_stop
        Asked between blocks.

    Raises
    ------
    OptionError
        When the voxel size is not known.
    LabelError
        When the volume holds no labels.
    RunConflictError
        When `work` is of other labels.
    ShardDoneError
        When this shard is done and others are not: the last one returns the measures.
    StoppedError
        When it was told to stop.
    """
    if isinstance(segmentation, LabelSource):
        assert work is not None
        with segmentation.open() as volume:
            size = require_voxel_size(volume, voxel_size)
            table = count_source(
                segmentation,
                volume,
                work=work,
                identity=segmentation.identity(volume),
                directions=crossing_directions(size),
                crew=crew,
                progress=progress,
                should_stop=should_stop,
            )
        return measures_of(table, voxel_size=size)
    size = require_voxel_size(segmentation, voxel_size)
    table = count_volume(
        segmentation,
        directions=crossing_directions(size),
        progress=progress,
        should_stop=should_stop,
    )
    return measures_of(table, voxel_size=size)


def measures_of(table: ObjectTable, *, voxel_size: VoxelSize) -> Measures:
    """Return the columns that counts stand for; crossings must be of this voxel size."""
    surface = np.zeros(len(table))
    for counts, area in zip(table.crossings.T, area_per_crossing(voxel_size), strict=True):
        surface += counts * area
    return Measures(
        voxel_size=voxel_size,
        ids=table.ids,
        voxels=table.voxels,
        surface_nm2=surface,
        box_start=table.first,
        box_stop=table.last + 1,
        centroid=table.position_sums / table.voxels[:, None] + 0.5,
    )


def skeleton_lengths(
    folder: SkeletonFolder,
    ids: UInt64[np.ndarray, "objects"],
    *,
    progress: ProgressListener | None = None,
) -> tuple[Any, Any]:
    """Return which of the ids have a skeleton in a folder, and how long it is in nanometres.

    Raises
    ------
    StorageError, VolumeFormatError
        When the file system refuses, or a skeleton is damaged.
    """
    there = np.intersect1d(np.array(folder.ids(), np.uint64), ids)
    lengths = np.full(len(there), np.nan)
    for row, number in enumerate(there.tolist()):
        if progress is not None and row % _TOLD_EVERY == 0:
            progress(
                Progress(stage="reading skeletons", done=row, total=len(there), unit="skeletons")
            )
        skeleton = folder.read(number)
        if skeleton is not None:
            lengths[row] = skeleton.length_nm
    return there, lengths
