"""Shards by the words of their specification: one id at a time, slow and obvious."""

from __future__ import annotations

import gzip
import struct

MASK = 0xFFFFFFFF


def murmurhash3_x86_128_low64(key: int) -> int:
    """MurmurHash3.cpp, MurmurHash3_x86_128 with seed 0, for the eight bytes of a key."""

    def rotl(x: int, r: int) -> int:
        return ((x << r) | (x >> (32 - r))) & MASK

    def fmix(h: int) -> int:
        h ^= h >> 16
        h = h * 0x85EBCA6B & MASK
        h ^= h >> 13
        h = h * 0xC2B2AE35 & MASK
        return h ^ (h >> 16)

    c1, c2, c3 = 0x239B961B, 0xAB0E9789, 0x38B34AE5
    low, high = struct.unpack("<II", struct.pack("<Q", key))
    h1 = h2 = h3 = h4 = 0
    k2 = rotl(high * c2 & MASK, 16) * c3 & MASK
    h2 ^= k2
    k1 = rotl(low * c1 & MASK, 15) * c2 & MASK
    h1 ^= k1
    h1, h2, h3, h4 = (h ^ 8 for h in (h1, h2, h3, h4))
    h1 = (h1 + h2 + h3 + h4) & MASK
    h2, h3, h4 = ((h + h1) & MASK for h in (h2, h3, h4))
    h1, h2, h3, h4 = (fmix(h) for h in (h1, h2, h3, h4))
    h1 = (h1 + h2 + h3 + h4) & MASK
    h2 = (h2 + h1) & MASK
    return h1 | h2 << 32


def location(sharding: dict, key: int) -> tuple[int, int]:
    """Return the shard and the minishard of a key."""
    key >>= sharding["preshift_bits"]
    if sharding["hash"] == "murmurhash3_x86_128":
        key = murmurhash3_x86_128_low64(key)
    minishard = key % 2 ** sharding["minishard_bits"]
    shard = key // 2 ** sharding["minishard_bits"] % 2 ** sharding["shard_bits"]
    return shard, minishard


def read(sharding: dict, shard: bytes, key: int) -> bytes | None:
    """Return the data of a key from the bytes of its shard."""
    _, minishard = location(sharding, key)
    head = 16 * 2 ** sharding["minishard_bits"]
    start, stop = struct.unpack_from("<QQ", shard, 16 * minishard)
    index = shard[head + start : head + stop]
    if not index:
        return None
    if sharding["minishard_index_encoding"] == "gzip":
        index = gzip.decompress(index)
    count = len(index) // 24
    values = struct.unpack(f"<{3 * count}Q", index)
    found, end = 0, head
    for number in range(count):
        found += values[number]
        begin = end + values[count + number]
        end = begin + values[2 * count + number]
        if found == key:
            data = shard[begin:end]
            return gzip.decompress(data) if sharding["data_encoding"] == "gzip" else data
    return None
