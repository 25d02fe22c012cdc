"""Seeds where the image itself is bright, or brighter than its surroundings.

In: a block's normalised image, its segments and masks. Out: positions, for data
whose intensity already is a probability or a distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from scipy import ndimage

from floodem.flooding.seeds.arguments import number, truth, whole_number
from floodem.flooding.seeds.context import NO_SEEDS, SeedContext
from floodem.flooding.seeds.maxima import local_maxima, noisy_maxima
from floodem.flooding.seeds.registry import seed_policy

MAX_PEAK_DISTANCE = 3


@seed_policy("PolicyMax")
@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyMax:
    """Every voxel, the brightest first; equal ones in C order."""

    def __call__(self, context: SeedContext) -> Int64[np.ndarray, "n 3"]:
        """Return every voxel whose field of view stays inside, brightest first."""
        inner = context.image[
            tuple(
                slice(m, max(m, n - m)) for m, n in zip(context.margin, context.shape, strict=True)
            )
        ]
        order = np.argsort(-inner, axis=None, kind="stable")
        seeds = np.stack(np.unravel_index(order, inner.shape), axis=1).astype(np.int64, copy=False)
        seeds += np.asarray(context.margin)
        return seeds


@seed_policy("PolicyMaxPeaks")
@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyMaxPeaks:
    """Voxels brighter than all within 3 voxels and than the image's mean."""

    def __call__(self, context: SeedContext) -> Int64[np.ndarray, "n 3"]:
        """Return peaks of intensity, ascending by z, y, x."""
        image = np.where(context.taken(), np.float32(0.0), context.image)
        return noisy_maxima(image, min_distance=MAX_PEAK_DISTANCE, threshold_abs=0.0)


@seed_policy("PolicyImagePeaks3D2D")
@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyImagePeaks3D2D:
    """Peaks of intensity in the volume, then those of every section, brightest first.

    Parameters
    ----------
    min_distance_2d, min_distance_3d
        Between two seeds, in voxels; a negative one leaves its half out.
    """

    min_distance_2d: int = 2
    min_distance_3d: int = 4

    def __post_init__(self) -> None:
        for name in ("min_distance_2d", "min_distance_3d"):
            whole_number(getattr(self, name), of=f"PolicyImagePeaks3D2D {name}", at_least=-1)

    def __call__(self, context: SeedContext) -> Int64[np.ndarray, "n 3"]:
        """Return the peaks of the volume, then of section 0, 1, ..."""
        found = [NO_SEEDS]
        if self.min_distance_3d >= 0:
            found.append(local_maxima(context.image, min_distance=self.min_distance_3d))
        if self.min_distance_2d >= 0:
            for z, section in enumerate(context.image):
                peaks = local_maxima(section, min_distance=self.min_distance_2d)
                found.append(np.insert(peaks, 0, z, axis=1))
        return np.concatenate(found)


@seed_policy("PolicyImagePeaks2DDisk")
@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyImagePeaks2DDisk:
    """Peaks of intensity in every section, over a disk and with Euclidean spacing.

    Parameters
    ----------
    min_distance_2d
        Between two seeds of a section and from its border, in voxels.
    threshold_rel
        A seed is brighter than this part of the section's maximum.
    disk_radius
        Of the surroundings that a seed is brighter than.
    """

    min_distance_2d: int = 3
    threshold_rel: float = 0.5
    disk_radius: int = 1

    def __post_init__(self) -> None:
        name = "PolicyImagePeaks2DDisk"
        whole_number(self.min_distance_2d, of=f"{name} min_distance_2d", at_least=0)
        number(self.threshold_rel, of=f"{name} threshold_rel")
        whole_number(self.disk_radius, of=f"{name} disk_radius", at_least=0)

    def __call__(self, context: SeedContext) -> Int64[np.ndarray, "n 3"]:
        """Return the peaks of section 0, 1, ..., brightest first in each."""
        found = [NO_SEEDS]
        for z, section in enumerate(context.image):
            peaks = local_maxima(
                section,
                min_distance=self.min_distance_2d,
                threshold_rel=self.threshold_rel,
                disk_radius=self.disk_radius,
            )
            found.append(np.insert(peaks, 0, z, axis=1))
        return np.concatenate(found)


@seed_policy("PolicyDenseSeeds")
@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDenseSeeds:
    """Every voxel brighter than a threshold, in C order.

    Parameters
    ----------
    threshold
        In units of the normalised image.
    num_erosions
        How many layers of voxels to take off first (6 neighbours; the block's
        border takes nothing off).
    invert
        Take the voxels that are not brighter.
    """

    threshold: float = 0.5
    num_erosions: int = 0
    invert: bool = False

    def __post_init__(self) -> None:
        number(self.threshold, of="PolicyDenseSeeds threshold")
        whole_number(self.num_erosions, of="PolicyDenseSeeds num_erosions", at_least=0)
        truth(self.invert, of="PolicyDenseSeeds invert")

    def __call__(self, context: SeedContext) -> Int64[np.ndarray, "n 3"]:
        """Return the voxels left after the erosions."""
        chosen = context.image > self.threshold
        if self.invert:
            chosen = ~chosen
        if self.num_erosions:
            chosen = ndimage.binary_erosion(chosen, iterations=self.num_erosions, border_value=1)
        return np.argwhere(chosen)
