"""Which stored axis is which: a stored shape and the names of its axes in, z, y, x out.

Axes are named by one letter each, in the order in which the file stores them
(the last one changes fastest in C order): ``"zyx"``, ``"czyx"``, ``"xyz"``.
Besides z, y and x there may be one channel ``c`` and one time ``t``. A format
knows the names, or the user gives them where the file says nothing or is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from floodem.errors import OptionError, VolumeFormatError
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.volumes.description import Description
from floodem.volumes.stored import StoredVolume
from floodem.volumes.volume import Array, Volume

SPATIAL = "zyx"
USUAL = "tczyx"
"""What the last axes of an array are called when nobody says: (c, z, y, x) for four."""

_CHANNELS_LAST = "zyxc"
_FEW_CHANNELS = 4
"""Grey, grey and alpha, RGB, RGB and alpha: what images are made of whose channels are last."""

T = TypeVar("T")


def parse_axes(text: str) -> str:
    """Check names of axes as a user writes them: ``zyx``, ``x,y,z``, ``CZYX``.

    Raises
    ------
    OptionError
        When they are not z, y, x and at most c and t, each once.
    """
    axes = text.replace(",", "").replace(" ", "").lower()
    if not set(SPATIAL) <= set(axes) <= set(USUAL) or len(set(axes)) != len(axes):
        raise OptionError(
            f"axes {text!r} do not name z, y and x once each: write them as the file stores them, "
            "for example zyx, xyz or czyx (c: channel, t: time)"
        )
    return axes


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """How a stored array is a volume.

    Attributes
    ----------
    axes
        Name of every stored axis, in stored order.
    stored_shape
        Its length.
    fixed
        The index taken of every axis that is not z, y or x.
    """

    axes: str
    stored_shape: tuple[int, ...]
    fixed: dict[str, int]

    @property
    def shape(self) -> Zyx:
        """Shape of the volume (z, y, x)."""
        return self.spatial(self.stored_shape)

    @property
    def order(self) -> Zyx:
        """Where z, y and x lie among the stored spatial axes: what `transpose` wants."""
        among = [letter for letter in self.axes if letter in SPATIAL]
        return (among.index("z"), among.index("y"), among.index("x"))

    def spatial(self, per_stored_axis: Sequence[T]) -> tuple[T, T, T]:
        """Pick what belongs to z, y and x from one value for each stored axis."""
        z, y, x = (per_stored_axis[self.axes.index(letter)] for letter in SPATIAL)
        return (z, y, x)

    def index(self, slices_zyx: tuple[slice, slice, slice]) -> tuple[int | slice, ...]:
        """Return the index into the stored array that takes these voxels."""
        wanted: dict[str, int | slice] = dict(zip(SPATIAL, slices_zyx, strict=True))
        return tuple((self.fixed | wanted)[letter] for letter in self.axes)

    def turn(self, stored: Array) -> Array:
        """Bring what `index` took into the order z, y, x."""
        return stored.transpose(self.order)


def arrange(
    stored_shape: Sequence[int],
    *,
    uri: str,
    channel: int | None = None,
    asked: str | None = None,
    declared: str | None = None,
) -> Arrangement:
    """Find z, y and x in a stored array.

    Parameters
    ----------
    stored_shape
        Lengths of the stored axes.
    uri
        What messages call the file.
    channel
        Which channel to take; needed when there are several.
    asked, declared
        Names of the axes, given by the user and by the file. The user's go first.
        Without either the last axes are c, z, y, x.

    Raises
    ------
    VolumeFormatError
        When there are not as many axes as names, an axis is empty, or there are
        several time points.
    OptionError
        When the channel is not there, or must be chosen.
    """
    shape = tuple(int(length) for length in stored_shape)
    text = " x ".join(str(length) for length in shape)
    usual = USUAL[-len(shape) :] if len(SPATIAL) <= len(shape) <= len(USUAL) else ""
    axes = asked or declared or usual
    if len(shape) == len(SPATIAL) - 1 and not asked:
        raise VolumeFormatError(
            f"{uri} is a 2-D image ({text}), and a volume has three axes (z, y, x): "
            "put the sections into one folder and give that"
        )
    if not axes or len(axes) != len(shape):
        raise VolumeFormatError(
            f"{uri} is {len(shape)}-D ({text}): expected "
            + (f"the axes {', '.join(axes)}" if axes else "z, y, x or channel, z, y, x")
            + "; name them as they are stored (--axes, in Python axes=)"
        )
    if min(shape) < 1:
        raise VolumeFormatError(f"{uri} holds no voxels (shape {text}): nothing can be read")
    lengths = dict(zip(axes, shape, strict=True))
    if lengths.get("t", 1) > 1:
        raise VolumeFormatError(
            f"{uri} has {lengths['t']} time points, and a volume has one: save them one by one"
        )
    fixed = {"t": 0} if "t" in axes else {}
    channels = lengths.get("c", 1)
    if channel is None and channels > 1:
        raise OptionError(
            f"{uri} has {channels} channels: choose one with --channel 0 to {channels - 1} "
            f"(in Python channel=){'' if asked else _other_order(shape, axes=axes)}"
        )
    if channel is not None and channel >= channels:
        raise OptionError(f"{uri} has no channel {channel}: it has {channels}, counted from 0")
    if "c" in axes:
        fixed["c"] = channel or 0
    return Arrangement(axes=axes, stored_shape=shape, fixed=fixed)


def _other_order(shape: tuple[int, ...], *, axes: str) -> str:
    """Advise on an array whose channels seem to be last although it is read as (c, z, y, x)."""
    if axes != USUAL[-len(_CHANNELS_LAST) :] or not shape[-1] <= _FEW_CHANNELS < shape[0]:
        return ""
    return (
        f", or, if the last axis holds its channels, say so with --axes {_CHANNELS_LAST} "
        "(in Python axes=)"
    )


def turned(description: Description, arrangement: Arrangement, *, believed: str) -> Description:
    """Return the description of stored axes under the names that an arrangement gives them.

    Parameters
    ----------
    description
        What the file says about axes that it calls z, y and x.
    arrangement
        What they are called now.
    believed
        What the file calls them, in stored order.
    """
    names = [letter for letter in arrangement.axes if letter in SPATIAL]
    order = [SPATIAL.index(believed[names.index(letter)]) for letter in SPATIAL]
    z, y, x = (description.offset[at] for at in order)
    size = description.voxel_size
    return replace(
        description,
        offset=(z, y, x),
        voxel_size=size and VoxelSize(*(size.zyx_nm[at] for at in order)),
    )


class TurnedVolume(StoredVolume):
    """A volume whose file calls its axes by wrong names: the same voxels under the right ones."""

    def __init__(self, inner: Volume, *, asked: str) -> None:
        if len(asked) != len(SPATIAL):
            raise VolumeFormatError(
                f"{inner.uri} has the axes {', '.join(SPATIAL)} and not {', '.join(asked)}: "
                "name each of them once (--axes, in Python axes=)"
            )
        self._inner = inner
        # For each of z, y, x: which axis of the inner volume it is.
        self._order = [asked.index(letter) for letter in SPATIAL]
        super().__init__(
            uri=inner.uri,
            shape=self._turn(inner.shape),
            dtype=inner.dtype,
            chunks=self._turn(inner.chunks),
            description=Description(
                offset=self._turn(inner.offset),
                voxel_size=inner.voxel_size and VoxelSize(*self._turn(inner.voxel_size.zyx_nm)),
                kind=inner.kind,
            ),
            notices=inner.notices,
        )

    def _turn(self, triple: Sequence[T]) -> tuple[T, T, T]:
        z, y, x = (triple[at] for at in self._order)
        return (z, y, x)

    def _read(self, box: Box) -> Array:
        start, stop = [0, 0, 0], [0, 0, 0]
        for at, inner_axis in enumerate(self._order):
            start[inner_axis], stop[inner_axis] = box.start[at], box.stop[at]
        inner_box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
        return self._inner.read(inner_box).transpose(self._order).copy(order="C")

    def _release(self) -> None:
        self._inner.close()
