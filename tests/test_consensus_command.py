"""``floodem consensus`` and ``floodem segment --consensus``: what is printed, and refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from consensus_cases import blobs, read, store, twin
from cut_runs import write_inputs
from floodem.assembly.consensus import ConsensusOptions
from floodem.cli.main import main
from floodem.errors import EXIT_INPUT_REFUSED, EXIT_USAGE
from floodem.geometry import VoxelSize
from floodem.volumes import convert, open_volume


def call(*words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


@pytest.fixture
def files(tmp_path):
    return [store(tmp_path / f"{n}.zarr", blobs((8, 9, 10), seed=s)) for s, n in enumerate("ab")]


def test_a_short_table_says_what_became_of_a(files, tmp_path, capsys):
    options = ("--split-min-size", 3, "--min-size", 2, "--workers", 1)
    assert call("consensus", *files, tmp_path / "out.zarr", *options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.rsplit(None, 1)[0].strip() for line in lines[:8]] == [
        "objects of A",
        "segments of A",
        "objects of B",
        "segments of B",
        "pairs",
        "pieces dropped as too small",
        "segments in DST",
        "voxels of A that are left",
    ]
    asked = ConsensusOptions(min_size=2, split_min_size=3)
    expected = twin(*(read(uri) for uri in files), asked)
    np.testing.assert_array_equal(read(tmp_path / "out.zarr"), expected)
    count = len(np.unique(expected)) - 1
    assert lines[6].split()[-1] == str(count)
    assert lines[8].startswith(f"{tmp_path / 'out.zarr'}: {count} segments in box 0:8,0:9,0:10")
    assert call("consensus", *files, tmp_path / "out.zarr", *options) == 0
    assert "was finished by an earlier run" in capsys.readouterr().out


def test_objects_of_several_parts_may_stay_whole_and_json_is_alone(files, tmp_path, capsys):
    options = ("--no-split", "--split-min-size", 0, "--workers", 1, "--json")
    assert call("consensus", *files, tmp_path / "out.zarr", "--block", "4,9,10", *options) == 0
    found = json.loads(capsys.readouterr().out)
    asked = ConsensusOptions(split_components=False, split_min_size=0)
    np.testing.assert_array_equal(
        read(tmp_path / "out.zarr"), twin(*(read(uri) for uri in files), asked)
    )
    assert found["blocks"] == 2
    assert found["dropped"] == 0
    assert found["box"] == "0:8,0:9,0:10"


def test_levels_and_a_box_are_taken(tmp_path, capsys):
    fine = blobs((8, 12, 12), seed=5, step=4)
    store(tmp_path / "flat.zarr", fine, voxel_size=VoxelSize(6, 6, 6))
    convert(tmp_path / "flat.zarr", tmp_path / "a.zarr", pyramid=1)
    words = ("--level-b", 1, "--box", "0:8,4:12,0:12", "--split-min-size", 0, "--workers", 1)
    a = tmp_path / "a.zarr"
    assert call("consensus", a, a, tmp_path / "out.zarr", *words, "--json") == 0
    assert json.loads(capsys.readouterr().out)["box"] == "0:8,4:12,0:12"
    with open_volume(a, level=1) as volume:
        coarse = np.kron(volume.read(), np.ones((2, 2, 2), np.uint64))
    options = ConsensusOptions(split_min_size=0)
    expected = twin(fine[:, 4:], coarse[:, 4:], options)
    np.testing.assert_array_equal(read(tmp_path / "out.zarr"), expected)


def test_mistakes_are_answered_in_a_sentence(files, tmp_path, capsys):
    out = tmp_path / "out.zarr"
    assert call("consensus", *files, out, "--split-min-size", "-3") == EXIT_USAGE
    assert "split_min_size -3 is negative" in capsys.readouterr().err
    assert call("consensus", *files, files[0], "--overwrite") == EXIT_INPUT_REFUSED
    assert "left as it is" in capsys.readouterr().err
    assert call("consensus", files[0], tmp_path / "none.zarr", out) == EXIT_INPUT_REFUSED
    assert "none.zarr" in capsys.readouterr().err
    assert not out.exists()


def test_segment_makes_a_consensus(tmp_path, capsys):
    write_inputs(tmp_path, shape=(13, 20, 48))
    words = ("segment", tmp_path / "em.zarr", tmp_path / "out.zarr")
    options = ("--model", tmp_path / "m.safetensors", "--device", "cpu", "--min-segment-size", 20)
    asked = ("--consensus", "reverse-seeds", "--split-min-size", 5)
    assert call(*words, *options, *asked) == 0
    printed = capsys.readouterr().out
    runs = [
        read(f"{tmp_path}/out.zarr.floodem/{name}/labels.zarr") for name in ("forward", "reverse")
    ]
    expected = twin(*runs, ConsensusOptions(split_min_size=5))
    np.testing.assert_array_equal(read(tmp_path / "out.zarr"), expected)
    assert f"{len(np.unique(expected)) - 1} segments in box" in printed
    assert "network calls" in printed


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--consensus", "reverse-seeds", "--levels", "1,0"], "made for one level at a time"),
        (["--consensus", "reverse-seeds", "--plan"], "--plan is made for one run"),
        (["--split-min-size", "5"], "give --consensus as well"),
        (["--consensus", "nothing.safetensors"], "no model file nothing.safetensors"),
    ],
)
def test_what_cannot_be_combined_is_refused(tmp_path, capsys, words, says):
    write_inputs(tmp_path, shape=(13, 20, 48))
    code = call(
        *("segment", tmp_path / "em.zarr", tmp_path / "out.zarr"),
        *("--model", tmp_path / "m.safetensors", "--device", "cpu", *words),
    )
    assert code in (EXIT_USAGE, EXIT_INPUT_REFUSED)
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out.zarr.floodem").exists()
