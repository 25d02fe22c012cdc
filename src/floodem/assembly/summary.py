"""What a finished cut run has made, in a few numbers: results of its stages in, a summary out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from floodem.assembly.block_store import BlockStore
from floodem.assembly.writing import read_mapping

_MOST_CUT_SHORT = 1000
"""So many ids of floods that hit a limit are listed; more say that the limit is wrong."""


def summarise(
    store: BlockStore,
    *,
    floods: Sequence[Mapping[str, Any]],
    numbers: Mapping[str, Any],
    written: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return what run.json and `Segmentation.summary` say.

    Parameters
    ----------
    floods, written
        What the stages returned for each block, in order.
    numbers
        What numbering returned.

    Returns
    -------
    dict
        ``segments``, ``covered``, ``cut_short`` (the first thousand ids), ``counters``
        (sums over blocks, halos included), ``blocks``, ``joined``, ``refused``,
        ``flood_seconds``.
    """
    counters: Counter[str] = Counter()
    for flood in floods:
        counters.update(flood["counters"])
    voxels = sum(block["voxels"] for block in written)
    seconds = sum(flood["seconds"].get("flooding", 0.0) for flood in floods)
    return {
        "segments": numbers["segments"],
        "covered": sum(block["labelled"] for block in written) / voxels,
        "cut_short": _cut_short(store, floods),
        "counters": dict(counters),
        "blocks": len(floods),
        "joined": numbers["joined"],
        "refused": numbers["refused"],
        "flood_seconds": round(seconds, 3),
    }


def _cut_short(store: BlockStore, floods: Sequence[Mapping[str, Any]]) -> list[int]:
    found: set[int] = set()
    for block, flood in zip(store.plan, floods, strict=True):
        if not flood["cut_short"] or len(found) >= _MOST_CUT_SHORT:
            continue
        table, ids = store.read_table(block), read_mapping(store, block)
        new = np.flatnonzero(table.is_cut_short) + len(table.carried) + 1
        found.update(ids[new].tolist())
    return sorted(found - {0})[:_MOST_CUT_SHORT]
