"""Seeds in the middle: between edges of the image, or of the empty space between segments.

In: a block's image, masks and segments. Out: local maxima of a distance, with
ties broken by fixed noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int64

from floodem.errors import OptionError
from floodem.flooding.seeds.arguments import number, whole_number
from floodem.flooding.seeds.context import ISOTROPIC, NO_SEEDS, SeedContext
from floodem.flooding.seeds.edges import distance_to, image_edges
from floodem.flooding.seeds.maxima import noisy_maxima
from floodem.flooding.seeds.registry import seed_policy

# The reference's distances between peaks, in voxels, and their least heights.
PEAK_DISTANCE = 3
EMPTY_SPACE_PEAK_DISTANCE = 2
EMPTY_SPACE_LEAST_DISTANCE = 0.5
NOT_A_SEED = -1.0


@seed_policy("PolicyPeaks")
@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPeaks:
    """Voxels farther from the edges of the image than all within 3 voxels.

    References
    ----------
    Januszewski et al. 2018, Nature Methods 15:605, Online Methods, "Inference".
    """

    def __call__(self, context: SeedContext) -> Int64[np.ndarray, "n 3"]:
        """Return peaks of the distance to edges, ascending by z, y, x."""
        edges = image_edges(context.image)
        # Masked voxels count as edges: their flat areas would hold the largest distances.
        if context.excluded is not None:
            edges |= context.excluded
        if edges.all() or not edges.any():
            return NO_SEEDS
        distance = distance_to(edges, anisotropy=context.seed_anisotropy)
        distance[context.taken()] = NOT_A_SEED
        return noisy_maxima(distance, min_distance=PEAK_DISTANCE, threshold_abs=0.0)


@seed_policy("PolicyPeaks2d")
@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPeaks2d:
    """The same in every section alone, for strongly anisotropic data.

    Parameters
    ----------
    min_distance
        Between two seeds of a section, in voxels.
    threshold_abs
        A seed is farther than this from the nearest edge.
    sort_cmp
        ``"ascending"`` or ``"descending"`` by z, y, x.
    """

    min_distance: int = 7
    threshold_abs: float = 2.5
    sort_cmp: Literal["ascending", "descending"] = "ascending"

    def __post_init__(self) -> None:
        whole_number(self.min_distance, of="PolicyPeaks2d min_distance", at_least=1)
        number(self.threshold_abs, of="PolicyPeaks2d threshold_abs")
        if self.sort_cmp not in {"ascending", "descending"}:
            raise OptionError(
                f"PolicyPeaks2d sort_cmp is {self.sort_cmp!r}: give ascending or descending"
            )

    def __call__(self, context: SeedContext) -> Int64[np.ndarray, "n 3"]:
        """Return peaks of the distance to edges, section by section."""
        found = [NO_SEEDS]
        for z, image in enumerate(context.image):
            edges = image_edges(image)
            if context.excluded is not None:
                edges |= context.excluded[z]
            if not edges.any():
                continue
            section = distance_to(edges[np.newaxis], anisotropy=context.seed_anisotropy)[0]
            peaks = noisy_maxima(
                section, min_distance=self.min_distance, threshold_abs=self.threshold_abs
            )
            found.append(np.insert(peaks, 0, z, axis=1))
        seeds = np.concatenate(found)
        return seeds[::-1] if self.sort_cmp == "descending" else seeds


@seed_policy("PolicyFillEmptySpace")
@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFillEmptySpace:
    """Voxels in the middle of what no segment covers yet; none without a segment.

    Meant for a second pass over an initial segmentation.
    """

    def __call__(self, context: SeedContext) -> Int64[np.ndarray, "n 3"]:
        """Return peaks of the distance to segments, ascending by z, y, x."""
        segments = context.segmentation > 0
        if not segments.any():
            return NO_SEEDS
        return noisy_maxima(
            distance_to(segments, anisotropy=ISOTROPIC),
            min_distance=EMPTY_SPACE_PEAK_DISTANCE,
            threshold_abs=EMPTY_SPACE_LEAST_DISTANCE,
        )
