"""Where consecutive sections do not lie above each other: a shift field in, a mask out.

A field of view that spans such a place sees two different pictures of the tissue and
merges what is not connected. The field says for each voxel by how much the next section
is shifted; wherever a large shift lies within a window around a position, no field of
view may be centred there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from jaxtyping import Bool

from floodem.errors import GeometryError, OptionError, VolumeFormatError
from floodem.flooding.masks.rules import MaskPlace, read_padded
from floodem.geometry import Box, Zyx
from floodem.volumes.volume import Volume

SHIFT_CHANNELS = (0, 1)
"""The shift of the next section along x and y; only its size matters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftMask:
    """Positions with a large shift in a window around them.

    Voxel (z, y, x) of the field lies over the image's voxels (z, s * y, s * x) to
    (z, s * y + s - 1, s * x + s - 1). As in the replaced program only the field within
    the box at hand is looked at.

    Attributes
    ----------
    uri
        Address of the field, two channels (c, z, y, x).
    window
        Around a position, in voxels of the image relative to it; may begin below 0.
    threshold
        Size of a component from which a shift is large, in voxels.
    scale
        How much coarser the field is along y and x.

    Raises
    ------
    OptionError
        When the window is empty, or the scale not positive.
    """

    uri: str
    window: Box
    threshold: float
    scale: int = 1

    def __post_init__(self) -> None:
        if self.scale < 1:
            raise OptionError(f"the scale {self.scale} of a shift mask is below 1: give voxels")
        if not self.window.size:
            raise OptionError(
                f"the window {self.window} (z,y,x) of a shift mask is empty: give a larger one"
            )

    def masked(self, place: MaskPlace) -> Bool[np.ndarray, "z y x"]:
        """Return where this rule masks the voxels of a place.

        Raises
        ------
        VolumeNotFoundError, VolumeFormatError, StorageError
            When the field cannot be read.
        """
        coarse = self._coarse(place.box)
        masked = reduce(np.logical_or, (self._large(channel, coarse) for channel in SHIFT_CHANNELS))
        for axis, scale in enumerate((1, self.scale, self.scale)):
            masked = _any_within(
                masked,
                axis=axis,
                positions=np.arange(place.box.start[axis], place.box.stop[axis]),
                reach=(self.window.start[axis], self.window.stop[axis] - 1),
                scale=scale,
                origin=coarse.start[axis],
            )
        return masked

    def require_possible(self, place: MaskPlace) -> None:
        """Check that the field is there and meets the box.

        Raises
        ------
        GeometryError
            When it lies elsewhere.
        VolumeFormatError
            When it holds anything but numbers.
        VolumeNotFoundError, OptionError, StorageError
            When it cannot be opened, or has one channel only.
        """
        coarse = self._coarse(place.box)
        for channel in SHIFT_CHANNELS:
            with self._opened(channel) as volume:
                if volume.dtype.kind not in "uif":
                    raise VolumeFormatError(
                        f"shift mask {self.uri} holds {volume.dtype}: give a field of numbers"
                    )
                if volume.box.intersection(coarse) is None:
                    raise GeometryError(
                        f"shift mask {self.uri} holds {volume.box} (z,y,x) and nothing of "
                        f"{coarse}, where the image is: check its scale {self.scale}"
                    )

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary for a run's record."""
        return {
            "kind": "shift",
            "uri": self.uri,
            "window": str(self.window),
            "threshold": self.threshold,
            "scale": self.scale,
        }

    def _opened(self, channel: int) -> Volume:
        from floodem.volumes import open_volume

        return open_volume(self.uri, channel=channel)

    def _large(self, channel: int, coarse: Box) -> Bool[np.ndarray, "z y x"]:
        with self._opened(channel) as volume:
            shift = read_padded(volume, coarse)
        # Compared on both sides: the absolute value of the least integer is itself.
        return (shift >= self.threshold) | (shift <= -self.threshold)

    def _coarse(self, box: Box) -> Box:
        scale: Zyx = (1, self.scale, self.scale)
        (z0, y0, x0), (z1, y1, x1) = box.start, box.stop
        (sz, sy, sx) = scale
        return Box((z0 // sz, y0 // sy, x0 // sx), (-(-z1 // sz), -(-y1 // sy), -(-x1 // sx)))


def _any_within(
    field: Bool[np.ndarray, "z y x"],
    *,
    axis: int,
    positions: np.ndarray[Any, np.dtype[np.int64]],
    reach: tuple[int, int],
    scale: int,
    origin: int,
) -> Bool[np.ndarray, "a b c"]:
    """Return for each position on an axis whether anything is set within its window."""
    length = field.shape[axis]
    first = np.clip((positions + reach[0]) // scale - origin, 0, length)
    last = np.clip((positions + reach[1]) // scale - origin + 1, first, length)
    before = np.zeros([n + (at == axis) for at, n in enumerate(field.shape)], np.int32)
    behind_first = tuple(slice(1, None) if at == axis else slice(None) for at in range(field.ndim))
    np.cumsum(field, axis=axis, dtype=np.int32, out=before[behind_first])
    found: Bool[np.ndarray, "a b c"] = before.take(last, axis=axis) > before.take(first, axis=axis)
    return found
