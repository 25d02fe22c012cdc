"""The segment graph: one file that says which base segments are one, and why, and who says so.

Edges and scores come in once (`writer`); after that the rule and the decisions of people
change, and with them which edges are merges. No voxel and no network is needed for that::

    edges + scores --(rule)--> accepted --(ledger)--> merges --(merging)--> merged ids

`format` describes the file, `ledger` what decisions mean.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
from jaxtyping import Shaped, UInt64

from floodem.assembly.agglomeration.graph.edges import damaged, read_edges
from floodem.assembly.agglomeration.graph.format import connect, id_of, refusing, stored_id
from floodem.assembly.agglomeration.graph.ledger import Verdicts, verdicts, with_standing
from floodem.assembly.agglomeration.graph.merging import smallest_of_components
from floodem.assembly.agglomeration.graph.records import (
    Action,
    DecidedBy,
    EdgeTable,
    Entry,
    GraphHeader,
    KeptRule,
)
from floodem.assembly.agglomeration.graph.rule import MergeRule
from floodem.assembly.agglomeration.graph.writer import json_text, writing_graph
from floodem.assembly.agglomeration.points.points import DecisionPoints
from floodem.assembly.agglomeration.resegmentation.scores import PointScores
from floodem.errors import FloodemError, LabelError, OptionError

MAX_NOTE_LETTERS = 2000
"""A note is a sentence or two."""

LARGEST_ID = 2**64 - 1


class SegmentGraph:
    """A segment graph that is open; a context manager.

    Parameters
    ----------
    path
        Its file.
    connection
        Its checked database (`floodem.assembly.agglomeration.graph.format.connect`).
    """

    def __init__(self, path: Path, *, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @staticmethod
    def create(
        path: str | Path,
        *,
        header: GraphHeader,
        points: DecisionPoints,
        scores: Sequence[PointScores] | Mapping[str, Shaped[np.ndarray, "points"]],
        rule: MergeRule,
        overwrite: bool = False,
    ) -> None:
        """Write a whole graph (`writing_graph` takes batches).

        Raises
        ------
        FloodemError
            See `writing_graph` and `GraphWriter.add`.
        """
        with writing_graph(path, header=header, rule=rule, overwrite=overwrite) as writer:
            writer.add(points, scores)

    @classmethod
    def open(cls, path: str | Path, *, writable: bool = False) -> Self:
        """Open a graph.

        Raises
        ------
        VolumeNotFoundError, VolumeFormatError, UnsafeFileError
            When there is none, or it is damaged, foreign or hostile.
        StorageError, RunConflictError
            When the disk refuses, or another process is changing it.
        """
        path = Path(path)
        return cls(path, connection=connect(path, writable=writable))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def header(self) -> GraphHeader:
        """What the graph is about.

        Raises
        ------
        VolumeFormatError
            When it is damaged.
        """
        with refusing(self.path):
            rows = self._connection.execute("SELECT text FROM header LIMIT 2").fetchall()
        if len(rows) != 1 or not isinstance(rows[0][0], str):
            raise damaged(self.path, "its header is missing")
        return GraphHeader.from_text(rows[0][0], where=str(self.path))

    @property
    def rule(self) -> MergeRule:
        """The rule in force.

        Raises
        ------
        VolumeFormatError
            When it is damaged.
        """
        with refusing(self.path):
            row = self._connection.execute(
                "SELECT number, time, rule, note FROM rules ORDER BY number DESC LIMIT 1"
            ).fetchone()
        if row is None:
            raise damaged(self.path, "it has no rule")
        return MergeRule.from_json(self._kept_rule(row).rule)

    def rules(self) -> list[KeptRule]:
        """Return all rules that the graph had, the one in force last."""
        with refusing(self.path):
            rows = self._connection.execute(
                "SELECT number, time, rule, note FROM rules ORDER BY number"
            ).fetchall()
        return [self._kept_rule(row) for row in rows]

    def entries(self) -> list[Entry]:
        """Return the ledger of decisions, from the first to the last.

        Raises
        ------
        VolumeFormatError
            When it is damaged.
        """
        with refusing(self.path):
            rows = self._connection.execute(
                "SELECT number, time, action, id_a, id_b, entry, note FROM decisions "
                "ORDER BY number"
            ).fetchall()
        return with_standing([self._entry(row) for row in rows])

    def edges(self, rule: MergeRule | None = None) -> EdgeTable:
        """Return all edges, and which are merges.

        Parameters
        ----------
        rule
            Instead of the one in force, to see what it would give.

        Raises
        ------
        VolumeFormatError
            When the file is damaged.
        """
        with self._at_one_moment():
            kept = self.rule if rule is None else rule
            said = verdicts(self.entries())
            return self._edges(kept, said)

    def mapping(
        self, rule: MergeRule | None = None
    ) -> tuple[UInt64[np.ndarray, "ids"], UInt64[np.ndarray, "ids"]]:
        """Return the new id of each base segment that is merged; all others keep theirs.

        Returns
        -------
        old_ids, new_ids
            Ascending `old_ids` of all segments of a merge, also of the one whose id, the
            smallest, is that of all of them.
        """
        return smallest_of_components(*self.edges(rule).joined())

    def set_rule(self, rule: MergeRule, *, note: str = "") -> int:
        """Make a rule the one in force; earlier ones stay in the file.

        Returns
        -------
        int
            The rule's number.

        Raises
        ------
        OptionError
            When the note is too long.
        RunConflictError, StorageError
            When another process is changing the file, or the disk refuses.
        """
        text = json_text(rule.to_json(), what="rule")
        with self.changing():
            return self._insert("rules (time, rule, note)", (_now(), text, _checked_note(note)))

    def decide(self, a: int, b: int, action: Literal["merge", "split"], *, note: str = "") -> Entry:
        """Say that two base segments are one, or that the edge between them is no merge.

        Parameters
        ----------
        a, b
            Ids of two base segments. To merge they need no edge.
        note
            Why.

        Raises
        ------
        LabelError
            When they are no two segments, or there is no edge to be split.
        OptionError
            When the note is too long.
        RunConflictError, StorageError
            When another process is changing the file, or the disk refuses.
        """
        pair = _pair(a, b)
        with self.changing():
            said = verdicts(self.entries())
            if action == "split" and pair not in said.pairs and not self._has_edge(pair):
                raise LabelError(
                    f"no edge joins segments {pair[0]} and {pair[1]}: where they are in one merged "
                    "segment, split one of the edges between them (`floodem merges --of`)"
                )
            return self._write(Action(action), pair=pair, note=note)

    def undo(self, a: int, b: int, *, note: str = "") -> Entry:
        """Undo what makes two base segments one, or keeps them two.

        Where somebody decided about the pair, that is taken back, so that the rule counts
        again; where the rule merges them, they are split. Done twice, it is as before.

        Returns
        -------
        Entry
            The new entry: an undo or a split.

        Raises
        ------
        LabelError
            When the edge is no merge and nobody decided about it.
        """
        pair = _pair(a, b)
        with self.changing():
            said = verdicts(self.entries())
            if pair in said.pairs:
                return self._write(Action.UNDO, entry=said.pairs[pair].number, note=note)
            if said.all_undone_by is None and self._is_merge(pair):
                return self._write(Action.SPLIT, pair=pair, note=note)
            raise LabelError(
                f"segments {pair[0]} and {pair[1]} are not merged by an edge of their own, and "
                "nobody decided about them: there is nothing to undo"
            )

    def undo_entry(self, number: int, *, note: str = "") -> Entry:
        """Take back an entry of the ledger; of an undo, which is a redo.

        Raises
        ------
        LabelError
            When there is none, or it is taken back already.
        """
        with self.changing():
            entries = {entry.number: entry for entry in self.entries()}
            if number not in entries:
                raise LabelError(
                    f"the ledger has no entry {number}: it has {len(entries)}, counted from 1"
                )
            if not entries[number].stands:
                taken_by = max(e.number for e in entries.values() if e.entry == number and e.stands)
                raise LabelError(
                    f"entry {number} is taken back already, by entry {taken_by}: undo that one to "
                    "have it again"
                )
            return self._write(Action.UNDO, entry=number, note=note)

    def undo_all(self, *, note: str = "") -> Entry:
        """Undo every merge, the rule's included, so that the base segmentation is left.

        `undo_entry` of the returned entry brings all of them back.
        """
        with self.changing():
            return self._write(Action.UNDO_ALL, note=note)

    def _edges(self, rule: MergeRule, said: Verdicts) -> EdgeTable:
        table, found = read_edges(self._connection, self.path), said.pairs
        accepted = rule.accepts(table.columns)
        decided_by = np.zeros(len(table), np.int8)
        entries = np.zeros(len(table), np.int64)
        if said.all_undone_by is not None:
            accepted[:] = False
            decided_by[:] = DecidedBy.UNDO_ALL
            entries[:] = said.all_undone_by
        others = []
        for pair, entry in found.items():
            row, is_merge = table.row(*pair), entry.action is Action.MERGE
            if row is not None:
                accepted[row] = is_merge
                decided_by[row] = DecidedBy.MERGE if is_merge else DecidedBy.SPLIT
                entries[row] = entry.number
            elif is_merge:
                others.append(pair)
        return EdgeTable(
            ids_a=table.ids_a,
            ids_b=table.ids_b,
            positions=table.positions,
            columns=table.columns,
            accepted=accepted,
            decided_by=decided_by,
            entries=entries,
            other_merges=np.array(sorted(others), np.uint64).reshape(-1, 2),
        )

    def _has_edge(self, pair: tuple[int, int]) -> bool:
        return len(read_edges(self._connection, self.path, pair=pair)) > 0

    def _is_merge(self, pair: tuple[int, int]) -> bool:
        found = read_edges(self._connection, self.path, pair=pair)
        return bool(self.rule.accepts(found.columns).any())

    def _kept_rule(self, row: tuple[object, ...]) -> KeptRule:
        number, time, text, note = row
        try:
            values = json.loads(text) if isinstance(text, str) else None
            if not isinstance(number, int) or not isinstance(values, dict):
                raise TypeError("no rule")
            MergeRule.from_json(values)
        except (ValueError, TypeError, RecursionError, FloodemError) as error:
            raise damaged(self.path, "a rule of it is none") from error
        return KeptRule(number=number, time=str(time), rule=values, note=str(note))

    def _entry(self, row: tuple[object, ...]) -> Entry:
        number, time, action, a, b, entry, note = row
        try:
            pair = None if a is None else _pair(id_of(_whole(a)), id_of(_whole(b)))
            found = Entry(
                number=_whole(number),
                time=str(time),
                action=Action(str(action)),
                pair=pair,
                entry=None if entry is None else _whole(entry),
                note=str(note),
            )
        except (TypeError, ValueError) as error:
            raise damaged(self.path, "a decision of it is none") from error
        is_pair = found.action in (Action.MERGE, Action.SPLIT)
        is_undo = found.action is Action.UNDO
        is_earlier = found.entry is None or 0 < found.entry < found.number
        if is_pair != (pair is not None) or is_undo != (entry is not None) or not is_earlier:
            raise damaged(self.path, "a decision of it is none")
        return found

    def _write(
        self,
        action: Action,
        *,
        pair: tuple[int, int] | None = None,
        entry: int | None = None,
        note: str,
    ) -> Entry:
        time, checked = _now(), _checked_note(note)
        stored = (None, None) if pair is None else (stored_id(pair[0]), stored_id(pair[1]))
        number = self._insert(
            "decisions (time, action, id_a, id_b, entry, note)",
            (time, action.value, *stored, entry, checked),
        )
        return Entry(number=number, time=time, action=action, pair=pair, entry=entry, note=checked)

    def _insert(self, table: str, values: tuple[object, ...]) -> int:
        marks = ", ".join("?" * len(values))
        cursor = self._connection.execute(
            f"INSERT INTO {table} VALUES ({marks})",  # noqa: S608 - no text of a user
            values,
        )
        return int(cursor.lastrowid or 0)

    @contextlib.contextmanager
    def _at_one_moment(self) -> Iterator[None]:
        """Read what belongs together, whatever others change meanwhile."""
        if self._connection.in_transaction:
            yield
            return
        with refusing(self.path):
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Do all changes of the body, or none of them where one is refused.

        Raises
        ------
        RunConflictError, StorageError
            When another process is changing the file, or the disk refuses.
        """
        if self._connection.in_transaction:
            yield
            return
        with refusing(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")


def _whole(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError("not a number")
    return value


def _pair(a: int, b: int) -> tuple[int, int]:
    """Return two ids, the smaller first.

    Raises
    ------
    LabelError
        When they are no two segments.
    """
    if a == b or not (0 < a <= LARGEST_ID and 0 < b <= LARGEST_ID):
        raise LabelError(f"{a} and {b} are no two segments: give two different ids above 0")
    return (a, b) if a < b else (b, a)


def _checked_note(note: str) -> str:
    if len(note) > MAX_NOTE_LETTERS:
        raise OptionError(f"a note of {len(note)} letters is too long: {MAX_NOTE_LETTERS} are kept")
    return note


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
