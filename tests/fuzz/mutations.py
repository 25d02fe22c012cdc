"""Ways to damage a file: bytes and a random generator in, other bytes out."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np

Mutation = Callable[[bytes, np.random.Generator], bytes]

HEADER_BYTES = 512
"""Where most formats keep what they declare."""

HUGE = (2**15 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)


def flip_bits(data: bytes, random: np.random.Generator) -> bytes:
    """Turn one to eight bits round, anywhere."""
    return _flip(data, random, within=len(data))


def flip_header_bits(data: bytes, random: np.random.Generator) -> bytes:
    """Turn bits round where sizes and types are declared."""
    return _flip(data, random, within=min(len(data), HEADER_BYTES))


def _flip(data: bytes, random: np.random.Generator, *, within: int) -> bytes:
    damaged = bytearray(data)
    for _ in range(int(random.integers(1, 9))):
        damaged[int(random.integers(within))] ^= 1 << int(random.integers(8))
    return bytes(damaged)


def truncate(data: bytes, random: np.random.Generator) -> bytes:
    """Cut the file short."""
    return data[: int(random.integers(len(data)))]


def declare_huge(data: bytes, random: np.random.Generator) -> bytes:
    """Put a huge number over an aligned word of the header."""
    damaged = bytearray(data)
    width = int(random.choice([2, 4, 8]))
    places = max(1, (min(len(data), HEADER_BYTES) - width) // 2)
    at = 2 * int(random.integers(places))
    value = int(HUGE[int(random.integers(len(HUGE)))]) % 2 ** (8 * width)
    damaged[at : at + width] = value.to_bytes(width, str(random.choice(["little", "big"])))
    return bytes(damaged[: max(len(data), at + width)])


def overwrite_block(data: bytes, random: np.random.Generator) -> bytes:
    """Put noise over a stretch of the file."""
    damaged = bytearray(data)
    length = int(random.integers(1, 65))
    at = int(random.integers(len(data)))
    damaged[at : at + length] = random.bytes(min(length, len(data) - at))
    return bytes(damaged)


def move_block(data: bytes, random: np.random.Generator) -> bytes:
    """Copy a stretch of the file over another."""
    damaged = bytearray(data)
    length = int(random.integers(1, 65))
    a, b = (int(random.integers(len(data))) for _ in range(2))
    piece = data[a : a + length]
    damaged[b : b + len(piece)] = piece
    return bytes(damaged[: len(data)])


BYTE_MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    flip_header_bits,
    truncate,
    declare_huge,
    overwrite_block,
    move_block,
)

_ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    0.5,
    1e308,
    *HUGE,
    10**40,
    "",
    "uint8",
    "../../etc/passwd",
    [],
    {},
    [1],
    [-1, -1, -1],
    [2**40, 2**40, 2**40],
    {"a": {"b": []}},
)


def mutate_json(data: bytes, random: np.random.Generator) -> bytes:
    """Change one to three values of a JSON document, or drop or double a key."""
    document = json.loads(data)
    for _ in range(int(random.integers(1, 4))):
        places = list(_places(document))
        if not places:
            break
        holder, key = places[int(random.integers(len(places)))]
        if random.random() < 0.15:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(_ODD_VALUES[int(random.integers(len(_ODD_VALUES)))])
    return json.dumps(document).encode()


def nest_json(data: bytes, random: np.random.Generator) -> bytes:
    """Nest a value so deep that a recursive parser runs out of stack."""
    depth = int(random.choice([1_000, 20_000, 200_000]))
    return b'{"shape": ' + b"[" * depth + b"]" * depth + b"}"


def _places(document: Any) -> Any:
    """Every (container, key) of a document."""
    items: list[tuple[Any, Any]] = []
    if isinstance(document, dict):
        items = list(document.items())
    elif isinstance(document, list):
        items = list(enumerate(document))
    for key, value in items:
        yield document, key
        yield from _places(value)
