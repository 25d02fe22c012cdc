"""What is counted for each object: sorted columns that add up over blocks.

Tables of blocks come from `floodem.shapes.measures.counting`; everything in them is
a whole number, so that their sum does not depend on how the volume was cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Int64, UInt64

from floodem.errors import VolumeFormatError
from floodem.files import replacing, storage_error
from floodem.geometry import FARTHEST_POSITION
from floodem.volumes.damage import reading

_FIXED_COLUMNS = 11
"""Id, voxels, three sums, and six faces of the box."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ObjectTable:
    """One row for each object, by ascending id.

    Attributes
    ----------
    ids
        Never 0.
    voxels
        How many there are. A table of one block has rows of 0 voxels for objects
        that only touch it.
    position_sums
        Sums of the voxels' z, y and x.
    first, last
        Smallest and largest z, y, x of the voxels; first > last where there are none.
    crossings
        How often lines enter or leave the object, for each group of
        `floodem.shapes.measures.surface.crossing_directions`; no columns where
        they were not counted.
    """

    ids: UInt64[np.ndarray, "objects"]
    voxels: Int64[np.ndarray, "objects"]
    position_sums: Int64[np.ndarray, "objects 3"]
    first: Int64[np.ndarray, "objects 3"]
    last: Int64[np.ndarray, "objects 3"]
    crossings: Int64[np.ndarray, "objects groups"]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def empty(cls, *, groups: int) -> Self:
        """Return a table without rows."""
        none = np.zeros((0, 3), np.int64)
        return cls(
            ids=np.zeros(0, np.uint64),
            voxels=np.zeros(0, np.int64),
            position_sums=none,
            first=none,
            last=none,
            crossings=np.zeros((0, groups), np.int64),
        )

    @classmethod
    def total(cls, tables: Sequence[ObjectTable]) -> Self:
        """Add tables up; at least one must be given."""
        ids = np.concatenate([table.ids for table in tables])
        order = np.argsort(ids, kind="stable")
        ids = ids[order]
        starts = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]])[: len(ids)])

        def combined(name: str, how: np.ufunc) -> Any:
            values = np.concatenate([getattr(table, name) for table in tables])
            return how.reduceat(values[order], starts, axis=0) if len(starts) else values

        return cls(
            ids=ids[starts],
            voxels=combined("voxels", np.add),
            position_sums=combined("position_sums", np.add),
            first=combined("first", np.minimum),
            last=combined("last", np.maximum),
            crossings=combined("crossings", np.add),
        )

    def select(self, rows: Any) -> Self:
        """Return some of the rows: indices, ascending, or one truth value for each."""
        return type(self)(
            ids=self.ids[rows],
            voxels=self.voxels[rows],
            position_sums=self.position_sums[rows],
            first=self.first[rows],
            last=self.last[rows],
            crossings=self.crossings[rows],
        )

    def write(self, path: Path) -> None:
        """Write the table as one .npy file of 64-bit numbers.

        Raises
        ------
        StorageError
            When the file system refuses.
        """
        columns = (self.voxels[:, None], self.position_sums, self.first, self.last, self.crossings)
        values = np.concatenate([self.ids[:, None].view(np.int64), *columns], axis=1)
        with replacing(path) as partial, open(partial, "wb") as file:
            np.lib.format.write_array(file, values, version=(1, 0), allow_pickle=False)

    @classmethod
    def read(cls, path: Path, *, groups: int) -> Self:
        """Read what `write` wrote.

        Raises
        ------
        VolumeFormatError
            When the file is damaged.
        StorageError
            When the file system refuses.
        """
        try:
            with reading(path, kind="a table of objects"):
                # Mapped, so that no more is read than the file holds, whatever it declares.
                mapped = np.lib.format.open_memmap(path, mode="r")
                if mapped.dtype != np.int64 or mapped.shape[1:] != (_FIXED_COLUMNS + groups,):
                    raise VolumeFormatError(
                        f"{path} holds {mapped.dtype} values of shape {mapped.shape}: remove it, "
                        "and run the command again"
                    )
                values = np.array(mapped)
        except OSError as error:
            raise storage_error("read", path, error) from error
        return cls(
            ids=values[:, 0].copy().view(np.uint64),
            voxels=values[:, 1],
            position_sums=values[:, 2:5],
            first=values[:, 5:8],
            last=values[:, 8:11],
            crossings=values[:, 11:],
        )


NOWHERE_FIRST = np.int64(FARTHEST_POSITION)
NOWHERE_LAST = np.int64(-FARTHEST_POSITION)
"""Box of an object without voxels: any other is smaller or larger."""
