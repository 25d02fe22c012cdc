"""Decision points: places where two segments may belong together, as a table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, UInt64


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DecisionPoints:
    """One place for every pair of segments that come near each other.

    Attributes
    ----------
    ids_a, ids_b
        The segments, the smaller id first; rows are ordered by `ids_a`, then `ids_b`, and no
        pair occurs twice.
    positions
        The voxel z, y, x, in the frame of the segmentation.
    distances_nm
        Mean distance of the point's two voxels to the segments, in nanometres.
    """

    ids_a: UInt64[np.ndarray, "points"]
    ids_b: UInt64[np.ndarray, "points"]
    positions: Int64[np.ndarray, "points 3"]
    distances_nm: Float64[np.ndarray, "points"]

    def __len__(self) -> int:
        return len(self.ids_a)
