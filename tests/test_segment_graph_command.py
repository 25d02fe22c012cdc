"""``floodem merges``: what it prints, what it changes, and that it loads no network for it."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from floodem.assembly.agglomeration.agglomerate import Agglomeration
from floodem.assembly.agglomeration.graph.applying import Applied
from floodem.assembly.agglomeration.graph.edges_csv import CSV_COLUMNS
from floodem.assembly.agglomeration.graph.graph import SegmentGraph
from floodem.assembly.agglomeration.graph.rule import MergeRule
from floodem.cli import agglomerate, merges
from floodem.cli.main import main
from floodem.volumes import open_volume
from segment_graph_cases import (
    HEADER,
    LARGEST,
    graph_over,
    mapping_of,
    points_of,
    scores_of,
    write_graph,
)

EDGES = {(1, 2): 0.9, (2, 3): 0.5, (3, 4): 0.95, (7, LARGEST): 0.99}


def floodem(*arguments, code=0):
    """Run a command in this process; return what it printed, or its error."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main([str(one) for one in arguments])
    assert ended.value.code == code, err.getvalue()
    return out.getvalue() if code == 0 else err.getvalue()


@pytest.fixture
def path(tmp_path):
    return write_graph(tmp_path / "g.sqlite", EDGES)


def test_the_rule_the_counts_and_the_doubtful_edges_first_are_printed(path):
    printed = floodem("merges", path)
    assert "4 edges over /nowhere/base.zarr" in printed
    assert "iou > 0.8, coverage > 0.6, deleted < 0.02" in printed
    assert "\nmerges: 3 edges; 6 segments joined to 3 segments\n" in printed
    rows = printed.split("nearest to a threshold\n")[1].splitlines()[1:]
    assert [row.split()[:2] for row in rows] == [
        ["2", "3"],
        ["1", "2"],
        ["3", "4"],
        ["7", str(LARGEST)],
    ]
    assert [row.split()[-2] for row in rows] == ["no", "yes", "yes", "yes"]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("--near", [(2, 3), (1, 2)]),
        ("--best", [(7, LARGEST), (3, 4)]),
        ("--worst", [(2, 3), (1, 2)]),
    ],
)
def test_edges_are_listed_in_the_order_that_is_asked_for(path, order, expected):
    listed = json.loads(floodem("merges", path, order, "2", "--json"))["listed"]
    assert [(edge["id_a"], edge["id_b"]) for edge in listed] == expected


def test_edges_flooded_from_one_side_are_ranked_by_it_and_show_no_iou(tmp_path):
    scores = scores_of([0.0, 0.0, 0.4, 0.0])
    scores["a_covers_b"] = np.array([0.1, 0.3, 0.9, 0.5])
    for name in ("b_covers_a", "b_covers_b", "size_b", "deleted_b", "seeds_b"):
        scores[name][[0, 1, 3]] = 0
    pairs = [(1, 2), (3, 4), (5, 6), (7, 8)]
    path = tmp_path / "g.sqlite"
    SegmentGraph.create(
        path, header=HEADER, points=points_of(pairs), scores=scores, rule=MergeRule()
    )

    def listed(order):
        values = json.loads(floodem("merges", path, order, "9", "--json"))
        return [edge["id_a"] for edge in values["listed"]]

    # 3,4 and 5,6 have the same margin, and 5,6 was flooded from both sides.
    assert listed("--near") == listed("--best") == [7, 5, 3, 1]
    assert listed("--worst") == [1, 3, 5, 7]
    printed = floodem("merges", path)
    rows = [row.split() for row in printed.split("threshold\n")[1].splitlines()[1:5]]
    assert [row[3:7] for row in rows] == [
        ["-0.167", "-", "0.500", "0.0000"],
        ["-0.500", "0.400", "0.900", "0.0000"],
        ["-0.500", "-", "0.300", "0.0000"],
        ["-0.833", "-", "0.100", "0.0000"],
    ]
    assert "one side was not flooded" in printed


def test_what_somebody_decided_about_is_not_in_the_queue_again(path):
    floodem("merges", path, "--split", "2,3", "--merge", "1,2")
    listed = json.loads(floodem("merges", path, "--near", "2", "--json"))["listed"]
    assert [(edge["id_a"], edge["id_b"]) for edge in listed] == [(3, 4), (7, LARGEST)]


def test_json_tells_all_that_is_known(path):
    floodem("merges", path, "--split", "1,2", "--note", "two axons")
    values = json.loads(floodem("merges", path, "--of", "4", "--between", "4,3", "--json"))
    assert values["rule"] == MergeRule().to_json()
    assert (values["edges"], values["accepted"], values["decided"]) == (4, 2, 1)
    assert values["header"]["segmentation"]["uri"] == "/nowhere/base.zarr"
    [entry] = values["decisions"]
    assert (entry["action"], entry["pair"], entry["note"]) == ("split", [1, 2], "two axons")
    assert values["members"] == [3, 4]
    assert values["between"] == [4, 3]
    [edge] = values["listed"]
    assert (edge["iou"], edge["decided_by"], edge["accepted"]) == (0.95, "rule", True)


def test_a_merge_is_undone_redone_and_all_are(path):
    before = mapping_of(path)
    said = floodem("merges", path, "--undo", "2,1", "--note", "a glia cell")
    assert "entry 1: split 1,2 (a glia cell); 1 and 2 are apart now" in said
    said = floodem("merges", path, "--undo", "1")
    assert "entry 2: undo entry 1; 1 and 2 are one segment now" in said
    assert mapping_of(path) == before
    assert "--undo 3 brings them back" in floodem("merges", path, "--undo", "all")
    assert mapping_of(path) == {}
    floodem("merges", path, "--undo", "3")
    assert mapping_of(path) == before


def test_an_undo_while_all_merges_are_undone_says_that_they_stay_off(path):
    floodem("merges", path, "--split", "1,2")
    assert "\nno merges\n" in floodem("merges", path, "--undo", "all")
    said = floodem("merges", path, "--undo", "1")
    assert "1 and 2 are apart now; merges stay off until entry 2 is undone\n" in said
    assert "stay off" not in floodem("merges", path, "--undo", "2")


def test_ids_that_only_a_decision_knows_are_shown(path):
    said = floodem("merges", path, "--merge", "4,999", "--of", "999")
    assert "merges: 3 edges and 1 other pair; 7 segments joined to 3 segments" in said
    assert "segment 3 is made of 3, 4, 999" in said


def test_what_still_holds_two_segments_together_is_told(path):
    floodem("merges", path, "--merge", "2,3", "--merge", "1,3")
    said = floodem("merges", path, "--split", "1,2")
    assert "1 and 2 are still one segment, over 3" in said
    assert "from 1 to 2: 1 - 3 - 2" in floodem("merges", path, "--between", "1,2")
    assert "segment 1 is made of 1, 2, 3, 4" in floodem("merges", path, "--of", "4")


def test_thresholds_that_are_not_given_stay(path):
    floodem("merges", path, "--iou", "0.4", "--distance", "70")
    said = floodem("merges", path, "--deleted", "0.5", "--near", "0")
    assert "rule 3 of 3: iou > 0.4, coverage > 0.6, deleted < 0.5, distance at most 70 nm" in said
    floodem("merges", path, "--distance", "any")
    with SegmentGraph.open(path) as graph:
        assert graph.rule == MergeRule(iou=0.4, deleted=0.5)


def test_edges_become_a_table_for_other_programs(tmp_path, path):
    table = tmp_path / "edges.csv"
    floodem("merges", path, "--csv", table, "--split", "7,18446744073709551615")
    with open(table, newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [(int(row["id_a"]), int(row["id_b"])) for row in rows] == sorted(EDGES)
    assert [float(row["iou"]) for row in rows] == [EDGES[pair] for pair in sorted(EDGES)]
    assert [row["accepted"] for row in rows] == ["1", "0", "1", "0"]
    assert rows[3]["decided_by"] == "split"
    assert [row["merged_id"] for row in rows] == ["1", "1", "3", "7"]
    assert "exists already" in floodem("merges", path, "--csv", table, code=3)
    floodem("merges", path, "--csv", table, "--overwrite")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--undo", "1,2,3"], 2, "two ids, an entry, or all"),
        (["--undo", "everything"], 2, "not an id"),
        (["--undo", "1,4"], 3, "nothing to undo"),
        (["--undo", "9"], 3, "no entry 9"),
        (["--merge", "1"], 2, "no pair"),
        (["--split", "1,4"], 3, "no edge joins"),
        (["--of", "1,2"], 2, "not one id"),
        (["--iou", "1.5"], 2, "no fraction"),
        (["--distance", "far"], 2, "no length"),
        (["--distance", "-1"], 2, "negative"),
        (["--near", "1", "--best", "1"], 2, "two orders"),
        (["--note", "why"], 2, "belongs to a change"),
        (["--undo", "all", "--iou", "0.5", "--split", "1,4"], 3, "no edge joins"),
        (["--of", "999"], 3, "no edge of the graph knows segment 999"),
        (["--undo", "all", "--between", "1,999"], 3, "no edge of the graph knows segment 999"),
        (["--undo", "all", "--csv", "/nowhere/at/all.csv"], 3, "there is no folder"),
    ],
)
def test_mistakes_are_one_sentence_and_change_nothing(path, arguments, code, says):
    before = path.read_bytes()
    said = floodem("merges", path, *arguments, code=code)
    assert says in said
    assert said.count("\n") == 1
    assert path.read_bytes() == before


def test_no_merges_are_said_plainly(tmp_path, capsys):
    made = Agglomeration(
        graph=tmp_path / "g.sqlite",
        points=3,
        merges=0,
        segments=0,
        objects=0,
        calls=7,
        seconds=1.0,
        was_finished=False,
    )
    applied = Applied(
        uri="m.zarr", segments=2, joined=0, wholes=0, voxels=9, labelled=8, was_finished=False
    )
    agglomerate._print(made, applied)
    merges._print_applied(applied)
    first, second, third = capsys.readouterr().out.splitlines()
    assert "g.sqlite: 3 decision points, no merges; 7 network calls in" in first
    assert second == "m.zarr: no merges: these are the segments of the base"
    assert third == (
        "m.zarr: 2 segments in 8 of 9 voxels; no merges: these are the segments of the base"
    )


def test_notes_cannot_take_over_the_console(path):
    printed = floodem("merges", path, "--undo", "all", "--note", "\x1b[2Jgone\nfaked line")
    assert "\x1b" not in printed
    assert "gone faked line" in printed


CHECK = """
import sys
from floodem.cli.main import main
try:
    main(sys.argv[1:])
finally:
    heavy = [name for name in ("torch", "dask", "neuroglancer") if name in sys.modules]
    print("loaded:", heavy, file=sys.stderr)
"""


def test_thresholds_change_and_volumes_are_written_without_a_network(tmp_path):
    labels = np.kron(np.arange(1, 9).reshape(2, 2, 2), np.ones((4, 4, 4), np.int64)).astype("u8")
    path = graph_over(tmp_path, labels, {(1, 2): 0.5, (5, 6): 0.9})
    done = subprocess.run(
        [
            *(sys.executable, "-c", CHECK, "merges", str(path), "--iou", "0.4", "--workers", "1"),
            *("--apply", str(tmp_path / "m.zarr")),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "6 segments in 512 of 512 voxels; 4 segments of the base are joined to 2" in done.stdout
    assert "loaded: []" in done.stderr
    with open_volume(str(tmp_path / "m.zarr")) as volume:
        assert np.unique(volume.read()).tolist() == [1, 3, 4, 5, 7, 8]


@pytest.mark.parametrize(
    "option",
    [
        ("--workers", "2"),
        ("--block", "8,8,8"),
        ("--segmentation", "seg.zarr"),
        ("--shard", "1/2"),
        ("--allow-external",),
        ("--overwrite",),
    ],
)
def test_options_that_would_do_nothing_are_refused(path, option):
    said = floodem("merges", path, *option, code=2)
    assert option[0] in said
    assert "--apply" in said


def test_a_threshold_below_what_was_flooded_is_told(tmp_path, capsys):
    about = {"resegmentation": {"terminate_early": True, "recovery_fraction": 0.6}}
    path = write_graph(tmp_path / "g.sqlite", EDGES, header=replace(HEADER, about=about))
    with SegmentGraph.open(path) as opened:
        assert opened.header.least_coverage == 0.6
    said = []
    for coverage in ("0.7", "0.5"):
        with pytest.raises(SystemExit):
            main(["merges", str(path), "--coverage", coverage])
        said.append("--both-sides" in capsys.readouterr().err)
    assert said == [False, True]
