"""``floodem stats``, ``floodem clahe`` and ``floodem info``: what is printed and refused."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from floodem.cli.clahe import clahe, parse_range
from floodem.cli.info import bytes_text, info, times
from floodem.cli.stats import number, stats
from floodem.errors import (
    EXIT_INPUT_REFUSED,
    EXIT_STOPPED,
    EXIT_USAGE,
    DestinationExistsError,
    OptionError,
    VolumeNotFoundError,
)
from floodem.geometry import VoxelSize
from floodem.volumes import create_volume, open_volume
from floodem.volumes.grey.equalisation import clahe_section


@pytest.fixture
def image(tmp_path):
    array = np.random.default_rng(0).normal(130, 30, (6, 20, 30)).clip(1, 254).astype(np.uint8)
    array[2] = 0
    uri = str(tmp_path / "em.h5")
    with create_volume(
        uri, shape=array.shape, dtype="uint8", voxel_size=VoxelSize(30, 6, 6), offset=(5, 0, 0)
    ) as volume:
        volume.write(volume.box, array)
    return uri, array


@pytest.fixture
def labels(tmp_path):
    array = np.zeros((6, 20, 30), np.uint32)
    array[:2, :5] = 7
    array[3] = 40
    uri = str(tmp_path / "seg.h5")
    with create_volume(
        uri, shape=array.shape, dtype="uint32", voxel_size=VoxelSize(30, 6, 6), offset=(5, 0, 0)
    ) as volume:
        volume.write(volume.box, array)
    return uri


def floodem(*arguments, encoding="utf-8"):
    return subprocess.run(
        [sys.executable, "-c", "from floodem.cli.main import main; main()", *arguments],
        capture_output=True,
        encoding=encoding,
        env=None,
        check=False,
        timeout=120,
    )


def test_stats_prints_numbers_histogram_options_and_notes(image, capsys):
    uri, array = image
    stats(uri)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{uri}: 6 x 20 x 30 uint8 in 5:11,0:20,0:30 (z,y,x)"
    words = {line.split()[0]: line.split()[1:] for line in lines if line.split()}
    assert words["voxels"] == ["3,600"]
    assert words["mean"] == [f"{array.mean():.6g}"]
    assert words["minimum"] == ["0"]
    rest = array[[0, 1, 3, 4, 5]]
    expected = f"--image-mean {rest.mean():.6g} --image-stddev {rest.std():.6g}"
    assert any(line.strip() == expected for line in lines)
    bars = [line for line in lines if "|#" in line]
    assert len(bars) > 10
    assert sum(float(line.split()[-1].rstrip("%")) for line in bars) == pytest.approx(100, abs=0.1)
    assert any("section 7 has one grey value only" in line for line in lines)


def test_stats_print_ascii_alone(image, capsys):
    stats(image[0])
    assert capsys.readouterr().out.isascii()


def test_stats_of_a_box_are_those_of_its_voxels(image, capsys):
    uri, array = image
    stats(uri, box="5:7,0:20,10:20", as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["mean"] == array[:2, :, 10:20].mean()
    with pytest.raises(OptionError, match="--box"):
        stats(uri, box="5:7")


def test_sections_go_into_a_table_that_is_not_replaced_unasked(image, tmp_path, capsys):
    table = tmp_path / "sections.csv"
    stats(image[0], sections=str(table))
    with open(table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["z"]) for row in rows] == list(range(5, 11))
    assert rows[2]["outlying"] == "constant"
    table.write_text("mine", encoding="utf-8")
    with pytest.raises(DestinationExistsError):
        stats(image[0], sections=str(table))
    assert table.read_text(encoding="utf-8") == "mine"
    stats(image[0], sections=str(table), overwrite=True)
    assert table.read_text(encoding="utf-8").startswith("z,voxels")


def test_a_table_in_no_folder_is_refused_before_the_work(image, tmp_path):
    with pytest.raises(VolumeNotFoundError, match="there is no folder .*nowhere"):
        stats(image[0], sections=str(tmp_path / "nowhere" / "sections.csv"))
    with pytest.raises(DestinationExistsError):
        stats(image[0], sections=str(tmp_path), overwrite=True)


def test_stats_of_real_numbers_show_six_digits(tmp_path, capsys):
    with create_volume(tmp_path / "em.zarr", shape=(2, 4, 4), dtype="float32") as volume:
        volume.write(volume.box, np.full((2, 4, 4), 0.123456789, np.float32))
    stats(str(tmp_path / "em.zarr"))
    assert "0.123457" in capsys.readouterr().out


def test_clahe_writes_the_copy_and_says_where(image, tmp_path, capsys):
    uri, array = image
    copy = str(tmp_path / "even.zarr")
    clahe(uri, copy, block=15, slope=3.0, threads=1)
    printed = capsys.readouterr().out
    assert printed == f"{copy}: 6 x 20 x 30 uint8 at 5,0,0 (z,y,x), 30,6,6 nm a voxel\n"
    with open_volume(copy) as volume:
        expected = clahe_section(array[0], block=15, slope=3.0)
        assert np.array_equal(volume.read()[0], expected)


def test_clahe_leaves_receipts_and_says_when_it_was_done_before(image, tmp_path):
    copy = str(tmp_path / "even.zarr")
    assert floodem("clahe", image[0], copy).returncode == 0
    assert floodem("verify", copy).returncode == 0
    again = floodem("clahe", image[0], copy)
    assert again.returncode == 0
    assert "was finished by an earlier run" in again.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C reaches a whole console there")
def test_ctrl_c_stops_clahe_and_the_same_command_goes_on(tmp_path):
    uri, copy = str(tmp_path / "em.zarr"), str(tmp_path / "even.zarr")
    array = np.random.default_rng(0).integers(0, 256, (256, 512, 512), np.uint8)
    with create_volume(uri, shape=array.shape, dtype="uint8", chunks=(8, 512, 512)) as volume:
        volume.write(volume.box, array)
    start = "from floodem.cli.main import main; main()"
    command = [sys.executable, "-c", start, "clahe", uri, copy, "--threads", "1"]
    receipts = tmp_path / "even.zarr.floodem" / "running" / "receipts.txt"
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None and not (receipts.exists() and receipts.stat().st_size):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == EXIT_STOPPED, said
    assert "run the same command again to go on" in said
    goes_on = floodem(*command[3:])
    assert goes_on.returncode == 0, goes_on.stderr
    assert floodem("verify", copy).returncode == 0


def test_a_range_is_two_whole_numbers():
    assert parse_range("120,4000") == (120, 4000)
    with pytest.raises(OptionError, match="--range '1-2' is not two whole numbers"):
        parse_range("1-2")


def test_info_prints_a_short_table(image, capsys):
    uri, _ = image
    info([uri])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == uri
    assert "  shape       6 x 20 x 30 (z,y,x)" in lines
    assert "  voxel size  30,6,6 nm (z,y,x)" in lines
    assert "  offset      5,0,0 (z,y,x)" in lines
    assert any(line.startswith("  size        3.6 kB unpacked, ") for line in lines)
    assert not any(line.startswith("  ids") for line in lines)


def test_info_counts_the_ids_of_small_labels(labels, capsys):
    info([labels])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "  ids" in line]
    assert line.split(maxsplit=1)[1] == (
        "2 from 7 to 40, background 75.0%; most voxels: 40 with 600 (16.7%)"
    )


def test_info_lists_a_file_with_several_datasets(image, tmp_path, capsys):
    with create_volume(f"{image[0]}@more", shape=(1, 2, 3), dtype="uint16") as volume:
        volume.write(volume.box, np.ones((1, 2, 3), np.uint16))
    info([image[0]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "  holds 2 arrays (hdf5)"
    assert lines[2].split() == ["more", "1", "x", "2", "x", "3", "uint16"]
    assert lines[-1] == f"  name one to see more of it: floodem info {image[0]}@more"


def test_info_as_json_is_one_object_or_a_list(image, labels, capsys):
    info([image[0]], as_json=True)
    one = json.loads(capsys.readouterr().out)
    assert one["volume"]["shape_zyx"] == [6, 20, 30]
    assert one["volume"]["voxel_size_nm_zyx"] == [30, 6, 6]
    info([image[0], labels], as_json=True)
    both = json.loads(capsys.readouterr().out)
    assert [found["volume"]["dtype"] for found in both] == ["uint8", "uint32"]
    assert both[1]["volume"]["ids"]["number"] == 2


def test_info_prints_both_and_names_the_first_mismatch(image, labels, tmp_path):
    assert floodem("info", image[0], labels).returncode == 0
    with create_volume(tmp_path / "few.zarr", shape=(6, 20, 31), dtype="uint32") as volume:
        volume.write(volume.box, np.zeros((6, 20, 31), np.uint32))
    found = floodem("info", image[0], str(tmp_path / "few.zarr"))
    assert found.returncode == EXIT_INPUT_REFUSED
    assert found.stdout.count("shape") == 2
    assert "20 x 30 pixels" in found.stderr
    assert found.stderr.count("\n") == 1


def test_mistakes_are_one_sentence_and_the_right_exit_code(image, tmp_path):
    for arguments, code, sentence in (
        (("info", str(tmp_path / "no.zarr")), EXIT_INPUT_REFUSED, "there is no"),
        (("stats", image[0], "--box", "1:2"), EXIT_USAGE, "--box"),
        (("clahe", image[0], "x.zarr", "--block", "4"), EXIT_USAGE, "block 4 is not an odd"),
        (("clahe", image[0], image[0]), EXIT_INPUT_REFUSED, "exists already"),
    ):
        found = floodem(*arguments)
        assert found.returncode == code, found.stderr
        assert found.stderr.count("\n") == 1
        assert sentence in found.stderr


def test_lengths_and_sizes_read_plainly():
    assert times((3, 4, 5)) == "3 x 4 x 5"
    assert times(()) == "one value"
    assert bytes_text(12) == "12 bytes"
    assert bytes_text(1_234_567) == "1.23 MB"
    assert bytes_text(5 * 10**12) == "5 TB"
    assert number(None) == "none"
    assert number(3.0) == "3"
    assert number(1e300) == "1e+300"
    assert number(131.77792) == "131.778"


def test_segmenting_labels_is_noted(image, labels, tmp_path):
    for uri, is_noted in ((labels, True), (image[0], False)):
        found = floodem("segment", uri, str(tmp_path / "x.zarr"), "--model", "no.safetensors")
        assert found.returncode == EXIT_INPUT_REFUSED
        assert ("looks like labels" in found.stderr) is is_noted
