"""A patch read at other positions: image and labels move together, in one step.

In: a source patch and a map (floodem.training.augmentation.warps). Out: the patch
as the map says, on the same device. Axes are z, y, x.
"""

from __future__ import annotations

import torch
from jaxtyping import Float

from floodem.geometry import Zyx
from floodem.training.augmentation.warps import Warp, bending_field
from floodem.training.patch import Patch

ROUNDING = 1e-3
"""Voxels that a position may lie outside and still count as on the face (float32)."""


def warp(patch: Patch, *, by: Warp) -> Patch:
    """Return the patch of the warp's shape, taken from around the same centre.

    The image is interpolated linearly; labels and weights come from the nearest
    voxel. Outside the source the image goes on as at the face, and weights are 0.
    """
    return resample(
        patch,
        positions=source_positions(by, source=patch),
        between_sections=by.bending is not None and by.bending.largest[0] > 0,
    )


def source_positions(by: Warp, *, source: Patch) -> Float[torch.Tensor, "3 z y x"]:
    """Return where in the source each voxel comes from, in voxels from its first voxel."""
    image = source.image
    depth, height, width = by.shape
    z, y, x = (
        torch.arange(edge, dtype=image.dtype, device=image.device) - edge // 2 for edge in by.shape
    )
    (yy, yx), (xy, xx) = by.matrix
    positions = image.new_empty((3, depth, height, width))
    centre_z, centre_y, centre_x = source.centre
    positions[0] = (z + centre_z)[:, None, None]
    positions[1] = yy * y[:, None] + yx * x + centre_y
    positions[2] = xy * y[:, None] + xx * x + centre_x
    if by.shifts:
        shifts = torch.tensor(by.shifts, dtype=image.dtype).to(image.device)
        positions[1:] += shifts.T[:, :, None, None]
    if by.bending is not None:
        positions += bending_field(by.bending, shape=by.shape, like=image)
    return positions


def resample(
    patch: Patch, *, positions: Float[torch.Tensor, "3 z y x"], between_sections: bool = True
) -> Patch:
    """Return the patch read at these positions, in voxels from its first voxel.

    Image linear, labels and weights from the nearest voxel; positions outside get
    weight 0. Without `between_sections` every z has to be whole, which halves the work.
    """
    last = positions.new_tensor(patch.shape)[:, None, None, None] - 1
    is_inside = ((positions >= -ROUNDING) & (positions <= last + ROUNDING)).all(dim=0)
    inside = torch.minimum(positions.clamp_min(0), last)
    nearest = _flat(inside.round().int(), shape=patch.shape)
    return Patch(
        image=_interpolate(patch.image, inside, between_sections=between_sections),
        labels=_take(patch.labels, nearest),
        weights=_take(patch.weights, nearest) * is_inside,
    )


def _interpolate(
    image: Float[torch.Tensor, "a b c"],
    positions: Float[torch.Tensor, "3 z y x"],
    *,
    between_sections: bool,
) -> Float[torch.Tensor, "z y x"]:
    """Return linear interpolation, exact where positions are whole."""
    low = positions.floor()
    share_z, share_y, share_x = positions - low
    z, y, x = image.shape
    last = positions.new_tensor((z, y, x))[:, None, None, None] - 1
    # 32 bits number the voxels of any patch, in half the time.
    before, after = low.int(), torch.minimum(low + 1, last).int()

    def at(plane: torch.Tensor) -> torch.Tensor:
        """Interpolate within the sections that `plane` names."""
        upper, lower = ((plane * y + row) * x for row in (before[1], after[1]))
        top = torch.lerp(_take(image, upper + before[2]), _take(image, upper + after[2]), share_x)
        bottom = torch.lerp(
            _take(image, lower + before[2]), _take(image, lower + after[2]), share_x
        )
        return torch.lerp(top, bottom, share_y)

    if not between_sections:
        return at(before[0])
    return torch.lerp(at(before[0]), at(after[0]), share_z)


def _flat(index: torch.Tensor, *, shape: Zyx) -> torch.Tensor:
    _, y, x = shape
    return (index[0] * y + index[1]) * x + index[2]


def _take(volume: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    # On a CPU three times as fast as volume[index].
    return volume.reshape(-1).index_select(0, index.reshape(-1)).reshape(index.shape)
