"""What a seed policy may look at, and which of its positions a block can use.

In: one block's image, the segments already there and its masks, as the flood
driver holds them. Out: a frozen view of them, handed to a policy, and the test
that drops positions too near to the block's border. Everything is z, y, x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt32

from floodem.errors import GeometryError
from floodem.geometry import Zyx

NO_SEEDS: Int64[np.ndarray, "0 3"] = np.empty((0, 3), dtype=np.int64)
NO_SEEDS.setflags(write=False)

ISOTROPIC = (1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedContext:
    """One block, as a seed policy sees it.

    Attributes
    ----------
    image
        Normalised intensities, ``(value - mean) / stddev``.
    segmentation
        0 where nothing is, ids of the segments that are there already elsewhere.
    excluded
        True where a mask or a seed mask forbids a seed, or None without masks.
    margin
        Half the field of view: a seed nearer to the border than this is dropped.
    corner
        Position of the block's first voxel in the volume.
    seed_anisotropy
        Relative edge lengths of a voxel for distances to image edges. The
        reference leaves them at 1, 1, 1 whatever the voxel size.
    """

    image: Float32[np.ndarray, "z y x"]
    segmentation: UInt32[np.ndarray, "z y x"]
    excluded: Bool[np.ndarray, "z y x"] | None
    margin: Zyx
    corner: Zyx
    seed_anisotropy: tuple[float, float, float] = ISOTROPIC

    def __post_init__(self) -> None:
        if min(self.margin) < 0:
            raise GeometryError(f"seed margin {self.margin} (z,y,x) is negative")
        if not all(np.isfinite(edge) and edge > 0 for edge in self.seed_anisotropy):
            raise GeometryError(
                f"seed anisotropy {self.seed_anisotropy} (z,y,x) is not positive on every axis: "
                "give relative voxel edges, for example 5,1,1"
            )

    @property
    def shape(self) -> Zyx:
        """Edge lengths of the block in voxels."""
        z, y, x = self.image.shape
        return (z, y, x)

    def taken(self) -> Bool[np.ndarray, "z y x"]:
        """Return where no seed can be used: in a segment, or under a mask."""
        taken = self.segmentation > 0
        if self.excluded is not None:
            taken |= self.excluded
        return taken


def inside_margin(
    positions: Int64[np.ndarray, "n 3"], *, shape: Zyx, margin: Zyx
) -> Int64[np.ndarray, "m 3"]:
    """Keep, in order, the positions at least `margin` from every face of the block.

    A field of view of ``2 * margin + 1`` voxels around them stays inside.
    """
    low = np.asarray(margin)
    high = np.asarray(shape) - low
    kept = np.all((positions >= low) & (positions < high), axis=1)
    return np.ascontiguousarray(positions[kept], dtype=np.int64)
