"""Edges out of a graph's file: a connection in, columns of numbers out, all of them checked."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt64

from floodem.assembly.agglomeration.graph.format import (
    PLACE_COLUMNS,
    SCORE_COLUMNS,
    columns_of,
    has_wrong_types,
    ids_of,
    refusing,
    stored_id,
)
from floodem.assembly.agglomeration.graph.records import EdgeTable
from floodem.errors import VolumeFormatError


def read_edges(
    connection: sqlite3.Connection, path: Path, *, pair: tuple[int, int] | None = None
) -> EdgeTable:
    """Return edges, none of them accepted yet.

    Parameters
    ----------
    path
        The file, for messages.
    pair
        Only the edge of these two, the smaller id first; None: all.

    Raises
    ------
    VolumeFormatError
        When the file is damaged.
    """
    where = ""
    if pair is not None:
        where = f"WHERE id_a = {stored_id(pair[0])} AND id_b = {stored_id(pair[1])}"
    whole = ["id_a", "id_b", *PLACE_COLUMNS, *_names(int, bool)]
    real = _names(float)
    with refusing(path):
        if has_wrong_types(connection, where):
            raise damaged(path, "an edge holds something that is no number")
        integers = columns_of(connection, whole, where=where, kind=np.int64)
        reals = columns_of(connection, real, where=where, kind=np.float64)
    if len(integers) != len(reals):
        raise damaged(path, "its columns have different lengths")
    ids_a, ids_b = ids_of(integers[:, 0]), ids_of(integers[:, 1])
    order = np.lexsort((ids_b, ids_a))
    _require_edges(path, ids_a[order], ids_b[order], reals=reals)
    columns: dict[str, Shaped[np.ndarray, "edges"]] = {}
    for name, kind in SCORE_COLUMNS.items():
        block, names = (reals, real) if kind is float else (integers, whole)
        column = block[order, names.index(name)]
        columns[name] = column.astype(np.bool_) if kind is bool else column
    return EdgeTable(
        ids_a=ids_a[order],
        ids_b=ids_b[order],
        positions=integers[order, 2:5],
        columns=columns,
        accepted=np.zeros(len(order), np.bool_),
        decided_by=np.zeros(len(order), np.int8),
        entries=np.zeros(len(order), np.int64),
        other_merges=np.zeros((0, 2), np.uint64),
    )


def damaged(path: Path, reason: str) -> VolumeFormatError:
    """Return the sentence about a graph that does not make sense."""
    return VolumeFormatError(
        f"{path} cannot be used as a segment graph, because {reason}: make it anew with "
        "`floodem agglomerate`, or take a copy"
    )


def _require_edges(
    path: Path,
    ids_a: UInt64[np.ndarray, "edges"],
    ids_b: UInt64[np.ndarray, "edges"],
    *,
    reals: Shaped[np.ndarray, "edges columns"],
) -> None:
    is_twice = (ids_a[1:] == ids_a[:-1]) & (ids_b[1:] == ids_b[:-1])
    if np.any(ids_a >= ids_b) or np.any(ids_a == 0) or np.any(is_twice):
        raise damaged(path, "a pair of segments occurs twice or is not in order")
    if not np.isfinite(reals).all():
        raise damaged(path, "a score is not finite")


def _names(*kinds: type) -> Sequence[str]:
    return [name for name, kind in SCORE_COLUMNS.items() if kind in kinds]
