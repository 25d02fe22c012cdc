"""Pickles of old results, read by an interpreter of our own: bytes in, plain values out.

Python's unpickler with a ``find_class`` that admits little would still call what it
admits with arguments of the file's choice (``numpy.dtype``, ``_reconstruct`` with any
shape, ``ndarray.__setstate__`` on any bytes) and set attributes. Here no name of a file
ever becomes something that can be called: names are looked up in a table of our own
functions (floodem.legacy.results.admitted), opcodes that no result needs are refused,
and what is built is counted, so that a small file cannot make a large value, and a
value can neither contain itself nor nest without end.

References
----------
Python, ``Lib/pickletools.py`` (opcodes and their arguments), protocols 2 to 5.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from floodem.errors import UnsafeFileError
from floodem.legacy.results.admitted import (
    ARRAY_TYPE,
    OriginInfo,
    Refused,
    Unfinished,
    find,
    is_key,
)
from floodem.volumes.damage import in_one_line

LARGEST_PICKLE = 64 * 2**20
"""Bytes of one pickle: the origins of some hundred thousand segments."""

_MOST_MEMORY = 2 * 2**30
_MEMORY_PER_BYTE, _MEMORY_SLACK = 64, 2**20
"""Honest results take up to about 30 bytes of memory for each byte of pickle."""

_DEEPEST = 32
_LONGEST_NAME = 256
_LONGEST_NUMBER = 40
_LARGEST_WHOLE_NUMBER = 2**64
_WHOLE_NUMBER_BYTES = 9
_PROTOCOLS = range(2, 6)

# What one of these takes in memory, from sys.getsizeof; entries are pointers with their hash.
_OBJECT_BYTES, _LIST_BYTES, _SET_BYTES = 64, 96, 248
_ENTRY_BYTES, _POINTER_BYTES, _MEMO_BYTES = 104, 16, 120

_MUTABLE = (list, dict, set, deque)
_LEAF = (0, 1)

_Facts = tuple[int, int]
"""How deep a value nests, and of how many values it consists where shared ones count each time."""


class _Name:
    """A class or function that a pickle names; it is never looked up in Python."""

    def __init__(self, module: str, name: str) -> None:
        make = find(module, name)
        if make is None:
            raise Refused(f"it asks for {module}.{name}"[: _LONGEST_NAME // 2])
        self.make = make


class _Arguments(tuple[Any, ...]):
    """A tuple with a `_Name` in it, which is good for a call and nothing else."""

    __slots__ = ()


_NO_VALUES = (_Name, _Arguments, Unfinished)


def load_restricted(data: bytes, *, source: str = "the pickle") -> Any:
    """Return what a pickle holds, when it holds nothing but what results of floods need.

    That is: tuples, lists, dictionaries, sets, deques, numbers, strings (those of
    Python 2 as latin1), bytes, numpy numbers and arrays, and `OriginInfo` under
    ``ffn.inference.storage`` or any ``google3`` module.

    Parameters
    ----------
    data
        One pickle, protocol 2 to 5, and nothing after it.
    source
        What the message calls it.

    Raises
    ------
    UnsafeFileError
        When it asks for anything else, is damaged, or would take more memory than
        honest ones of its size. Nothing was executed.
    """
    if len(data) > LARGEST_PICKLE:
        raise UnsafeFileError(
            f"{source} has {len(data)} bytes of pickle, and no more than {LARGEST_PICKLE} are "
            "read: split the result into smaller subvolumes"
        )
    try:
        return _Machine(data).run()
    except Refused as refusal:
        reason = in_one_line(refusal)
    except (IndexError, KeyError, ValueError, OverflowError, TypeError, struct.error) as error:
        reason = f"it is damaged, {type(error).__name__}"
    raise UnsafeFileError(
        f"{source} is no pickle of an old result: {reason}; nothing of it was executed, and it is "
        "damaged, made for something else or made to do harm"
    ) from None


class _Machine:
    """The stack machine that a pickle is a program of, without the dangerous opcodes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self.stack: list[Any] = []
        self.facts: list[_Facts] = []
        self.marks: list[int] = []
        self.memo: dict[int, tuple[Any, _Facts]] = {}
        allowed = len(data) * _MEMORY_PER_BYTE + _MEMORY_SLACK
        self._memory_left = min(allowed, _MOST_MEMORY)
        self._most_values = allowed

    def run(self) -> Any:
        if self.take(1) != b"\x80" or self.take(1)[0] not in _PROTOCOLS:
            raise Refused("it does not begin as a pickle of protocol 2 to 5")
        while True:
            opcode = self.take(1)[0]
            if opcode == _STOP:
                break
            step = _STEPS.get(opcode)
            if step is None:
                raise Refused(f"it uses the opcode {bytes([opcode])!r}, which no result needs")
            step(self)
        if self._at != len(self._data) or len(self.stack) != 1 or self.marks:
            raise Refused("something is left over at its end")
        return self.pop_value()[0]

    # --- bytes -------------------------------------------------------------------------------

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) != count:
            raise Refused("it ends too early")
        self._at += count
        return taken

    def take_number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def take_line(self, longest: int) -> str:
        end = self._data.find(b"\n", self._at, self._at + longest + 1)
        if end < 0:
            raise Refused("a name or number in it has no end")
        line = self._data[self._at : end]
        self._at = end + 1
        return line.decode("ascii")

    # --- the stack ---------------------------------------------------------------------------

    def charge(self, count: int) -> None:
        self._memory_left -= count
        if self._memory_left < 0:
            raise Refused("it takes far more memory than honest ones of its size")

    def push(self, value: Any, facts: _Facts = _LEAF, *, memory: int = _OBJECT_BYTES) -> None:
        self.charge(memory)
        if facts[0] > _DEEPEST:
            raise Refused(f"it nests deeper than {_DEEPEST} values")
        if facts[1] > self._most_values:
            raise Refused("it repeats values without end")
        self.stack.append(value)
        self.facts.append(facts)

    def mark(self) -> None:
        self.charge(_OBJECT_BYTES)
        self.marks.append(len(self.stack))

    def pop(self) -> tuple[Any, _Facts]:
        if not self.stack or (self.marks and len(self.stack) <= self.marks[-1]):
            raise Refused("a value is missing in it")
        return self.stack.pop(), self.facts.pop()

    def pop_value(self) -> tuple[Any, _Facts]:
        value, facts = self.pop()
        if isinstance(value, _NO_VALUES):
            raise Refused("a class or something unfinished stands where a value belongs")
        return value, facts

    def pop_to_mark(self, *, names: bool = False) -> tuple[list[Any], list[_Facts]]:
        start = self.marks.pop()
        values, facts = self.stack[start:], self.facts[start:]
        del self.stack[start:], self.facts[start:]
        refused = (_Arguments, Unfinished) if names else _NO_VALUES
        if any(isinstance(value, refused) for value in values):
            raise Refused("a class or something unfinished stands where a value belongs")
        return values, facts

    # --- values ------------------------------------------------------------------------------

    def add_text(self, form: str, encoding: str, errors: str = "strict") -> None:
        text = self.take(self.take_number(form)).decode(encoding, errors)
        self.push(text, memory=_OBJECT_BYTES + 4 * len(text))

    def add_bytes(self, form: str) -> None:
        data = self.take(self.take_number(form))
        self.push(data, memory=_OBJECT_BYTES + len(data))

    def whole_number(self, length: int) -> None:
        if length > _WHOLE_NUMBER_BYTES:
            raise Refused("a whole number in it has more than 64 bits")
        self.push_whole(int.from_bytes(self.take(length), "little", signed=True))

    def push_whole(self, number: int) -> None:
        if abs(number) >= _LARGEST_WHOLE_NUMBER:
            raise Refused("a whole number in it has more than 64 bits")
        self.push(number)

    def number_in_words(self) -> None:
        line = self.take_line(_LONGEST_NUMBER)
        if line in {"00", "01"}:
            self.push(line == "01")
            return
        self.push_whole(int(line))

    def add_tuple(self, values: list[Any], facts: list[_Facts]) -> None:
        memory = _OBJECT_BYTES + _POINTER_BYTES * len(values)
        if any(isinstance(value, _Name) for value in values):
            self.push(_Arguments(values), _around(facts), memory=memory)
        else:
            self.push(tuple(values), _around(facts), memory=memory)

    def tuple_of(self, count: int) -> None:
        self.marks.append(len(self.stack) - count)
        if self.marks[-1] < (self.marks[-2] if len(self.marks) > 1 else 0):
            raise Refused("a value is missing in it")
        self.add_tuple(*self.pop_to_mark(names=True))

    def marked_tuple(self) -> None:
        self.add_tuple(*self.pop_to_mark(names=True))

    def extend(self, values: list[Any], facts: list[_Facts]) -> None:
        """Add values to the list, deque, dictionary or set on top of the stack."""
        if not self.stack:
            raise Refused("a value is missing in it")
        target = self.stack[-1]
        self.charge(_ENTRY_BYTES * len(values))
        self.facts[-1] = _joined(self.facts[-1], facts)
        if isinstance(target, list | deque):
            target.extend(values)
        elif isinstance(target, dict) and len(values) % 2 == 0:
            target.update(zip(_keys(values[::2]), values[1::2], strict=True))
        elif isinstance(target, set):
            target.update(_keys(values))
        else:
            raise Refused("values are added to what is no container")
        if self.facts[-1][0] > _DEEPEST or self.facts[-1][1] > self._most_values:
            raise Refused("it nests or repeats values without end")

    def put_one(self, count: int) -> None:
        found = [self.pop_value() for _ in range(count)][::-1]
        self.require_target()
        self.extend([value for value, _ in found], [facts for _, facts in found])

    def put_marked(self) -> None:
        found = self.pop_to_mark()
        self.require_target()
        self.extend(*found)

    def require_target(self) -> None:
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise Refused("a value is missing in it")

    # --- the memo ----------------------------------------------------------------------------

    def remember(self, place: int) -> None:
        if not self.stack:
            raise Refused("a value is missing in it")
        self.charge(_MEMO_BYTES)
        self.memo[place] = (self.stack[-1], self.facts[-1])

    def recall(self, place: int) -> None:
        value, facts = self.memo[place]
        if isinstance(value, Unfinished):
            if value.value is None:
                raise Refused("an array in it contains itself")
            value = value.value
        is_objects = isinstance(value, np.ndarray) and value.dtype.hasobject
        if is_objects or isinstance(value, _MUTABLE):
            # So nothing can contain itself, and no container grows once it is in another.
            raise Refused("it uses one container in two places")
        self.push(value, facts, memory=_POINTER_BYTES)

    # --- names and calls ---------------------------------------------------------------------

    def name(self) -> None:
        module = self.take_line(_LONGEST_NAME)
        self.push(_Name(module, self.take_line(_LONGEST_NAME)))

    def name_on_stack(self) -> None:
        name, _ = self.pop()
        module, _ = self.pop()
        if type(name) is not str or type(module) is not str:
            raise Refused("a name in it is no text")
        self.push(_Name(module, name))

    def call(self) -> None:
        arguments, facts = self.pop()
        called, _ = self.pop()
        if not isinstance(called, _Name) or not isinstance(arguments, tuple):
            raise Refused("it calls what is no name")
        if any(isinstance(one, _Name) and one.make is not ARRAY_TYPE for one in arguments):
            raise Refused("a class or function is handed to another")
        made = called.make(tuple(one.make if isinstance(one, _Name) else one for one in arguments))
        self.push(made, facts, memory=_memory_of(made))

    def new(self) -> None:
        self.call()
        if not isinstance(self.stack[-1], OriginInfo):
            raise Refused("it makes an object of another class than OriginInfo")

    def build(self) -> None:
        state, facts = self.pop_value()
        target, _ = self.pop()
        if not isinstance(target, Unfinished) or target.value is not None:
            raise Refused("it gives a state to what has none")
        target.value = target.build(state)
        self.push(target.value, facts, memory=_memory_of(target.value))


def _around(facts: Iterable[_Facts]) -> _Facts:
    return _joined((0, 1), facts) if facts else (1, 1)


def _joined(outer: _Facts, inner: Iterable[_Facts]) -> _Facts:
    deepest, values = outer
    for depth, count in inner:
        deepest = max(deepest, depth + 1)
        values += count
    return (deepest, values)


def _keys(values: list[Any]) -> list[Any]:
    if not all(is_key(value) for value in values):
        raise Refused("a key or member of a set is neither number nor string")
    return values


def _memory_of(made: Any) -> int:
    if isinstance(made, np.ndarray):
        return _OBJECT_BYTES * 2 + int(made.nbytes)
    if isinstance(made, list | set | deque):
        return _SET_BYTES + _ENTRY_BYTES * len(made)
    return _OBJECT_BYTES * 2


_STOP = ord(".")
_Step = Callable[[_Machine], None]


def _steps() -> dict[int, _Step]:
    """Return what each admitted opcode does."""
    m = _Machine

    def number(form: str) -> _Step:
        return lambda s: s.push(s.take_number(form))

    steps: dict[bytes, _Step] = {
        b"\x95": lambda s: s.take_number("<Q"),  # FRAME: how much follows, for buffering
        b"(": m.mark,
        b"N": lambda s: s.push(None),
        b"\x88": lambda s: s.push(True),
        b"\x89": lambda s: s.push(False),
        b"I": m.number_in_words,
        b"J": number("<i"),
        b"K": number("<B"),
        b"M": number("<H"),
        b"\x8a": lambda s: s.whole_number(s.take_number("<B")),
        b"\x8b": lambda s: s.whole_number(s.take_number("<I")),
        b"G": number(">d"),
        b"U": lambda s: s.add_text("<B", "latin1"),
        b"T": lambda s: s.add_text("<I", "latin1"),
        b"\x8c": lambda s: s.add_text("<B", "utf-8", "surrogatepass"),
        b"X": lambda s: s.add_text("<I", "utf-8", "surrogatepass"),
        b"\x8d": lambda s: s.add_text("<Q", "utf-8", "surrogatepass"),
        b"C": lambda s: s.add_bytes("<B"),
        b"B": lambda s: s.add_bytes("<I"),
        b"\x8e": lambda s: s.add_bytes("<Q"),
        b")": lambda s: s.push((), (1, 1)),
        b"\x85": lambda s: s.tuple_of(1),
        b"\x86": lambda s: s.tuple_of(2),
        b"\x87": lambda s: s.tuple_of(3),
        b"t": m.marked_tuple,
        b"]": lambda s: s.push([], (1, 1), memory=_LIST_BYTES),
        b"}": lambda s: s.push({}, (1, 1), memory=_LIST_BYTES),
        b"\x8f": lambda s: s.push(set(), (1, 1), memory=_SET_BYTES),
        b"a": lambda s: s.put_one(1),
        b"s": lambda s: s.put_one(2),
        b"e": m.put_marked,
        b"u": m.put_marked,
        b"\x90": m.put_marked,
        b"q": lambda s: s.remember(s.take_number("<B")),
        b"r": lambda s: s.remember(s.take_number("<I")),
        b"\x94": lambda s: s.remember(len(s.memo)),
        b"h": lambda s: s.recall(s.take_number("<B")),
        b"j": lambda s: s.recall(s.take_number("<I")),
        b"c": m.name,
        b"\x93": m.name_on_stack,
        b"R": m.call,
        b"\x81": m.new,
        b"b": m.build,
    }
    return {opcode[0]: step for opcode, step in steps.items()}


_STEPS = _steps()
