"""The edges of a graph as a table for other programs: an open table in, one CSV file out."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from floodem.assembly.agglomeration.graph.format import PLACE_COLUMNS, SCORE_COLUMNS
from floodem.assembly.agglomeration.graph.merging import merged_ids, smallest_of_components
from floodem.assembly.agglomeration.graph.records import DecidedBy, EdgeTable
from floodem.assembly.agglomeration.graph.rule import MergeRule
from floodem.files import replacing

_ROWS_AT_ONCE = 100_000

CSV_COLUMNS = (
    *("id_a", "id_b", *PLACE_COLUMNS, *SCORE_COLUMNS),
    *("accepted", "decided_by", "entry", "margin", "merged_id"),
)
"""Yes and no are 1 and 0, lengths nanometres; margin is that of `MergeRule.margins`, and
merged_id what id_a has become."""


def write_edges_csv(path: Path, edges: EdgeTable, *, rule: MergeRule) -> None:
    """Write one line for each edge, by ascending ids.

    Raises
    ------
    StorageError
        When the disk refuses; what was there stays.
    """
    merged = merged_ids(edges.ids_a, smallest_of_components(*edges.joined()))
    columns = [
        *(edges.ids_a, edges.ids_b),
        *(edges.positions[:, axis] for axis in range(3)),
        *(
            edges.columns[name].astype(np.int64) if kind is bool else edges.columns[name]
            for name, kind in SCORE_COLUMNS.items()
        ),
        edges.accepted.astype(np.int64),
        np.array([who.name.lower().replace("_", "-") for who in DecidedBy])[edges.decided_by],
        *(edges.entries, rule.margins(edges.columns), merged),
    ]
    # The file is closed before it is renamed, as Windows renames no open one.
    with replacing(path) as partial, open(partial, "x", newline="", encoding="utf-8") as handle:
        rows = csv.writer(handle, lineterminator="\n")
        rows.writerow(CSV_COLUMNS)
        for start in range(0, len(edges), _ROWS_AT_ONCE):
            part = (column[start : start + _ROWS_AT_ONCE].tolist() for column in columns)
            rows.writerows(zip(*part, strict=True))
