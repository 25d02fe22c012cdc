"""Pickles of old results: honest ones give their values, others give a sentence and do nothing."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import struct
import sys
import time
import tracemalloc
import types
from collections import OrderedDict, deque, namedtuple
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from floodem.errors import UnsafeFileError, VolumeFormatError
from floodem.legacy.results.admitted import OriginInfo
from floodem.legacy.results.pickling import dump, dump_object, dump_origins
from floodem.legacy.results.unpickling import LARGEST_PICKLE, load_restricted

NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.booleans()
TEXTS = st.text(max_size=20) | st.binary(max_size=300)
KEYS = st.integers(-(2**63), 2**64 - 1) | TEXTS | st.tuples(st.integers(-9, 9), st.text(max_size=2))
DTYPES = st.sampled_from(["?", "i1", "u2", "<i4", ">i4", "<u8", "f2", "<f4", ">f8", "S3", "<U2"])
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        elements={"allow_nan": False} if np.dtype(dtype).kind == "f" else None,
    )
)
PLAIN = st.none() | NUMBERS | TEXTS
VALUES = st.recursive(
    PLAIN | ARRAYS | ARRAYS.filter(lambda array: array.size).map(lambda array: array.flat[0]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.lists(inner, max_size=4).map(deque)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.sets(KEYS, max_size=4)
    ),
    max_leaves=12,
)


def alike(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        is_array = isinstance(other, np.ndarray) and one.shape == other.shape
        if not is_array or one.dtype.newbyteorder("=") != other.dtype.newbyteorder("="):
            return False
        return all(alike(a, b) for a, b in zip(one.ravel(), other.ravel(), strict=True))
    if isinstance(one, list | tuple | deque):
        same = type(one) is type(other) and len(one) == len(other)
        return same and all(alike(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict):
        same = isinstance(other, dict) and list(one) == list(other)
        return same and all(alike(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


def python2(text: bytes) -> bytes:
    """A string as Python 2 pickled it."""
    return b"U" + bytes([len(text)]) + text


@settings(deadline=None, max_examples=150)
@given(value=VALUES, protocol=st.sampled_from([2, 3, 4]))
def test_an_honest_pickle_gives_what_python_gives(value, protocol):
    data = pickle.dumps(value, protocol)
    assert alike(load_restricted(data), pickle.loads(data))


@settings(deadline=None, max_examples=150)
@given(value=VALUES)
@example(value=deque([1], 3))
@example(value=np.asfortranarray(np.arange(6).reshape(2, 3)))
@example(value=np.array([{1: 2}, None], dtype=object))
def test_what_is_written_is_read_alike_by_python_and_by_us(value):
    data = dump(value)
    assert alike(pickle.loads(data), value)
    assert alike(load_restricted(data), value)


def old_record() -> Any:
    """The older program's class, made as it makes it."""
    fields = ["start_zyx", "iters", "walltime_sec"]
    record = namedtuple("OriginInfo", fields)  # noqa: PYI024 - a class of its own each time
    record.__module__ = "ffn.inference.storage"
    return record


@pytest.fixture
def old_storage(monkeypatch):
    """The module of the older program that its readers import, with its record."""
    names = ("ffn", "ffn.inference", "ffn.inference.storage")
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    module = sys.modules[names[-1]]
    module.OriginInfo = old_record()
    return module


ORIGINS = st.dictionaries(
    st.integers(1, 2**32 - 1),
    st.builds(
        OriginInfo,
        st.tuples(*[st.integers(-1000, 2**40)] * 3),
        st.integers(0, 2**31),
        st.floats(0, 1e6),
    ),
    max_size=5,
)


@given(origins=ORIGINS)
def test_the_older_programs_class_is_made_by_pythons_unpickler(origins):
    module = types.ModuleType("ffn.inference.storage")
    module.OriginInfo = old_record()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ffn", "ffn.inference"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        patch.setitem(sys.modules, module.__name__, module)
        read = pickle.loads(dump_origins(origins)).item()
    assert read == {segment: module.OriginInfo(*info) for segment, info in origins.items()}
    assert all(type(info) is module.OriginInfo for info in read.values())
    assert load_restricted(dump_origins(origins)).item() == origins


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_origins_of_the_older_program_are_read(old_storage, protocol):
    origins = {1: old_storage.OriginInfo((np.int64(3), 4, np.int32(5)), 6, 0.5)}
    read = load_restricted(pickle.dumps(origins, protocol))
    assert read == {1: OriginInfo((3, 4, 5), 6, 0.5)}
    assert type(read[1]) is OriginInfo


def test_a_record_shared_by_two_segments_is_read(old_storage):
    shared = old_storage.OriginInfo((3, 4, 5), 6, 0.5)
    assert load_restricted(pickle.dumps({1: shared, 2: shared}, 2))[2] == shared


def test_origins_of_any_internal_module_are_read_and_other_names_in_it_are_not():
    def record(module: bytes, name: bytes) -> bytes:
        named = b"c" + module + b"\n" + name + b"\n"
        return b"\x80\x02" + named + b"K\x01K\x02K\x03\x87K\x04G" + struct.pack(">d", 1.5)

    end = b"\x87\x81."
    data = record(b"google3.research.x.storage", b"OriginInfo") + end
    assert load_restricted(data) == OriginInfo((1, 2, 3), 4, 1.5)
    for module, name in (
        (b"google3.x", b"system"),
        (b"google3", b"OriginInfo"),
        (b"google3x.storage", b"OriginInfo"),
        (b"ffn.inference", b"OriginInfo"),
        (b"ffn.inference.storage", b"OriginInfo.__class__"),
    ):
        with pytest.raises(UnsafeFileError, match=r"it asks for .*; nothing of it was executed"):
            load_restricted(record(module, name) + end)


def test_strings_of_python_2_are_latin1_also_where_they_are_numbers_of_an_array():
    assert load_restricted(b"\x80\x02" + python2(b"caf\xe9") + b".") == "café"
    scalar = (
        b"\x80\x02cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n"
        + python2(b"i8")
        + b"K\x00K\x01\x87R(K\x03"
        + python2(b"<")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + python2(b"\xff\x01" + bytes(6))
        + b"\x86R."
    )
    assert load_restricted(scalar) == np.int64(511)


def test_whole_numbers_of_python_2_that_need_more_than_32_bits_are_read():
    assert load_restricted(b"\x80\x02I4294967296\n.") == 2**32
    assert load_restricted(b"\x80\x02I01\n.") is True


# --- attacks -------------------------------------------------------------------------------------


class Calls:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class Stateful:
    def __setstate__(self, state: Any) -> None:
        os.mkdir(state)


def unicode(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def dtype_of(code: bytes, *, state: bytes | None = None) -> bytes:
    usual = b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?t"
    made = b"cnumpy\ndtype\n" + python2(code) + b"K\x00K\x01\x87R"
    return made + (usual if state is None else state) + b"b"


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
ARRAY = RECONSTRUCT + b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R"
HUGE = b"\x8a\x06" + (2**40).to_bytes(6, "little")


def object_array(item: bytes) -> bytes:
    return ARRAY + b"(K\x01)" + dtype_of(b"O8") + b"\x89]" + item + b"atb"


def programs(folder: Path) -> dict[str, bytes]:
    """Pickles that would make a folder if Python read them, by how they go about it."""
    marker = str(folder / "made")
    command = f"mkdir {marker}"
    system = f"cposix\nsystem\n{unicode(command).decode()}".encode()
    text = unicode(command)
    start = b"\x80\x02"
    inner = b"cos\nsystem\n" + text + b"\x85R"
    return {
        "reduce": pickle.dumps(Calls(os.system, command), 2),
        "reduce in a newer protocol": pickle.dumps(Calls(os.system, command), 4),
        "reduce in protocol 5": pickle.dumps(Calls(os.system, command), 5),
        "reduce in protocol 0": pickle.dumps(Calls(os.system, command), 0),
        "global": start + system + b"\x85R.",
        "stack global": b"\x80\x04"
        + unicode("os")
        + unicode("system")
        + b"\x93"
        + text
        + b"\x85R.",
        "stack global by attributes": b"\x80\x04"
        + unicode("collections")
        + unicode("deque.__init__.__globals__")
        + b"\x93.",
        "inst": start + b"(" + text + b"ios\nsystem\n.",
        "obj": start + b"(cos\nsystem\n" + text + b"o.",
        "newobj": start + b"csubprocess\nPopen\n(" + text + b"t\x81.",
        "newobj ex": b"\x80\x04csubprocess\nPopen\n)" + b"}" + b"\x92.",
        "ext1": start + b"\x82\xf0" + text + b"\x85R.",
        "ext2": start + b"\x83\xf0\x00" + text + b"\x85R.",
        "ext4": start + b"\x84\xf0\x00\x00\x00" + text + b"\x85R.",
        "persistent id": start + b"Pos.system\n.",
        "binary persistent id": start + text + b"Q.",
        "next buffer": b"\x80\x05\x97.",
        "copy_reg": start
        + b"ccopy_reg\n_reconstructor\ncposix\nsystem\nc__builtin__\nobject\nN\x87R.",
        "getattr": start + b"c__builtin__\ngetattr\ncos\nsystem\n" + text + b"\x86R.",
        "eval": pickle.dumps(Calls(eval, f"__import__('os').mkdir({marker!r})"), 2),
        "exec": pickle.dumps(Calls(exec, f"import os; os.mkdir({marker!r})"), 4),
        "state": pickle.dumps(Stateful.__new__(Stateful), 2),
        "build with a state": start
        + b"cffn.inference.storage\nOriginInfo\n(K\x01K\x01K\x01tK\x01K\x01\x87\x81"
        + b"}"
        + unicode("__class__")
        + inner
        + b"sb.",
        "build on a class": start + b"cffn.inference.storage\nOriginInfo\n}b.",
        "build on a number": start + b"K\x01}b.",
        "as an argument of what is admitted": start + b"ccollections\ndeque\n" + inner + b"\x85R.",
        "a class as an argument": start + b"ccollections\ndeque\ncos\nsystem\n\x85R.",
        "an admitted class as an argument": start
        + b"ccollections\ndeque\nccollections\ndeque\n\x85R.",
        "a class called ndarray": start + b"cnumpy\nndarray\n" + HUGE + b"\x85\x85R.",
        "in an array of objects": start + object_array(inner) + b".",
        "in an array in an array": start + object_array(object_array(inner)) + b".",
        "a subclass of ndarray": start + RECONSTRUCT + b"cnumpy\nmatrix\nK\x00\x85U\x01b\x87R.",
        "an object as raw bytes": start
        + b"cnumpy.core.multiarray\nscalar\n"
        + dtype_of(b"O8")
        + python2(b"A" * 8)
        + b"\x86R.",
        "objects as raw bytes": start
        + ARRAY
        + b"(K\x01K\x01\x85"
        + dtype_of(b"O8")
        + b"\x89"
        + python2(b"A" * 8)
        + b"tb.",
        "a type with fields": start
        + dtype_of(b"V8", state=b"(K\x03U\x01|NNNK\x08K\x01K\x00t")
        + b".",
        "a type with metadata": start
        + dtype_of(b"i4", state=b"(K\x04U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00}t")
        + b".",
        "a numpy function": start + b"cnumpy\nload\n" + text + b"\x85R.",
        "numpy's frombuffer": b"\x80\x04cnumpy._core.numeric\n_frombuffer\n.",
        "encode with another codec": start
        + b"c_codecs\nencode\n"
        + text
        + unicode("hex")
        + b"\x86R.",
        "a class alone": start + b"ccollections\ndeque\n.",
        "a class in a list": start + b"](ccollections\ndeque\ne.",
        "a class as a key": start + b"}ccollections\ndeque\nNs.",
        "a class remembered": start + b"ccollections\ndeque\nq\x000N.",
        "a tuple with a class as a value": start + b"]ccollections\ndeque\n\x85a.",
        "dup": start + b"]2\x86.",
        "pop": start + b"NN0.",
        "pop mark": start + b"N(N1.",
    }


NAMES = sorted(programs(Path()))


@pytest.mark.parametrize("name", NAMES)
def test_a_pickle_that_asks_for_more_gives_an_error_and_does_nothing(tmp_path, name):
    copyreg.add_extension("posix", "system", 0xF0)
    try:
        with pytest.raises(UnsafeFileError, match="nothing of it was executed"):
            load_restricted(programs(tmp_path)[name], source="seg-0_0_0.npz")
    finally:
        copyreg.remove_extension("posix", "system", 0xF0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "value",
    [
        *(Decimal(1), Fraction(1, 2), complex(1, 2), range(3), bytearray(b"a"), frozenset({1})),
        *(np.zeros(2, "M8[s]"), np.zeros(2, "i4,f4"), np.zeros(2, complex)),
        *(2**64, -(2**64), 2**70, {1.5: 2}, {None: 1}, {(1, (2,)): 3}),
    ],
    ids=repr,
)
def test_values_that_no_result_holds_are_refused(value):
    with pytest.raises(UnsafeFileError):
        load_restricted(pickle.dumps(value, 2))
    with pytest.raises(VolumeFormatError, match=r"cannot be|64 bits"):
        dump(value)


def test_classes_that_are_nearly_a_dictionary_are_refused():
    with pytest.raises(UnsafeFileError, match="collections.OrderedDict"):
        load_restricted(pickle.dumps(OrderedDict(a=1), 2))


# --- bombs ---------------------------------------------------------------------------------------


def doubling(levels: int) -> bytes:
    """A tuple of the tuple before, twice, over and over."""
    data = b"\x80\x04)\x94"
    for level in range(levels):
        data += b"h" + bytes([level]) + b"h" + bytes([level]) + b"\x86\x94"
    return data


def array(shape: bytes, code: bytes, data: bytes) -> bytes:
    return b"\x80\x02" + ARRAY + b"(K\x01" + shape + dtype_of(code) + b"\x89" + data + b"tb."


PLACEHOLDER = RECONSTRUCT + b"cnumpy\nndarray\n" + HUGE + b"\x85U\x01b\x87R."
MANY = 2**18
BOMBS = {
    "nested lists": b"\x80\x02" + b"]" * MANY + b"a" * (MANY - 1) + b".",
    "nested tuples": b"\x80\x02N" + b"\x85" * MANY + b".",
    "nested tuples as a key": b"\x80\x02}N" + b"\x85" * MANY + b"Ns.",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "a dictionary in itself": b"\x80\x02}q\x00K\x01h\x00s.",
    "an array in itself": array(b")", b"O8", b"]h\x00a").replace(ARRAY, ARRAY + b"q\x00"),
    "doubled tuples": doubling(200) + b".",
    "doubled tuples as a key": b"\x80\x04}" + doubling(30)[2:] + b"Ns.",
    "shared lists": b"\x80\x02]q\x00h\x00\x86.",
    "empty sets": b"\x80\x04](" + b"\x8f" * MANY + b"e.",
    "empty lists": b"\x80\x04](" + b"]" * MANY + b"e.",
    "marks": b"\x80\x02" + b"(" * MANY + b".",
    "remembered": b"\x80\x04N" + b"\x94" * MANY + b".",
    "a long text": b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"a.",
    "long bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"a.",
    "a long frame": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"\x8d.",
    "a long number": b"\x80\x02\x8b" + struct.pack("<I", MANY) + b"\x7f" * MANY + b".",
    "a long number in words": b"\x80\x02I" + b"9" * MANY + b"\n.",
    "a name without end": b"\x80\x02c" + b"a" * MANY,
    "a huge array": array(HUGE + b"\x85", b"i8", b"U\x00"),
    "a huge array of nothing": array(b"K\x00" + HUGE + b"\x86", b"i8", b"U\x00"),
    "a huge array of empty strings": array(b"J\xff\xff\xff\x7f\x85", b"S0", b"U\x00"),
    "a huge array of objects": array(HUGE + b"\x85", b"O8", b"]"),
    "a huge placeholder": b"\x80\x02" + PLACEHOLDER,
    "a wide type": array(b"K\x01\x85", b"S999999999", b"U\x00"),
    "a large deque": b"\x80\x02ccollections\ndeque\n]" + HUGE + b"\x86R.",
    "many axes": array(b"(" + b"K\x01" * 100 + b"t", b"i8", python2(bytes(8))),
}

BEARABLE_BYTES = 48 * 2**20
"""A quarter of a megabyte may take 17 MB and what Python needs to take it apart."""


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_bounded_time_and_memory(name):
    began = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(UnsafeFileError):
            load_restricted(BOMBS[name])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < BEARABLE_BYTES
    assert time.monotonic() - began < 20


def test_a_pickle_beyond_all_measure_is_not_begun():
    class Long(bytes):
        def __len__(self) -> int:
            return LARGEST_PICKLE + 1

    with pytest.raises(UnsafeFileError, match="no more than 67108864 are read"):
        load_restricted(Long())


def test_many_honest_origins_are_within_the_bounds():
    origins = {n: OriginInfo((n, n + 1, n + 2), n, n / 7) for n in range(1, 20_000)}
    assert load_restricted(dump_origins(origins)).item() == origins
    stored = {n: (np.int64(n), np.int64(n), np.int64(n)) for n in range(5_000)}
    assert load_restricted(pickle.dumps(stored, 4)) == stored


def refusal(data: bytes) -> str:
    """What is said of a pickle; nothing where it is read."""
    try:
        load_restricted(data)
    except UnsafeFileError as error:
        return str(error)
    return ""


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_a_damaged_pickle_gives_its_values_or_a_sentence(data):
    sound = dump_object({1: OriginInfo((1, 2, 3), 4, 0.5), 2: np.arange(3), 3: deque([(1.5, [1])])})
    broken = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(broken) - 1))
        broken[at] = data.draw(st.integers(0, 255))
    del broken[data.draw(st.integers(1, len(broken))) :]
    assert "\n" not in refusal(bytes(broken))


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_sentence(data):
    assert "\n" not in refusal(b"\x80\x04" + data)


def test_numpy_reads_an_object_written_here():
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|O", "fortran_order": False, "shape": ()}
    )
    buffer.write(dump_object({1: [2]}))
    buffer.seek(0)
    assert np.load(buffer, allow_pickle=True).item() == {1: [2]}
