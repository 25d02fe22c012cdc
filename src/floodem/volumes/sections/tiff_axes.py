"""What a TIFF file says about its axes and voxels: series and pages of tifffile in, names out.

ImageJ and OME write axes and sizes; other files have pages, which are sections.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from floodem.errors import GeometryError, VolumeFormatError
from floodem.geometry import VoxelSize
from floodem.volumes.axes import SPATIAL, USUAL
from floodem.volumes.sections.tiff_imagej import IMAGEJ
from floodem.volumes.units import in_nm, nm_per

if TYPE_CHECKING:
    from tifffile import TiffPage, TiffPageSeries

_OME_UNIT = "µm"
"""What OME means where it names no unit (OME schema, Pixels, PhysicalSizeXUnit)."""

_ESCAPED_MICRO = "\\u00B5"
"""How ImageJ writes the micro sign."""


def voxel_size_of(page: TiffPage) -> VoxelSize | None:
    """Read the calibration that ImageJ or OME keeps, None where there is none or it is odd."""
    text = page.description
    try:
        if text.startswith(IMAGEJ):
            return _imagej_voxel_size(text, page)
        if "<Pixels" in text or ":Pixels" in text:
            return _ome_voxel_size(text)
    except (GeometryError, ValueError, ZeroDivisionError, TypeError, KeyError):
        return None
    return None


def _imagej_voxel_size(text: str, page: TiffPage) -> VoxelSize | None:
    """Read a unit, pixels per unit, and the spacing of sections."""
    facts = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    unit_nm = nm_per(facts["unit"].replace(_ESCAPED_MICRO, "µ"))
    if unit_nm is None:
        return None
    (y_over, y_under), (x_over, x_under) = (
        page.tags.valueof(name) for name in ("YResolution", "XResolution")
    )
    return VoxelSize(
        in_nm(abs(float(facts["spacing"])), unit_nm),
        in_nm(y_under / y_over, unit_nm),
        in_nm(x_under / x_over, unit_nm),
    )


def _ome_voxel_size(xml: str) -> VoxelSize:
    pixels = re.search(r"<(?:\w+:)?Pixels\b([^>]*)>", xml)
    found = re.findall(r"([\w:]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)')", pixels[1] if pixels else "")
    facts = {name: html.unescape(one or other) for name, one, other in found}
    return VoxelSize(*(_ome_size(facts, axis) for axis in "ZYX"))


def _ome_size(facts: Mapping[str, str], axis: str) -> float:
    unit_nm = nm_per(facts.get(f"PhysicalSize{axis}Unit", _OME_UNIT))
    if unit_nm is None:
        raise ValueError("no unit of length")
    return in_nm(float(facts[f"PhysicalSize{axis}"]), unit_nm)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAxes:
    """The axes of a series: pages in their order, then what lies in a page.

    Attributes
    ----------
    shape
        Lengths: those over pages, the planes of a page if it has any, rows, columns,
        and the samples of a pixel if it has several.
    names
        A letter for each (see `floodem.volumes.axes`), None where they cannot be told.
    leading
        How many axes go over pages.
    notice
        A sentence about names that were reinterpreted, or nothing.
    """

    shape: tuple[int, ...]
    names: str | None
    leading: int
    notice: str = ""


def stored_axes(
    series: TiffPageSeries, page: TiffPage, *, uri: str, is_named_by_user: bool
) -> StoredAxes:
    """Find out what the axes of a series mean; the user may know better.

    Raises
    ------
    VolumeFormatError
        When its pages are no images, or it has channels and samples both.
    """
    letters, shape = series.axes.lower(), tuple(int(length) for length in series.shape)
    planes, _, height, width, samples = page.shaped
    rows = len(shape) - (3 if samples > 1 else 2)
    leading = rows - (planes > 1)
    in_page = (planes,) * (planes > 1) + (height, width) + (samples,) * (samples > 1)
    if leading < 0 or shape[leading:] != in_page:
        raise VolumeFormatError(
            f"{uri} has the axes {series.axes} of lengths {shape}, whose pages are no images"
        )
    names = list(letters)
    names[rows : rows + 2] = "yx"
    if planes > 1:
        names[rows - 1] = "c"
    if samples > 1:
        names[-1] = "c"
    if names.count("c") > 1:
        raise VolumeFormatError(
            f"{uri} has channels of colour images (axes {series.axes}): save one channel"
        )
    if is_named_by_user:
        return StoredAxes(shape=shape, names=None, leading=leading)
    return _named(names, shape, leading=leading, axes=series.axes, uri=uri)


def _named(
    names: list[str], shape: tuple[int, ...], *, leading: int, axes: str, uri: str
) -> StoredAxes:
    """Name z where the file does not: the only axis of another name, or time."""
    notice = ""
    strange = [at for at, name in enumerate(names) if name not in USUAL]
    if "z" not in names and len(strange) == 1:
        names[strange.pop()] = "z"
    if "z" not in names and "t" in names and not strange:
        at = names.index("t")
        names[at] = "z"
        notice = f"{uri} calls its {shape[at]} images time points: they are taken as sections"
    if strange:
        return StoredAxes(shape=shape, names=None, leading=leading)
    if "z" not in names:
        if math.prod(shape[:leading]) > 1:
            raise VolumeFormatError(
                f"{uri} has {math.prod(shape[:leading])} channels and one section (axes {axes}): "
                f"if they are sections, say so with --axes {SPATIAL} (in Python axes=)"
            )
        names, shape, leading = ["z", *names], (1, *shape), leading + 1
    return StoredAxes(shape=shape, names="".join(names), leading=leading, notice=notice)
