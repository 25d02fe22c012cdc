"""Where a voxel lies in the tissue: section shifts and uneven surfaces, as one smooth map.

Voxel centres come in, positions in the space of the straight tubes go out
(nanometres z, y, x). The map moves nothing across the volume's faces, so that the
volume is mapped onto itself and what is one piece there is one piece here.
"""

from __future__ import annotations

import numpy as np

from floodem.geometry import Box
from floodem.volumes.synthetic.noise import (
    Floats,
    Integers,
    hashed,
    make_key,
    noise_at,
    noise_over,
    normal,
    scaled,
    uniform,
)
from floodem.volumes.synthetic.options import SyntheticOptions

_OCTAVES = ((1.0, 1.0), (0.4, 0.2))
"""Wavelength in spacings and strength in `wobble` of what makes surfaces uneven."""


class Placing:
    """The map of one synthetic volume."""

    def __init__(self, options: SyntheticOptions) -> None:
        self._options = options
        self.voxel_nm = options.voxel_size.zyx_nm
        self._extent_nm = np.multiply(options.shape, self.voxel_nm)
        self._wobble = [
            [make_key(options.seed, f"wobble {axis} {octave}") for octave in range(len(_OCTAVES))]
            for axis in range(3)
        ]
        self._shift_key = make_key(options.seed, "section shift")
        self._slip_key = make_key(options.seed, "section slip")

    def shifts_nm(self, sections: Integers) -> Floats:
        """Return how far each section is misaligned in y and x."""
        wrong = self._options.sections
        slips = uniform(hashed(self._slip_key, sections)) < wrong.slips
        shifts = []
        for axis in range(2):
            ordinary = normal(hashed(self._shift_key, sections, [axis])) * wrong.shift_nm
            more = normal(hashed(self._slip_key, sections, [axis + 1])) * wrong.slip_nm
            shifts.append(ordinary + np.where(slips, more, 0))
        return np.stack(shifts, axis=-1).astype(np.float64)

    def _fade(self, axis: int, centres_nm: Floats) -> Floats:
        """Return 1 inside and less within one spacing of the faces, where it is 0."""
        edge = np.minimum(centres_nm, self._extent_nm[axis] - centres_nm)
        fade: Floats = np.clip(edge / self._options.spacing_nm, 0, 1)
        return fade

    def offsets_over(self, box: Box) -> tuple[Floats, Floats, Floats]:
        """Return by how many nanometres each voxel of a box is moved, in z, y and x."""
        spacing, strength = self._options.spacing_nm, self._options.wobble
        offsets = []
        for axis in range(3):
            field = np.zeros(box.shape, np.float32)
            for key, (wavelength, part) in zip(self._wobble[axis], _OCTAVES, strict=True):
                voxels = scaled(wavelength * spacing, self.voxel_nm)
                octave = noise_over(key, box, wavelength=voxels)
                octave *= np.float32(part * strength * spacing)
                field += octave
            centres = np.arange(box.start[axis], box.stop[axis]) + 0.5
            along = [1, 1, 1]
            along[axis] = -1
            fade = self._fade(axis, centres * self.voxel_nm[axis])
            field *= fade.astype(np.float32).reshape(along)
            offsets.append(field)
        z, y, x = offsets
        shifts = self.shifts_nm(np.arange(box.start[0], box.stop[0])).astype(np.float32)
        y += shifts[:, 0, None, None]
        x += shifts[:, 1, None, None]
        return z, y, x

    def place(self, voxels: Integers) -> Floats:
        """Return where voxels (rows z, y, x) lie in the tissue."""
        centres = (voxels + 0.5) * self.voxel_nm
        spacing, strength = self._options.spacing_nm, self._options.wobble
        placed = centres.copy()
        for axis in range(3):
            fade = self._fade(axis, centres[:, axis])
            for key, (wavelength, part) in zip(self._wobble[axis], _OCTAVES, strict=True):
                unit = centres.T / (wavelength * spacing)
                placed[:, axis] += fade * (part * strength * spacing) * noise_at(key, *unit)
        placed[:, 1:] += self.shifts_nm(voxels[:, 0])
        return placed

    def voxels_near(self, positions_nm: Floats) -> Integers:
        """Return the voxels at positions, section shifts taken out, inside the volume."""
        voxels = np.floor(positions_nm / self.voxel_nm).astype(np.int64)
        last = np.array(self._options.shape) - 1
        voxels = np.clip(voxels, 0, last)
        moved = positions_nm[:, 1:] - self.shifts_nm(voxels[:, 0])
        voxels[:, 1:] = np.floor(moved / self.voxel_nm[1:]).astype(np.int64)
        inside: Integers = np.clip(voxels, 0, last)
        return inside
