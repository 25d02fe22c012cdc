"""Two label volumes laid over each other: sources in, blocks of both out.

Volumes are aligned by their own frames: voxel (z, y, x) of one is voxel (z, y, x)
of the other, whatever their offsets and shapes. Everything that reads voxels for
a score reads them here, block by block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from floodem.errors import GeometryError
from floodem.evaluation.borders import border_radius, read_without_borders
from floodem.evaluation.grid import BlockGrid, chunk_grid
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.labels import require_labels
from floodem.labels.runs import Labels
from floodem.volumes.volume import Volume

BLOCK_VOXELS = 2**24  # two uint64 blocks and what counting them needs: about 0.6 GB


@dataclass(frozen=True, slots=True)
class Alignment:
    """A segmentation and truth over the box they share.

    Attributes
    ----------
    box
        The voxels to be compared, in the frame of both.
    blocks
        What cuts it, along the chunks of the volume that has the larger ones.
    voxel_size
        What was given, or what either of the two states.
    cremi_border_nm
        Voxels so near to borders of the truth do not count; None: all do.
    """

    segmentation: Volume
    truth: Volume
    box: Box
    blocks: BlockGrid
    voxel_size: VoxelSize | None
    cremi_border_nm: float | None

    @property
    def border_radius(self) -> float | None:
        """The distance from borders of the truth, in voxels within a section."""
        distance = self.cremi_border_nm
        return None if distance is None else border_radius(distance, voxel_size=self.voxel_size)

    def read(self, block: Box) -> tuple[Labels, Labels]:
        """Return the segmentation and the truth in `block` (see `read_both`)."""
        return read_both(self.segmentation, self.truth, box=block, radius=self.border_radius)


def read_both(
    segmentation: Volume, truth: Volume, *, box: Box, radius: float | None = None
) -> tuple[Labels, Labels]:
    """Return the labels of a segmentation and of truth in a box.

    Parameters
    ----------
    radius
        What lies so near to borders of the truth, in voxels within a section, gets
        `floodem.evaluation.borders.LEFT_OUT`.

    Raises
    ------
    LabelError
        When one of them holds negative numbers or no integers.
    """
    labels = segmentation.read(box)
    if radius is None:
        target = truth.read(box)
    else:
        target = read_without_borders(truth, box, radius=radius)
    require_labels(labels, what=f"the segmentation {segmentation.uri}")
    require_labels(target, what=f"the truth {truth.uri}")
    return labels, target


def align(
    segmentation: Volume,
    truth: Volume,
    *,
    box: Box | None,
    border: Zyx,
    cremi_border_nm: float | None = None,
    voxel_size: VoxelSize | None = None,
    block_voxels: int = BLOCK_VOXELS,
) -> Alignment:
    """Find the voxels that both hold, and cut them into blocks.

    Parameters
    ----------
    box
        Compare only these voxels; None for all that both hold.
    border
        Voxels left out at each face of what is compared, z, y, x.
    cremi_border_nm
        Voxels so near to borders of the truth are left out.
    voxel_size
        Of both, whatever they state.

    Raises
    ------
    GeometryError
        When the two have no voxel in common, their voxel sizes differ, `box` is
        not inside both, or `border` is negative or leaves nothing.
    OptionError
        When no voxel can be as near as `cremi_border_nm`, or the voxel size is not known.
    """
    if voxel_size is None:
        _require_same_voxel_size(segmentation, truth)
    size = voxel_size or segmentation.voxel_size or truth.voxel_size
    if cremi_border_nm is not None:
        border_radius(cremi_border_nm, voxel_size=size)
    common = segmentation.box.intersection(truth.box)
    if common is None:
        raise GeometryError(
            f"the segmentation {segmentation.uri} holds {segmentation.box} and the truth "
            f"{truth.uri} {truth.box} (z,y,x): they share no voxel; correct one's offset"
        )
    if box is not None and not common.contains(box):
        raise GeometryError(f"box {box} is not inside {common}, the voxels that both volumes hold")
    compared = common if box is None else box
    if min(border) < 0:
        raise GeometryError(f"border {border} is negative: give voxels to leave out, z,y,x")
    if any(edge <= 2 * width for edge, width in zip(compared.shape, border, strict=True)):
        raise GeometryError(
            f"a border of {border} leaves nothing of {compared.shape} voxels (z,y,x): "
            "choose a smaller one"
        )
    z, y, x = border
    inner = compared.grow((-z, -y, -x))
    coarser = max((segmentation, truth), key=lambda volume: math.prod(volume.chunks))
    blocks = chunk_grid(inner, chunks=coarser.chunks, first=coarser.offset, limit=block_voxels)
    return Alignment(segmentation, truth, inner, blocks, size, cremi_border_nm)


def _require_same_voxel_size(segmentation: Volume, truth: Volume) -> None:
    first, second = segmentation.voxel_size, truth.voxel_size
    if first is None or second is None:
        return
    if not first.is_close(second):
        raise GeometryError(
            f"the segmentation {segmentation.uri} has voxels of {first} nm and the truth "
            f"{truth.uri} of {second} nm (z,y,x): bring both to one resolution"
        )
