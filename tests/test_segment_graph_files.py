"""Files of segment graphs that are damaged, foreign, hostile, half written, or used by two."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from floodem.assembly.agglomeration.graph import format as graph_format
from floodem.assembly.agglomeration.graph.format import APPLICATION_ID, MAX_TEXT_BYTES, TABLES
from floodem.assembly.agglomeration.graph.graph import SegmentGraph
from floodem.assembly.agglomeration.graph.rule import MergeRule
from floodem.assembly.agglomeration.graph.writer import writing_graph
from floodem.errors import (
    DestinationExistsError,
    FloodemError,
    OptionError,
    RunConflictError,
    StorageError,
    UnsafeFileError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from segment_graph_cases import HEADER, points_of, scores_of, write_graph

EDGES = {(1, 2): 0.9, (2, 3): 0.5, (3, 4): 0.95}


@pytest.fixture
def path(tmp_path):
    return write_graph(tmp_path / "graph.sqlite", EDGES)


def change(path, *statements):
    """Change a graph with another program."""
    with contextlib.closing(sqlite3.connect(path)) as other:
        for statement in statements:
            other.execute(statement)
        other.commit()


def use(path):
    """Do with a graph all that can be done without changing it."""
    with SegmentGraph.open(path) as graph:
        _ = graph.header, graph.rule
        graph.rules()
        graph.entries()
        graph.mapping()


def test_the_file_is_as_the_documentation_tells_other_programs(path):
    with SegmentGraph.open(path, writable=True) as graph:
        graph.decide(1, 2, action="split", note="why")
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert other.execute("PRAGMA user_version").fetchone() == (1,)
        names = [row[0] for row in other.execute("SELECT name FROM sqlite_master").fetchall()]
        assert sorted(names) == ["decisions", "edges", "header", "rules"]
        first = other.execute("SELECT id_a, id_b, z, y, x, iou FROM edges").fetchone()
        assert first == (1, 2, -4, -3, -2, 0.9)
        [told] = other.execute("SELECT action, id_a, id_b, entry, note FROM decisions").fetchall()
        assert told == ("split", 1, 2, None, "why")
        [text] = other.execute("SELECT text FROM header").fetchone()
        assert json.loads(text)["segmentation"]["uri"] == HEADER.segmentation.uri
        [rule] = other.execute("SELECT rule FROM rules").fetchone()
        assert json.loads(rule) == MergeRule().to_json()


def test_an_address_without_a_file_is_said_to_be_one(tmp_path):
    with pytest.raises(VolumeNotFoundError, match="no segment graph at"):
        use(tmp_path / "none.sqlite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"labels", b"SQLite format 3\0" + bytes(200)])
def test_other_files_are_no_graphs(tmp_path, content):
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(VolumeFormatError, match="no segment graph of floodem"):
        use(path)


def test_a_database_of_another_program_is_no_graph(tmp_path):
    change(tmp_path / "cookies", "CREATE TABLE cookies (name TEXT)")
    with pytest.raises(VolumeFormatError, match="no segment graph of floodem"):
        use(tmp_path / "cookies")


@pytest.mark.parametrize(
    ("statements", "error", "says"),
    [
        (["PRAGMA user_version = 2"], VolumeFormatError, "version 2"),
        (["PRAGMA journal_mode = WAL"], VolumeFormatError, "journal mode"),
        (["CREATE VIEW v AS SELECT 1"], UnsafeFileError, "the view 'v'"),
        (["CREATE TABLE notes (text TEXT)"], UnsafeFileError, "the table 'notes'"),
        (["CREATE INDEX i ON edges (iou)"], UnsafeFileError, "the index 'i'"),
        (
            ["CREATE TRIGGER t AFTER INSERT ON rules BEGIN DELETE FROM edges; END"],
            UnsafeFileError,
            "the trigger 't'",
        ),
        (["DROP TABLE rules"], VolumeFormatError, "rules is missing"),
        (["ALTER TABLE edges ADD COLUMN more TEXT"], VolumeFormatError, "other columns in edges"),
        (
            ["DROP TABLE edges", "CREATE VIEW edges AS SELECT 1"],
            UnsafeFileError,
            "the view 'edges'",
        ),
        (["DELETE FROM header"], VolumeFormatError, "its header is missing"),
        (["UPDATE header SET text = '{}'"], VolumeFormatError, "header is damaged"),
        (["UPDATE header SET text = '[' || text"], VolumeFormatError, "header is damaged"),
        (["UPDATE header SET text = x'00ff'"], VolumeFormatError, "its header is missing"),
        (["DELETE FROM rules"], VolumeFormatError, "it has no rule"),
        (["UPDATE rules SET rule = '{\"iou\": 7}'"], VolumeFormatError, "a rule of it is none"),
        (["UPDATE rules SET rule = '{\"beauty\": 1}'"], VolumeFormatError, "a rule of it is none"),
        (["UPDATE edges SET iou = 'much'"], VolumeFormatError, "no number"),
        (["UPDATE edges SET z = 1.5"], VolumeFormatError, "no number"),
        (["UPDATE edges SET iou = 9e999"], VolumeFormatError, "not finite"),
        (["UPDATE edges SET id_b = 1 WHERE id_a = 1"], VolumeFormatError, "not in order"),
        (["UPDATE edges SET id_a = 0 WHERE id_a = 1"], VolumeFormatError, "not in order"),
        (
            ["INSERT INTO decisions VALUES (1, '', 'explode', 1, 2, NULL, '')"],
            VolumeFormatError,
            "a decision of it is none",
        ),
        (
            ["INSERT INTO decisions VALUES (1, '', 'undo', NULL, NULL, 1, '')"],
            VolumeFormatError,
            "a decision of it is none",
        ),
        (
            ["INSERT INTO decisions VALUES (1, '', 'merge', NULL, NULL, NULL, '')"],
            VolumeFormatError,
            "a decision of it is none",
        ),
        (
            ["INSERT INTO decisions VALUES (1, '', 'merge', 2, 2, NULL, '')"],
            VolumeFormatError,
            "a decision of it is none",
        ),
        (
            [f"UPDATE header SET text = hex(zeroblob({MAX_TEXT_BYTES}))"],
            UnsafeFileError,
            "text of more than",
        ),
    ],
)
def test_what_no_graph_holds_is_refused_in_a_sentence(path, statements, error, says):
    change(path, *statements)
    before = path.read_bytes()
    with pytest.raises(error, match=says) as raised:
        use(path)
    assert str(path) in str(raised.value)
    assert path.read_bytes() == before


def test_a_table_that_calls_what_a_hostile_file_wants_is_refused_before_it_is_read(path):
    """A generated column would compute whatever its author wrote, whenever it is read."""
    change(
        path,
        "DROP TABLE rules",
        "CREATE TABLE rules (number INTEGER PRIMARY KEY, time TEXT NOT NULL, rule TEXT NOT NULL, "
        "note TEXT AS (hex(zeroblob(1000000000))))",
    )
    with pytest.raises(VolumeFormatError, match="other columns in rules"):
        use(path)


@pytest.mark.parametrize("seed", range(30))
def test_damaged_bytes_give_a_sentence_or_the_edges(path, seed):
    moments = random.Random(seed)
    data = bytearray(path.read_bytes())
    for _ in range(moments.choice([1, 8, 64])):
        data[moments.randrange(len(data))] = moments.randrange(256)
    if seed % 3 == 0:
        del data[moments.randrange(100, len(data)) :]
    path.write_bytes(data)
    with contextlib.suppress(FloodemError):
        use(path)


def test_an_absurd_header_is_not_written(tmp_path):
    header = dataclasses.replace(HEADER, about={"text": "x" * MAX_TEXT_BYTES})
    with pytest.raises(OptionError, match="say less in it"):
        write_graph(tmp_path / "g.sqlite", EDGES, header=header)
    header = dataclasses.replace(HEADER, about={"text": object()})
    with pytest.raises(OptionError, match="plain values"):
        write_graph(tmp_path / "g.sqlite", EDGES, header=header)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_replaced_only_on_demand_and_as_a_whole(path):
    before = path.read_bytes()
    with pytest.raises(DestinationExistsError, match="--overwrite"):
        write_graph(path, {(5, 6): 0.9})
    assert path.read_bytes() == before
    write_graph(path, {(5, 6): 0.9}, overwrite=True)
    with SegmentGraph.open(path) as graph:
        assert graph.edges().ids_a.tolist() == [5]
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_body_that_fails_leaves_the_old_graph(path):
    before = path.read_bytes()

    def fail():
        with writing_graph(path, header=HEADER, rule=MergeRule(), overwrite=True) as writer:
            writer.add(points_of([(5, 6)]), scores_of([0.5]))
            raise KeyError("a task failed")

    with pytest.raises(KeyError):
        fail()
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_reader_changes_nothing(path):
    with SegmentGraph.open(path) as graph, pytest.raises(StorageError, match="readonly"):
        graph.undo_all()


def test_two_writers_wait_for_each_other_and_then_give_up_in_a_sentence(path, monkeypatch):
    monkeypatch.setattr(graph_format, "WAITS_S", 0.1)
    with (
        SegmentGraph.open(path, writable=True) as one,
        SegmentGraph.open(path, writable=True) as other,
    ):
        with one.changing():
            one.decide(1, 2, action="split")
            with pytest.raises(RunConflictError, match="another process is changing"):
                other.undo_all()
            # Who reads sees what was there.
            assert other.entries() == []
        other.undo_all()
        assert [entry.number for entry in one.entries()] == [1, 2]


def run_to_kill(code: str, *arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


WRITES = """
import sys, time
sys.path.insert(0, sys.argv[2])
from segment_graph_cases import *
from floodem.assembly.agglomeration.graph.writer import writing_graph
with writing_graph(sys.argv[1], header=HEADER, rule=MergeRule(), overwrite=True) as writer:
    for first in range(1, 200_000, 1000):
        pairs = [(one, one + 1) for one in range(first, first + 1000)]
        writer.add(points_of(pairs), scores_of([0.5] * 1000))
        print(first, flush=True)
"""

CHANGES = """
import sys, time
from floodem.assembly.agglomeration.graph.graph import SegmentGraph
with SegmentGraph.open(sys.argv[1], writable=True) as graph, graph.changing():
    graph.undo_all()
    graph._connection.execute("PRAGMA cache_spill = 1")
    graph._connection.execute("PRAGMA cache_size = 1")
    graph._connection.execute("UPDATE edges SET iou = 0")  # spills to the file
    print("changed", flush=True)
    time.sleep(60)
"""

killed = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")


@killed
def test_a_kill_while_a_graph_is_written_leaves_the_old_one(path):
    before = path.read_bytes()
    process = run_to_kill(WRITES, path, os.path.dirname(__file__))
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert path.read_bytes() == before
    use(path)
    write_graph(path, {(5, 6): 0.9}, overwrite=True)
    use(path)


@killed
@pytest.mark.parametrize("replaces", [False, True])
def test_a_kill_while_a_graph_is_changed_leaves_it_as_it_was(tmp_path, replaces):
    pairs = [(one, one + 1) for one in range(1, 3001)]
    path = write_graph(tmp_path / "g.sqlite", dict.fromkeys(pairs, 0.9))
    before = path.read_bytes()
    process = run_to_kill(CHANGES, path)
    assert process.stdout is not None
    assert process.stdout.readline() == "changed\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert path.read_bytes() != before  # half a change is in it
    if replaces:
        write_graph(path, {(5, 6): 0.9}, overwrite=True)
        with SegmentGraph.open(path) as graph:
            assert graph.edges().columns["iou"].tolist() == [0.9]
        return
    with SegmentGraph.open(path) as graph:  # a reader takes it back
        assert graph.entries() == []
        assert np.all(graph.edges().columns["iou"] == 0.9)
    assert path.read_bytes() == before


def test_the_schema_is_that_of_version_1():
    """Readers of other programs rely on it: another one needs another version."""
    assert TABLES["edges"] == (
        "CREATE TABLE edges (id_a INTEGER NOT NULL, id_b INTEGER NOT NULL, z INTEGER NOT NULL, "
        "y INTEGER NOT NULL, x INTEGER NOT NULL, distance_nm REAL NOT NULL, iou REAL NOT NULL, "
        "a_covers_a REAL NOT NULL, a_covers_b REAL NOT NULL, b_covers_a REAL NOT NULL, "
        "b_covers_b REAL NOT NULL, size_a INTEGER NOT NULL, size_b INTEGER NOT NULL, "
        "deleted_a INTEGER NOT NULL, deleted_b INTEGER NOT NULL, depth_a_nm REAL NOT NULL, "
        "depth_b_nm REAL NOT NULL, seeds_a INTEGER NOT NULL, seeds_b INTEGER NOT NULL, "
        "recovered_a INTEGER NOT NULL, recovered_b INTEGER NOT NULL, calls INTEGER NOT NULL, "
        "PRIMARY KEY (id_a, id_b)) WITHOUT ROWID"
    )
