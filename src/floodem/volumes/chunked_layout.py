"""What zarr, zarr 3, n5 and precomputed keep, and in which axis order.

Requests in z, y, x come in; tensorstore specs and views in z, y, x go out. Only
names that end in ``_xyz`` are in the order in which n5 and precomputed store.

- zarr, zarr3: arrays (z, y, x) or (c, z, y, x); the attribute block ``floodem``
  {version, offset_zyx in voxels, voxel_size_nm_zyx}.
- n5: arrays (x, y, z) or (x, y, z, c); ``resolution`` in ``units``, ``offset`` in
  the same units (both x, y, z), as other n5 tools write them, and the block
  ``floodem``, which goes first when it is there.
- precomputed: ``resolution`` in nm and ``voxel_offset`` of the first scale.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from floodem.errors import VolumeFormatError
from floodem.geometry import VoxelSize, Zyx
from floodem.volumes.declared import (
    BLOCK_KEY,
    DEFAULT_CHUNKS,
    fit_chunks,
    offset_from,
    select_channel,
    voxel_size_from,
)
from floodem.volumes.description import Description, read_block
from floodem.volumes.registry import CreateRequest, OpenRequest

if TYPE_CHECKING:
    import tensorstore

# A metadata file of a store is a few kilobytes; more is not read just to look.
_MAX_METADATA_BYTES = 16 * 2**20
_ZSTD_LEVEL = 3
# Groups nested deeper are not looked through to name the arrays there are.
_MAX_GROUP_DEPTH = 8
_COMPRESSED_BLOCK_XYZ = [8, 8, 8]
_NM_PER_UNIT = {"nm": 1.0, "nanometer": 1.0, "um": 1e3, "µm": 1e3, "micrometer": 1e3, "mm": 1e6}
_WHOLE_VOXEL_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """An open store as a volume: a view (z, y, x) and where and how large its voxels are."""

    view: tensorstore.TensorStore
    description: Description


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a small JSON object; nothing where there is no file, None where it is damaged."""
    try:
        if not path.is_file():
            return {}
        if path.stat().st_size > _MAX_METADATA_BYTES:
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


class Layout(ABC):
    """How one chunked format is recognised, created and understood."""

    name: str
    driver: str
    dtypes: tuple[str, ...] = (
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "int8",
        "int16",
        "int32",
        "int64",
        "float32",
        "float64",
    )

    @abstractmethod
    def is_array(self, folder: Path) -> bool:
        """Tell whether a folder is an array of this format, be it damaged."""

    def is_group(self, folder: Path) -> bool:
        """Tell whether a folder is a group of this format, which may hold arrays."""
        return False

    def may_hold_arrays(self, folder: Path) -> bool:
        """Tell whether to look for arrays in a folder below a group."""
        return self.is_group(folder)

    @abstractmethod
    def new_spec(self, request: CreateRequest) -> dict[str, Any]:
        """Return the part of tensorstore's spec that says what to create."""

    def finish(self, store: tensorstore.TensorStore, request: CreateRequest) -> None:
        """Write what tensorstore's metadata do not hold."""

    @abstractmethod
    def interpret(self, store: tensorstore.TensorStore, request: OpenRequest) -> Meaning:
        """Find voxels (z, y, x), voxel size and offset in an open store."""

    def require_dtype(self, request: CreateRequest) -> None:
        """Refuse a type that the format does not hold."""
        if request.dtype.name not in self.dtypes:
            raise VolumeFormatError(
                f"{request.location.uri}: {self.name} volumes hold {', '.join(self.dtypes)}, not "
                f"{request.dtype}; "
                "choose one of these (convert --dtype, in Python dtype=) or another format"
            )


def _chunks(request: CreateRequest) -> Zyx:
    return fit_chunks(request.chunks or DEFAULT_CHUNKS, shape=request.shape)


def _zyx_view(store: tensorstore.TensorStore, request: OpenRequest) -> tensorstore.TensorStore:
    """Take the channel out of a store whose axes are (z, y, x) or (c, z, y, x)."""
    _, channel = select_channel(store.shape, channel=request.channel, uri=request.location.uri)
    return store if channel is None else store[channel]


class _Zarr(Layout):
    name = "zarr"
    driver = "zarr"

    def is_array(self, folder: Path) -> bool:
        return (folder / ".zarray").is_file()

    def is_group(self, folder: Path) -> bool:
        return (folder / ".zgroup").is_file()

    def new_spec(self, request: CreateRequest) -> dict[str, Any]:
        self.require_dtype(request)
        return {
            "metadata": {
                "shape": list(request.shape),
                "chunks": list(_chunks(request)),
                "dtype": request.dtype.newbyteorder("<").str,
                "compressor": {"id": "zstd", "level": _ZSTD_LEVEL},
                "fill_value": 0,
                "dimension_separator": "/",
            }
        }

    def finish(self, store: tensorstore.TensorStore, request: CreateRequest) -> None:
        attributes = {
            # The names by which xarray and others find the axes.
            "_ARRAY_DIMENSIONS": ["z", "y", "x"],
            BLOCK_KEY: request.description.block(),
        }
        assert store.kvstore is not None
        store.kvstore.write(".zattrs", json.dumps(attributes).encode()).result()

    def interpret(self, store: tensorstore.TensorStore, request: OpenRequest) -> Meaning:
        assert store.kvstore is not None
        found = store.kvstore.read(".zattrs").result()
        try:
            attributes = json.loads(found.value) if found.state == "value" else {}
            block = attributes.get(BLOCK_KEY)
        except (ValueError, AttributeError) as error:
            raise VolumeFormatError(
                f"{request.location.uri} has damaged attributes (.zattrs): {error}; mend the file"
            ) from error
        description = read_block(block, uri=request.location.uri)
        return Meaning(view=_zyx_view(store, request), description=description)


class _Zarr3(Layout):
    name = "zarr3"
    driver = "zarr3"

    def is_array(self, folder: Path) -> bool:
        metadata = read_json(folder / "zarr.json")
        return metadata is None or metadata.get("node_type") == "array"

    def is_group(self, folder: Path) -> bool:
        metadata = read_json(folder / "zarr.json")
        return metadata is not None and metadata.get("node_type") == "group"

    def new_spec(self, request: CreateRequest) -> dict[str, Any]:
        self.require_dtype(request)
        block = request.description.block()
        return {
            "metadata": {
                "shape": list(request.shape),
                "data_type": request.dtype.name,
                "chunk_grid": {
                    "name": "regular",
                    "configuration": {"chunk_shape": list(_chunks(request))},
                },
                "codecs": [
                    {"name": "bytes", "configuration": {"endian": "little"}},
                    {"name": "zstd", "configuration": {"level": _ZSTD_LEVEL}},
                ],
                "fill_value": 0,
                "attributes": {BLOCK_KEY: block},
                "dimension_names": ["z", "y", "x"],
            }
        }

    def interpret(self, store: tensorstore.TensorStore, request: OpenRequest) -> Meaning:
        attributes = store.spec().to_json()["metadata"].get("attributes", {})
        description = read_block(attributes.get(BLOCK_KEY), uri=request.location.uri)
        return Meaning(view=_zyx_view(store, request), description=description)


class _N5(Layout):
    name = "n5"
    driver = "n5"

    def is_array(self, folder: Path) -> bool:
        metadata = read_json(folder / "attributes.json")
        return metadata is None or "dataType" in metadata

    def is_group(self, folder: Path) -> bool:
        metadata = read_json(folder / "attributes.json")
        return metadata is not None and "n5" in metadata

    def may_hold_arrays(self, folder: Path) -> bool:
        # Groups below the first need no attributes.
        return not self.is_array(folder)

    def new_spec(self, request: CreateRequest) -> dict[str, Any]:
        self.require_dtype(request)
        metadata: dict[str, Any] = {
            "dimensions": list(request.shape[::-1]),
            "blockSize": list(_chunks(request)[::-1]),
            "dataType": request.dtype.name,
            "compression": {"type": "gzip"},
            "axes": ["x", "y", "z"],
            BLOCK_KEY: request.description.block(),
        }
        if request.voxel_size is not None:
            size_xyz = request.voxel_size.zyx_nm[::-1]
            offset_xyz = request.offset[::-1]
            metadata["units"] = ["nm", "nm", "nm"]
            metadata["resolution"] = list(size_xyz)
            metadata["offset"] = [o * s for o, s in zip(offset_xyz, size_xyz, strict=True)]
        return {"metadata": metadata}

    def interpret(self, store: tensorstore.TensorStore, request: OpenRequest) -> Meaning:
        uri = request.location.uri
        metadata = store.spec().to_json()["metadata"]
        if BLOCK_KEY in metadata:
            description = read_block(metadata[BLOCK_KEY], uri=uri)
        else:
            voxel_size, offset = _n5_position(metadata, uri=uri)
            description = Description(voxel_size=voxel_size, offset=offset)
        return Meaning(view=_zyx_view(store.T, request), description=description)


def _n5_position(metadata: dict[str, Any], *, uri: str) -> tuple[VoxelSize | None, Zyx]:
    """Read resolution and offset (x, y, z, in units that default to nm) of other n5 tools."""
    resolution_xyz = metadata.get("resolution")
    units_xyz = metadata.get("units") or ["nm"] * 3
    if resolution_xyz is None:
        return None, (0, 0, 0)
    unknown = [unit for unit in units_xyz[:3] if unit not in _NM_PER_UNIT]
    if unknown or len(resolution_xyz) < len("xyz"):
        return None, (0, 0, 0)
    scale_xyz = [_NM_PER_UNIT[unit] for unit in units_xyz[:3]]
    size_xyz = [float(r) * s for r, s in zip(resolution_xyz[:3], scale_xyz, strict=True)]
    voxel_size = voxel_size_from(size_xyz[::-1], uri=uri)
    place_xyz = metadata.get("offset") or [0.0, 0.0, 0.0]
    voxels_xyz = [
        float(p) * s / size for p, s, size in zip(place_xyz[:3], scale_xyz, size_xyz, strict=True)
    ]
    whole_xyz = [round(v) for v in voxels_xyz]
    if any(abs(v - w) > _WHOLE_VOXEL_TOLERANCE for v, w in zip(voxels_xyz, whole_xyz, strict=True)):
        raise VolumeFormatError(
            f"{uri} declares the offset {place_xyz} (x,y,z), which is no whole number of voxels of "
            f"{resolution_xyz}: correct offset or resolution in its attributes.json"
        )
    return voxel_size, offset_from(whole_xyz[::-1], uri=uri)


class _Precomputed(Layout):
    name = "precomputed"
    driver = "neuroglancer_precomputed"
    dtypes = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "float32")

    def is_array(self, folder: Path) -> bool:
        # Other programs have files named info as well.
        metadata = read_json(folder / "info")
        if metadata is None:
            return (folder / "info").read_bytes()[:1] == b"{"
        return "scales" in metadata

    def new_spec(self, request: CreateRequest) -> dict[str, Any]:
        self.require_dtype(request)
        if request.voxel_size is None:
            raise VolumeFormatError(
                f"{request.location.uri}: precomputed volumes must state a voxel size and the data "
                "have none: give it as z,y,x in nanometres (--voxel-size)"
            )
        is_labels = request.dtype in (np.uint32, np.uint64)
        scale: dict[str, Any] = {
            "size": list(request.shape[::-1]),
            "voxel_offset": list(request.offset[::-1]),
            "resolution": list(request.voxel_size.zyx_nm[::-1]),
            "chunk_size": list(_chunks(request)[::-1]),
            "encoding": "compressed_segmentation" if is_labels else "raw",
        }
        if is_labels:
            scale["compressed_segmentation_block_size"] = _COMPRESSED_BLOCK_XYZ
        return {
            "multiscale_metadata": {
                "type": "segmentation" if is_labels else "image",
                "data_type": request.dtype.name,
                "num_channels": 1,
            },
            "scale_metadata": scale,
        }

    def interpret(self, store: tensorstore.TensorStore, request: OpenRequest) -> Meaning:
        scale = store.spec().to_json()["scale_metadata"]
        size_zyx = scale["resolution"][::-1]
        offset_zyx = scale.get("voxel_offset", [0, 0, 0])[::-1]
        return Meaning(
            view=_zyx_view(store.T, request),
            description=Description(
                voxel_size=voxel_size_from(size_zyx, uri=request.location.uri),
                offset=offset_from(offset_zyx, uri=request.location.uri),
            ),
        )


LAYOUTS: dict[str, Layout] = {
    layout.name: layout for layout in (_Zarr(), _Zarr3(), _N5(), _Precomputed())
}


def arrays_inside(folder: Path, layout: Layout) -> list[str]:
    """List the arrays of a format below a folder, by path inside it."""
    found: list[str] = []

    def walk(at: Path, names: tuple[str, ...]) -> None:
        if layout.is_array(at):
            found.append("/".join(names))
        elif len(names) < _MAX_GROUP_DEPTH and (not names or layout.may_hold_arrays(at)):
            for entry in sorted(at.iterdir()):
                if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith("."):
                    walk(entry, (*names, entry.name))

    if folder.is_dir():
        walk(folder, ())
    return found
