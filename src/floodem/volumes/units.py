"""Lengths and places as files state them: units in, nanometres and whole voxels out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


def nearest_voxels(places: Sequence[float], *, notes: list[str], uri: str, what: str) -> list[int]:
    """Round places in voxels; a place between voxels is told in `notes`.

    Raises
    ------
    ValueError, OverflowError
        When a place is no finite number.
    """
    whole = [round(place) for place in places]
    if not _are_whole(places):
        notes.append(
            f"{uri} begins between voxels, at {', '.join(f'{place:.6g}' for place in places)} "
            f"({what}): the nearest voxel is taken as its offset"
        )
    return whole


def _are_whole(places: Sequence[float]) -> bool:
    return all(abs(place - round(place)) <= _WHOLE_VOXEL_TOLERANCE for place in places)


def level_offset(
    places: Sequence[float],
    scales: Sequence[float],
    *,
    base: Sequence[float],
    notes: list[str],
    uri: str,
) -> list[int]:
    """Return where a level begins, in its own voxels (z, y, x).

    The place of a coarser level is either that of the centre of its first voxel,
    which lies ``(factor - 1) / 2`` fine voxels behind the centre of the first fine
    voxel in it, or leaves this shift out; both are found in files.

    Parameters
    ----------
    places, scales
        Of the level, one value for each axis, in any one unit.
    base
        Scales of the finest level.
    notes
        Hears of a place that is no whole number of voxels and is rounded.
    uri
        What notes call the file.
    """
    shifted = [
        (place - (scale - fine) / 2) / scale
        for place, scale, fine in zip(places, scales, base, strict=True)
    ]
    plain = [place / scale for place, scale in zip(places, scales, strict=True)]
    understood = plain if _are_whole(plain) and not _are_whole(shifted) else shifted
    return nearest_voxels(understood, notes=notes, uri=uri, what="z,y,x")
