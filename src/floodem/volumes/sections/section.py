"""What one image file says about itself before its pixels are read, and which are wanted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import VolumeFormatError
from floodem.geometry import VoxelSize
from floodem.memory import require_memory
from floodem.volumes.damage import damaged
from floodem.volumes.volume import UNCHECKED_BYTES, Array

IMAGE = "an image"

_THREADS = 8
"""For looking at thousands of small files, which is mostly waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Size (y, x), type, number of channels, description text and voxel size of one section."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    channels: int = 1
    text: str = field(default="", compare=False)
    voxel_size: VoxelSize | None = field(default=None, compare=False)
    notice: str = field(default="", compare=False)

    @property
    def size_in_bytes(self) -> int:
        """What all its pixels take, in all channels."""
        return self.shape[0] * self.shape[1] * self.channels * self.dtype.itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Which part of a section is wanted: rows, columns and one channel."""

    rows: slice = field(default_factory=lambda: slice(None))
    columns: slice = field(default_factory=lambda: slice(None))
    channel: int = 0

    def cut(self, pixels: Array, dtype: np.dtype[Any]) -> Array:
        """Take the window out of pixels (y, x) or (y, x, channel)."""
        plane = pixels if pixels.ndim == 2 else pixels[:, :, self.channel]
        return np.ascontiguousarray(plane[self.rows, self.columns], dtype=dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionKind:
    """How one kind of section file is recognised, described, read and written."""

    name: str
    extensions: tuple[str, ...]
    dtypes: tuple[str, ...] = ()
    inspect: Callable[[Path], Section]
    read: Callable[[Path, Section, Window], Array]
    write: Callable[[Path, Array, str], None] | None = None


def palette_image(path: object) -> VolumeFormatError:
    """Say that a section holds numbers of colours."""
    return VolumeFormatError(
        f"{path} is a palette image, whose values are numbers of colours in a table: "
        "save the sections as grey images"
    )


def damaged_image(path: object, reason: object) -> VolumeFormatError:
    """Say that a section cannot be read."""
    return damaged(path, kind=IMAGE, reason=reason)


def changed(path: object) -> VolumeFormatError:
    """Say that a section is not what it was when the stack was opened."""
    return VolumeFormatError(f"{path} has changed since its volume was opened: open it again")


def require_room(section: Section, path: object) -> None:
    """Refuse a section that does not fit in memory.

    Raises
    ------
    ResourceError
        When the system says that there is not enough.
    """
    if section.size_in_bytes > UNCHECKED_BYTES:
        require_memory(
            needed_bytes=section.size_in_bytes,
            purpose=f"reading {path}",
            remedy="cut the sections into tiles",
        )


def in_threads(call: Callable[[int], Any], indices: Iterable[int]) -> list[Any]:
    """Call for many files at once; results come in the order of the indices."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(call, indices))


def sync_file(path: Path) -> None:
    """Make a written file durable."""
    with open(path, "rb+") as handle:
        os.fsync(handle.fileno())
