"""What a volume is, whatever file holds it.

A volume is a 3-D array (z, y, x) in a file, a folder or a remote store. Its
voxels are counted in its own frame: the first one lies at `offset`, so that a
crop still knows where it came from, and `box` is where the data are. Nothing is
loaded before `read`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

import numpy as np

from floodem.errors import GeometryError, LabelError, StorageError
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.memory import require_memory

Array = np.ndarray[Any, np.dtype[Any]]

_MAX_IMAGE_ITEMSIZE = 2

UNCHECKED_BYTES = 64 * 2**20
"""Reads up to this size do not ask for free memory, which takes longer than a small read."""


class Kind(StrEnum):
    """What the values of a volume mean."""

    IMAGE = "image"
    LABELS = "labels"


def likely_kind(dtype: np.dtype[Any]) -> Kind:
    """Tell what a volume of this type most likely holds: images have 8 or 16 bits, or floats."""
    is_wide = dtype.kind in "ui" and dtype.itemsize > _MAX_IMAGE_ITEMSIZE
    return Kind.LABELS if is_wide else Kind.IMAGE


class Volume(ABC):
    """A 3-D array (z, y, x) at an address, read and written by `Box`.

    Attributes
    ----------
    uri
        The address it was opened with.
    box
        Where its voxels lie: offset and offset + shape, ordered z, y, x.
    dtype
        Type of one voxel, in native byte order.
    voxel_size
        Edge lengths in nanometres, or None when the file does not say.
    chunks
        The smallest box (aligned to the offset) that is cheap to read and safe
        to write alone.
    kind
        What the file says its values mean, or None when it does not say.
    notices
        Sentences about what is odd but no reason to refuse, for whoever may print them.
    """

    uri: str
    box: Box
    dtype: np.dtype[Any]
    voxel_size: VoxelSize | None
    chunks: Zyx
    kind: Kind | None = None
    notices: tuple[str, ...] = ()

    @property
    def levels(self) -> tuple[Volume, ...]:
        """The levels of a pyramid, finest first, this volume among them; they close with it."""
        return (self,)

    @property
    def shape(self) -> Zyx:
        """Edge lengths in voxels, ordered z, y, x."""
        return self.box.shape

    @property
    def offset(self) -> Zyx:
        """Position of the first voxel, ordered z, y, x."""
        return self.box.start

    def read(self, box: Box | None = None) -> Array:
        """Return the voxels of `box` (default: the whole volume) as a new C-ordered array.

        Raises
        ------
        GeometryError
            When the box is not wholly inside the volume.
        ResourceError
            When it does not fit in memory.
        StorageError, VolumeFormatError
            When the file system refuses, or the file is damaged.
        """
        box = self.box if box is None else box
        self._require_inside(box)
        needed = box.size * self.dtype.itemsize
        if needed > UNCHECKED_BYTES:
            require_memory(
                needed_bytes=needed,
                purpose=f"reading {box} of {self.uri}",
                remedy="read a smaller box",
            )
        array = self._read(box)
        assert array.shape == box.shape
        return array

    def write(self, box: Box, array: Array) -> None:
        """Store `array` (z, y, x) at `box`.

        Integers are converted only when every value fits; other conversions
        between types are refused.

        Raises
        ------
        GeometryError
            When the box is outside the volume, or the array has another shape.
        LabelError
            When a value does not fit the volume's type.
        StorageError
            When the volume is open for reading only, or the file system refuses.
        """
        self._require_inside(box)
        if array.shape != box.shape:
            raise GeometryError(
                f"array of shape {array.shape} does not fill box {box} of shape {box.shape}"
            )
        self._write(box, as_dtype(array, self.dtype))

    def close(self) -> None:
        """Finish: make what was written complete and visible, and let go of the file."""

    def discard(self) -> None:
        """Let go of the file after a failure, leaving what was there before."""
        self.close()

    @abstractmethod
    def _read(self, box: Box) -> Array: ...

    def _write(self, box: Box, array: Array) -> None:
        raise read_only(self.uri)

    def _require_inside(self, box: Box) -> None:
        if not self.box.contains(box):
            raise GeometryError(
                f"box {box} is not inside {self.uri}, which holds {self.box} (z,y,x)"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def read_only(uri: str) -> StorageError:
    """Return the sentence for a volume that cannot be written."""
    return StorageError(
        f"{uri} is open for reading only: open a chunked store with writable=True, "
        "or create a new volume"
    )


def _mantissa_limit(dtype: np.dtype[Any]) -> int:
    """Return the number up to which a float type holds every whole number."""
    return int(2 ** (np.finfo(dtype).nmant + 1))


def as_dtype(array: Array, dtype: np.dtype[Any]) -> Array:
    """Convert without losing anything.

    Raises
    ------
    LabelError
        When a value does not fit `dtype` exactly, or a float would become an integer.
    """
    if array.dtype == dtype:
        return array
    from_integer = array.dtype.kind in "ui"
    # numpy calls 64-bit integers to float64 safe, which they are not beyond 2^53.
    if np.can_cast(array.dtype, dtype, casting="safe") and not (
        from_integer and dtype.kind == "f" and _mantissa_limit(dtype) < np.iinfo(array.dtype).max
    ):
        return array.astype(dtype)
    if from_integer and dtype.kind in "uif":
        if dtype.kind == "f":
            low, high = -_mantissa_limit(dtype), _mantissa_limit(dtype)
        else:
            low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        if array.size and (int(array.min()) < low or int(array.max()) > high):
            raise LabelError(
                f"values {array.min()} to {array.max()} do not fit {dtype}, which holds every "
                f"whole number only from {low} to {high}: choose a wider type"
            )
        return array.astype(dtype)
    raise LabelError(f"{array.dtype} values cannot become {dtype} without loss: convert them first")
