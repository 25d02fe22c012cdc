"""Lengths and places as files state them: units in, nanometres and whole voxels out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from floodem.errors import VolumeFormatError

_SYMBOLS = {
    "nm": 1.0,
    "um": 1e3,
    "µm": 1e3,  # MICRO SIGN
    "μm": 1e3,  # GREEK SMALL LETTER MU
    "micron": 1e3,
    "mm": 1e6,
    "cm": 1e7,
    "m": 1e9,
    "pm": 1e-3,
    "å": 0.1,
    "angstrom": 0.1,
}
_PREFIXES = {
    "": 1e9,
    "kilo": 1e12,
    "deci": 1e8,
    "centi": 1e7,
    "milli": 1e6,
    "micro": 1e3,
    "nano": 1.0,
    "pico": 1e-3,
    "femto": 1e-6,
}
_NM_PER_UNIT = _SYMBOLS | {
    prefix + metre: factor for prefix, factor in _PREFIXES.items() for metre in ("meter", "metre")
}

# Places come in as decimal fractions of nanometres or micrometres.
_WHOLE_VOXEL_TOLERANCE = 1e-3
# Beyond these digits a product of a size and a unit shows binary noise only.
_SIGNIFICANT_DIGITS = 12


def nm_per(unit: Any) -> float | None:
    """Return how many nanometres a unit of length has (UDUNITS names and common symbols).

    None stands for no unit and for one that is not known.
    """
    if not isinstance(unit, str):
        return None
    name = unit.strip().lower()
    return _NM_PER_UNIT.get(name, _NM_PER_UNIT.get(name.removesuffix("s")))


def in_nm(value: float, unit_nm: float) -> float:
    """Return a length in nanometres, without the binary noise of the product."""
    return float(f"{value * unit_nm:.{_SIGNIFICANT_DIGITS}g}")


def as_whole_voxels(places: Sequence[float]) -> list[int] | None:
    """Round places in voxels; None where one of them lies between voxels."""
    whole = [round(place) for place in places]
    is_whole = all(
        abs(place - near) <= _WHOLE_VOXEL_TOLERANCE
        for place, near in zip(places, whole, strict=True)
    )
    return whole if is_whole else None


def level_offset(
    places: Sequence[float], scales: Sequence[float], *, base: Sequence[float], uri: str, what: str
) -> list[int]:
    """Return where a level begins, in its own voxels.

    The place of a coarser level is either that of the centre of its first voxel,
    which lies ``(factor - 1) / 2`` fine voxels behind the centre of the first fine
    voxel in it, or leaves this shift out; both are found in files.

    Parameters
    ----------
    places, scales
        Of the level, one value for each axis, in any one unit.
    base
        Scales of the finest level.
    uri, what
        What messages call the file and the place.

    Raises
    ------
    VolumeFormatError
        When it is no whole number of voxels.
    """
    shifted = [
        (place - (scale - fine) / 2) / scale
        for place, scale, fine in zip(places, scales, base, strict=True)
    ]
    plain = [place / scale for place, scale in zip(places, scales, strict=True)]
    whole = as_whole_voxels(shifted) or as_whole_voxels(plain)
    if whole is None:
        raise VolumeFormatError(
            f"{uri} declares the {what} {list(places)}, which is no whole number of voxels of "
            f"{list(scales)}: correct it in the metadata"
        )
    return whole
