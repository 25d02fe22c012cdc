"""Broken and hostile results: one sentence each, in bounded memory, and nothing is executed."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.lib import format as npy_format

from floodem.errors import FloodemError
from floodem.legacy.results import (
    Checkpoint,
    OriginInfo,
    find_subvolumes,
    open_results,
    read_counters,
    read_cpoint,
    read_probabilities,
    read_subvolume,
    write_counters,
    write_cpoint,
    write_probabilities,
    write_subvolume,
)
from floodem.legacy.results.archive import open_archive
from floodem.volumes import open_volume
from fuzz.driver import is_a_sentence
from fuzz.mutations import BYTE_MUTATIONS, Mutation
from test_legacy_pickles import programs

BEARABLE_BYTES = 96 * 2**20
BOMB_BYTES = 2**28
MUTATIONS_EACH = 5
SHAPE = (3, 4, 5)
LABELS = np.arange(60, dtype=np.uint8).reshape(SHAPE)

READERS: dict[str, Callable[[Path], Any]] = {
    "seg-0_0_0.npz": read_subvolume,
    "seg-0_0_0.prob": read_probabilities,
    "seg-0_0_0.cpoint": read_cpoint,
    "counters.txt": read_counters,
}


def write_sound(folder: Path) -> None:
    """One file of each kind."""
    origins = {n: OriginInfo((n, 2, 3), n, n / 3) for n in range(1, 9)}
    overlaps = {1: {2: 3}, 5: {}}
    write_subvolume(
        folder / "seg-0_0_0.npz",
        segmentation=LABELS,
        origins=origins,
        overlaps=overlaps,
        request=b"\x10\x01",
        counters={"a": 1},
        overwrite=True,
    )
    write_probabilities(folder / "seg-0_0_0.prob", quantised=LABELS, overwrite=True)
    checkpoint = Checkpoint(
        segmentation=LABELS.astype(np.int32),
        logits=LABELS.astype(np.float32),
        probability=LABELS,
        origins=origins,
        overlaps=overlaps,
        waiting=((1.5, (1, 2, 3)),),
        visited=frozenset({(0, 0, 0)}),
        seeds=np.arange(6).reshape(2, 3),
        next_seed=1,
        calls=2,
        counters={"a": 1},
        hosts=("host",),
    )
    write_cpoint(folder / "seg-0_0_0.cpoint", checkpoint, overwrite=True)
    write_counters(folder / "counters.txt", counters={"a": 1, "b-ms": 20}, overwrite=True)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("sound")
    write_sound(folder)
    return {name: (folder / name).read_bytes() for name in READERS}


def treated(folder: Path, name: str, data: bytes) -> str | None:
    """Read a file and open it as a volume; say what is wrong with how it was treated."""
    path = folder / name
    path.write_bytes(data)
    tracemalloc.start()
    try:
        for read in (READERS[name], _as_volume):
            try:
                read(path)
            except FloodemError as error:
                if not is_a_sentence(str(error)):
                    return f"no sentence: {str(error)!r}"
        peak = tracemalloc.get_traced_memory()[1]
    except Exception as error:  # noqa: BLE001 - any other error is the finding
        return f"crashed: {error!r}"
    finally:
        tracemalloc.stop()
    return f"took {peak} bytes" if peak > BEARABLE_BYTES else None


def _as_volume(path: Path) -> None:
    if path.suffix != ".txt":
        with open_volume(path) as volume:
            volume.read()


# --- files that are broken on purpose ------------------------------------------------------------


def header(shape: Any, descr: Any = "|u1", *, fortran: Any = False, version: int = 1) -> bytes:
    """A npy header that may say anything."""
    text = repr({"descr": descr, "fortran_order": fortran, "shape": shape}).encode() + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npy(value: Any) -> bytes:
    buffer = io.BytesIO()
    npy_format.write_array(buffer, np.asanyarray(value))
    return buffer.getvalue()


def of_object(data: bytes) -> bytes:
    buffer = io.BytesIO()
    npy_format.write_array_header_1_0(buffer, {"descr": "|O", "fortran_order": False, "shape": ()})
    return buffer.getvalue() + data


SOUND_MEMBERS = {
    "seg-0_0_0.npz": {"segmentation": LABELS},
    "seg-0_0_0.prob": {"qprob": LABELS},
}
LARGE = bytes(60)
BROKEN_ARRAYS = {
    "a header that declares more": header((30, 40, 50)) + LARGE,
    "a header that declares huge numbers": header((2**20, 2**20, 2**20)) + LARGE,
    "a header that declares more than fits 64 bits": header((2**62, 2**62, 2**62)) + LARGE,
    "a header that declares less": header((1, 1, 1)) + LARGE,
    "a negative shape": header((-3, -4, 5)) + LARGE,
    "a shape with nothing in it": header((0, 2**60, 2**60)),
    "a shape of words": header(("3", 4, 5)) + LARGE,
    "a shape of real numbers": header((3.0, 4, 5)) + LARGE,
    "a shape that is a number": header(60) + LARGE,
    "two axes": header((12, 5)) + LARGE,
    "four axes": header((3, 2, 2, 5)) + LARGE,
    "no axes": header(()) + b"\0",
    "forty axes": header((1,) * 40) + b"\0",
    "fields": header((3, 4, 5), [("a", "|u1")]) + LARGE,
    "a wide field": header((3, 4, 5), [("a", "|u1", (2**40,))]) + LARGE,
    "complex numbers": header((3, 4, 5), "<c16") + bytes(960),
    "dates": header((3, 4, 5), "<M8[s]") + bytes(480),
    "raw bytes": header((3, 4, 5), "|V1") + LARGE,
    "strings": header((3, 4, 5), "|S1") + LARGE,
    "strings of no length": header((2**40, 2**40, 4), "|S0"),
    "long strings": header((), "|S999999999") + LARGE,
    "no such type": header((3, 4, 5), "|z9") + LARGE,
    "a type that is a program": header((3, 4, 5), "__import__('os').system('true')") + LARGE,
    "objects that are numbers": header((3, 4, 5), "|O") + LARGE,
    "objects without an end": header((), "|O") + b"\x80\x02](",
    "an order that is none": header((3, 4, 5), fortran="yes") + LARGE,
    "a header that is no dictionary": b"\x93NUMPY\x01\x00\x04\x00[1]\n" + LARGE,
    "a header that calls": b"\x93NUMPY\x01\x00\x10\x00__import__('os')\n" + LARGE,
    "a header of brackets": b"\x93NUMPY\x01\x00\xb8\x0b" + b"(" * 2_999 + b"\n" + LARGE,
    "a header beyond its end": b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + LARGE,
    "a header of version 3": header((3, 4, 5), version=3) + LARGE,
    "a header of version 9": header((3, 4, 5), version=9) + LARGE,
    "no numpy file": b"PK\x03\x04" + LARGE,
    "nothing": b"",
    "an archive in the archive": zipped({"segmentation.npy": npy(LABELS)}),
}
BROKEN_MEMBERS = {
    "origins that are numbers": ("origins", npy(np.arange(3))),
    "origins that are text": ("origins", npy("text")),
    "origins that are a list": ("origins", of_object(pickle.dumps([1, 2], 2))),
    "origins without an end": ("origins", of_object(pickle.dumps({1: (2, 3)}, 2)[:-3])),
    "origins of another shape": ("origins", header((2**30,), "|O") + pickle.dumps([1], 2)),
    "origins that nest": ("origins", of_object(b"\x80\x02" + b"]" * 50_000 + b".")),
    "overlaps that are numbers": ("overlaps", npy(3)),
    "overlaps of sets": ("overlaps", of_object(pickle.dumps({1: {2}}, 2))),
    "a request that is a list": ("request", of_object(pickle.dumps([1], 2))),
    "a request of much": ("request", header((), "|S99999999") + bytes(99_999_999)),
    "counters that are no JSON": ("counters", npy("{1: 2}")),
    "counters that nest": ("counters", npy('{"a":' * 50_000)),
    "counters of text": ("counters", npy(json.dumps({"a": "b"}))),
    "counters with long numbers": ("counters", npy('{"a": ' + "9" * 10_000 + "}")),
}


def lying(data: bytes, *, size: int) -> bytes:
    """Let an archive's directory and headers declare another size for their first member."""
    broken = bytearray(data)
    central = broken.find(b"PK\x01\x02")
    broken[central + 24 : central + 28] = struct.pack("<I", size)
    broken[22:26] = struct.pack("<I", size)
    return bytes(broken)


def bomb() -> bytes:
    """A member that declares little and unpacks to much."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("segmentation.npy", "w") as member,
    ):
        member.write(header(SHAPE))
        for _ in range(BOMB_BYTES // 2**20):
            member.write(bytes(2**20))
    return lying(buffer.getvalue(), size=len(header(SHAPE)) + 60)


def crowd() -> bytes:
    """An archive of very many members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(30_000):
            archive.writestr(f"{number}.npy", b"")
    return buffer.getvalue()


def broken_archives() -> dict[str, bytes]:
    members = {"segmentation.npy": npy(LABELS), "qprob.npy": npy(LABELS)}
    whole = zipped(members)
    end = whole.rfind(b"PK\x05\x06")
    encrypted = bytearray(whole)
    encrypted[6] |= 1
    encrypted[whole.find(b"PK\x01\x02") + 8] |= 1
    return {
        "nothing": b"",
        "text": b"segmentation\n",
        "a signature": b"PK\x03\x04",
        "an end alone": b"PK\x05\x06" + bytes(18),
        "an archive without members": zipped({}),
        "an archive of other things": zipped({"a.txt": b"a", "b.npy": npy(LABELS)}),
        "the same name in other letters": zipped({"Segmentation.npy": npy(LABELS)}),
        "a name in a folder": zipped({"../segmentation.npy": npy(LABELS)}),
        "bzip2": zipped(
            {"segmentation.npy": npy(LABELS), "qprob.npy": npy(LABELS)}, zipfile.ZIP_BZIP2
        ),
        "lzma": zipped(
            {"segmentation.npy": npy(LABELS), "qprob.npy": npy(LABELS)}, zipfile.ZIP_LZMA
        ),
        "a password": bytes(encrypted),
        "a bomb": bomb(),
        "a size that nothing unpacks to": lying(whole, size=2**32 - 2),
        "a size below its own": lying(whole, size=3),
        "a crowd": crowd(),
        "a directory without end": whole[: end + 12] + b"\xff\xff\xff\x7f" + whole[end + 16 :],
        "a directory elsewhere": whole[: end + 16] + b"\xff\xff\xff\x7f" + whole[end + 20 :],
        "no directory": whole[: whole.find(b"PK\x01\x02")],
        "another archive behind it": whole + zipped({"a.npy": npy(1)}),
        "a wide end that lies": whole[:end]
        + struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 2**40, 0)
        + struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
        + whole[end:],
    }


_SLOW = {"a bomb", "a crowd"}


def corpus(sound: dict[str, bytes], folder: Path) -> Iterator[tuple[str, str, bytes]]:
    """Broken files: what they are, what they are called, and their bytes."""
    for why, data in BROKEN_ARRAYS.items():
        for name, key in (("seg-0_0_0.npz", "segmentation"), ("seg-0_0_0.prob", "qprob")):
            for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                yield f"{why}, {method}", name, zipped({f"{key}.npy": data}, method)
    for why, (key, data) in BROKEN_MEMBERS.items():
        members = {"segmentation.npy": npy(LABELS), f"{key}.npy": data}
        yield why, "seg-0_0_0.npz", zipped(members)
    for why, data in broken_archives().items():
        names = ["seg-0_0_0.npz", "seg-0_0_0.prob", "seg-0_0_0.cpoint"]
        for name in names[:1] if why in _SLOW else names:
            yield why, name, data
    for why, data in programs(folder).items():
        members = {"segmentation.npy": npy(LABELS), "origins.npy": of_object(data)}
        yield f"a program: {why}", "seg-0_0_0.npz", zipped(members)
    for name, data in sound.items():
        for part in range(12):
            yield f"{part} twelfths", name, data[: len(data) * part // 12]
        random = np.random.default_rng(len(data))
        for mutation in BYTE_MUTATIONS:
            for number in range(MUTATIONS_EACH):
                yield f"{mutation.__name__} {number}", name, mutation(data, random)


def test_every_broken_file_gives_a_sentence_or_its_values_and_does_nothing(sound, tmp_path):
    folder, marks = tmp_path / "results", tmp_path / "marks"
    folder.mkdir()
    marks.mkdir()
    cases = list(corpus(sound, marks))
    assert len(cases) >= 200
    found = [
        f"{name}, {why}: {fault}"
        for why, name, data in cases
        if (fault := treated(folder, name, data)) is not None
    ]
    assert found == []
    assert list(marks.iterdir()) == []
    assert sorted(path.name for path in folder.iterdir()) == sorted(READERS)


def test_what_is_broken_on_purpose_is_refused(tmp_path):
    """The corpus would be none if these files were read."""
    broken = [
        (why, name, zipped({f"{key}.npy": data}))
        for why, data in BROKEN_ARRAYS.items()
        for name, key in (("seg-0_0_0.npz", "segmentation"), ("seg-0_0_0.prob", "qprob"))
    ]
    for why, (key, data) in BROKEN_MEMBERS.items():
        members = {"segmentation.npy": npy(LABELS), f"{key}.npy": data}
        broken.append((why, "seg-0_0_0.npz", zipped(members)))
    broken += [(why, "seg-0_0_0.npz", data) for why, data in broken_archives().items()]
    read = [f"{name}, {why}" for why, name, data in broken if not is_refused(tmp_path, name, data)]
    assert read == []


def is_refused(folder: Path, name: str, data: bytes) -> bool:
    (folder / name).write_bytes(data)
    try:
        READERS[name](folder / name)
    except FloodemError:
        return True
    return False


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(sorted(READERS)),
    mutation=st.sampled_from(BYTE_MUTATIONS),
    seed=st.integers(0, 2**32 - 1),
    again=st.booleans(),
)
def test_damage_anywhere_gives_a_sentence_or_values(
    sound, tmp_path_factory, name, mutation: Mutation, seed, again
):
    random = np.random.default_rng(seed)
    data = mutation(sound[name], random)
    if again and data:
        data = mutation(data, random)
    folder = tmp_path_factory.mktemp("broken")
    assert treated(folder, name, data) is None


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_damaged_pickles_in_sound_archives_give_a_sentence_or_values(sound, tmp_path_factory, data):
    """Deflated members hide their pickles from damage by their checksums; here it gets through."""
    name = data.draw(st.sampled_from(["seg-0_0_0.npz", "seg-0_0_0.cpoint"]))
    with zipfile.ZipFile(io.BytesIO(sound[name])) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    victim = data.draw(st.sampled_from(sorted(members)))
    broken = bytearray(members[victim])
    for _ in range(data.draw(st.integers(1, 3))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    members[victim] = bytes(broken)
    folder = tmp_path_factory.mktemp("broken")
    assert treated(folder, name, zipped(members)) is None


def test_sound_files_are_read(sound, tmp_path):
    for name, data in sound.items():
        (tmp_path / name).write_bytes(data)
        READERS[name](tmp_path / name)


def test_a_broken_file_among_results_leaves_nothing_at_the_destination(sound, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    for corner, data in (("0_0_0", sound["seg-0_0_0.npz"]), ("0_0_3", b"PK")):
        (folder / f"seg-{corner}.npz").write_bytes(data)
    assert len(find_subvolumes(folder)) == 2
    with pytest.raises(FloodemError, match="seg-0_0_3.npz"):
        open_results(folder, tmp_path / "all.zarr")
    members = {"segmentation.npy": npy(LABELS), "origins.npy": of_object(pickle.dumps(3, 2))}
    (folder / "seg-0_0_3.npz").write_bytes(zipped(members))
    with pytest.raises(FloodemError, match="seg-0_0_3.npz"):
        open_results(folder, tmp_path / "all.zarr")
    assert not (tmp_path / "all.zarr.floodem" / "origins.json").exists()


def test_a_file_that_is_no_file_is_named(tmp_path):
    for name, read in READERS.items():
        (tmp_path / name).mkdir()
        with pytest.raises(FloodemError, match=name):
            read(tmp_path / name)
        with pytest.raises(FloodemError, match="absent"):
            read(tmp_path / f"absent{Path(name).suffix}")


def test_pieces_of_a_broken_member_give_a_sentence(tmp_path):
    path = tmp_path / "seg-0_0_0.npz"
    data = bytearray(zipped({"segmentation.npy": npy(LABELS)}, zipfile.ZIP_STORED))
    data[200] ^= 1
    path.write_bytes(bytes(data))
    with open_archive(path) as archive, pytest.raises(FloodemError, match="CRC"):
        list(archive.pieces("segmentation"))
