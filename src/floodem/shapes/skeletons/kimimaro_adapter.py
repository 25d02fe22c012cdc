"""Skeletons by kimimaro, where it is installed: the voxels of one object in, its skeleton out.

kimimaro (Silversmith et al. 2021, zenodo.5539913) is licensed under the GPL, so that
it is an extra that nothing requires. It takes the same options; its paths are not smoothed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool

from floodem.errors import DependencyError
from floodem.geometry import VoxelSize, Zyx
from floodem.shapes.skeletons.skeleton import Skeleton
from floodem.shapes.skeletons.teasar import DEFAULTS, TeasarOptions
from floodem.shapes.skeletons.voxel_graph import CLOSED, Sides

_SOMA_DETECTION = 1100 / 3500
"""kimimaro looks for a soma from 1100 nm of depth on and accepts it from 3500 nm on."""


def load_kimimaro() -> Any:
    """Return the package.

    Raises
    ------
    DependencyError
        When it is not installed.
    """
    try:
        import kimimaro
    except ImportError as error:
        raise DependencyError(
            "--method kimimaro needs the package kimimaro, which is under the GPL: install it "
            "with `pip install floodem[kimimaro]`, or leave --method away"
        ) from error
    return kimimaro


def skeletonize_mask_with_kimimaro(
    mask: Bool[np.ndarray, "z y x"],
    *,
    voxel_size: VoxelSize,
    start: Zyx = (0, 0, 0),
    options: TeasarOptions = DEFAULTS,
    open_sides: Sides = CLOSED,
) -> Skeleton:
    """Return the skeleton of one object; see `floodem.shapes.skeletons.teasar.skeletonize_mask`.

    Raises
    ------
    DependencyError
        When kimimaro is not installed.
    """
    kimimaro = load_kimimaro()
    if not mask.any():
        return Skeleton.empty()
    found = kimimaro.skeletonize(
        np.ascontiguousarray(mask).astype(np.uint8),
        teasar_params={
            "scale": options.scale,
            "const": options.const_nm,
            "soma_detection_threshold": options.soma_nm * _SOMA_DETECTION,
            "soma_acceptance_threshold": options.soma_nm,
            "soma_invalidation_scale": options.soma_scale,
            "soma_invalidation_const": options.soma_const_nm,
        },
        anisotropy=voxel_size.zyx_nm,
        dust_threshold=options.min_piece_voxels,
        fix_borders=any(low or high for low, high in open_sides),
        progress=False,
        parallel=1,
    )
    if 1 not in found:
        return Skeleton.empty()
    one = found[1]
    # Its vertices are numbers of voxels times their size: corners, not centres.
    corner = (np.array(start) + 0.5) * np.array(voxel_size.zyx_nm)
    return Skeleton(
        (one.vertices.astype(np.float64) + corner).astype(np.float32),
        one.edges.astype(np.uint32).reshape(-1, 2),
        one.radii.astype(np.float32),
    )
