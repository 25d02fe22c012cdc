"""zarr 3: arrays (z, y, x) or (c, z, y, x), alone or as an OME-Zarr 0.5 group, also sharded.

``dimension_names`` name the axes, and the attribute block ``floodem`` says voxel
size, offset and kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

_METADATA = "zarr.json"
_OME_VERSION = "0.5"
_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}


class Zarr3(Layout):
    """Arrays and groups with ``zarr.json``."""

    name = "zarr3"
    driver = "zarr3"
    metadata = _METADATA

    def is_array(self, folder: Folder) -> bool:
        """Tell whether a folder is an array of this format, be it damaged."""
        metadata = folder.json(_METADATA)
        if not metadata:
            return folder.has(_METADATA)
        return metadata.get("node_type") == "array"

    def is_group(self, folder: Folder) -> bool:
        """Tell whether a folder is a group of this format, which may hold arrays."""
        metadata = folder.json(_METADATA)
        return metadata is not None and metadata.get("node_type") == "group"

    def pyramid(self, folder: Folder, *, uri: str) -> Pyramid | None:
        """Return the levels of an OME-Zarr group."""
        metadata = folder.json(_METADATA) or {}
        attributes = metadata.get("attributes")
        if metadata.get("node_type") != "group" or not isinstance(attributes, dict):
            return None
        # Some programs wrote the block of 0.4 into zarr 3 groups before there was 0.5.
        return ome.read_pyramid(attributes.get("ome", attributes), folder, uri=uri)

    def meaning(self, store: tensorstore.TensorStore, folder: Folder, *, uri: str) -> Meaning:
        """Read ``dimension_names`` and the block ``floodem``."""
        metadata = store.spec().to_json()["metadata"]
        block = metadata.get("attributes", {}).get(BLOCK_KEY)
        return Meaning(
            axes=named_axes(metadata.get("dimension_names")),
            description=None if block is None else read_block(block, uri=uri),
        )

    def documents(self, request: CreateRequest) -> Documents:
        """Return the metadata files of an array or of an OME-Zarr 0.5 group."""
        self.require_dtype(request)
        levels = new_levels(request)
        if not ome.is_ome(request):
            return {_METADATA: _array(request, levels[0])}
        found: Documents = {
            f"{number}/{_METADATA}": _array(request, level) for number, level in enumerate(levels)
        }
        block = {"version": _OME_VERSION, **ome.multiscales(request, levels, version=None)}
        found[_METADATA] = {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": {"ome": block},
        }
        return found


def _array(request: CreateRequest, level: NewLevel) -> dict[str, Any]:
    codecs: list[dict[str, Any]] = [
        _BYTES,
        # Without its own checksum, which zarr-python asks to be named.
        {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}},
    ]
    if level.shards is not None:
        sharding = {
            "chunk_shape": [*channel_edge(request, 1), *level.chunks],
            "codecs": codecs,
            "index_codecs": [_BYTES, {"name": "crc32c"}],
            "index_location": "end",
        }
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [*channel_edge(request, request.channels), *level.box.shape],
        "data_type": request.dtype.name,
        "chunk_grid": {
            "name": "regular",
            "configuration": {
                "chunk_shape": [*channel_edge(request, 1), *(level.shards or level.chunks)]
            },
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": codecs,
        "fill_value": 0,
        "attributes": {BLOCK_KEY: level.description.block()},
        "dimension_names": list(new_axes(request)),
    }
