"""Pickles that the older programs read: plain values in, bytes out, by fixed opcodes.

Protocol 2, so that Python 2.7 reads it as well. Arrays and their types are written as
numpy writes them, under ``numpy.core.multiarray``, which every numpy since 1.0 knows,
and origins under the class that those programs have, ``ffn.inference.storage.OriginInfo``.
Nothing else has a name in what is written here.

References
----------
Python, ``Lib/pickletools.py``; numpy, ``ndarray.__reduce__`` and ``dtype.__reduce__``.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from floodem.errors import VolumeFormatError
from floodem.legacy.results.admitted import Array, OriginInfo, is_key

_PROTOCOL, _STOP = b"\x80\x02", b"."
_ORIGIN = b"cffn.inference.storage\nOriginInfo\n"
_RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
_SCALAR = b"cnumpy.core.multiarray\nscalar\n"
_ARRAY, _TYPE = b"cnumpy\nndarray\n", b"cnumpy\ndtype\n"
_SET, _DEQUE = b"c__builtin__\nset\n", b"ccollections\ndeque\n"
_ENCODE, _NO_BYTES = b"c_codecs\nencode\n", b"c__builtin__\nbytes\n)R"
_MARK, _NONE, _TRUE, _FALSE = b"(", b"N", b"\x88", b"\x89"
_LIST, _DICT, _EMPTY_TUPLE = b"]", b"}", b")"
_APPENDS, _SETITEMS, _TUPLE = b"e", b"u", b"t"
_CALL, _NEW, _BUILD = b"R", b"\x81", b"b"

_LONGEST_SHORT_STRING = 255
_LARGEST_WHOLE_NUMBER = 2**64
_DEEPEST = 16

# The last three numbers of a type's state: size and alignment where they follow from the
# code (-1), and flags: none, those of Python objects, those of text.
_NO_SIZE, _NO_FLAGS, _OBJECT_FLAGS, _UNICODE_FLAGS = -1, 0, 63, 8
_UCS4_BYTES = 4


def dump(value: Any) -> bytes:
    """Return the pickle of one value.

    Parameters
    ----------
    value
        Made of None, booleans, whole numbers of up to 64 bits, real numbers, text,
        bytes, tuples, lists, dictionaries, sets, deques, numpy arrays and numbers,
        and `OriginInfo`.

    Raises
    ------
    VolumeFormatError
        When it holds anything else, or nests without end.
    """
    return _PROTOCOL + b"".join(_value(value, _DEEPEST)) + _STOP


def dump_object(value: Any) -> bytes:
    """Return the pickle that stands in an npy member for one object: an array around it."""
    array: Array = np.empty((), object)
    array[()] = value
    return dump(array)


def dump_origins(origins: Mapping[int, OriginInfo]) -> bytes:
    """Return the pickle that stands in the member ``origins``."""
    return dump_object({int(segment): OriginInfo(*info) for segment, info in origins.items()})


def _value(value: Any, depth: int) -> Iterable[bytes]:
    if depth < 0:
        raise VolumeFormatError(
            f"a value nests deeper than {_DEEPEST} and cannot be written for the older program"
        )
    if value is None:
        yield _NONE
    elif isinstance(value, bool):
        yield _TRUE if value else _FALSE
    elif isinstance(value, np.generic):
        yield from _number(value)
    elif isinstance(value, int):
        yield _whole(value)
    elif isinstance(value, float):
        yield b"G" + struct.pack(">d", value)
    elif isinstance(value, str):
        yield _text(value)
    elif isinstance(value, bytes):
        yield _bytes(value)
    else:
        yield from _container(value, depth - 1)


def _container(value: Any, depth: int) -> Iterable[bytes]:
    if isinstance(value, OriginInfo):
        yield _ORIGIN
        yield from _tuple(value, depth)
        yield _NEW
    elif isinstance(value, tuple):
        yield from _tuple(value, depth)
    elif isinstance(value, list):
        yield from _list(value, depth)
    elif isinstance(value, dict):
        yield _DICT + _MARK
        for key, held in value.items():
            yield from _value(_required_key(key), depth)
            yield from _value(held, depth)
        yield _SETITEMS
    elif isinstance(value, set | deque):
        # In Python 2 both are made of a list.
        yield _DEQUE if isinstance(value, deque) else _SET
        members = value if isinstance(value, deque) else [_required_key(key) for key in value]
        maxlen = (value.maxlen,) if isinstance(value, deque) and value.maxlen is not None else ()
        yield from _tuple((list(members), *maxlen), depth)
        yield _CALL
    elif isinstance(value, np.ndarray):
        yield from _array(value, depth)
    else:
        raise VolumeFormatError(
            f"{type(value).__name__} cannot be written for the older program: only plain values, "
            "arrays and origins can"
        )


def _required_key(key: Any) -> Any:
    if not is_key(key):
        raise VolumeFormatError(f"{key!r:.40} cannot be a key: numbers, strings and tuples can")
    return key


def _list(values: list[Any], depth: int) -> Iterable[bytes]:
    yield _LIST + _MARK
    for one in values:
        yield from _value(one, depth)
    yield _APPENDS


def _tuple(values: tuple[Any, ...], depth: int) -> Iterable[bytes]:
    if not values:
        yield _EMPTY_TUPLE
        return
    yield _MARK
    for one in values:
        yield from _value(one, depth)
    yield _TUPLE


def _array(array: Array, depth: int) -> Iterable[bytes]:
    yield _RECONSTRUCT + _MARK + _ARRAY + _whole(0) + b"\x85" + _text("b") + _TUPLE + _CALL
    is_fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    yield _MARK + _whole(1)
    yield from _tuple(array.shape, depth)
    yield _type(array.dtype)
    yield _TRUE if is_fortran else _FALSE
    if array.dtype.hasobject:
        yield from _list(list(array.ravel(order="F" if is_fortran else "C")), depth)
    else:
        yield _bytes(array.tobytes(order="A"))
    yield _TUPLE + _BUILD


def _number(value: np.generic) -> Iterable[bytes]:
    # Of an empty string numpy gives one byte, which its type does not have.
    data = value.tobytes()[: value.dtype.itemsize]
    yield _SCALAR + _MARK + _type(value.dtype) + _bytes(data) + _TUPLE + _CALL


def _type(dtype: np.dtype[Any]) -> bytes:
    kind = dtype.kind
    if kind not in "biufSUO":
        raise VolumeFormatError(
            f"values of type {dtype} cannot be written for the older program: only numbers and "
            "strings can"
        )
    size = dtype.itemsize // _UCS4_BYTES if kind == "U" else dtype.itemsize
    sizes = _whole(_NO_SIZE) * 2
    if kind in "SU":
        sizes = _whole(dtype.itemsize) + _whole(_UCS4_BYTES if kind == "U" else 1)
    flags = {"O": _OBJECT_FLAGS, "U": _UNICODE_FLAGS}.get(kind, _NO_FLAGS)
    call = _TYPE + _MARK + _text(f"{kind}{size}") + _whole(0) + _whole(1) + _TUPLE + _CALL
    state = _whole(3) + _text(dtype.str[0]) + _NONE * 3 + sizes + _whole(flags)
    return call + _MARK + state + _TUPLE + _BUILD


def _whole(value: int) -> bytes:
    if 0 <= value < 2**8:
        return b"K" + struct.pack("<B", value)
    if 0 <= value < 2**16:
        return b"M" + struct.pack("<H", value)
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    if abs(value) >= _LARGEST_WHOLE_NUMBER:
        raise VolumeFormatError(f"{value} has more than 64 bits: give a smaller number")
    length = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([length]) + value.to_bytes(length, "little", signed=True)


def _text(text: str) -> bytes:
    if text.isascii() and len(text) <= _LONGEST_SHORT_STRING:
        # The text of Python 2; Python 3 decodes it as ASCII.
        return b"U" + bytes([len(text)]) + text.encode("ascii")
    return _unicode(text)


def _unicode(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def _bytes(data: bytes) -> bytes:
    """Write bytes as Python 3 does for Python 2: each byte as the character of its number."""
    if not data:
        return _NO_BYTES
    return _ENCODE + _unicode(data.decode("latin1")) + _text("latin1") + b"\x86" + _CALL
