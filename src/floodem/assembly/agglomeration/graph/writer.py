"""A new segment graph, batch by batch: edges with their scores in, one finished file out."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from floodem.assembly.agglomeration.graph.format import (
    INSERT_EDGE,
    MAX_TEXT_BYTES,
    SCORE_COLUMNS,
    create,
    refusing,
    settle,
    stored_ids,
)
from floodem.assembly.agglomeration.graph.records import GraphHeader
from floodem.assembly.agglomeration.graph.rule import MergeRule
from floodem.assembly.agglomeration.points.points import DecisionPoints
from floodem.assembly.agglomeration.resegmentation.scores import PointScores
from floodem.errors import DestinationExistsError, LabelError, OptionError
from floodem.files import making_folders, replacing

_ROWS_AT_ONCE = 100_000
"""Rows that are Python objects at one time; 30 MB of them."""


@contextlib.contextmanager
def writing_graph(
    path: str | Path, *, header: GraphHeader, rule: MergeRule, overwrite: bool = False
) -> Iterator[GraphWriter]:
    """Write a new graph; it is at its place when the body has ended, and only then.

    Batches may come in any order. The same edges in the same order give the same bytes.

    Raises
    ------
    DestinationExistsError
        When something is there and is not to be replaced.
    OptionError
        When the header is too long.
    RunConflictError
        When another process is changing the graph that is to be replaced.
    StorageError
        When the disk refuses.
    """
    path = Path(path)
    if not overwrite and path.exists():
        raise DestinationExistsError(
            f"{path} exists already: choose another file, or --overwrite to replace it"
        )
    if path.is_dir():
        raise DestinationExistsError(f"{path} is a folder: name a file for the segment graph")
    text = json_text(header.to_json(), what="header")
    with making_folders(path.absolute().parent), replacing(path) as partial:
        with contextlib.closing(create(partial)) as connection:
            with refusing(path):
                connection.execute("BEGIN")
                connection.execute("INSERT INTO header VALUES (1, ?)", (text,))
                connection.execute(
                    "INSERT INTO rules VALUES (1, '', ?, '')",
                    (json_text(rule.to_json(), what="rule"),),
                )
            yield GraphWriter(connection, path=path)
            with refusing(path):
                connection.execute("COMMIT")
        settle(path)


class GraphWriter:
    """Adds edges to a graph that is being written (see `writing_graph`)."""

    def __init__(self, connection: sqlite3.Connection, *, path: Path) -> None:
        self._connection = connection
        self._path = path

    def add(
        self,
        points: DecisionPoints,
        scores: Sequence[PointScores] | Mapping[str, Shaped[np.ndarray, "points"]],
    ) -> None:
        """Add an edge for each decision point.

        Parameters
        ----------
        scores
            Of each point, in their order; or an array for each field of `PointScores`.

        Raises
        ------
        LabelError
            When a pair comes a second time, is not in order, or holds background.
        OptionError
            When points and scores do not fit each other, or a number is not finite.
        """
        columns = scores if isinstance(scores, Mapping) else score_columns(scores)
        kept = _typed({"distance_nm": points.distances_nm, **columns}, length=len(points))
        if np.any(points.ids_a >= points.ids_b) or np.any(points.ids_a == 0):
            raise LabelError(
                "an edge must join two segments, the smaller id first, none of them background"
            )
        arrays = [
            *(stored_ids(points.ids_a), stored_ids(points.ids_b)),
            *(points.positions[:, axis] for axis in range(3)),
            *kept.values(),
        ]
        try:
            with refusing(self._path):
                for start in range(0, len(points), _ROWS_AT_ONCE):
                    part = (one[start : start + _ROWS_AT_ONCE].tolist() for one in arrays)
                    self._insert(zip(*part, strict=True))
        except _TwiceError:
            raise LabelError(
                f"a pair of segments comes twice in the edges for {self._path}: each has one "
                "decision point"
            ) from None

    def _insert(self, rows: Iterator[tuple[Any, ...]]) -> None:
        try:
            self._connection.executemany(INSERT_EDGE, rows)
        except sqlite3.IntegrityError as error:
            raise _TwiceError from error


class _TwiceError(Exception):
    pass


def score_columns(scores: Sequence[PointScores]) -> dict[str, Shaped[np.ndarray, "points"]]:
    """Return an array for each field of `PointScores`."""
    rows = [asdict(one) for one in scores]
    return {
        name: np.array([row[name] for row in rows], kind)
        for name, kind in SCORE_COLUMNS.items()
        if name != "distance_nm"
    }


def json_text(values: Mapping[str, Any], *, what: str) -> str:
    """Return JSON that a graph can hold.

    Raises
    ------
    OptionError
        When it is too long, or no JSON.
    """
    try:
        text = json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise OptionError(
            f"the {what} of a segment graph cannot be kept: {error}; give plain values"
        ) from error
    if len(text.encode()) >= MAX_TEXT_BYTES:
        raise OptionError(
            f"the {what} of a segment graph has {len(text)} letters, and {MAX_TEXT_BYTES} bytes "
            "fit: say less in it"
        )
    return text


def _typed(
    columns: Mapping[str, Shaped[np.ndarray, "..."]], *, length: int
) -> dict[str, Shaped[np.ndarray, "points"]]:
    """Return the columns in the order of the file, as numbers that it can hold."""
    if set(columns) != set(SCORE_COLUMNS):
        wrong = sorted(set(columns) ^ set(SCORE_COLUMNS))
        raise OptionError(
            f"edges have the columns {sorted(SCORE_COLUMNS)}: {wrong[0]} is missing or unknown"
        )
    found = {}
    for name, kind in SCORE_COLUMNS.items():
        array = np.asarray(columns[name])
        if array.shape != (length,):
            raise OptionError(
                f"{name} has the shape {array.shape}, and there are {length} decision points"
            )
        typed: Shaped[np.ndarray, "points"] = array.astype(kind)
        if not np.isfinite(typed).all() or np.any(typed != array):
            raise OptionError(f"{name} holds values that are no finite {kind.__name__}")
        # SQLite holds yes and no as numbers.
        found[name] = typed.astype(np.int64) if kind is bool else typed
    return found
