"""What a segment's end would extend to: one flood without context in, overlaps out.

The same flood as from one side of a decision point, except that the whole segmentation is
erased: nothing keeps the flood out of other segments, and which ones it reaches is the answer.

References
----------
Januszewski et al. 2018, Nature Methods 15:605, Online Methods, "Segment agglomeration".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int64, UInt64

from floodem.errors import LabelError
from floodem.geometry import Zyx

if TYPE_CHECKING:
    from floodem.assembly.agglomeration.resegmentation.resegmenter import Resegmenter


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EndpointScores:
    """Which segments a flood from one segment reaches, in the analysis box, at probability 0.5.

    Attributes
    ----------
    ids
        Segments that the flood overlaps, its own among them; most voxels first, and of equal
        ones the smaller id.
    voxels
        How many voxels of each it has filled.
    of_flood
        The same as a fraction of the flood.
    of_segment
        The same as a fraction of the segment's voxels in the analysis box.
    size
        Voxels of the flood; those in no segment are what `voxels` leaves.
    deleted
        Voxels that its steps, centred in the box, made fall from a probability of 0.8 or more
        to below 0.5.
    seeds
        From how many seeds it was tried.
    is_recovered
        Whether it covers its own segment well enough.
    calls
        Network calls of all tries.
    """

    ids: UInt64[np.ndarray, "segments"]
    voxels: Int64[np.ndarray, "segments"]
    of_flood: Float64[np.ndarray, "segments"]
    of_segment: Float64[np.ndarray, "segments"]
    size: int
    deleted: int
    seeds: int
    is_recovered: bool
    calls: int

    def __len__(self) -> int:
        return len(self.ids)


def score_endpoint(
    resegmenter: Resegmenter,
    segment: int,
    *,
    position: Zyx,
    should_stop: Callable[[], bool] = lambda: False,
) -> EndpointScores:
    """Flood from a segment near one of its ends, as if nothing was segmented.

    Parameters
    ----------
    segment
        Its id; without a voxel near the position nothing is flooded.
    position
        The end, z, y, x in the frame of the segmentation.
    should_stop
        Asked after each network call.

    Raises
    ------
    LabelError
        When the id is that of the background.
    GeometryError
        When the position is outside of image or segmentation.
    StoppedError
        When told to stop.
    VolumeFormatError, StorageError
        When a volume cannot be read.
    """
    if segment < 1:
        raise LabelError(f"{segment} is no segment: give an id from 1 on")
    canvas = resegmenter.canvas_at(position)
    side = canvas.flood_from(canvas.labels == segment, should_stop=should_stop)
    labels = canvas.in_analysis(canvas.labels)
    size = int(np.count_nonzero(side.filled))
    ids, voxels = np.unique(labels[side.filled], return_counts=True)
    ids, voxels = ids[ids != 0], voxels[ids != 0].astype(np.int64)
    there, voxels_there = np.unique(labels, return_counts=True)
    in_box = voxels_there[np.searchsorted(there, ids)]
    order = np.lexsort((ids, -voxels))
    return EndpointScores(
        ids=ids[order].astype(np.uint64),
        voxels=voxels[order],
        of_flood=voxels[order] / max(size, 1),
        of_segment=(voxels / in_box)[order],
        size=size,
        deleted=side.deleted,
        seeds=len(side.seeds),
        is_recovered=side.is_recovered,
        calls=side.calls,
    )
