"""What the metadata files of chunked stores declare: parsed JSON in, plain facts out.

Everything is in the order in which the store has its axes. Metadata of another
shape than expected raise KeyError, TypeError and the like; whoever asks treats
these as facts that are not known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from floodem.errors import FloodemError

UNEXPECTED = (KeyError, IndexError, TypeError, ValueError, AttributeError, OSError, FloodemError)
"""What reading metadata of another shape than expected raises."""

UNCOMPRESSED = "uncompressed"
_NO_COMPRESSION = ("bytes", "endian", "transpose", "crc32c")
_SHARDING = "sharding_indexed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What metadata say of an array, in stored axis order; None where they are silent."""

    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...] | None = None
    shards: tuple[int, ...] | None = None
    encoding: str | None = None
    axes: str | None = None


METADATA_FILES = {
    "zarr": ".zarray",
    "zarr3": "zarr.json",
    "n5": "attributes.json",
    "precomputed": "info",
}


def _zarr2(metadata: Any, level: int) -> Declared:
    compressor = metadata["compressor"]
    return Declared(
        shape=lengths(metadata["shape"]),
        dtype=np.dtype(metadata["dtype"]).name,
        chunks=lengths(metadata["chunks"]),
        encoding=_codec(compressor["id"], compressor) if compressor else UNCOMPRESSED,
    )


def _zarr3(metadata: Any, level: int) -> Declared:
    from floodem.volumes.chunked.layouts.layout import named_axes

    chunks = lengths(metadata["chunk_grid"]["configuration"]["chunk_shape"])
    codecs, shards = metadata["codecs"], None
    if codecs[0]["name"] == _SHARDING:
        inner = codecs[0]["configuration"]
        shards, chunks, codecs = chunks, lengths(inner["chunk_shape"]), inner["codecs"]
    words = [
        _codec(codec["name"], codec.get("configuration", {}))
        for codec in codecs
        if codec["name"] not in _NO_COMPRESSION
    ]
    return Declared(
        shape=lengths(metadata["shape"]),
        dtype=str(metadata["data_type"]),
        chunks=chunks,
        shards=shards,
        encoding=", ".join(words) or UNCOMPRESSED,
        axes=named_axes(metadata.get("dimension_names")),
    )


def _n5(metadata: Any, level: int) -> Declared:
    compression = metadata["compression"]
    kind = compression["type"]
    return Declared(
        shape=lengths(metadata["dimensions"]),
        dtype=str(metadata["dataType"]),
        chunks=lengths(metadata["blockSize"]),
        encoding=UNCOMPRESSED if kind == "raw" else _codec(kind, compression),
    )


def _precomputed(metadata: Any, level: int) -> Declared:
    scale, channels = metadata["scales"][level], int(metadata["num_channels"])
    return Declared(
        shape=(*lengths(scale["size"]), channels),
        dtype=str(metadata["data_type"]),
        chunks=(*lengths(scale["chunk_sizes"][0]), channels),
        encoding=scale["encoding"] + (", sharded" if scale.get("sharding") else ""),
    )


READERS: dict[str, Callable[[Any, int], Declared]] = {
    "zarr": _zarr2,
    "zarr3": _zarr3,
    "n5": _n5,
    "precomputed": _precomputed,
}


def lengths(values: Sequence[Any]) -> tuple[int, ...]:
    """Return declared lengths as plain integers."""
    return tuple(int(value) for value in values)


def _codec(name: str, configuration: Any) -> str:
    inner = configuration.get("cname")
    return f"{name} ({inner})" if inner else str(name)
