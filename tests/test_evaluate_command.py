"""``floodem evaluate``: what is printed, and how mistakes in the call are answered."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from floodem.cli.evaluate import evaluate, parse_ids
from floodem.cli.main import EXIT_PIPE_CLOSED, main
from floodem.errors import OptionError, UsageError
from floodem.evaluation import comparison
from floodem.volumes import create_volume

SEGMENTATION = np.repeat(np.uint64([[[1, 1, 1, 2, 2, 0, 3, 3]]]), 4, axis=1)
SMALL_BLOCKS = {**comparison.evaluate.__kwdefaults__, "block_voxels": 8}
TRUTH = np.repeat(np.uint64([[[7, 7, 7, 7, 7, 7, 8, 0]]]), 4, axis=1)


@pytest.fixture
def files(tmp_path):
    uris = []
    for name, labels, offset in (("seg", SEGMENTATION, 100), ("truth", TRUTH, 100)):
        uri = str(tmp_path / f"{name}.h5@labels")
        with create_volume(
            uri, shape=labels.shape, dtype=labels.dtype, offset=(0, 0, offset)
        ) as volume:
            volume.write(volume.box, labels)
        uris.append(uri)
    return uris


def test_both_rows_and_the_places_of_mistakes_are_printed(files, capsys):
    evaluate(*files)
    lines = capsys.readouterr().out.splitlines()
    assert "28 voxels with truth in 0:1,0:4,100:108 (z,y,x), 85.7% of them segmented" in lines
    all_truth = next(line for line in lines if line.startswith("all truth"))
    # Pairs: (1, 7) 12, (2, 7) 8, (0, 7) 4, (3, 8) 4; recall (144 + 64 + 16 + 16) / (576 + 16).
    scores = ["0.4231", "1.000", "0.405", "1.251", "0.000", "1.251"]
    assert all_truth.split()[2:] == [*scores, "4", "2"]
    assert any(line.startswith("where both label") for line in lines)
    split = lines[lines.index("worst splits: objects of the truth in several segments") + 2]
    assert split.split()[:3] == ["7", "20", "2"]
    assert "1 at 0,1,102" in split
    assert "2 at 0,1,103" in split


def test_mistakes_that_no_score_shows_are_not_listed(tmp_path, capsys):
    truth = np.repeat(np.uint64([1, 2]), 50_000).reshape(10, 100, 100)
    labels = truth.copy()
    labels[0, :3, :100] = 5  # splits object 1
    labels[9, 99, 99] = 1  # one voxel of object 2
    uris = [str(tmp_path / f"{name}.h5@labels") for name in ("labels", "truth")]
    for uri, array in zip(uris, (labels, truth), strict=True):
        with create_volume(uri, shape=array.shape, dtype=array.dtype) as volume:
            volume.write(volume.box, array)
    evaluate(*uris)
    lines = capsys.readouterr().out.splitlines()
    splits = lines.index("worst splits: objects of the truth in several segments")
    mergers = lines.index("worst mergers: segments over several objects of the truth")
    assert [line.split()[0] for line in lines[splits + 2 : mergers - 1]] == ["1"]
    assert lines[mergers + 1 :] == ["none above 0.0005 bits"]
    evaluate(*uris, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert [one["object"] for one in told["worst_splits"]] == [1, 2]
    assert [one["segment"] for one in told["worst_mergers"]] == [1]


@pytest.mark.skipif(sys.platform == "win32", reason="a closed pipe is another error there")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_reader_that_leaves_ends_it_silently(files, options):
    start = "from floodem.cli.main import main; main()"
    command = [sys.executable, "-c", start, "evaluate", *files, *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert "bug" not in errors
    assert "Traceback" not in errors
    assert process.returncode == EXIT_PIPE_CLOSED


def test_json_is_all_that_is_printed(files, capsys):
    evaluate(*files, as_json=True, worst=1, border="0,1,0", ignore=["0,8"])
    result = json.loads(capsys.readouterr().out)
    assert (result["format"], result["version"]) == ("floodem evaluation", 1)
    assert result["box_zyx"] == "0:1,1:3,100:108"
    assert result["ignore"] == [0, 8]
    assert result["all_truth"]["voxels"] == 12
    assert result["worst_splits"][0]["object"] == 7


def run(*words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


def test_shards_leave_their_part_in_the_work_folder_and_the_last_prints_scores(
    files, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(comparison.evaluate, "__kwdefaults__", SMALL_BLOCKS)
    evaluate(*files, as_json=True)
    wanted = json.loads(capsys.readouterr().out)
    words = ("evaluate", *files, "--json", "--work", tmp_path / "work")
    assert run(*words, "--shard", "2/2") == 0
    said = capsys.readouterr()
    assert (said.out, said.err.startswith("shard 2/2 is done; ")) == ("", True)
    assert run(*words, "--shard", "1/2") == 0
    assert json.loads(capsys.readouterr().out) == wanted
    # Whoever asks again is answered from what is there.
    assert run(*words) == 0
    assert json.loads(capsys.readouterr().out) == wanted


def test_a_segmentation_without_labels_is_said_so(files, capsys):
    evaluate(*files, box="0:1,0:4,105:106")
    assert "where both label    no voxel" in capsys.readouterr().out


def test_volumes_of_other_extents_are_named(files, tmp_path, capsys):
    uri = str(tmp_path / "small.h5@labels")
    with create_volume(uri, shape=(1, 4, 3), dtype="uint64", offset=(0, 0, 100)) as volume:
        volume.write(volume.box, TRUTH[..., :3])
    evaluate(files[0], uri)
    assert "holds 0:1,0:4,100:108, the truth 0:1,0:4,100:103" in capsys.readouterr().out


@pytest.mark.parametrize("options", [{"border": "1,2"}, {"box": "1,2,3"}])
def test_triples_and_boxes_that_are_none_are_refused(files, options):
    with pytest.raises(OptionError, match=f"--{next(iter(options))}: "):
        evaluate(*files, **options)


def test_ignored_ids_come_one_by_one_or_as_a_list():
    assert parse_ids(["0, 5", "18446744073709551615"]) == [0, 5, 2**64 - 1]
    assert parse_ids(["none"]) == []


@pytest.mark.parametrize("text", ["", "-1", "1.5", "none,1", "²"])
def test_ids_that_are_no_numbers_are_refused(text):
    with pytest.raises(OptionError, match="--ignore"):
        parse_ids([text])


@pytest.fixture
def skeletons(tmp_path):
    folder = tmp_path / "skeletons"
    folder.mkdir()
    lines = [f"{x} 0 {10 * x + 995} 5 5 1 {x - 1 if x > 1 else -1}" for x in range(1, 8)]
    (folder / "7.swc").write_text("\n".join(["# unit: nm", *lines, ""]))
    # Along y in the last column, in the same segment as the end of the other.
    lines = [f"{y} 0 1065 {10 * y - 5} 5 1 {y - 1 if y > 1 else -1}" for y in range(1, 6)]
    (folder / "8.swc").write_text("\n".join(["# unit: nm", *lines, ""]))
    return folder


def test_skeletons_add_a_row_and_their_mistakes(files, skeletons, capsys):
    evaluate(*files, skeletons=str(skeletons), voxel_size="10,10,10", bootstrap=20)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("95% of drawings") for line in lines) == 3
    told = "along 2 skeletons of 0.090 um: 90.9% of 11 nodes in a segment; 1 node outside left out"
    assert told in lines
    row = next(line for line in lines if line.startswith("along skeletons"))
    # 20, a split, 10, a gap, and the node at 106 in the segment of the other skeleton.
    assert row.split()[2:] == [
        *("0.006", "0.050", "33.3%", "11.1%", "22.2%", "33.3%", "1", "1", "1"),
    ]
    split = lines[lines.index("worst splits along skeletons") + 2]
    assert split.split() == ["7", "1,2", "0.012", "1", "at", "0,0,102", "2", "at", "0,0,103"]
    merger = lines[lines.index("worst mergers of skeletons") + 2]
    assert merger.split() == ["3", "8,7", "0.010", "8", "at", "0,0,106", "7", "at", "0,0,106"]


def test_skeletons_do_without_truth(files, skeletons, capsys):
    address = str(skeletons)
    evaluate(files[0], skeletons=address, voxel_size="10,10,10", as_json=True, merge_nodes=2)
    told = json.loads(capsys.readouterr().out)
    assert (told["format"], told["version"], told["truth"]) == ("floodem evaluation", 1, None)
    assert (told["skeletons"]["splits"], told["skeletons"]["mergers"]) == (1, 0)
    evaluate(files[0], skeletons=address, voxel_size="10,10,10")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == files[0]
    assert lines[1].startswith("along 2 skeletons of 0.090 um: ")
    evaluate(files[0], skeletons=address, voxel_size="10,10,10", merge_nodes=2)
    told = "segments with 2 nodes of two skeletons join them"
    assert told in capsys.readouterr().out.splitlines()


def test_what_needs_truth_is_refused_without_it(files, skeletons):
    with pytest.raises(UsageError, match="give TRUTH, or skeletons"):
        evaluate(files[0])
    for given in ({"border": "1,1,1"}, {"ignore": ["0"]}, {"cremi_border": 25.0}):
        with pytest.raises(UsageError, match=r"--.* is about TRUTH: give TRUTH as well"):
            evaluate(files[0], skeletons=str(skeletons), **given)
    with pytest.raises(UsageError, match="--skeletons from-truth is about TRUTH"):
        evaluate(files[0], skeletons="from-truth")
    with pytest.raises(OptionError, match="--swc-unit 'mm' is no unit"):
        evaluate(files[0], skeletons=str(skeletons), swc_unit="mm")


def test_voxels_near_borders_of_the_truth_are_left_out_where_asked(files, capsys):
    evaluate(*files, cremi_border=4.0, voxel_size="40,4,4")
    lines = capsys.readouterr().out.splitlines()
    # In each row the truth changes at 106 and 107: columns 104 to 107 are as near.
    assert any(line.startswith("16 voxels with truth, over 4 nm from its bord") for line in lines)
