"""What skeletons are asked for: options in, checked; what came of it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt64

from floodem.errors import OptionError
from floodem.geometry import VoxelSize
from floodem.shapes.skeletons.objects import METHODS
from floodem.shapes.skeletons.swc import NM_PER_UNIT, Unit
from floodem.shapes.skeletons.teasar import TeasarOptions

FORMATS = ("precomputed", "swc")

MEMORY_BYTES = 2 * 2**30
"""What one worker may take for the objects that it works on, unless asked otherwise."""

_LEAST_MEMORY_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class SkeletonRequest:
    """Which skeletons to make, and how.

    Attributes
    ----------
    ids
        Only these objects; None: all.
    min_voxels
        Objects with fewer voxels are left out, and so are smaller pieces of larger
        ones. Objects that `ids` names are made whatever their size.
    method
        ``teasar``, or ``kimimaro`` where that is installed.
    teasar
        How much detail (its `min_piece_voxels` follows from `min_voxels`).
    formats
        ``precomputed``, ``swc`` or both.
    is_sharded
        Whether precomputed skeletons go into few large files, for object stores.
    swc_unit
        Unit of the numbers in SWC files.
    voxel_size
        By default what the labels state.
    memory_bytes
        What one worker may take; larger objects are read more coarsely.
    is_level_fixed
        Whether the source's level is the user's choice: no other is taken then.
    """

    ids: Sequence[int] | None = None
    min_voxels: int = 1000
    method: str = "teasar"
    teasar: TeasarOptions = field(default_factory=TeasarOptions)
    formats: Sequence[str] = ("precomputed",)
    is_sharded: bool = False
    swc_unit: Unit = "nm"
    voxel_size: VoxelSize | None = None
    memory_bytes: int = MEMORY_BYTES
    is_level_fixed: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise OptionError(f"method {self.method!r} is not one of {', '.join(METHODS)}")
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown or not self.formats:
            raise OptionError(
                f"format {', '.join(unknown) or 'nothing'} is not one of {', '.join(FORMATS)}"
            )
        if self.is_sharded and "precomputed" not in self.formats:
            raise OptionError("SWC files have no shards: ask for precomputed as well")
        if self.swc_unit not in NM_PER_UNIT:
            raise OptionError(f"{self.swc_unit!r} is no unit for SWC: use nm or um")
        if self.min_voxels < 1:
            raise OptionError(f"min_voxels is {self.min_voxels}: give 1 or more")
        if self.memory_bytes < _LEAST_MEMORY_BYTES:
            raise OptionError(
                f"{self.memory_bytes} bytes of memory hold no object: give at least "
                f"{_LEAST_MEMORY_BYTES}"
            )

    def identity(self) -> dict[str, Any]:
        """Return what the skeletons depend on, as JSON values."""
        values = asdict(self)
        values["ids"] = None if self.ids is None else sorted({int(one) for one in self.ids})
        values["formats"] = sorted(set(self.formats))
        return values


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Skeletonized:
    """What became of the objects.

    Attributes
    ----------
    destination
        Folder with the skeletons.
    ids, vertices, pieces, lengths_nm
        Of those that were made, by ascending id.
    coarse
        How many of them were read more coarsely than the labels are, for their size.
    refused
        Ids of objects that do not fit in memory at any level.
    lost
        Ids of objects that the coarser level, at which they were read, does not have.
    too_small
        How many objects have fewer voxels than asked for.
    missing
        Ids that were asked for and that the labels do not have.
    was_finished
        Whether all was there already.
    """

    destination: Path
    ids: UInt64[np.ndarray, "objects"]
    vertices: Int64[np.ndarray, "objects"]
    pieces: Int64[np.ndarray, "objects"]
    lengths_nm: Float64[np.ndarray, "objects"]
    coarse: int
    refused: tuple[int, ...]
    lost: tuple[int, ...]
    too_small: int
    missing: tuple[int, ...]
    was_finished: bool
