"""Conversion between formats: exact, in bounded memory, and all or nothing."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from floodem.cli.main import build_app
from floodem.errors import (
    DestinationExistsError,
    GeometryError,
    LabelError,
    OptionError,
    UsageError,
    VolumeNotFoundError,
)
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.progress import Progress
from floodem.volumes import Volume, convert, create_volume, open_volume
from floodem.volumes.conversion import block_plan
from floodem.volumes.conversion.block_plan import block_shape
from floodem.volumes.conversion.recoding import Window, WindowRecoding
from floodem.volumes.volume import Kind
from volume_cases import CASES, Case

VOXEL_SIZE = VoxelSize(30, 6, 4)
OFFSET: Zyx = (100, 0, -20)
SHAPE: Zyx = (6, 7, 8)
ARRAY = np.arange(336, dtype=np.uint16).reshape(SHAPE) % 251


def source(case: Case, folder: Path, array: np.ndarray = ARRAY) -> str:
    uri = case.uri(folder)
    with create_volume(
        uri,
        shape=array.shape,
        dtype=array.dtype,
        voxel_size=VOXEL_SIZE,
        offset=OFFSET,
        chunks=(2, 3, 4),
    ) as volume:
        volume.write(volume.box, array)
    return uri


PAIRS = [
    pytest.param(a, b, id=f"{a}-{b}")
    for a, b in itertools.product(CASES, CASES)
    if not {a.name, b.name} & {"hdf5-group", "npz-key", "zarr-inside"}
]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_every_format_converts_to_every_other(tmp_path: Path, first: Case, second: Case) -> None:
    uri = source(first, tmp_path / "from")
    to = second.uri(tmp_path / "to")
    convert(uri, to, voxel_size=None if first.keeps_position else VOXEL_SIZE)
    with open_volume(to) as copy:
        np.testing.assert_array_equal(copy.read(), ARRAY)
        assert copy.dtype == np.uint16
        if second.keeps_position:
            assert copy.voxel_size == VOXEL_SIZE
            assert copy.offset == (OFFSET if first.keeps_position else (0, 0, 0))


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_box_is_cut_out_and_keeps_its_place(tmp_path: Path, data: st.DataObject) -> None:
    case = CASES[0]
    folder = tmp_path / "from"
    uri = case.uri(folder)
    if not folder.exists():
        source(case, folder)
    bounds = [
        sorted(data.draw(st.lists(st.integers(o, o + n), min_size=2, max_size=2, unique=True)))
        for o, n in zip(OFFSET, SHAPE, strict=True)
    ]
    (z0, z1), (y0, y1), (x0, x1) = bounds
    box = Box((z0, y0, x0), (z1, y1, x1))
    chunks = data.draw(st.none() | st.tuples(*[st.integers(1, 5)] * 3))
    offset = data.draw(st.none() | st.tuples(*[st.integers(-9, 9)] * 3))
    convert(uri, tmp_path / "to.zarr", box=box, chunks=chunks, offset=offset, overwrite=True)
    with open_volume(tmp_path / "to.zarr") as copy:
        assert copy.offset == (box.start if offset is None else offset)
        np.testing.assert_array_equal(copy.read(), ARRAY[box.slices(origin=OFFSET)])


def test_types_widen_and_narrow_only_when_everything_fits(tmp_path: Path) -> None:
    uri = source(CASES[0], tmp_path)
    for dtype in ("uint8", "uint64", "float32"):
        convert(uri, tmp_path / f"{dtype}.npy", dtype=dtype)
        found = np.load(tmp_path / f"{dtype}.npy")
        assert found.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(found, ARRAY)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_value_that_does_not_fit_leaves_nothing_half_made(tmp_path: Path, case: Case) -> None:
    wide = ARRAY.copy()
    wide[-1, -1, -1] = np.iinfo(case.dtype).max + 1
    uri = source(CASES[0], tmp_path / "from", wide)
    folder = tmp_path / "to"
    with pytest.raises(LabelError, match=f"do not fit {case.dtype}"):
        convert(uri, case.uri(folder), dtype=case.dtype)
    assert not folder.exists()


def test_real_numbers_do_not_become_whole_ones(tmp_path: Path) -> None:
    np.save(tmp_path / "em.npy", np.zeros(SHAPE, np.float32))
    with pytest.raises(LabelError, match=r"without loss: .* \(--window LOW,HIGH"):
        convert(tmp_path / "em.npy", tmp_path / "out.zarr", dtype="uint8")
    assert [entry.name for entry in tmp_path.iterdir()] == ["em.npy"]


def test_ids_beyond_2_to_the_53_do_not_become_float64(tmp_path: Path) -> None:
    np.save(tmp_path / "seg.npy", np.full(SHAPE, 2**53 + 1, np.uint64))
    with pytest.raises(LabelError, match="do not fit float64"):
        convert(tmp_path / "seg.npy", tmp_path / "out.zarr", dtype="float64")


class Watched(Volume):
    """An endless-looking volume that notes what is asked of it."""

    def __init__(self, shape: Zyx, *, chunks: Zyx) -> None:
        self.uri = "watched"
        self.box = Box.from_shape(shape)
        self.dtype = np.dtype(np.uint32)
        self.voxel_size = None
        self.chunks = chunks
        self.asked: list[Box] = []
        self.is_closed = False

    def _read(self, box: Box) -> np.ndarray:
        self.asked.append(box)
        return np.zeros(box.shape, self.dtype)

    def _write(self, box: Box, array: np.ndarray) -> None:
        raise AssertionError

    def close(self) -> None:
        self.is_closed = True


def test_blocks_stay_small_and_meet_the_chunks_of_the_destination(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 64 * 1024
    monkeypatch.setattr(block_plan, "BLOCK_BYTES", limit)
    volume = Watched((50, 60, 70), chunks=(8, 8, 8))
    heard: list[Progress] = []
    convert(volume, tmp_path / "out.zarr", chunks=(8, 16, 16), progress=heard.append)
    # What is read is there once more while it is encoded.
    assert max(box.size * 8 for box in volume.asked) <= limit
    assert sum(box.size for box in volume.asked) == volume.box.size
    for box in volume.asked:
        assert all(a % c == 0 for a, c in zip(box.start, (8, 16, 16), strict=True))
    assert not volume.is_closed
    # Every voxel is written and read back.
    assert [heard[0].done, heard[-1].done] == [0, 2 * volume.box.size]
    assert all(report.total == 2 * volume.box.size for report in heard)


@pytest.mark.parametrize("relabel", [False, True])
def test_what_is_counted_is_what_the_progress_says(tmp_path: Path, *, relabel: bool) -> None:
    heard: list[Progress] = []
    uri = source(CASES[0], tmp_path)
    convert(uri, tmp_path / "out.zarr", relabel=relabel, progress=heard.append)
    said = "counted, written and read back" if relabel else "written and read back"
    assert {report.unit for report in heard} == {f"voxels {said}"}
    assert heard[-1].done == heard[-1].total == (3 if relabel else 2) * ARRAY.size


def test_a_section_is_decoded_once_where_memory_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_plan, "BLOCK_BYTES", 1)
    volume = Watched((50, 60, 70), chunks=(1, 60, 70))
    convert(volume, tmp_path / "out.zarr", chunks=(8, 16, 16))
    assert {box.shape for box in volume.asked} == {(8, 60, 70), (2, 60, 70)}
    volume = Watched((50, 60, 70), chunks=(1, 60, 70))
    monkeypatch.setattr(block_plan, "MEMORY_BYTES", 8 * 8 * 32 * 48)
    convert(volume, tmp_path / "narrow.zarr", chunks=(8, 16, 16))
    assert max(box.size for box in volume.asked) * 8 <= 8 * 8 * 32 * 48


@given(
    st.tuples(*[st.integers(1, 5000)] * 3),
    st.tuples(*[st.integers(1, 512)] * 3),
    st.tuples(*[st.integers(1, 5000)] * 3),
    st.sampled_from([1, 2, 4, 8]),
)
def test_blocks_are_whole_chunks_up_to_the_limit(
    shape: Zyx, chunks: Zyx, source_chunks: Zyx, itemsize: int
) -> None:
    block = block_shape(shape, chunks=chunks, source_chunks=source_chunks, itemsize=itemsize)
    fitted = tuple(min(c, s) for c, s in zip(chunks, shape, strict=True))
    assert all(b % c == 0 or b == s for b, c, s in zip(block, fitted, shape, strict=True))
    one_chunk = int(np.prod(fitted)) * itemsize
    assert int(np.prod(block)) * itemsize <= max(block_plan.MEMORY_BYTES, one_chunk)
    alone = block_shape(shape, chunks=chunks, itemsize=itemsize)
    assert int(np.prod(alone)) * itemsize <= max(block_plan.BLOCK_BYTES, one_chunk)


@pytest.mark.parametrize("box", [Box((0, 0, 0), (1, 1, 1)), Box((100, 0, -20), (100, 7, -12))])
def test_a_box_outside_or_empty_is_refused(tmp_path: Path, box: Box) -> None:
    uri = source(CASES[0], tmp_path)
    with pytest.raises(GeometryError, match=r"holds 100:106,0:7,-20:-12"):
        convert(uri, tmp_path / "out.zarr", box=box)
    assert not (tmp_path / "out.zarr").exists()


def test_a_missing_source_and_an_existing_destination_are_refused(tmp_path: Path) -> None:
    uri = source(CASES[0], tmp_path)
    with pytest.raises(VolumeNotFoundError):
        convert(tmp_path / "no.zarr", tmp_path / "out.zarr")
    np.save(tmp_path / "out.npy", np.ones((1, 2, 3)))
    with pytest.raises(DestinationExistsError):
        convert(uri, tmp_path / "out.npy")
    assert np.load(tmp_path / "out.npy").shape == (1, 2, 3)


@pytest.mark.parametrize("case", [c for c in CASES if c.name != "npz-key"], ids=str)
def test_a_volume_may_replace_itself(tmp_path: Path, case: Case) -> None:
    uri = source(case, tmp_path)
    convert(uri, uri, dtype=case.dtype, voxel_size=VOXEL_SIZE, overwrite=True)
    with open_volume(uri) as volume:
        assert volume.dtype == np.dtype(case.dtype)
        np.testing.assert_array_equal(volume.read(), ARRAY)


def test_a_dataset_is_copied_within_its_file(tmp_path: Path) -> None:
    uri = source(CASES[0], tmp_path)
    convert(uri, f"{tmp_path / 'em.h5'}@copy")
    for name in ("raw", "copy"):
        with open_volume(f"{tmp_path / 'em.h5'}@{name}") as volume:
            np.testing.assert_array_equal(volume.read(), ARRAY)


def test_a_file_is_not_taken_for_a_folder_that_an_earlier_run_has_made(tmp_path: Path) -> None:
    uri = source(CASES[0], tmp_path)
    convert(uri, tmp_path / "copy.h5")
    with pytest.raises(UsageError, match="ends like a folder"):
        convert(uri, f"{tmp_path / 'copy.h5'}/")


@pytest.mark.parametrize("inside", ["new.zarr", "0/new.zarr", "new.npy", "0"])
def test_nothing_is_put_among_the_chunks_of_a_volume(tmp_path: Path, inside: str) -> None:
    uri = source(CASES[0], tmp_path)
    convert(uri, tmp_path / "em.ome.zarr", pyramid=1)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DestinationExistsError, match=r"inside the zarr\d? volume .*em.ome.zarr"):
        convert(uri, tmp_path / "em.ome.zarr" / inside, overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


# --- grey levels ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "values", "window", "to", "expected"),
    [
        ("uint16", [0, 1000, 1500, 2000, 65535], (1000, 2000), None, [0, 0, 128, 255, 255]),
        ("uint16", [0, 4095], (0, 4095), "uint16", [0, 65535]),
        ("int16", [-32768, -5, 0, 5, 32767], (-5, 5), "int8", [-128, -128, 0, 127, 127]),
        ("float32", [-1e30, 0.25, 0.5, 1e30], (0, 1), None, [0, 64, 128, 255]),
        ("uint8", [9, 10, 11, 12], (10, 12), "uint8", [0, 0, 128, 255]),
    ],
)
def test_a_window_of_grey_levels_becomes_the_full_range(
    tmp_path: Path, dtype: str, values: list, window: tuple, to: str | None, expected: list
) -> None:
    np.save(tmp_path / "em.npy", np.array(values, dtype).reshape(1, 1, -1))
    convert(tmp_path / "em.npy", tmp_path / "out.zarr", window=window, dtype=to)
    with open_volume(tmp_path / "out.zarr") as copy:
        assert copy.dtype == (to or "uint8")
        assert copy.kind is Kind.IMAGE
        assert copy.read().ravel().tolist() == expected


@given(
    st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=20),
    st.tuples(st.integers(0, 2**16 - 2), st.integers(1, 2**16 - 1)).filter(lambda w: w[0] < w[1]),
    st.sampled_from([np.uint8, np.int8, np.uint16]),
)
def test_windowed_values_are_the_nearest_whole_numbers(
    values: list[int], window: tuple[int, int], dtype: type
) -> None:
    low, high = window
    bounds = np.iinfo(dtype)
    recoding = WindowRecoding(Window(low, high), source=np.dtype(np.uint16), dtype=np.dtype(dtype))
    found = recoding.apply(np.array(values, np.uint16).reshape(1, 1, -1)).ravel().tolist()
    for value, level in zip(values, found, strict=True):
        part = Fraction(min(max(value, low), high) - low, high - low)
        exact = part * (bounds.max - bounds.min) + bounds.min
        assert abs(level - exact) <= Fraction(1, 2) + Fraction(1, 10**9)


@pytest.mark.parametrize(
    ("array", "options", "says"),
    [
        (np.ones((1, 1, 2), np.uint64), {}, "a window is for images, and .* holds labels"),
        (np.ones((1, 1, 2), np.uint16), {"relabel": True}, "leave out --window or --relabel"),
        (np.ones((1, 1, 2), np.uint16), {"kind": Kind.LABELS}, "or say --kind image"),
        (np.ones((1, 1, 2), np.uint16), {"dtype": "float32"}, "8 or 16 bits, not to float32"),
        (np.ones((1, 1, 2), np.uint16), {"window": (5, 5)}, "window 5,5 does not begin below"),
    ],
)
def test_a_window_that_makes_no_sense_is_refused(
    tmp_path: Path, array: np.ndarray, options: dict, says: str
) -> None:
    np.save(tmp_path / "em.npy", array)
    with pytest.raises(OptionError, match=says):
        convert(tmp_path / "em.npy", tmp_path / "out.zarr", **{"window": (0, 9), **options})
    assert [entry.name for entry in tmp_path.iterdir()] == ["em.npy"]


def test_not_a_number_is_in_no_window(tmp_path: Path) -> None:
    np.save(tmp_path / "em.npy", np.array([[[0, np.nan]]], np.float32))
    with pytest.raises(LabelError, match="NaN"):
        convert(tmp_path / "em.npy", tmp_path / "out.zarr", window=(0, 1))


# --- new numbers for labels ----------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
def test_labels_are_numbered_in_the_order_of_their_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr(block_plan, "BLOCK_BYTES", 500)
    old = np.array([0, 7, 2**40, 2**63 + 5, 2**64 - 1, 3], np.uint64)
    labels = old[np.random.default_rng(0).integers(0, len(old), (20, 21, 22))]
    with create_volume(tmp_path / "seg.zarr", shape=labels.shape, dtype="uint64") as volume:
        volume.write(volume.box, labels)
    made = convert(tmp_path / "seg.zarr", tmp_path / "out.zarr", relabel=True, threads=threads)
    assert made.labels == 5
    with open_volume(tmp_path / "out.zarr") as copy:
        assert copy.dtype == np.uint32
        assert copy.kind is Kind.LABELS
        np.testing.assert_array_equal(copy.read(), np.searchsorted(np.sort(old), labels))
    table = (tmp_path / "out.zarr.floodem" / "relabel.csv").read_text()
    assert table.splitlines() == [
        "old,new",
        "3,1",
        "7,2",
        f"{2**40},3",
        f"{2**63 + 5},4",
        f"{2**64 - 1},5",
    ]


@pytest.mark.parametrize(
    ("dtype", "expected"), [(None, "uint32"), ("uint8", "uint8"), ("uint64", "uint64")]
)
def test_new_labels_have_the_type_that_is_asked_for(
    tmp_path: Path, dtype: str | None, expected: str
) -> None:
    np.save(tmp_path / "seg.npy", np.arange(256).reshape(1, 16, 16))
    convert(tmp_path / "seg.npy", tmp_path / "out.zarr", relabel=True, dtype=dtype)
    with open_volume(tmp_path / "out.zarr") as copy:
        assert copy.dtype == expected
        assert int(copy.read().max()) == 255


def test_new_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "seg.npy", np.arange(257).reshape(1, 1, 257))
    with pytest.raises(LabelError, match="256 objects cannot be numbered 1 to 256 in uint8"):
        convert(tmp_path / "seg.npy", tmp_path / "out.zarr", relabel=True, dtype="uint8")
    for array, says in ((np.full((1, 1, 2), -4), "-4"), (np.ones((1, 1, 2)), "float64 values")):
        np.save(tmp_path / "seg.npy", array)
        with pytest.raises(LabelError, match=says):
            convert(tmp_path / "seg.npy", tmp_path / "out.zarr", relabel=True)
    with pytest.raises(OptionError, match="leave out --kind image"):
        convert(tmp_path / "seg.npy", tmp_path / "out.zarr", relabel=True, kind=Kind.IMAGE)
    assert [entry.name for entry in tmp_path.iterdir()] == ["seg.npy"]


def test_labels_are_not_counted_for_a_destination_that_is_refused(tmp_path: Path) -> None:
    class Uncountable(Watched):
        def _read(self, box: Box) -> np.ndarray:
            raise AssertionError

    np.save(tmp_path / "there.npy", np.ones((1, 1, 2)))
    with pytest.raises(DestinationExistsError):
        convert(Uncountable((2, 3, 4), chunks=(1, 3, 4)), tmp_path / "there.npy", relabel=True)


# --- how it is done ------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
def test_any_number_of_threads_gives_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    monkeypatch.setattr(block_plan, "BLOCK_BYTES", 150)
    uri = source(CASES[5], tmp_path)
    files = []
    for threads in (1, 4):
        folder = tmp_path / str(threads)
        chunks = {"chunks": (2, 3, 4), **case.extra}
        convert(uri, case.uri(folder), threads=threads, **chunks)
        files.append(
            {
                path.relative_to(folder): path.read_bytes()
                for path in folder.rglob("*")
                if path.is_file() and ".floodem" not in str(path) and path.suffix != ".npz"
            }
        )
    assert files[0] == files[1]


def test_axes_channel_and_level_reach_the_source(tmp_path: Path) -> None:
    np.save(tmp_path / "em.npy", np.stack([ARRAY.transpose(), ARRAY.transpose() + 1]))
    convert(tmp_path / "em.npy", tmp_path / "out.zarr", axes="cxyz", channel=1, pyramid=1)
    with open_volume(tmp_path / "out.zarr") as copy:
        np.testing.assert_array_equal(copy.read(), ARRAY + 1)
        coarse = copy.levels[1].read()
    convert(tmp_path / "out.zarr", tmp_path / "coarse.npy", level=1)
    np.testing.assert_array_equal(np.load(tmp_path / "coarse.npy"), coarse)


MEMORY = """
import resource, sys
import numpy as np
from pathlib import Path
from floodem.geometry import Box
from floodem.volumes import Volume, convert
from floodem.volumes.conversion import block_plan

MIB = 2**20
block_plan.BLOCK_BYTES, block_plan.MEMORY_BYTES = 4 * MIB, 32 * MIB

class Endless(Volume):
    uri, dtype, voxel_size = "endless", np.dtype(np.uint8), None

    def __init__(self, shape, chunks):
        self.box, self.chunks = Box.from_shape(shape), chunks

    def _read(self, box):
        return np.random.default_rng(box.start[0]).integers(0, 255, box.shape, np.uint8)

    def _write(self, box, array):
        raise AssertionError

to = Path(sys.argv[1])
convert(Endless((16, 64, 64), (16, 64, 64)), to / "warm.zarr", pyramid=2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name, chunks in (("cubes", (64, 64, 64)), ("sections", (1, 1024, 1024))):
    convert(Endless((160, 1024, 1024), chunks), to / f"{name}.zarr", pyramid=2, threads=4)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 // MIB)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts otherwise elsewhere")
def test_memory_stays_below_the_bound(tmp_path: Path) -> None:
    # By itself glibc keeps what was freed, in every thread, for later: as much as chance has it.
    # Of what it maps alone, it gives everything back, so that only what is in use is counted.
    ended = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
        check=True,
    )
    # The codecs' buffers come on top of the blocks; what is copied takes 2 x 160.
    assert int(ended.stdout) < 3 * 32


# --- the command ---------------------------------------------------------------------


def run(*arguments: Any) -> str:
    words = ["convert", *map(str, arguments)]
    result = CliRunner().invoke(build_app(words), words)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_converts_with_every_option(tmp_path: Path) -> None:
    uri = source(CASES[0], tmp_path)
    said = run(
        uri,
        tmp_path / "out.zarr",
        "--box=101:105,0:7,-18:-12",
        "--voxel-size=40,4,4",
        "--offset=0,1,2",
        "--dtype=uint32",
        "--chunks=2,2,2",
    )
    assert said.endswith("out.zarr: 4 x 7 x 6 uint32 at 0,1,2 (z,y,x), 40,4,4 nm a voxel\n")
    with open_volume(tmp_path / "out.zarr") as volume:
        assert volume.chunks == (2, 2, 2)
        np.testing.assert_array_equal(volume.read(), ARRAY[1:5, :, 2:])


def test_the_command_says_when_the_voxel_size_is_unknown(tmp_path: Path) -> None:
    np.save(tmp_path / "em.npy", ARRAY)
    assert "unknown voxel size" in run(tmp_path / "em.npy", tmp_path / "em.h5")


FLAT = np.repeat(np.repeat(np.arange(1, 65, dtype=np.uint16).reshape(1, 8, 8), 4, 1), 4, 2)
NOISE = np.random.default_rng(3).integers(1, 200, (4, 32, 32)).astype(np.uint16)


@pytest.mark.parametrize(
    ("array", "options", "is_noted"),
    [
        (FLAT, ["--dtype=uint8"], True),
        (FLAT, ["--dtype=uint16"], True),
        (FLAT, ["--dtype=uint8", "--kind=image"], False),
        (FLAT, ["--dtype=uint8", "--kind=labels"], False),
        (FLAT, ["--dtype=uint32"], False),
        (FLAT, ["--dtype=float32"], False),
        (NOISE, ["--dtype=uint8"], False),
        (NOISE, ["--dtype=uint16"], False),
    ],
)
@pytest.mark.parametrize("place", ["out.zarr", "precomputed://out"])
@pytest.mark.parametrize("pyramid", [[], ["--pyramid=1"]])
def test_small_labels_whose_kind_nobody_states_are_no_image_and_said_to_be_labels(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    array: np.ndarray,
    options: list[str],
    is_noted: bool,
    place: str,
    pyramid: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("em.npy", np.repeat(array, 4, 0))
    words = ["convert", "em.npy", place, "--voxel-size=8,8,8", *options, *pyramid]
    result = CliRunner().invoke(build_app(words), words)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    is_noted = is_noted and (bool(pyramid) or place.startswith("precomputed"))
    assert ("em.npy looks like labels: " in result.stderr) is is_noted
    assert ("the most frequent ids" in result.stderr) is (is_noted and bool(pyramid))
    with open_volume(place) as copy:
        if is_noted or "--kind=labels" in options:
            assert copy.kind is Kind.LABELS
            assert all(np.isin(level.read(), array).all() for level in copy.levels)
        elif place.startswith("precomputed") and "--dtype=uint32" not in options:
            assert copy.kind is Kind.IMAGE


def test_a_lossy_image_is_not_taken_for_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "em.npy", np.repeat(FLAT, 4, 0).astype(np.uint8))
    to = f"precomputed://{tmp_path / 'out'}"
    said = run(tmp_path / "em.npy", to, "--encoding=jpeg", "--pyramid=1", "--voxel-size=8,8,8")
    assert "looks like" not in said
    with open_volume(to) as copy:
        assert copy.kind is Kind.IMAGE


@pytest.mark.parametrize(
    ("place", "notes"),
    [
        (
            "out.npy",
            [
                "npy volumes have no room for --voxel-size: 8,4,4 is not kept",
                "npy volumes have no room for --offset: 1,2,3 is not kept",
                "npy volumes have no room for --kind: image is not kept",
                "npy volumes are not kept in chunks: --chunks has no effect",
            ],
        ),
        ("tiff://out", ["tiff volumes are not kept in chunks: --chunks has no effect"]),
        ("out.tif", ["tiff volumes are not kept in chunks: --chunks has no effect"]),
        ("png://out", ["png volumes are not kept in chunks: --chunks has no effect"]),
        ("out.npz", ["npz volumes are not kept in chunks: --chunks has no effect"]),
        ("out.nii", ["nifti volumes are not kept in chunks: --chunks has no effect"]),
        ("out.mrc", ["mrc volumes are not kept in chunks: --chunks has no effect"]),
        ("out.h5", []),
        ("out.zarr", []),
        ("precomputed://out", []),
    ],
)
def test_options_without_room_in_the_format_are_named_and_the_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, notes: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("em.npy", ARRAY)
    given = ["--voxel-size=8,4,4", "--offset=1,2,3", "--kind=image", "--chunks=2,3,4"]
    words = ["convert", "em.npy", place, *given]
    result = CliRunner().invoke(build_app(words), words)
    assert result.exit_code == 0, result.output
    found = [line for line in result.stderr.splitlines() if line.startswith("note: ")]
    assert found == [f"note: {note}" for note in notes]
    with open_volume(place) as copy:
        is_kept = place != "out.npy"
        assert copy.voxel_size == (VoxelSize(8, 4, 4) if is_kept else None)
        assert copy.offset == ((1, 2, 3) if is_kept else (0, 0, 0))
        assert copy.kind == (Kind.IMAGE if is_kept else None)
        assert (copy.chunks == (2, 3, 4)) is (not notes)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["no.zarr", "out.zarr"], 3, "there is no no.zarr"),
        (["em.npy", "out.zarr", "--box=1:2"], 2, "--box: '1:2' is not a box"),
        (["em.npy", "out.zarr", "--dtype=uint9"], 2, "'uint9' is no type of voxel"),
        (["em.npy", "em.npy"], 3, "choose another destination or --overwrite (overwrite=True)"),
        (["em.npy", "png://out", "--dtype=uint32"], 3, "choose one of these (convert --dtype"),
        (["em.npy", "out"], 3, "cannot tell the format of out"),
        (["em.npy", "out.zarr", "--pyramid=many"], 2, "--pyramid: 'many' is no number of levels"),
        (["em.npy", "out.zarr", "--pyramid=40"], 2, "has no 40 coarser levels: ask for 3"),
        (["em.npy", "out.zarr", "--window=3"], 2, "'3' is not a window: write LOW,HIGH"),
        (["em.npy", "out.zarr", "--axes=abc"], 2, "axes 'abc' do not name z, y and x"),
        (["em.npy", "out.zarr", "--level=2"], 2, "has no level 2"),
        (["em.npy", "out.npz", "--pyramid=1"], 3, "npz volumes have no levels"),
        (["em.npy", "out.n5", "--shards=2,2,2"], 3, "n5 volumes have no shards"),
        (["em.npy", "zarr:///"], 2, "'zarr:///' names no file or folder that could be made"),
        (["em.npy", "n5:///", "--overwrite"], 2, "'n5:///' names no file or folder"),
        (["em.npy", "em.npy/"], 2, "'em.npy/' ends like a folder, and a file is there"),
    ],
)
def test_the_command_ends_with_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("em.npy", ARRAY)
    result = CliRunner().invoke(build_app(["convert", *words]), ["convert", *words])
    assert result.exit_code == code
    assert message in result.output
    assert "Traceback" not in result.output
    assert [entry.name for entry in tmp_path.iterdir()] == ["em.npy"]
