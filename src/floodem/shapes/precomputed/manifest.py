"""The manifest of one multi-resolution mesh: what its fragments are and where.

Format: neuroglancer_multilod_draco (google/neuroglancer,
src/datasource/precomputed/meshes.md). `floodem.shapes.precomputed.multiresolution`
writes it, `floodem.shapes.precomputed.reading` and Neuroglancer read it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt32, UInt64

from floodem.errors import VolumeFormatError
from floodem.volumes.damage import damaged

Xyz = tuple[float, float, float]

MAX_LEVELS = 32
"""A level is twice as coarse as the one before, and cells are counted by 32 bits."""

CELL_BITS = 21
"""Cells along an axis are counted by so many bits: three such numbers make one of 63 bits."""

_HEADER_BYTES = 28


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ManifestLevel:
    """One level of detail.

    Attributes
    ----------
    scale_nm
        How coarse it is: Neuroglancer takes it where a pixel is not finer than about a
        tenth of this. 0: the level does not exist.
    offset_xyz_nm
        Added to the positions of vertices.
    cells_xyz
        Grid cells that have a fragment, in Z-curve order (x fastest).
    sizes
        Bytes of each fragment; 0 for an empty one.
    """

    scale_nm: float
    offset_xyz_nm: Xyz = (0.0, 0.0, 0.0)
    cells_xyz: UInt32[np.ndarray, "fragments 3"]
    sizes: UInt32[np.ndarray, "fragments"]

    @property
    def total_bytes(self) -> int:
        """Bytes of all fragments of the level."""
        return int(self.sizes.sum(dtype=np.uint64))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Manifest:
    """The grid of a mesh and its levels, finest first. Axes are x, y, z, lengths nanometres."""

    cell_edges_xyz_nm: Xyz
    grid_origin_xyz_nm: Xyz
    levels: tuple[ManifestLevel, ...]

    @property
    def fragment_bytes(self) -> int:
        """Bytes of all fragments of all levels, which stand in one row, finest level first."""
        return sum(level.total_bytes for level in self.levels)

    def to_bytes(self) -> bytes:
        """Return the manifest as it stands in a file."""
        parts = [
            np.array([*self.cell_edges_xyz_nm, *self.grid_origin_xyz_nm], "<f4"),
            np.array([len(self.levels)], "<u4"),
            np.array([level.scale_nm for level in self.levels], "<f4"),
            np.array([level.offset_xyz_nm for level in self.levels], "<f4"),
            np.array([len(level.sizes) for level in self.levels], "<u4"),
        ]
        for level in self.levels:
            parts += [level.cells_xyz.T.astype("<u4"), level.sizes.astype("<u4")]
        return b"".join(part.tobytes() for part in parts)

    @classmethod
    def from_bytes(cls, data: bytes, *, what: str) -> Manifest:
        """Read a manifest.

        Parameters
        ----------
        data
            The whole manifest.
        what
            Its name in messages.

        Raises
        ------
        VolumeFormatError
            When the bytes are not a manifest: too short, too long, impossible numbers.
        """
        if len(data) < _HEADER_BYTES:
            raise _damaged(what, f"it has {len(data)} bytes, fewer than its header")
        edges_and_origin = np.frombuffer(data, "<f4", count=6)
        count = int(np.frombuffer(data, "<u4", count=1, offset=24)[0])
        if not 1 <= count <= MAX_LEVELS:
            raise _damaged(what, f"it says that it has {count} levels (1 to {MAX_LEVELS})")
        fixed_bytes = _HEADER_BYTES + 20 * count
        if len(data) < fixed_bytes:
            raise _damaged(what, f"it has {len(data)} bytes, too few for {count} levels")
        scales_and_offsets = np.frombuffer(data, "<f4", count=4 * count, offset=_HEADER_BYTES)
        counts = np.frombuffer(data, "<u4", count=count, offset=_HEADER_BYTES + 16 * count)
        expected = fixed_bytes + 16 * int(counts.sum(dtype=np.uint64))
        if len(data) != expected:
            raise _damaged(what, f"it has {len(data)} bytes where its counts ask for {expected}")
        numbers = [float(value) for value in (*edges_and_origin, *scales_and_offsets)]
        if not all(math.isfinite(value) for value in numbers) or min(numbers[:3]) <= 0:
            raise _damaged(what, "its cells or offsets are no lengths")
        return cls(
            cell_edges_xyz_nm=(numbers[0], numbers[1], numbers[2]),
            grid_origin_xyz_nm=(numbers[3], numbers[4], numbers[5]),
            levels=_levels(data, numbers[6:], [int(value) for value in counts]),
        )


def _levels(data: bytes, numbers: list[float], counts: list[int]) -> tuple[ManifestLevel, ...]:
    levels = []
    offset = _HEADER_BYTES + 20 * len(counts)
    for number, count in enumerate(counts):
        table = np.frombuffer(data, "<u4", count=4 * count, offset=offset).reshape(4, count)
        x, y, z = numbers[len(counts) + 3 * number : len(counts) + 3 * number + 3]
        levels.append(
            ManifestLevel(
                scale_nm=numbers[number],
                offset_xyz_nm=(x, y, z),
                cells_xyz=table[:3].T.astype(np.uint32),
                sizes=table[3].astype(np.uint32),
            )
        )
        offset += 16 * count
    return tuple(levels)


def _damaged(what: str, reason: str) -> VolumeFormatError:
    return damaged(what, kind="the manifest of a multi-resolution mesh", reason=reason)


def z_curve_keys(cells_xyz: Int64[np.ndarray, "cells 3"]) -> UInt64[np.ndarray, "cells"]:
    """Return numbers in whose order cells lie on the Z-curve: z, y, x bits, x lowest.

    Cells must be at least 0 and smaller than 2^`CELL_BITS`.
    """
    keys = np.zeros(len(cells_xyz), np.uint64)
    for axis in range(3):
        spread = cells_xyz[:, axis].astype(np.uint64)
        # Bits are moved two places apart in five doublings of the gap (Morton 1966).
        for shift, mask in _SPREADING:
            spread = (spread | (spread << np.uint64(shift))) & np.uint64(mask)
        keys |= spread << np.uint64(axis)
    return keys


_SPREADING = (
    (32, 0x1F00000000FFFF),
    (16, 0x1F0000FF0000FF),
    (8, 0x100F00F00F00F00F),
    (4, 0x10C30C30C30C30C3),
    (2, 0x1249249249249249),
)


def z_curve_cells(keys: UInt64[np.ndarray, "cells"]) -> Int64[np.ndarray, "cells 3"]:
    """Undo `z_curve_keys`."""
    cells = np.zeros((len(keys), 3), np.int64)
    for axis in range(3):
        for bit in range(CELL_BITS):
            found = keys >> np.uint64(3 * bit + axis) & np.uint64(1)
            cells[:, axis] |= found.astype(np.int64) << bit
    return cells
