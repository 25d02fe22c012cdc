"""One TIFF file in the making: boxes (z, y, x) in, a file with a page per section out.

The pages are uncompressed, so that boxes can be written in any order.
"""

from __future__ import annotations

from pathlib import Path

from floodem.errors import VolumeFormatError
from floodem.volumes.arrays.raw_volume import create_raw
from floodem.volumes.registry import CreateRequest
from floodem.volumes.sections.tiff import DTYPES, tifffile_module
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
            description=request.description.text(),
            metadata=None,
            contiguous=True,
            returnoffset=True,
        )
        assert place is not None
        return int(place[0])

    return create_raw(request, write_empty=write_empty_pages)
