"""Which shard holds which object: ids come in, numbers of shards and minishards go out.

Format: neuroglancer_uint64_sharded_v1 (google/neuroglancer,
src/datasource/precomputed/sharded.md), for meshes and skeletons alike.
`floodem.shapes.precomputed.shards` writes and reads the files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from jaxtyping import UInt32, UInt64

from floodem.errors import OptionError
from floodem.volumes.damage import damaged

Hash = Literal["identity", "murmurhash3_x86_128"]
Encoding = Literal["raw", "gzip"]

SHARDING_TYPE = "neuroglancer_uint64_sharded_v1"

MAX_MINISHARD_BITS = 20
"""The index at the head of a shard has 16 bytes for each minishard: 16 MiB at most."""

MAX_SHARD_BITS = 40
"""No store holds more files in one folder, by far."""

_ID_BITS = 64

_IDS_PER_MINISHARD = 512
"""Its index is read whole before any of its objects: 12 KiB, one packet train."""

_MINISHARD_BITS_WANTED = 9
"""Readers like CloudVolume fetch the index of all minishards of a shard: 8 KiB."""

_SHARD_BYTES_WANTED = 256 * 2**20
"""Few enough files for object stores, and small enough to be written again in one go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardingSpec:
    """How ids are spread over shards and minishards, and how data are packed.

    Attributes
    ----------
    preshift_bits
        So many low bits of an id do not matter: neighbours stay together.
    hash
        What is done to the rest of an id before its low bits choose the minishard and
        the bits above those the shard.
    minishard_bits, shard_bits
        Their numbers, as powers of two.
    minishard_index_encoding, data_encoding
        ``raw`` or ``gzip``. Fragments of multi-resolution meshes are never packed.

    Raises
    ------
    OptionError
        When the numbers are impossible.
    """

    minishard_bits: int
    shard_bits: int
    preshift_bits: int = 0
    hash: Hash = "murmurhash3_x86_128"
    minishard_index_encoding: Encoding = "gzip"
    data_encoding: Encoding = "gzip"

    def __post_init__(self) -> None:
        limits = {
            "preshift_bits": _ID_BITS - 1,
            "minishard_bits": MAX_MINISHARD_BITS,
            "shard_bits": MAX_SHARD_BITS,
        }
        for name, limit in limits.items():
            bits = getattr(self, name)
            if not (isinstance(bits, int) and not isinstance(bits, bool) and 0 <= bits <= limit):
                raise OptionError(f"{name} of shards is {bits!r}: give a number from 0 to {limit}")
        if self.hash not in {"identity", "murmurhash3_x86_128"}:
            raise OptionError(
                f"the hash of shards is {self.hash!r}: use identity or murmurhash3_x86_128"
            )
        for name in ("minishard_index_encoding", "data_encoding"):
            if getattr(self, name) not in {"raw", "gzip"}:
                raise OptionError(f"{name} of shards is {getattr(self, name)!r}: use raw or gzip")

    @property
    def index_bytes(self) -> int:
        """Size of the index at the head of each shard; offsets in a shard count from its end."""
        return 16 << self.minishard_bits

    def shard_of(self, ids: UInt64[np.ndarray, "ids"]) -> UInt64[np.ndarray, "ids"]:
        """Return the number of each id's shard."""
        mask = np.uint64((1 << self.shard_bits) - 1)
        shards: UInt64[np.ndarray, "ids"] = (
            self._hashed(ids) >> np.uint64(self.minishard_bits)
        ) & mask
        return shards

    def minishard_of(self, ids: UInt64[np.ndarray, "ids"]) -> UInt64[np.ndarray, "ids"]:
        """Return the number of each id's minishard within its shard."""
        minishards: UInt64[np.ndarray, "ids"] = self._hashed(ids) & np.uint64(
            (1 << self.minishard_bits) - 1
        )
        return minishards

    def group_by_shard(
        self, ids: UInt64[np.ndarray, "ids"]
    ) -> dict[int, UInt64[np.ndarray, "..."]]:
        """Return the ids of each shard that has some, ascending, by shard number.

        Ids come out in the order in which a shard takes them, each once.
        """
        ordered = np.unique(ids)
        shards = self.shard_of(ordered)
        order = np.argsort(shards, kind="stable")
        numbers, starts = np.unique(shards[order], return_index=True)
        bounds = [*starts.tolist(), len(ordered)]
        return {
            int(number): ordered[order[bounds[row] : bounds[row + 1]]]
            for row, number in enumerate(numbers)
        }

    def file_name(self, shard: int) -> str:
        """Return the name of a shard's file."""
        return f"{shard:0{math.ceil(self.shard_bits / 4)}x}.shard"

    def to_json(self) -> dict[str, Any]:
        """Return what stands under ``sharding`` in an info file."""
        return {
            "@type": SHARDING_TYPE,
            "preshift_bits": self.preshift_bits,
            "hash": self.hash,
            "minishard_bits": self.minishard_bits,
            "shard_bits": self.shard_bits,
            "minishard_index_encoding": self.minishard_index_encoding,
            "data_encoding": self.data_encoding,
        }

    @classmethod
    def from_json(cls, values: Any, *, uri: object) -> Self:
        """Read what stands under ``sharding`` in an info file.

        Raises
        ------
        VolumeFormatError
            When it is no such thing.
        """
        kind = "a sharding specification"
        if not isinstance(values, Mapping) or values.get("@type") != SHARDING_TYPE:
            raise damaged(uri, kind=kind, reason=f"its @type is not {SHARDING_TYPE}")
        try:
            return cls(
                preshift_bits=values.get("preshift_bits", 0),
                hash=values.get("hash", ""),
                minishard_bits=values.get("minishard_bits", -1),
                shard_bits=values.get("shard_bits", -1),
                minishard_index_encoding=values.get("minishard_index_encoding", "raw"),
                data_encoding=values.get("data_encoding", "raw"),
            )
        except (OptionError, TypeError) as error:
            raise damaged(uri, kind=kind, reason=error) from error

    def _hashed(self, ids: UInt64[np.ndarray, "ids"]) -> UInt64[np.ndarray, "ids"]:
        shifted: UInt64[np.ndarray, "ids"] = ids >> np.uint64(self.preshift_bits)
        return shifted if self.hash == "identity" else murmurhash3(shifted)


def choose_sharding(count: int, total_bytes: int) -> ShardingSpec:
    """Return a spread of `count` objects of `total_bytes` together that reads quickly.

    Shards of about 256 MiB at most, of no more than 512 minishards of about 512
    objects each: a reader fetches at most about 8 and 12 KiB of indices for an object.

    Raises
    ------
    OptionError
        When a number is negative.
    """
    if count < 0 or total_bytes < 0:
        raise OptionError(
            f"{count} objects of {total_bytes} bytes cannot be spread over shards: "
            "give numbers of at least 0"
        )
    bits = _bits_for(count / _IDS_PER_MINISHARD)
    shard_bits = max(bits - _MINISHARD_BITS_WANTED, _bits_for(total_bytes / _SHARD_BYTES_WANTED))
    shard_bits = min(shard_bits, MAX_SHARD_BITS)
    minishard_bits = min(max(bits - shard_bits, 0), MAX_MINISHARD_BITS)
    return ShardingSpec(minishard_bits=minishard_bits, shard_bits=shard_bits)


def _bits_for(parts: float) -> int:
    """Return the power of two that is at least `parts`."""
    return (max(math.ceil(parts), 1) - 1).bit_length()


def murmurhash3(keys: UInt64[np.ndarray, "ids"]) -> UInt64[np.ndarray, "ids"]:
    """Return the low 64 bits of MurmurHash3_x86_128 (seed 0) of each key, little-endian.

    For eight bytes the function has a tail only, of two 32-bit words.

    References
    ----------
    Appleby, SMHasher, MurmurHash3.cpp (public domain).
    """
    with np.errstate(over="ignore"):
        low = _rotated(keys.astype(np.uint32) * _C1, 15) * _C2
        high = _rotated((keys >> np.uint64(32)).astype(np.uint32) * _C2, 16) * _C3
        length = np.uint32(8)
        # The third and the fourth word have no input and stay equal to the length.
        h1, h2, h3 = low ^ length, high ^ length, np.full_like(low, length)
        h1 = h1 + h2 + h3 + h3
        h2, h3 = h2 + h1, h3 + h1
        h1, h2, h3 = _mixed(h1), _mixed(h2), _mixed(h3)
        h1 = h1 + h2 + h3 + h3
        h2 += h1
    hashes: UInt64[np.ndarray, "ids"] = h1.astype(np.uint64) | h2.astype(np.uint64) << np.uint64(32)
    return hashes


# Constants of MurmurHash3_x86_128 and of its final mix (Appleby, as above).
_C1, _C2, _C3 = np.uint32(0x239B961B), np.uint32(0xAB0E9789), np.uint32(0x38B34AE5)
_MIX1, _MIX2 = np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)


def _rotated(words: UInt32[np.ndarray, "ids"], by: int) -> UInt32[np.ndarray, "ids"]:
    rotated: UInt32[np.ndarray, "ids"] = words << np.uint32(by) | words >> np.uint32(32 - by)
    return rotated


def _mixed(words: UInt32[np.ndarray, "ids"]) -> UInt32[np.ndarray, "ids"]:
    words = (words ^ words >> np.uint32(16)) * _MIX1
    words = (words ^ words >> np.uint32(13)) * _MIX2
    mixed: UInt32[np.ndarray, "ids"] = words ^ words >> np.uint32(16)
    return mixed
