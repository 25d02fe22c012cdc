"""What may be chosen when a segmentation is meshed: plain values in, checked options out."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass

from floodem.errors import OptionError
from floodem.geometry import Box, VoxelSize
from floodem.shapes.files import FORMATS

MAX_ID = 2**64 - 1
SMALLEST_BLOCK, LARGEST_BLOCK = 8, 1000
"""zmesh counts in 32 bits, and so twice as fast, up to arrays of about this edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshOptions:
    """How a segmentation is meshed.

    Attributes
    ----------
    ids
        Only these objects; None: all.
    min_voxels
        Smaller objects get no mesh.
    box
        Only these voxels, in the frame of the volume; objects are closed at its border.
        None: all.
    voxel_size
        Instead of what the volume says.
    max_error_nm
        How far simplification may go in the finest level, see
        `floodem.shapes.meshes.simplification`. None: the edge of a cube with the volume of
        a voxel. Half of it goes into the blocks and half into whole objects.
    block_edge
        Edge of blocks in voxels; None: 256, or less for small volumes.
    file_format
        None: multi-resolution meshes for Neuroglancer. ``obj``, ``ply``, ``stl`` or ``glb``:
        one file for each object, at the finest level.
    is_sharded
        Whether objects share files, as object stores want it. None: at servers only.
    """

    ids: tuple[int, ...] | None = None
    min_voxels: int = 0
    box: Box | None = None
    voxel_size: VoxelSize | None = None
    max_error_nm: float | None = None
    block_edge: int | None = None
    file_format: str | None = None
    is_sharded: bool | None = None

    def __post_init__(self) -> None:
        if self.ids is not None:
            wrong = [label for label in self.ids if not 1 <= label <= MAX_ID]
            if wrong or not self.ids:
                raise OptionError(
                    f"ids: {wrong[0] if wrong else 'none'} is no object's id: "
                    f"give numbers from 1 to {MAX_ID}"
                )
        if self.min_voxels < 0:
            raise OptionError(f"min_voxels is {self.min_voxels}: give 0 or more")
        error = self.max_error_nm
        if error is not None and not (math.isfinite(error) and error > 0):
            raise OptionError(f"the largest error is {error} nm: give a positive number")
        edge = self.block_edge
        if edge is not None and not SMALLEST_BLOCK <= edge <= LARGEST_BLOCK:
            raise OptionError(
                f"the edge of blocks is {edge} voxels: give {SMALLEST_BLOCK} to {LARGEST_BLOCK}"
            )
        if self.file_format is not None and self.file_format not in FORMATS:
            near = difflib.get_close_matches(self.file_format, FORMATS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"use {', '.join(FORMATS)}"
            raise OptionError(f"{self.file_format!r} is not a format of mesh files: {hint}")
        if self.file_format is not None and self.is_sharded:
            raise OptionError(
                f"{self.file_format} files hold one object each: leave --sharded (is_sharded) out"
            )
