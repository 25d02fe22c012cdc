"""zarr 2: arrays (z, y, x) or (c, z, y, x), alone or as an OME-Zarr 0.4 group.

``_ARRAY_DIMENSIONS`` in ``.zattrs`` names the axes, as xarray does, and the block
``floodem`` there says voxel size, offset and kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from floodem.errors import VolumeFormatError
from floodem.volumes.chunked.layouts import ome
from floodem.volumes.chunked.layouts.folder import Folder
from floodem.volumes.chunked.layouts.layout import (
    ZSTD_LEVEL,
    Documents,
    Layout,
    Meaning,
    NewLevel,
    Pyramid,
    channel_edge,
    named_axes,
    new_axes,
    new_levels,
)
from floodem.volumes.declared import BLOCK_KEY
from floodem.volumes.description import read_block
from floodem.volumes.registry import CreateRequest

if TYPE_CHECKING:
    import tensorstore

_OME_VERSION = "0.4"
_AXES_KEY = "_ARRAY_DIMENSIONS"


class Zarr2(Layout):
    """Arrays with ``.zarray``, groups with ``.zgroup``."""

    name = "zarr"
    driver = "zarr"
    metadata = ".zarray"

    def is_array(self, folder: Folder) -> bool:
        """Tell whether a folder is an array of this format, be it damaged."""
        return folder.has(self.metadata)

    def is_group(self, folder: Folder) -> bool:
        """Tell whether a folder is a group of this format, which may hold arrays."""
        return folder.has(".zgroup")

    def pyramid(self, folder: Folder, *, uri: str) -> Pyramid | None:
        """Return the levels of an OME-Zarr group."""
        return ome.read_pyramid(_attributes(folder, uri=uri), folder, uri=uri)

    def meaning(self, store: tensorstore.TensorStore, folder: Folder, *, uri: str) -> Meaning:
        """Read ``_ARRAY_DIMENSIONS`` and the block ``floodem``."""
        attributes = _attributes(folder, uri=uri)
        block = attributes.get(BLOCK_KEY)
        return Meaning(
            axes=named_axes(attributes.get(_AXES_KEY)),
            description=None if block is None else read_block(block, uri=uri),
        )

    def documents(self, request: CreateRequest) -> Documents:
        """Return the metadata files of an array or of an OME-Zarr 0.4 group."""
        self.require_dtype(request)
        levels = new_levels(request)
        if not ome.is_ome(request):
            return _array(request, levels[0], folder="")
        found: Documents = {}
        for number, level in enumerate(levels):
            found |= _array(request, level, folder=f"{number}/")
        found[".zgroup"] = {"zarr_format": 2}
        found[".zattrs"] = ome.multiscales(request, levels, version=_OME_VERSION)
        return found


def _attributes(folder: Folder, *, uri: str) -> dict[str, Any]:
    attributes = folder.json(".zattrs")
    if attributes is None:
        raise VolumeFormatError(
            f"{uri} has damaged attributes (.zattrs), which are no JSON object: mend the file"
        )
    return attributes


def _array(request: CreateRequest, level: NewLevel, *, folder: str) -> Documents:
    return {
        f"{folder}.zattrs": {
            _AXES_KEY: list(new_axes(request)),
            BLOCK_KEY: level.description.block(),
        },
        f"{folder}.zarray": {
            "zarr_format": 2,
            "shape": [*channel_edge(request, request.channels), *level.box.shape],
            "chunks": [*channel_edge(request, 1), *level.chunks],
            "dtype": request.dtype.newbyteorder("<").str,
            "compressor": {"id": "zstd", "level": ZSTD_LEVEL},
            "fill_value": 0,
            "filters": None,
            "order": "C",
            "dimension_separator": "/",
        },
    }
