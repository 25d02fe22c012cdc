"""All blocks brought together: their tables in, the id of every piece and of every pair out.

One process does this, with tables of all blocks in memory: about 100 MB for each million
pieces, and the same for each million pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Integer

from floodem.assembly.blocks import Block
from floodem.assembly.consensus.numbering import PairRows, component_ids, pair_ids
from floodem.assembly.consensus.pieces import PieceTable
from floodem.assembly.consensus.tables import ConsensusTables, Side
from floodem.assembly.joining import Joining, node_dtype
from floodem.errors import StoppedError, VolumeFormatError
from floodem.labels import OverlapCounter, OverlapTable
from floodem.progress import Progress, ProgressListener
from floodem.volumes.parallel import in_order

_AT_ONCE = 16
"""Small objects read or written at once, as most of that time is waiting."""
_AHEAD = 64
"""Blocks read before they are needed."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathering:
    """What is gathered, and who is told how far it is.

    Attributes
    ----------
    tables
        Of all blocks.
    counts
        What each block's first stage returned, in their order.
    progress, should_stop
        Of whoever asked for it; one that is stopped is repeated whole.
    """

    tables: ConsensusTables
    counts: Sequence[Mapping[str, Any]]
    progress: ProgressListener | None
    should_stop: Callable[[], bool]

    def each(self, function: Callable[[Block], Result], *, says: str) -> Iterator[Result]:
        """Yield what a function returns for each block, several at once.

        Raises
        ------
        StoppedError
            When it was told to stop.
        """
        plan = self.tables.plan
        for done, result in enumerate(
            in_order(function, plan, threads=_AT_ONCE, ahead=_AHEAD), start=1
        ):
            if self.should_stop():
                raise StoppedError(
                    f"stopped while {says}: run the same command again to go on with it"
                )
            yield result
            if self.progress is not None:
                self.progress(Progress(stage=says, done=done, total=len(plan), unit="blocks"))


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanTask:
    """One segmentation, to be split and cleaned."""

    gathering: Gathering
    side: Side
    splits: bool
    min_size: int


def clean(task: CleanTask) -> dict[str, Any]:
    """Give every piece of one segmentation its id in all of it.

    Returns
    -------
    dict
        See `floodem.assembly.consensus.numbering.Cleaned`.

    Raises
    ------
    VolumeFormatError
        When a table is missing or damaged.
    LabelError
        When ids would reach 2**64.
    """
    gathering, side = task.gathering, task.side
    name = side.upper()
    sizes = np.array([count[f"pieces_{side}"] for count in gathering.counts], np.int64)
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    pieces = _all_pieces(gathering, side, ends=ends)
    if task.splits:
        components = _joined(gathering, side, ends=ends)
    else:
        components = np.unique(pieces.objects, return_inverse=True)[1]
    ids, cleaned = component_ids(pieces, components, min_size=task.min_size)

    def keep(block: Block) -> None:
        mine = ids[ends[block.index] : ends[block.index + 1]]
        gathering.tables.write_ids(side, block, mine)

    for _ in gathering.each(keep, says=f"numbering objects of {name}"):
        pass
    return asdict(cleaned)


def _all_pieces(gathering: Gathering, side: Side, *, ends: Any) -> PieceTable:
    count = int(ends[-1])
    found = PieceTable(
        objects=np.empty(count, np.uint64),
        voxels=np.empty(count, np.int64),
        firsts=np.empty(count, np.int64),
    )
    tables = gathering.each(
        lambda block: gathering.tables.read_pieces(side, block),
        says=f"reading pieces of {side.upper()}",
    )
    for index, table in enumerate(tables):
        if len(table) != ends[index + 1] - ends[index]:
            raise _unfitting(gathering, index)
        rows = slice(ends[index], ends[index + 1])
        found.objects[rows], found.voxels[rows] = table.objects, table.voxels
        found.firsts[rows] = table.firsts
    return found


def _joined(gathering: Gathering, side: Side, *, ends: Any) -> Integer[np.ndarray, "pieces"]:
    """Return for each piece the first one of its component."""
    count = int(ends[-1])
    nodes = np.arange(count, dtype=node_dtype(count))
    if len(gathering.tables.plan) == 1:
        return nodes
    joining = Joining(nodes.copy())
    tables = gathering.each(
        lambda block: gathering.tables.read_touching(side, block),
        says=f"joining pieces of {side.upper()}",
    )
    sizes = np.diff(ends)
    for index, table in enumerate(tables):
        fits = (table.pieces <= sizes[index]).all() and bool(
            (table.theirs <= sizes[table.neighbours]).all()
        )
        if not fits:
            raise _unfitting(gathering, index)
        if len(table.pieces):
            joining.join(
                ends[index] + table.pieces.astype(np.int64) - 1,
                ends[table.neighbours] + table.theirs.astype(np.int64) - 1,
            )
    return joining.leaders(nodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTask:
    """Both segmentations, cleaned, to be intersected."""

    gathering: Gathering
    largest_a: int
    split_min_size: int


def number_pairs(task: PairTask) -> dict[str, Any]:
    """Give every pair of objects its id, and so every overlap of every block.

    Returns
    -------
    dict
        ``pairs``, how many of them were ``dropped`` as too small, and ``segments``.

    Raises
    ------
    VolumeFormatError
        When a table is missing or damaged.
    LabelError
        When ids would reach 2**64.
    """
    gathering, tables = task.gathering, task.gathering.tables

    def known(block: Block) -> OverlapTable:
        return _with_ids(gathering, block)

    counter = OverlapCounter()
    for found in gathering.each(known, says="counting overlaps"):
        counter.add(found.select(found.ids_a > 0))
    table = counter.table()
    ids = pair_ids(table, largest_a=task.largest_a, split_min_size=task.split_min_size)
    rows = PairRows(table)

    def keep(block: Block) -> None:
        found = _with_ids(gathering, block)
        is_labelled = found.ids_a > 0
        result = np.zeros(len(found), np.uint64)
        result[is_labelled] = ids[rows.of(found.ids_a[is_labelled], found.ids_b[is_labelled])]
        tables.write_result(block, result)

    for _ in gathering.each(keep, says="numbering pairs"):
        pass
    segments = int(np.count_nonzero(ids))
    return {"pairs": len(table), "dropped": len(table) - segments, "segments": segments}


def _with_ids(gathering: Gathering, block: Block) -> OverlapTable:
    """Return the overlaps of a block, row by row, under the ids of whole objects."""
    tables = gathering.tables
    overlaps = tables.read_overlaps(block)
    a, b = (
        np.concatenate([np.zeros(1, np.uint64), tables.read_ids("a", block)]),
        np.concatenate([np.zeros(1, np.uint64), tables.read_ids("b", block)]),
    )
    if overlaps.a.max(initial=0) >= len(a) or overlaps.b.max(initial=0) >= len(b):
        raise _unfitting(gathering, block.index)
    return OverlapTable(a[overlaps.a], b[overlaps.b], overlaps.voxels)


def _unfitting(gathering: Gathering, index: int) -> VolumeFormatError:
    key = gathering.tables.plan.block(index).key
    return VolumeFormatError(
        f"tables of block {key} in {gathering.tables.address}/consensus do not fit each other: "
        "begin again with --overwrite"
    )
