"""Seeds in the middle between edges of the image, the default way to start floods.

In: a block's image, masks and segments. Out: local maxima of the distance to
image edges, in C order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from floodem.flooding.seeds.context import NO_SEEDS, SeedContext
from floodem.flooding.seeds.edges import distance_to, image_edges
from floodem.flooding.seeds.maxima import noisy_maxima
from floodem.flooding.seeds.registry import seed_policy

PEAK_DISTANCE = 3
NOT_A_SEED = -1.0


@seed_policy("PolicyPeaks")
@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPeaks:
    """Voxels farther from the edges of the image than their surroundings.

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
        if edges.all():
            return NO_SEEDS
        distance = distance_to(edges, anisotropy=context.seed_anisotropy)
        distance[context.taken() | np.isinf(distance)] = NOT_A_SEED
        return noisy_maxima(distance, min_distance=PEAK_DISTANCE, threshold_abs=0.0)
