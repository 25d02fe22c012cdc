"""Damage to what was written is found and named; what is whole is called whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bright import bright_model, bright_tubes
from conversions import CHUNKED, RESUMABLE, WHOLE, After, options_for, uris
from floodem.cli.main import build_app
from floodem.errors import StoppedError, VolumeFormatError, VolumeNotFoundError
from floodem.flooding.request import SegmentRequest
from floodem.flooding.segment import segment
from floodem.flooding.verification import verify_segmentation
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.progress import Progress
from floodem.volumes import convert, create_volume, open_volume, verify
from floodem.volumes.conversion import block_plan
from volume_cases import CASES, Case

SHAPE: Zyx = (8, 9, 10)
OFFSET: Zyx = (5, 0, -3)
RNG = np.random.default_rng(5)
ARRAY = RNG.integers(1, 2**15, SHAPE).astype(np.uint16)
PYRAMIDS = [case for case in CHUNKED if case.name not in {"zarr-inside", "ome-zarr-0.5"}]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_plan, "BLOCK_BYTES", 600)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "em.h5"
    with create_volume(
        path,
        shape=SHAPE,
        dtype="uint16",
        voxel_size=VoxelSize(30, 6, 4),
        offset=OFFSET,
        chunks=(2, 3, 4),
    ) as new:
        new.write(new.box, ARRAY)
    return path


def verifying(*arguments: object) -> tuple[int, str, str]:
    words = ["verify", *map(str, arguments)]
    ended = CliRunner().invoke(build_app(words), words)
    assert "Traceback" not in ended.output
    return ended.exit_code, ended.stdout, ended.stderr


# --- whole ---------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_was_converted_is_whole_in_every_format(
    tmp_path: Path, source: Path, case: Case
) -> None:
    to, _ = uris(tmp_path / "to", case)
    convert(source, to, **options_for(case))
    found = verify(to)
    assert found.is_whole
    assert found.is_finished
    assert not found.is_lossy
    (level,) = found.levels
    assert level.blocks == level.receipts > 0
    assert level.damaged == 0


@pytest.mark.parametrize("case", PYRAMIDS, ids=str)
def test_every_level_is_verified(tmp_path: Path, source: Path, case: Case) -> None:
    to, _ = uris(tmp_path / "to", case)
    convert(source, to, pyramid=2, **options_for(case))
    heard: list[Progress] = []
    found = verify(to, progress=heard.append)
    assert found.is_whole
    assert [level.level for level in found.levels] == [0, 1, 2]
    with open_volume(to) as copy:
        assert heard[-1].done == heard[-1].total == sum(one.box.size for one in copy.levels)


def test_lossy_copies_are_held_to_what_they_gave_back(tmp_path: Path, source: Path) -> None:
    smooth = np.linspace(0, 255, 32 * 32 * 32).astype(np.uint8).reshape(32, 32, 32)
    np.save(tmp_path / "smooth.npy", smooth)
    to = f"precomputed://{tmp_path / 'to'}"
    made = convert(
        tmp_path / "smooth.npy",
        to,
        encoding="jpeg",
        voxel_size=VoxelSize(8, 8, 8),
        chunks=(16, 16, 16),
        pyramid=1,
    )
    assert made.is_lossy
    with open_volume(to) as copy:
        assert not np.array_equal(copy.read(), smooth)
    found = verify(to)
    assert found.is_whole
    assert found.is_lossy


def test_negative_zeros_and_nans_are_kept_bit_by_bit(tmp_path: Path) -> None:
    values = np.zeros(SHAPE, np.float32)
    values[:4] = -0.0
    values[4, 0, :3] = (np.nan, np.inf, -np.inf)
    np.save(tmp_path / "em.npy", values)
    for case in CASES:
        if "float32" in case.dtypes:
            to, _ = uris(tmp_path / str(case), case)
            convert(tmp_path / "em.npy", to, voxel_size=VoxelSize(8, 8, 8), **options_for(case))
            with open_volume(to) as copy:
                assert copy.read().tobytes() == values.tobytes(), case


# --- damaged -------------------------------------------------------------------------


def data_files(path: Path) -> list[Path]:
    """Return the files that hold voxels, none of metadata."""
    names = {".zarray", ".zattrs", ".zgroup", "zarr.json", "attributes.json", "info"}
    return sorted(one for one in path.rglob("*") if one.is_file() and one.name not in names)


def damaged(to: str) -> list[tuple[int, Box, str]]:
    found = verify(to)
    assert not found.is_whole
    assert sum(level.damaged for level in found.levels) > 0
    return [(one.level, one.box, one.reason) for one in found.damages]


def place(case: Case, folder: Path) -> Path:
    return Path(case.uri(folder).removeprefix(case.prefix))


@pytest.mark.parametrize("how", ["missing", "truncated", "changed"])
@pytest.mark.parametrize("case", PYRAMIDS, ids=str)
def test_every_damaged_chunk_of_every_level_is_found_and_named(
    tmp_path: Path, source: Path, case: Case, how: str
) -> None:
    to, _ = uris(tmp_path / "to", case)
    convert(source, to, pyramid=2, **options_for(case))
    whole = place(case, tmp_path / "to")
    with open_volume(to) as copy:
        expected = [volume.read() for volume in copy.levels]
    files = data_files(whole)
    assert len({str(file.parent) for file in files}) > 1
    for file in files[:: max(1, len(files) // 7)]:
        data = file.read_bytes()
        if how == "missing":
            file.unlink()
        elif how == "truncated":
            file.write_bytes(data[: len(data) // 2])
        else:
            middle = len(data) // 2
            file.write_bytes(data[:middle] + bytes([data[middle] ^ 16]) + data[middle + 1 :])
        try:
            with open_volume(to) as copy:
                are_changed = [
                    not np.array_equal(volume.read(), before)
                    for volume, before in zip(copy.levels, expected, strict=True)
                ]
        except (VolumeFormatError, OSError):
            are_changed = [True]
        if any(are_changed):  # a byte of padding may change unseen
            places = damaged(to)
            assert len({level for level, _, _ in places}) == 1, (file, places)
            assert all(box.size <= 4 * 6 * 8 for _, box, _ in places)
            if how == "missing":
                assert all("missing" in reason for _, _, reason in places)
        file.write_bytes(data)
    assert verify(to).is_whole


def test_a_missing_chunk_is_named_by_its_own_box(tmp_path: Path, source: Path) -> None:
    to = tmp_path / "to.zarr"
    convert(source, to, chunks=(2, 3, 4))
    (to / "1" / "2" / "0").unlink()
    ((level, box, reason),) = damaged(str(to))
    assert (level, box) == (0, Box((7, 6, -3), (9, 9, 1)))
    assert reason == "reads as background only: its file is missing or emptied"


@pytest.mark.parametrize("case", [c for c in RESUMABLE if c.by_section], ids=str)
def test_damaged_sections_are_found(tmp_path: Path, source: Path, case: Case) -> None:
    to, _ = uris(tmp_path / "to", case)
    convert(source, to)
    section = data_files(place(case, tmp_path / "to"))[3]
    section.write_bytes(section.read_bytes()[:-40])
    ((level, box, _),) = damaged(to)
    assert (level, box) == (0, Box((8, 0, -3), (9, 9, 7)))


@pytest.mark.parametrize("gone", [[0], [3], [7], [0, 1, 6]])
@pytest.mark.parametrize("case", [c for c in RESUMABLE if c.by_section], ids=str)
def test_missing_sections_are_named_and_the_others_checked(
    tmp_path: Path, source: Path, case: Case, gone: list[int]
) -> None:
    to, _ = uris(tmp_path / "to", case)
    convert(source, to)
    sections = data_files(place(case, tmp_path / "to"))
    for number in gone:
        sections[number].unlink()
    changed = sections[5].read_bytes()
    sections[5].write_bytes(changed[:-40])
    expected = sorted({*gone, 5})
    places = damaged(to)
    assert [box for _, box, _ in places] == [Box((z + 5, 0, -3), (z + 6, 9, 7)) for z in expected]
    for number, (_, _, reason) in zip(expected, places, strict=True):
        named = f"cannot be read: the section {sections[number].name} is missing"
        assert (reason == named) is (number in gone)
    sections[5].write_bytes(changed)
    assert len(damaged(to)) == len(gone)


def test_of_many_sections_in_a_block_only_the_missing_one_is_named(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_plan, "BLOCK_BYTES", 2**20)
    convert(source, f"png://{tmp_path / 'to'}")
    (tmp_path / "to" / "z0003.png").unlink()
    ((level, box, reason),) = damaged(f"png://{tmp_path / 'to'}")
    assert (level, box) == (0, Box((8, 0, -3), (9, 9, 7)))
    assert reason == "cannot be read: the section z0003.png is missing"


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("is_finished", [True, False])
def test_a_missing_level_is_named_and_the_others_are_checked(
    tmp_path: Path, source: Path, level: int, *, is_finished: bool
) -> None:
    to = tmp_path / "to.ome.zarr"
    place = to
    if is_finished:
        convert(source, to, pyramid=2, chunks=(2, 3, 4))
    else:
        with pytest.raises(StoppedError):
            convert(source, to, pyramid=2, chunks=(2, 3, 4), threads=1, should_stop=After(12))
        place = tmp_path / ".to.ome.zarr.converting"
    whole = verify(to)
    assert whole.is_whole
    shutil.rmtree(place / str(level))
    found = verify(to)
    written = [one.receipts if one.level == level else 0 for one in found.levels]
    assert [one.damaged for one in found.levels] == written
    if written[level]:
        (damage,) = found.damages
        assert damage.level == level
        assert damage.reason.startswith("cannot be read: ")
        assert found.levels[level].receipts == whole.levels[level].receipts


def test_a_file_that_was_cut_short_is_said_so_once(tmp_path: Path, source: Path) -> None:
    to = tmp_path / "to.nii.gz"
    convert(source, to)
    to.write_bytes(to.read_bytes()[:-300])
    ((level, box, reason),) = damaged(str(to))
    assert (level, box.shape) == (0, SHAPE)
    assert "ended before" in reason


@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_changed_values_in_whole_files_are_found(tmp_path: Path, source: Path, case: Case) -> None:
    to, record = uris(tmp_path / "to", case)
    convert(source, to)
    kept = record.rename(tmp_path / "kept")
    changed = ARRAY.copy()
    changed[2, 3, 4] ^= 1
    with create_volume(
        to, shape=SHAPE, dtype="uint16", offset=OFFSET, chunks=(2, 3, 4), overwrite=True
    ) as new:
        new.write(new.box, changed)
    kept.rename(record)
    places = damaged(to)
    assert len(places) == 1
    assert places[0][1].contains_point((7, 3, 1))
    assert places[0][2] == "holds other bytes than were written"


def test_receipts_that_are_gone_are_damage_too(tmp_path: Path, source: Path) -> None:
    to = tmp_path / "to.zarr"
    convert(source, to, chunks=(2, 3, 4))
    receipts = tmp_path / "to.zarr.floodem" / "receipts.txt"
    lines = receipts.read_text().splitlines(keepends=True)
    lines[1] = lines[1].replace("0", "1", 1)
    receipts.write_text("".join(lines))
    ((_, _, reason),) = damaged(str(to))
    assert reason.startswith("has no receipt")


def test_a_volume_that_was_replaced_is_refused(tmp_path: Path, source: Path) -> None:
    to = tmp_path / "to.zarr"
    convert(source, to)
    with create_volume(to, shape=(1, 2, 3), dtype="uint8", overwrite=True):
        pass
    with pytest.raises(VolumeFormatError, match=r"holds 1 x 2 x 3 uint8 and was written as 8 x 9"):
        verify(to)
    shutil.rmtree(to)
    with pytest.raises(VolumeNotFoundError, match="there is no"):
        verify(to)


# --- stopped -------------------------------------------------------------------------


@pytest.mark.parametrize("case", RESUMABLE, ids=str)
def test_of_a_stopped_conversion_what_is_written_is_checked(
    tmp_path: Path, source: Path, case: Case
) -> None:
    to, _ = uris(tmp_path / "to", case)
    with pytest.raises(StoppedError):
        convert(source, to, threads=1, should_stop=After(3), **options_for(case))
    found = verify(to)
    assert found.is_whole
    assert not found.is_finished
    assert 0 < found.levels[0].receipts < found.levels[0].blocks
    work = place(case, tmp_path / "to")
    work = work.with_name(f".{work.name}.converting")
    for file in data_files(work):
        file.unlink()
    assert len(verify(to).damages) >= found.levels[0].receipts


def test_a_stopped_whole_file_is_said_to_be_none(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("floodem.volumes.conversion.history.History.clear", lambda self: None)
    with pytest.raises(StoppedError):
        convert(source, tmp_path / "to.npz", should_stop=After(1))
    with pytest.raises(VolumeNotFoundError, match="written as a whole: run it again"):
        verify(tmp_path / "to.npz")


def test_a_check_can_be_stopped(tmp_path: Path, source: Path) -> None:
    convert(source, tmp_path / "to.zarr")
    with pytest.raises(StoppedError):
        verify(tmp_path / "to.zarr", should_stop=lambda: True)


# --- the command ---------------------------------------------------------------------


def test_the_root_is_no_volume() -> None:
    code, _, err = verifying("zarr:///")
    assert code == 2
    assert "'zarr:///' names no file or folder that could be made" in err


def test_the_command_prints_a_table_and_ends_with_3_when_something_is_wrong(
    tmp_path: Path, source: Path
) -> None:
    to = tmp_path / "to.zarr"
    convert(source, to, chunks=(2, 3, 4), pyramid=1)
    code, out, err = verifying(to)
    assert (code, err) == (0, "")
    assert out.splitlines()[0].endswith("(conversion): all blocks are as they were written")
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["level", "0", "1"]
    assert all(line.split()[-1] == "0" for line in out.splitlines()[2:])
    for chunk in data_files(to / "0")[:15]:
        chunk.unlink()
    code, out, err = verifying(to)
    assert (code, err) == (3, "")
    assert "DAMAGED" in out
    assert "level 0, box 5:7,0:3,-3:1 (z,y,x): reads as background only" in out
    assert out.splitlines()[-1] == "and 5 more places (--json names all)"
    code, out, _ = verifying(to, "--json")
    told = json.loads(out)
    assert code == 3
    assert not told["is_whole"]
    assert len(told["damages"]) == 15
    assert told["damages"][0] == {
        "level": 0,
        "box": "5:7,0:3,-3:1",
        "reason": "reads as background only: its file is missing or emptied",
    }


def test_the_command_says_when_there_is_no_record(tmp_path: Path, source: Path) -> None:
    words = ["verify", str(source)]
    ended = CliRunner().invoke(build_app(words), words)
    assert ended.exit_code == 3
    assert "there is no record of a conversion to" in ended.output
    assert not Path(f"{source}.floodem").exists()


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segmented")
    np.save(folder / "em.npy", bright_tubes()[0])
    segment(
        folder / "em.npy",
        folder / "seg.zarr",
        model=bright_model(),
        request=SegmentRequest(device="cpu"),
    )
    return folder / "seg.zarr"


def test_segmentations_are_verified_too(segmented: Path, tmp_path: Path) -> None:
    to = tmp_path / "seg.zarr"
    for suffix in ("", ".floodem"):
        shutil.copytree(f"{segmented}{suffix}", f"{to}{suffix}")
    assert verify_segmentation(to).is_whole
    code, out, _ = verifying(to)
    assert code == 0
    assert "all labels are as they were written" in out
    with open_volume(to, writable=True) as volume:
        labels = volume.read()
        labels[0, 0, 0] += 1
        volume.write(volume.box, labels)
    code, out, _ = verifying(to)
    assert code == 3
    assert "its labels are not those that were written" in out
    data_files(to)[0].write_bytes(b"nonsense")
    code, out, _ = verifying(to, "--json")
    assert code == 3
    assert "(z,y,x): " in json.loads(out)["damages"][0]


def test_the_latest_record_counts(segmented: Path, tmp_path: Path) -> None:
    to = tmp_path / "seg.zarr"
    for suffix in ("", ".floodem"):
        shutil.copytree(f"{segmented}{suffix}", f"{to}{suffix}")
    convert(segmented, to, dtype="uint32", overwrite=True)
    code, out, _ = verifying(to)
    assert (code, "(conversion)" in out) == (0, True)
