"""What goes wrong with serial sections: grey values in, the same as badly cut and imaged out.

Contrast, lost sections and folds are functions of the section alone; misalignment,
which moves labels too, is in `floodem.volumes.synthetic.placing`.
"""

from __future__ import annotations

import math

import numpy as np

from floodem.geometry import Box
from floodem.volumes.synthetic.noise import (
    Flags,
    Floats,
    Integers,
    hashed,
    make_key,
    noise_at,
    normal,
    uniform,
)
from floodem.volumes.synthetic.options import SyntheticOptions

_MIDDLE_GREY = 140.0
"""What contrast changes leave alone."""

_FOLD_HALF_NM = (20.0, 70.0)
_FOLD_WAVE_NM = 500.0
_FOLD_BEND_NM = 60.0
_FOLD_DARKNESS = 0.8


class Sections:
    """The sections of one synthetic volume."""

    def __init__(self, options: SyntheticOptions) -> None:
        self._options = options
        self._wrong = options.sections
        self._keys = {
            name: make_key(options.seed, f"section {name}")
            for name in ("gain", "level", "missing", "fold", "wave")
        }

    def missing(self, sections: Integers) -> Flags:
        """Tell which sections are lost."""
        lost: Flags = uniform(hashed(self._keys["missing"], sections)) < self._wrong.missing
        return lost

    def folded(self, sections: Integers) -> Flags:
        """Tell which sections have a fold."""
        folds: Flags = uniform(hashed(self._keys["fold"], sections, [0])) < self._wrong.folded
        return folds

    def spoil(self, box: Box, grey: Floats) -> None:
        """Change the grey values of a box in place."""
        sections = np.arange(box.start[0], box.stop[0])
        gain = 1 + normal(hashed(self._keys["gain"], sections)) * np.float32(self._wrong.contrast)
        level = normal(hashed(self._keys["level"], sections)) * np.float32(self._wrong.brightness)
        grey -= np.float32(_MIDDLE_GREY)
        grey *= gain[:, None, None]
        grey += (level + np.float32(_MIDDLE_GREY))[:, None, None]
        for row in np.flatnonzero(self.folded(sections)):
            grey[row] *= self._fold(int(sections[row]), box)
        grey[self.missing(sections)] = 0

    def _fold(self, section: int, box: Box) -> Floats:
        """Return what the fold of a section leaves of the light at each pixel (y, x)."""
        key = self._keys["fold"]
        way_y, way_x, at, width = uniform(hashed(key, section, np.arange(1, 5)))
        way_y, way_x = way_y - 0.5, way_x - 0.5
        length = math.sqrt(way_y**2 + way_x**2) or 1.0
        way_y, way_x = way_y / length, way_x / length
        (_, y_nm, x_nm), (_, height, width_voxels) = (
            self._options.voxel_size.zyx_nm,
            self._options.shape,
        )
        ys = ((np.arange(box.start[1], box.stop[1]) + 0.5) * y_nm)[:, None]
        xs = ((np.arange(box.start[2], box.stop[2]) + 0.5) * x_nm)[None]
        # The line goes through a point on the diagonal in the middle half of the section.
        through = 0.25 + 0.5 * at
        y, x = ys - through * height * y_nm, xs - through * width_voxels * x_nm
        along = (way_y * y + way_x * x) / _FOLD_WAVE_NM
        across = way_x * y - way_y * x
        across = across + _FOLD_BEND_NM * noise_at(
            self._keys["wave"], along, np.full_like(along, section)
        )
        low, high = _FOLD_HALF_NM
        half = low + (high - low) * width
        band = np.clip(1.5 - np.abs(across) / half, 0, 1)
        light: Floats = (1 - _FOLD_DARKNESS * band).astype(np.float32)
        return light
