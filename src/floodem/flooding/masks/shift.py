"""Where consecutive sections do not lie above each other: a shift field in, a mask out.

A field of view that spans such a place sees two different pictures of the tissue and
merges what is not connected. The field says for each voxel by how much the next section
is shifted; wherever a large shift lies within a window around a position, no field of
view may be centred there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from jaxtyping import Bool

from floodem.errors import GeometryError, OptionError, VolumeFormatError
from floodem.flooding.masks.rules import RATIO_TOLERANCE, MaskPlace, read_padded
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.volumes.volume import Volume

Positions = np.ndarray[Any, np.dtype[np.int64]]

SHIFT_CHANNELS = (0, 1)
"""The shift of the next section along x and y; only its size matters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftMask:
    """Positions with a large shift in a window around them.

    Voxel (z, y, x) of the field lies over the voxels (z, s * y, s * x) to
    (z, s * y + s - 1, s * x + s - 1) of the image's finest level, where the field
    ends there is no shift. A position is masked or not wherever the box at hand begins
    and ends, so that blocks agree where they overlap.

    Attributes
    ----------
    uri
        Address of the field, two channels (c, z, y, x), in voxels of the finest level.
        What is not a number is no shift.
    window
        Around a position, in voxels of the image relative to it; may begin below 0.
    threshold
        Size of a component from which a shift is large, in voxels of the finest level.
    scale
        How much coarser than the finest level the field is along y and x.
    factors
        How much coarser than the finest level the image at hand is, z, y, x.
    is_confined
        Look only at the field over the box at hand, as the replaced program did; then
        positions near the faces of a box may be masked in one box and not in another.

    Raises
    ------
    OptionError
        When the window is empty, the scale or the threshold not positive.
    """

    uri: str
    window: Box
    threshold: float
    scale: int = 1
    factors: Zyx = (1, 1, 1)
    is_confined: bool = False

    def __post_init__(self) -> None:
        if self.scale < 1:
            raise OptionError(f"the scale {self.scale} of a shift mask is below 1: give voxels")
        if not self.threshold > 0:
            raise OptionError(
                f"the threshold {self.threshold} of a shift mask would forbid every position: give "
                "the shift in voxels from which a position is forbidden, for example 4"
            )
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
        looked_at = self._looked_at(place.box)
        large = (self._large(channel, looked_at) for channel in SHIFT_CHANNELS)
        masked = reduce(np.logical_or, large)
        for axis in range(3):
            positions = np.arange(place.box.start[axis], place.box.stop[axis])
            reach = (self.window.start[axis], self.window.stop[axis])
            first, last = self._over(positions + reach[0], positions + reach[1], axis=axis)
            masked = _any_between(masked, axis=axis, span=(first, last), at=looked_at.start[axis])
        return masked

    def require_possible(self, place: MaskPlace) -> None:
        """Check that the field is there and meets the box.

        Raises
        ------
        GeometryError
            When it lies elsewhere, or its voxel size is not that of its scale.
        VolumeFormatError
            When it holds anything but numbers.
        VolumeNotFoundError, OptionError, StorageError
            When it cannot be opened, or has one channel only.
        """
        over = self._field_box(place.box)
        for channel in SHIFT_CHANNELS:
            with self._opened(channel) as volume:
                if volume.dtype.kind not in "uif":
                    raise VolumeFormatError(
                        f"shift mask {self.uri} holds {volume.dtype}: give a field of numbers"
                    )
                if volume.box.intersection(over) is None:
                    raise GeometryError(
                        f"shift mask {self.uri} holds {volume.box} (z,y,x) and nothing of "
                        f"{over}, where the image is: check its scale {self.scale}"
                    )
                self._require_scale(volume, place.voxel_size)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary for a run's record."""
        return {
            "kind": "shift",
            "uri": self.uri,
            "window": str(self.window),
            "threshold": self.threshold,
            "scale": self.scale,
            **({} if self.factors == (1, 1, 1) else {"factors": list(self.factors)}),
            **({"confined": True} if self.is_confined else {}),
        }

    def at_level(self, factors: Zyx) -> ShiftMask:
        """Return the same mask for a coarser level of the image.

        Parameters
        ----------
        factors
            Of the level against the finest one, z, y, x.
        """
        return replace(self, factors=factors)

    def _opened(self, channel: int) -> Volume:
        from floodem.volumes import open_volume

        return open_volume(self.uri, channel=channel)

    def _large(self, channel: int, looked_at: Box) -> Bool[np.ndarray, "z y x"]:
        with self._opened(channel) as volume:
            shift = read_padded(volume, looked_at)
        # Compared on both sides: the absolute value of the least integer is itself.
        return (shift >= self.threshold) | (shift <= -self.threshold)

    def _require_scale(self, field: Volume, voxel_size: VoxelSize | None) -> None:
        if field.voxel_size is None or voxel_size is None:
            return
        pairs = zip(field.voxel_size.zyx_nm, voxel_size.zyx_nm, strict=True)
        scales = (1, self.scale, self.scale)
        found = [coarse / fine for coarse, fine in pairs]
        stated = [scale / factor for scale, factor in zip(scales, self.factors, strict=True)]
        if any(abs(a / b - 1) > RATIO_TOLERANCE for a, b in zip(found, stated, strict=True)):
            raise GeometryError(
                f"shift mask {self.uri} has voxels of {field.voxel_size} nm, the image "
                f"{voxel_size} nm (z,y,x), which does not fit scale {self.scale}: give the scale "
                "along y and x at which it was made"
            )

    def _looked_at(self, box: Box) -> Box:
        """Return the voxels of the field that decide about the positions in a box."""
        if self.is_confined:
            return self._field_box(box)
        (z0, y0, x0), (z1, y1, x1) = self.window.start, self.window.stop
        (a, b, c), (d, e, f) = box.start, box.stop
        first = (a + z0, b + y0, c + x0)
        return self._field_box(Box(first, (d + z1 - 1, e + y1 - 1, f + x1 - 1)))

    def _field_box(self, box: Box) -> Box:
        ends = zip(box.start, box.stop, range(3), strict=True)
        spans = [
            self._over(np.array(start), np.array(stop), axis=axis) for start, stop, axis in ends
        ]
        (z0, z1), (y0, y1), (x0, x1) = ((int(first), int(last)) for first, last in spans)
        return Box((z0, y0, x0), (z1, y1, x1))

    def _over(self, start: Positions, stop: Positions, *, axis: int) -> tuple[Positions, Positions]:
        """Return which voxels of the field lie over voxels from start to stop, half-open."""
        scale, factor = (1, self.scale, self.scale)[axis], self.factors[axis]
        return start * factor // scale, -(-stop * factor // scale)


def _any_between(
    field: Bool[np.ndarray, "z y x"],
    *,
    axis: int,
    span: tuple[Positions, Positions],
    at: int,
) -> Bool[np.ndarray, "a b c"]:
    """Return for each span (first, last) on an axis whether anything of a field is set in it.

    The field begins at `at`; spans count from 0 and may reach beyond it.
    """
    length = field.shape[axis]
    first = np.clip(span[0] - at, 0, length)
    last = np.clip(span[1] - at, first, length)
    before = np.zeros([n + (one == axis) for one, n in enumerate(field.shape)], np.int32)
    behind_first = tuple(slice(1, None) if one == axis else slice(None) for one in range(3))
    np.cumsum(field, axis=axis, dtype=np.int32, out=before[behind_first])
    found: Bool[np.ndarray, "a b c"] = before.take(last, axis=axis) > before.take(first, axis=axis)
    return found
