"""What the microscope shows: the territory of neurites in, grey values out.

Cytoplasm is light and membranes are dark, as in stained tissue seen with
backscattered electrons after inversion. Nothing here looks beyond the box.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from floodem.geometry import Box
from floodem.volumes.synthetic.noise import (
    Floats,
    Integers,
    hashed,
    make_key,
    noise_over,
    normal,
    scaled,
    voxel_words,
)
from floodem.volumes.synthetic.options import SyntheticOptions

CYTOPLASM = 168.0
"""Mean grey value of cytoplasm."""

_MEMBRANE = 62.0
"""Grey value in the middle of a membrane."""

_FAINT_NM = 70.0
"""Size of the places where membranes are faint."""

_FAINTEST = 0.2
"""What is left of a membrane there."""

_NEURITE_SHADES = 12.0
"""Standard deviation of neurites' mean grey values."""

_GLIA_SHADE = 16.0
"""How much lighter glia is."""

_TEXTURE_NM = ((90.0, 0.6), (32.0, 1.0), (14.0, 1.0))
"""Wavelengths of the cytoplasm's texture, and the share of each."""


def membrane_profile(
    surface_nm: Floats, steepness: Floats, *, width_nm: float, section_nm: float
) -> Floats:
    """Return how dark a membrane makes each voxel, 0 to 1.

    A membrane is a band with soft edges around the surface. A section shows the
    mean over its thickness, which smears the membranes that lie flat in it.

    Parameters
    ----------
    surface_nm, steepness
        Distance to the surface, and the z component of its normal.
    width_nm
        Thickness of the band.
    section_nm
        Thickness of a section.
    """
    half = width_nm / 2
    smear = steepness * np.float32(section_nm / 2)
    # The mean of a soft band over [b - s, b + s], by its integral.
    upper = _integral((surface_nm + smear) / np.float32(half))
    lower = _integral((surface_nm - smear) / np.float32(half))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (upper - lower) * np.float32(half) / (2 * smear)
    soft = _band(surface_nm / np.float32(half))
    return np.where(smear > half / 4, mean, soft).astype(np.float32)


def _band(distance: Floats) -> Floats:
    """Return a smooth bump: 1 at 0, one half at 1, 0 from 2 on."""
    left = np.clip(1 - np.abs(distance) / 2, 0, 1)
    return left * left * (3 - 2 * left)


def _integral(distance: Floats) -> Floats:
    """Return the integral of `_band` from 0."""
    sign = np.sign(distance)
    u = np.clip(np.abs(distance) / 2, 0, 1)
    # With v = 1 - u the bump is 3v^2 - 2v^3 = 1 - 3u^2 + 2u^3.
    return sign * 2 * (u - u**3 + u**4 / 2)


class Painter:
    """The appearance of one synthetic volume."""

    def __init__(self, options: SyntheticOptions) -> None:
        self._options = options
        self._voxel_nm = options.voxel_size.zyx_nm
        self._keys = {
            purpose: make_key(options.seed, purpose) for purpose in ("shade", "noise", "faint")
        }
        self._textures = [
            (make_key(options.seed, f"texture {octave}"), *row)
            for octave, row in enumerate(_TEXTURE_NM)
        ]

    def cytoplasm(
        self, box: Box, labels: Integers, *, is_glia: np.ndarray[Any, np.dtype[np.bool_]]
    ) -> Floats:
        """Return the grey values without membranes and organelles.

        Parameters
        ----------
        labels, is_glia
            The neurite of each voxel, and where a sheet of glia has taken its place.
        """
        ids, rows = np.unique(labels, return_inverse=True)
        shade = normal(hashed(self._keys["shade"], ids)) * np.float32(_NEURITE_SHADES)
        grey = np.float32(CYTOPLASM) + np.where(
            is_glia, np.float32(_GLIA_SHADE), shade[rows.reshape(labels.shape)]
        )
        for key, length_nm, share in self._textures:
            wavelength = scaled(max(length_nm, *self._voxel_nm[1:]), self._voxel_nm)
            field = noise_over(key, box, wavelength=wavelength)
            field *= np.float32(share * self._options.texture * 1.6)
            grey += field
        return grey

    def draw_membranes(self, box: Box, grey: Floats, profile: Floats) -> None:
        """Darken the voxels of membranes, which are faint in places.

        Parameters
        ----------
        profile
            How dark a membrane makes each voxel, 0 to 1 (`membrane_profile`).
        """
        wavelength = scaled(_FAINT_NM, self._voxel_nm)
        place = noise_over(self._keys["faint"], box, wavelength=wavelength)
        # Half of the noise is within 0.27 of 0: at `faint` 1 a fifth of it is above 0.35.
        fading = np.clip((place - np.float32(0.35)) / np.float32(0.3), 0, 1)
        strength = 1 - np.float32((1 - _FAINTEST) * self._options.faint) * fading
        grey += (np.float32(_MEMBRANE) - grey) * profile * strength

    def noise(self, box: Box) -> Floats:
        """Return what the detector adds."""
        return normal(voxel_words(self._keys["noise"], box)) * np.float32(self._options.noise)
