"""The masks of one block, those first that can be known without the image.

Rules and a halo in, arrays out. Where they leave no place for a field of view, the
image need not be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from floodem.flooding.masks import ImageMask, MaskRule, build_mask
from floodem.flooding.request import SegmentRequest
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.volumes.volume import Array

Mask = Bool[np.ndarray, "z y x"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BlockMasks:
    """Masks over the halo of a block; None where there are no rules.

    Attributes
    ----------
    restricted, seed_mask, barrier
        As in `floodem.flooding.job.Job`.
    """

    restricted: Mask | None
    seed_mask: Mask | None
    barrier: Mask | None

    def leave_no_seed(self, fov: Zyx) -> bool:
        """Tell whether no flood can begin: seeds are masked wherever a field of view fits."""
        masks = [m for m in (self.restricted, self.seed_mask, self.barrier) if m is not None]
        if not masks:
            return False
        z, y, x = (slice(edge // 2, -(edge // 2) or None) for edge in fov)
        masked = masks[0][z, y, x].copy()
        for mask in masks[1:]:
            masked |= mask[z, y, x]
        return bool(masked.all())

    def open_share(self) -> float:
        """Return the share of the halo in which a field of view may be centred."""
        masks = [mask for mask in (self.restricted, self.barrier) if mask is not None]
        return 1.0 - float(np.logical_or.reduce(masks).mean()) if masks else 1.0


def masks_without_image(
    request: SegmentRequest, *, box: Box, voxel_size: VoxelSize | None
) -> BlockMasks:
    """Return what is masked over a box before anyone looks at the image.

    Parameters
    ----------
    voxel_size
        Of the image; None: masks have the same.

    Raises
    ------
    FloodemError
        When a rule cannot be applied; `floodem.flooding.masks.check_masks` finds that out
        before a run.
    """
    restricted, seed_mask, barrier = (
        build_mask(_of(rules, image=False), box=box, voxel_size=voxel_size)
        for rules in (request.masks, request.seed_masks, request.barriers)
    )
    return BlockMasks(restricted=restricted, seed_mask=seed_mask, barrier=barrier)


def with_image(masks: BlockMasks, request: SegmentRequest, *, box: Box, raw: Array) -> BlockMasks:
    """Return masks to which those are added that the image's raw grey levels decide."""
    restricted, seed_mask, barrier = (
        _joined(mask, build_mask(_of(rules, image=True), box=box, image=raw))
        for mask, rules in (
            (masks.restricted, request.masks),
            (masks.seed_mask, request.seed_masks),
            (masks.barrier, request.barriers),
        )
    )
    return BlockMasks(restricted=restricted, seed_mask=seed_mask, barrier=barrier)


def _of(rules: Sequence[MaskRule], *, image: bool) -> list[MaskRule]:
    return [rule for rule in rules if isinstance(rule, ImageMask) is image]


def _joined(one: Mask | None, other: Mask | None) -> Mask | None:
    if one is None or other is None:
        return other if one is None else one
    joined: Mask = one | other
    return joined
