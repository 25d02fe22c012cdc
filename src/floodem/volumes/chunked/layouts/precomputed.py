"""Neuroglancer's precomputed: arrays (x, y, z, c), all levels of a volume in one file ``info``.

Every scale states ``resolution`` in nm and ``voxel_offset`` (x, y, z); the type of
the volume, ``image`` or ``segmentation``, is its kind. Shards hold chunks that
follow one another on a compressed Morton curve, so that not every shape can be
had: see `sharding`. Reference: Neuroglancer, "precomputed" data source, volume
and sharded formats.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from floodem.errors import OptionError, VolumeFormatError
from floodem.geometry import Zyx
from floodem.volumes.chunked.layouts.folder import Folder, require_inside
from floodem.volumes.chunked.layouts.layout import (
    Documents,
    Layout,
    Level,
    Meaning,
    NewLevel,
    Pyramid,
    new_levels,
)
from floodem.volumes.damage import reading
from floodem.volumes.declared import DEFAULT_CHUNKS, offset_from, voxel_size_from
from floodem.volumes.description import Description
from floodem.volumes.registry import CreateRequest
from floodem.volumes.volume import Kind, likely_kind

if TYPE_CHECKING:
    import tensorstore

_METADATA = "info"
_KINDS = {"image": Kind.IMAGE, "segmentation": Kind.LABELS}
_COMPRESSED_BLOCK_XYZ = [8, 8, 8]
_ENCODINGS = {
    "raw": None,
    "compressed_segmentation": ("uint32", "uint64"),
    "jpeg": ("uint8",),
    "png": ("uint8", "uint16"),
}
"""Which types of voxel an encoding holds; None stands for all."""

_COMPRESSED = ("jpeg", "png")
"""Encodings that gain nothing from gzip."""

_MAX_PRESHIFT_BITS = 9
"""Chunks of one minishard, as a power of two: its index of 24 bytes each is read whole."""


class Precomputed(Layout):
    """Volumes with ``info``."""

    name = "precomputed"
    driver = "neuroglancer_precomputed"
    metadata = _METADATA
    dtypes = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "float32")
    usual_axes = {4: "xyzc"}  # noqa: RUF012 - never changed

    def is_array(self, folder: Folder) -> bool:
        """Tell whether a folder is a volume of this format, be it damaged."""
        # Other programs have files named info as well.
        metadata = folder.json(_METADATA)
        return folder.looks_like_json(_METADATA) if metadata is None else "scales" in metadata

    def pyramid(self, folder: Folder, *, uri: str) -> Pyramid | None:
        """Return the scales."""
        metadata = folder.json(_METADATA)
        if not metadata or "scales" not in metadata:
            return None
        with reading(uri, kind="a precomputed volume"):
            scales = metadata["scales"]
            if not isinstance(scales, list) or not scales:
                raise ValueError("its info lists no scales")
            for scale in scales:
                require_inside(scale["key"], uri=uri)
        return Pyramid(tuple(Level(folder=folder, scale_index=at) for at in range(len(scales))))

    def spec(self, level: Level) -> dict[str, Any]:
        """Return which scale to open."""
        return {"scale_index": level.scale_index or 0}

    def meaning(self, store: tensorstore.TensorStore, folder: Folder, *, uri: str) -> Meaning:
        """Read resolution, offset and type."""
        spec = store.spec().to_json()
        scale = spec["scale_metadata"]
        return Meaning(
            axes=self.usual_axes[store.rank],
            description=Description(
                voxel_size=voxel_size_from(scale["resolution"][::-1], uri=uri),
                offset=offset_from(scale.get("voxel_offset", [0, 0, 0])[::-1], uri=uri),
                kind=_KINDS.get(spec["multiscale_metadata"].get("type")),
            ),
        )

    def documents(self, request: CreateRequest) -> Documents:
        """Return ``info`` with every scale."""
        self.require_dtype(request)
        uri = request.location.uri
        if request.voxel_size is None:
            raise VolumeFormatError(
                f"{uri}: precomputed volumes must state a voxel size and the data "
                "have none: give it as z,y,x in nanometres (--voxel-size)"
            )
        kind = request.kind or _usual_kind(request)
        if kind is Kind.LABELS and request.dtype.kind == "f":
            raise VolumeFormatError(
                f"{uri}: precomputed segmentations hold whole numbers, not {request.dtype}; "
                "choose an integer type or store an image"
            )
        encoding = _encoding(request, kind)
        return {
            _METADATA: {
                "@type": "neuroglancer_multiscale_volume",
                "type": "segmentation" if kind is Kind.LABELS else "image",
                "data_type": request.dtype.name,
                "num_channels": request.channels,
                "scales": [_scale(level, encoding, request) for level in new_levels(request)],
            }
        }


def _usual_kind(request: CreateRequest) -> Kind:
    # Signed numbers are no ids.
    return likely_kind(request.dtype) if request.dtype.kind == "u" else Kind.IMAGE


def _encoding(request: CreateRequest, kind: Kind) -> str:
    uri, dtype = request.location.uri, request.dtype.name
    if request.encoding is None:
        is_fit = kind is Kind.LABELS and dtype in ("uint32", "uint64")
        return "compressed_segmentation" if is_fit else "raw"
    if request.encoding not in _ENCODINGS:
        raise OptionError(
            f"{uri}: precomputed volumes have no encoding {request.encoding!r}: choose one of "
            + ", ".join(_ENCODINGS)
        )
    dtypes = _ENCODINGS[request.encoding]
    if dtypes is not None and dtype not in dtypes:
        raise VolumeFormatError(
            f"{uri}: the encoding {request.encoding} holds {' and '.join(dtypes)}, not {dtype}; "
            "choose another encoding (raw holds every type)"
        )
    if request.encoding == "jpeg" and kind is Kind.LABELS:
        raise VolumeFormatError(
            f"{uri}: jpeg changes values, and labels must stay what they are: choose png, raw or "
            "compressed_segmentation"
        )
    return request.encoding


def _scale(level: NewLevel, encoding: str, request: CreateRequest) -> dict[str, Any]:
    assert level.description.voxel_size is not None
    resolution_xyz = level.description.voxel_size.zyx_nm[::-1]
    scale: dict[str, Any] = {
        "key": "_".join(f"{size:g}" for size in resolution_xyz),
        "size": list(level.box.shape[::-1]),
        "voxel_offset": list(level.box.start[::-1]),
        "resolution": list(resolution_xyz),
        "chunk_sizes": [list(level.chunks[::-1])],
        "encoding": encoding,
    }
    if encoding == "compressed_segmentation":
        scale["compressed_segmentation_block_size"] = _COMPRESSED_BLOCK_XYZ
    if request.shards is not None:
        chunks = request.chunks or DEFAULT_CHUNKS
        scale["sharding"] = sharding(
            level.box.shape,
            level.chunks,
            chunks_per_shard=math.prod(s // c for s, c in zip(request.shards, chunks, strict=True)),
            is_compressed=encoding in _COMPRESSED,
        )
    return scale


def sharding(
    shape: Zyx, chunks: Zyx, *, chunks_per_shard: int, is_compressed: bool
) -> dict[str, Any]:
    """Return the sharding of a scale whose shards hold about as many chunks.

    The chunks of a shard follow one another on a Morton curve: bits of x, y and z
    in turn, an axis leaving off when its chunks are numbered. A shard therefore
    holds a power of two of chunks, here the nearest one, and is as near to a cube
    (in chunks) as the volume allows; what it covers then is `Volume.chunks`.

    Parameters
    ----------
    shape, chunks
        In voxels, z, y, x.
    chunks_per_shard
        How many are asked for.
    is_compressed
        Whether gzip would be of no use.
    """
    grid = [-(-length // chunk) for length, chunk in zip(shape, chunks, strict=True)]
    all_bits = sum((count - 1).bit_length() for count in grid)
    shard_chunk_bits = min(round(math.log2(chunks_per_shard)), all_bits)
    preshift_bits = min(shard_chunk_bits, _MAX_PRESHIFT_BITS)
    return {
        "@type": "neuroglancer_uint64_sharded_v1",
        "hash": "identity",
        "preshift_bits": preshift_bits,
        "minishard_bits": shard_chunk_bits - preshift_bits,
        "shard_bits": all_bits - shard_chunk_bits,
        "minishard_index_encoding": "gzip",
        "data_encoding": "raw" if is_compressed else "gzip",
    }
