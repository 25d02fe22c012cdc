"""Sheets of glia between neurites: distances to surfaces in, room taken from both sides out.

A glial cell is a patch of tissue in which thin sheets of one label part the
neurites. Patches are balls, each inside its own cell of a coarse grid, so that no
two touch. Thin neurites give less room, and none is ever cut.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from floodem.geometry import Box
from floodem.volumes.synthetic.noise import Floats, Integers, hashed, make_key, uniform
from floodem.volumes.synthetic.options import SyntheticOptions

_GRID = 4.5
"""Edge of the coarse grid, in spacings."""

_RADIUS = (1.3, 1.9)
_RIM = 0.5
"""Width of the rim in which sheets become thinner, as a share of the radius."""

_SHARE = 0.5
"""Of grid cells that hold a patch, at `glia` 1."""

_HALF_THICKNESS = 0.2
"""Of a sheet, in spacings."""

_MOST_OF_ROOM = 0.6
"""Of a neurite's half width that a sheet may take."""


@dataclass(frozen=True, slots=True)
class Sheets:
    """Glia in a box.

    Attributes
    ----------
    half_nm
        How far it reaches into each voxel's neurite from its surface; 0 for none.
    labels
        Of the patch around each voxel.
    """

    half_nm: Floats
    labels: Integers


class Glia:
    """The glia of one synthetic volume; `first_label` and those after it are its own."""

    def __init__(self, options: SyntheticOptions, *, first_label: int) -> None:
        self._options = options
        self._first_label = first_label
        self._keys = {name: make_key(options.seed, f"glia {name}") for name in ("is", "r", "at")}
        self._edge_nm = _GRID * options.spacing_nm
        extent_nm = np.multiply(options.shape, options.voxel_size.zyx_nm)
        self._grid = tuple(math.ceil(nm / self._edge_nm) for nm in extent_nm)
        self.labels = math.prod(self._grid)

    def sheets(self, box: Box, spare_nm: Floats) -> Sheets:
        """Return the sheets of a box, given the least half width near each voxel's neurite."""
        voxel_nm = self._options.voxel_size.zyx_nm
        half = np.zeros(box.shape, np.float32)
        labels = np.zeros(box.shape, np.int64)
        edge = self._edge_nm
        first = [int(a * nm // edge) for a, nm in zip(box.start, voxel_nm, strict=True)]
        last = [int(b * nm // edge) for b, nm in zip(box.stop, voxel_nm, strict=True)]
        for cell in np.ndindex(*(b - a + 1 for a, b in zip(first, last, strict=True))):
            patch = tuple(a + n for a, n in zip(first, cell, strict=True))
            if any(n >= limit for n, limit in zip(patch, self._grid, strict=True)):
                continue
            self._add(patch, box, half=half, labels=labels)
        np.minimum(half, np.float32(_MOST_OF_ROOM) * spare_nm, out=half)
        return Sheets(half, labels)

    def _add(self, patch: tuple[int, ...], box: Box, *, half: Floats, labels: Integers) -> None:
        options = self._options
        if uniform(hashed(self._keys["is"], *patch))[0] >= _SHARE * options.glia:
            return
        low, high = _RADIUS
        share = uniform(hashed(self._keys["r"], *patch))[0]
        radius = (low + (high - low) * share) * options.spacing_nm
        jitter = uniform(hashed(self._keys["at"], *patch, np.arange(3))) - 0.5
        free = self._edge_nm - 2 * radius
        centre = (np.array(patch) + 0.5) * self._edge_nm + jitter * free
        squared: Any = np.float32(0)
        inside = []
        for axis, nm in enumerate(options.voxel_size.zyx_nm):
            a, b = box.start[axis], box.stop[axis]
            start = min(max(a, math.floor((centre[axis] - radius) / nm)), b)
            stop = max(min(b, math.ceil((centre[axis] + radius) / nm)), start)
            along = [1, 1, 1]
            along[axis] = -1
            away = ((np.arange(start, stop) + 0.5) * nm - centre[axis]).astype(np.float32)
            squared = squared + (away**2).reshape(along)
            inside.append(slice(start - a, stop - a))
        where = tuple(inside)
        rise = (1 - np.sqrt(squared) / np.float32(radius)) / np.float32(_RIM)
        here = np.clip(rise, 0, 1) * np.float32(_HALF_THICKNESS * options.spacing_nm)
        half[where] = np.maximum(half[where], here)
        z, y, x = patch
        number = (z * self._grid[1] + y) * self._grid[2] + x
        labels[where] = np.where(here > 0, self._first_label + number, labels[where])
