"""What a pickle may ask for by name, made here without calling anything by that name.

In: a name of a module and one in it, and the plain values that a pickle hands to what
has this name. Out: a numpy array, type or number, a set, a deque, bytes or an
`OriginInfo`, each built from checked values by a function of ours.

References
----------
numpy, ``ndarray.__reduce__`` and ``dtype.__reduce__`` (the states that are built here);
Python, ``Lib/pickle.py`` (how protocol 2 writes bytes and sets).
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from floodem.geometry import Zyx

_TYPE_CODE = re.compile(r"b1|[iu][1248]|f[248]|[SU](0|[1-9][0-9]{0,8})|O8?")
"""Booleans, whole and real numbers, strings of fixed length, and Python objects."""

_BYTE_ORDERS = frozenset("<>|=")
_TYPE_STATE_VERSION, _TYPE_STATE_LENGTH = 3, 8
_ARRAY_STATE_VERSION, _ARRAY_STATE_LENGTH = 1, 5
_MOST_AXES = 32
_LARGEST_MAXLEN = 2**31

Array = np.ndarray[Any, np.dtype[Any]]


class OriginInfo(NamedTuple):
    """How a segment began, as the older programs keep it.

    Attributes
    ----------
    start_zyx
        Its seed, z, y, x, counted from the corner of the subvolume.
    iters
        Network calls of its flood.
    walltime_sec
        Seconds it took.
    """

    start_zyx: Zyx
    iters: int
    walltime_sec: float


class Refused(Exception):  # noqa: N818 - it becomes an error where the file's name is known
    """A pickle that holds what no result holds; the text says what."""


class Unfinished:
    """An array or type that a pickle has named and not yet described."""

    def __init__(self, build: Callable[[Any], Any]) -> None:
        self.build = build
        self.value: Any = None


def find(module: str, name: str) -> Callable[[tuple[Any, ...]], Any] | None:
    """Return what makes a value from the arguments that a pickle gives to this name.

    Returns
    -------
    callable or None
        None for every name that no result needs. `ARRAY_TYPE` is only an argument.
    """
    if name == "OriginInfo" and _is_storage_module(module):
        return _origin
    return _MAKERS.get((module, name))


def _is_storage_module(module: str) -> bool:
    return module == "ffn.inference.storage" or module.startswith("google3.")


def _origin(arguments: tuple[Any, ...]) -> OriginInfo:
    start, iters, seconds = _exactly(arguments, 3, what="OriginInfo")
    return OriginInfo(start, iters, seconds)


def ARRAY_TYPE(arguments: tuple[Any, ...]) -> Any:  # noqa: N802 - it stands for a class
    """Refuse to be called: arrays are made by ``_reconstruct``."""
    raise Refused("it calls numpy.ndarray")


def _type(arguments: tuple[Any, ...]) -> Unfinished:
    code, align, copy = _exactly(arguments, 3, what="numpy.dtype")
    if not isinstance(code, str) or not _TYPE_CODE.fullmatch(code):
        raise Refused(f"it holds values of type {code!r:.40}")
    if align not in {0, 1} or copy not in {0, 1}:
        raise Refused("it calls numpy.dtype with odd arguments")

    def build(state: Any) -> np.dtype[Any]:
        if not isinstance(state, tuple) or len(state) != _TYPE_STATE_LENGTH:
            raise Refused("a numpy type has a state that is not understood")
        version, order, subtype, names, fields, _size, _alignment, _flags = state
        is_plain = subtype is None and names is None and fields is None
        if version != _TYPE_STATE_VERSION or order not in _BYTE_ORDERS or not is_plain:
            raise Refused("a numpy type has a state that is not understood")
        return np.dtype(code[0] if code[0] == "O" else code).newbyteorder(order)

    return Unfinished(build)


def _reconstruct(arguments: tuple[Any, ...]) -> Unfinished:
    # Shape and type given here are placeholders that numpy replaces by those of the state.
    kind, _shape, _code = _exactly(arguments, 3, what="numpy _reconstruct")
    if kind is not ARRAY_TYPE:
        raise Refused("an array is to be of a class other than numpy.ndarray")
    return Unfinished(_array)


def _array(state: Any) -> Array:
    if not isinstance(state, tuple) or len(state) != _ARRAY_STATE_LENGTH:
        raise Refused("an array has a state that is not understood")
    version, shape, dtype, is_fortran, data = state
    if version != _ARRAY_STATE_VERSION or not isinstance(dtype, np.dtype):
        raise Refused("an array has a state that is not understood")
    if not _is_shape(shape):
        raise Refused(f"an array has the shape {shape!r:.40}")
    order: Literal["C", "F"] = "F" if is_fortran else "C"
    count = math.prod(shape)
    if dtype.hasobject:
        if not isinstance(data, list) or len(data) != count:
            raise Refused("an array of objects does not have as many as its shape says")
        return _object_array(data, shape, order=order)
    raw = _raw(data)
    if len(raw) != count * dtype.itemsize or not dtype.itemsize:
        raise Refused(f"an array of {count} {dtype} holds {len(raw)} bytes")
    if not count:
        return np.zeros(shape, dtype)
    array: Array = np.frombuffer(raw, dtype).reshape(shape, order=order)
    return array


def _object_array(values: list[Any], shape: tuple[int, ...], *, order: Literal["C", "F"]) -> Array:
    flat = np.empty(len(values), object)
    for index, value in enumerate(values):
        flat[index] = value
    return flat.reshape(shape, order=order)


def _is_shape(shape: Any) -> bool:
    return (
        isinstance(shape, tuple)
        and len(shape) <= _MOST_AXES
        and all(type(edge) is int and edge >= 0 for edge in shape)
        # An edge that is multiplied by 0 would otherwise be unbounded.
        and all(edge <= np.iinfo(np.int32).max for edge in shape)
    )


def _scalar(arguments: tuple[Any, ...]) -> Any:
    dtype, data = _exactly(arguments, 2, what="numpy scalar")
    raw = _raw(data)
    if not isinstance(dtype, np.dtype) or dtype.hasobject or len(raw) != dtype.itemsize:
        raise Refused("a numpy number does not have the bytes of its type")
    return np.frombuffer(raw, dtype)[0] if raw else dtype.type()


def _raw(data: Any) -> bytes:
    # Python 2 had one type for text and bytes; it was read as latin1.
    if isinstance(data, str):
        try:
            return data.encode("latin1")
        except UnicodeEncodeError:
            raise Refused("a text stands where bytes belong") from None
    if not isinstance(data, bytes):
        raise Refused("numbers are not given as bytes")
    return data


def _encode(arguments: tuple[Any, ...]) -> bytes:
    text, encoding = _exactly(arguments, 2, what="_codecs.encode")
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused("it calls _codecs.encode with odd arguments")
    return _raw(text)


def _no_bytes(arguments: tuple[Any, ...]) -> bytes:
    _exactly(arguments, 0, what="bytes")
    return b""


def is_key(value: Any) -> bool:
    """Tell whether a value may be a key or a member of a set: a number, a string, or a few."""
    simple = (int, str, bytes, np.integer)
    return isinstance(value, simple) or (
        type(value) is tuple and all(isinstance(part, simple) for part in value)
    )


def _set(arguments: tuple[Any, ...]) -> set[Any]:
    values = _optional_list(arguments, what="set")
    if not all(is_key(value) for value in values):
        raise Refused("a set holds other things than numbers and strings")
    return set(values)


def _deque(arguments: tuple[Any, ...]) -> deque[Any]:
    values = _optional_list(arguments[:1], what="deque")
    maxlen = arguments[1] if len(arguments) == 2 else None
    is_length = type(maxlen) is int and 0 <= maxlen < _LARGEST_MAXLEN
    if len(arguments) > 2 or not (maxlen is None or is_length):
        raise Refused("it calls collections.deque with odd arguments")
    return deque(values, maxlen)


def _optional_list(arguments: tuple[Any, ...], *, what: str) -> list[Any]:
    if not arguments or arguments == ((),):
        return []
    (values,) = _exactly(arguments, 1, what=what)
    if not isinstance(values, list):
        raise Refused(f"it calls {what} with odd arguments")
    return values


def _exactly(arguments: tuple[Any, ...], count: int, *, what: str) -> tuple[Any, ...]:
    if len(arguments) != count:
        raise Refused(f"it calls {what} with {len(arguments)} arguments instead of {count}")
    return arguments


_MAKERS: dict[tuple[str, str], Callable[[tuple[Any, ...]], Any]] = {
    ("numpy", "ndarray"): ARRAY_TYPE,
    ("numpy", "dtype"): _type,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("collections", "deque"): _deque,
    ("__builtin__", "set"): _set,
    ("builtins", "set"): _set,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    ("builtins", "bytes"): _no_bytes,
}
