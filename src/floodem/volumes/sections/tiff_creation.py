"""One TIFF file in the making: boxes (z, y, x) in, a file with a page per section out.

The pages are uncompressed, so that boxes can be written in any order. Where ImageJ
knows the type of the voxels, it finds their size in its own words.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from floodem.errors import VolumeFormatError
from floodem.volumes.arrays.raw_volume import create_raw
from floodem.volumes.registry import CreateRequest
from floodem.volumes.sections import tiff_imagej
from floodem.volumes.sections.tiff import DTYPES, resolution_per_cm, tifffile_module
from floodem.volumes.volume import Volume


def create_pages(request: CreateRequest) -> Volume:
    """Create one TIFF file with a page per section; BigTIFF where 4 GB do not suffice.

    Raises
    ------
    VolumeFormatError
        When TIFF does not hold this type.
    """
    if request.dtype.name not in DTYPES:
        raise VolumeFormatError(
            f"{request.location.uri}: tiff files hold {', '.join(DTYPES)}, not {request.dtype}; "
            "choose one of these (convert --dtype, in Python dtype=) or another format"
        )

    def write_empty_pages(path: Path) -> int:
        """Write the headers of all pages and room for their pixels; say where those begin."""
        place = tifffile_module().imwrite(
            path,
            shape=request.shape,
            dtype=request.dtype,
            photometric="minisblack",
            metadata=None,
            contiguous=True,
            returnoffset=True,
            **_calibration(request),
        )
        assert place is not None
        return int(place[0])

    return create_raw(request, write_empty=write_empty_pages)


def _calibration(request: CreateRequest) -> dict[str, Any]:
    """Return the description, and the tags of resolution in the unit that it names."""
    description, sections = request.description, request.shape[0]
    if sections == 1 or request.dtype.name not in tiff_imagej.DTYPES:
        # Where nothing names a unit, TIFF's own is the centimetre.
        return {"description": description.text(), **resolution_per_cm(description.voxel_size)}
    return {
        "description": tiff_imagej.imagej_text(description, sections=sections),
        **tiff_imagej.resolution_per_nm(description.voxel_size),
    }
