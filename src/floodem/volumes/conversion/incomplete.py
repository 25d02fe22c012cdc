"""Copies of which whole files are gone, as the volumes they were: what is left in, volumes out.

`floodem.volumes.conversion.verification` is to name what is missing, and not to refuse
the rest with it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from floodem.errors import FloodemError, VolumeFormatError, VolumeNotFoundError
from floodem.geometry import Box
from floodem.volumes.access import open_volume
from floodem.volumes.sections.stacks import StackVolume
from floodem.volumes.volume import Array, Volume

_NUMBERED = re.compile(r"z(\d+)(\.\w+)")
"""Names of the sections that floodem writes."""


class LostLevel(Volume):
    """A level that cannot be opened: every read tells why."""

    voxel_size = None

    def __init__(self, uri: str, *, box: Box, dtype: np.dtype[Any], why: FloodemError) -> None:
        self.uri = uri
        self.box = box
        self.dtype = dtype
        self.chunks = box.shape
        self._why = why

    def _read(self, box: Box) -> NoReturn:
        raise self._why

    def _write(self, box: Box, array: Array) -> NoReturn:
        raise self._why

    def close(self) -> None:
        """Do nothing: nothing is open."""


class GappyStack(Volume):
    """Sections under the numbers in their names, some of them missing.

    Parameters
    ----------
    stack
        Those that are there.
    box
        Where all lay that were written.
    """

    def __init__(self, stack: StackVolume, *, box: Box) -> None:
        first = _NUMBERED.fullmatch(stack.section_names[0])
        assert first is not None
        self.uri = stack.uri
        self.box = Box.from_shape((box.shape[0], *stack.shape[1:]), start=box.start)
        self.dtype = stack.dtype
        self.voxel_size = stack.voxel_size
        self.chunks = stack.chunks
        self._stack = stack
        self._places = {
            int(match[1]): at
            for at, name in enumerate(stack.section_names)
            if (match := _NUMBERED.fullmatch(name))
        }
        self._name = f"z{{:0{len(first[1])}d}}{first[2]}"

    def _read(self, box: Box) -> Array:
        found = np.empty(box.shape, self.dtype)
        for into, z in zip(found, range(box.start[0], box.stop[0]), strict=True):
            number = z - self.box.start[0]
            if number not in self._places:
                raise VolumeFormatError(f"the section {self._name.format(number)} is missing")
            there = Box((z, *box.start[1:]), (z + 1, *box.stop[1:])).translate(
                self._moved(number, z)
            )
            into[...] = self._stack.read(there)[0]
        return found

    def _moved(self, number: int, z: int) -> tuple[int, int, int]:
        (z0, y0, x0), (_, y1, x1) = self._stack.box.start, self.box.start
        return (z0 + self._places[number] - z, y0 - y1, x0 - x1)

    def _write(self, box: Box, array: Array) -> NoReturn:
        raise VolumeFormatError(f"{self.uri} lacks sections: convert again")

    def close(self) -> None:
        """Close what is there."""
        self._stack.close()


def with_gaps(volume: Volume, *, box: Box) -> Volume:
    """Return a stack with its sections where their names put them, if some are missing."""
    if not isinstance(volume, StackVolume) or volume.shape[0] >= box.shape[0]:
        return volume
    matches = [_NUMBERED.fullmatch(name) for name in volume.section_names]
    if any(match is None or int(match[1]) >= box.shape[0] for match in matches):
        return volume  # not as floodem writes them
    return GappyStack(volume, box=box)


def open_levels(uri: str, *, boxes: Sequence[Box], dtype: np.dtype[Any]) -> list[Volume]:
    """Open the levels of a pyramid of which one is missing, each by itself.

    Raises
    ------
    FloodemError
        When none can be opened, or there are not so many.
    """
    levels: list[Volume] = []
    for level, box in enumerate(boxes):
        try:
            levels.append(open_volume(uri, level=level))
        except (VolumeNotFoundError, VolumeFormatError) as error:
            levels.append(LostLevel(uri, box=box, dtype=dtype, why=error))
    if all(isinstance(one, LostLevel) for one in levels):
        open_volume(uri).close()
    return levels
