"""One id space: pairs and tables of all blocks in, the final id of every segment out.

::

    tables --> carried ids --+
    results of floods -------+--> a node for each segment
    pairs --> joined ones ------> components of nodes
    tables --> what lies in cores --> components that come out, numbered
                                  --> mapping/KEY.npz, joins.csv

A segment that is carried is one node over all blocks, any other is a node of its own.
Components are numbered by their smallest nodes, which do not depend on how they were
found. Memory is taken for some blocks and one batch of pairs, never for all: arrays
over all nodes lie in files where they are large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from floodem.assembly.agreement import Verdict
from floodem.assembly.block_store import BlockStore, SegmentTable
from floodem.assembly.blocks import Block
from floodem.assembly.carried_ids import each_id_once
from floodem.assembly.columns import pack_columns
from floodem.assembly.joining import BATCH, Joining, Nodes, node_dtype
from floodem.assembly.joins_table import BlockPairs, JoinsTable, read_pairs
from floodem.assembly.scratch_array import scratch_array
from floodem.assembly.segment_nodes import BlockCounts, SegmentNodes, block_counts
from floodem.assembly.writing import MAPPING_VERSION
from floodem.errors import LabelError, VolumeFormatError
from floodem.labels.runs import Ids
from floodem.progress import Progress, ProgressListener
from floodem.volumes.parallel import in_order
from floodem.volumes.servers.transport import open_store

_PASSES = 3
"""Pairs to join, what lies in cores, ids to write; one more where something is carried."""

_AT_ONCE = 16
"""Small objects read or written at once, as most of that time is waiting."""
_AHEAD = 64
"""Blocks read before they are needed."""

_NODES_AT_ONCE = 2**22

_LARGEST_ID = 2**64 - 1

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbering:
    """What numbering came to.

    Attributes
    ----------
    segments
        Different ids in the final volume.
    largest_id
        The largest of them.
    joined, refused
        Pairs of pieces that agreed, and that did not.
    """

    segments: int
    largest_id: int
    joined: int
    refused: int


def number_segments(
    store: BlockStore,
    *,
    floods: Sequence[Mapping[str, Any]],
    scratch: Path,
    progress: ProgressListener | None = None,
) -> Numbering:
    """Give every segment of every block its final id.

    Ids are 1 to n in the order of the blocks and of the segments in them. Where segments
    are carried, what they are joined with keeps the smallest of their ids, and the others
    count on from the largest carried one. A component without a voxel in any core is no
    segment of the volume; its parts get 0. What is written can be written again: the same
    blocks give the same bytes.

    Parameters
    ----------
    store
        The blocks, flooded and compared. ``mapping/KEY.npz`` of each and ``joins.csv`` are
        written there.
    floods
        What the flood of each block returned, in the order of the blocks: ``segments``,
        and how many of them are ``carried``.
    scratch
        A local folder for files, which are removed at the end.
    progress
        Called after every block of every pass.

    Raises
    ------
    VolumeFormatError
        When a table does not fit what the flood returned, or is missing or damaged.
    LabelError
        When the ids do not fit 64 bits.
    ResourceError, StorageError
        When a disk is too small, or a disk or server refuses.
    """
    counts = block_counts(floods, blocks=len(store.plan))
    blocks = _Blocks(store, counts, progress=progress)
    with ExitStack() as files:
        carried = files.enter_context(each_id_once(blocks.carried(), scratch))
        nodes = SegmentNodes(counts, carried=carried)
        leads = files.enter_context(
            scratch_array(
                scratch / "leads", nodes.count, dtype=node_dtype(nodes.count), counts_up=True
            )
        )
        ids = files.enter_context(
            scratch_array(scratch / "ids", nodes.count, dtype=np.dtype(np.uint64))
        )
        joining = Joining(leads)
        joined, refused = _join(blocks, nodes, joining=joining)
        _mark_those_in_cores(blocks, nodes, joining=joining, ids=ids)
        segments, largest_id = _number(ids, carried)
        _write(blocks, nodes, joining=joining, ids=ids)
    return Numbering(segments=segments, largest_id=largest_id, joined=joined, refused=refused)


class _Blocks:
    """What all blocks left, in their order, some of it read ahead."""

    def __init__(
        self, store: BlockStore, counts: BlockCounts, *, progress: ProgressListener | None
    ) -> None:
        self.store = store
        self.counts = counts
        self.objects = open_store(store.address)
        self.any_carried = bool(counts.carried.any())
        self._progress = progress
        self._done = 0
        self._total = len(store.plan) * (_PASSES + self.any_carried)

    def carried(self) -> Iterator[Ids]:
        """Yield what each block carries; nothing is read where none does."""
        if self.any_carried:
            yield from (table.carried for _, table in self.tables())

    def tables(self) -> Iterator[tuple[Block, SegmentTable]]:
        return self._each(self._table)

    def pairs(self) -> Iterator[tuple[Block, BlockPairs]]:
        return self._each(self._pairs)

    def pairs_and_carried(self) -> Iterator[tuple[Block, tuple[BlockPairs, Ids]]]:
        return self._each(self._pairs_and_carried)

    def _each(self, read: Callable[[Block], Result]) -> Iterator[tuple[Block, Result]]:
        found = in_order(read, self.store.plan, threads=_AT_ONCE, ahead=_AHEAD)
        for block, result in zip(self.store.plan, found, strict=True):
            yield block, result
            self._done += 1
            if self._progress is not None:
                self._progress(
                    Progress(stage="joining", done=self._done, total=self._total, unit="blocks")
                )

    def _table(self, block: Block) -> SegmentTable:
        table = self.store.read_table(block)
        expected = (self.counts.segments[block.index], self.counts.carried[block.index])
        if (len(table), len(table.carried)) != expected:
            raise VolumeFormatError(
                f"block {block.key} has {len(table)} segments, of which {len(table.carried)} are "
                f"carried, where its flood returned {expected[0]} and {expected[1]}: begin again "
                "with --overwrite"
            )
        return table

    def _pairs(self, block: Block) -> BlockPairs:
        pairs = read_pairs(self.store, block, objects=self.objects)
        if not (
            self.counts.has(block.index, pairs.a, outside=pairs.carried_a)
            and self.counts.has(pairs.neighbour, pairs.b, outside=pairs.carried_b)
        ):
            raise VolumeFormatError(
                f"pairs of block {block.key} name segments that their blocks do not have: begin "
                "again with --overwrite"
            )
        return pairs

    def _pairs_and_carried(self, block: Block) -> tuple[BlockPairs, Ids]:
        carries = self.counts.carried[block.index] > 0
        carried = self._table(block).carried if carries else np.zeros(0, np.uint64)
        return self._pairs(block), carried


def _join(blocks: _Blocks, nodes: SegmentNodes, *, joining: Joining) -> tuple[int, int]:
    """Join the nodes of all pairs that agree; return how many agreed, and how many did not."""
    joined = refused = waiting = 0
    ends: list[tuple[Nodes, Nodes]] = []
    for block, pairs in blocks.pairs():
        agrees = pairs.verdict == Verdict.JOINED
        joined += int(agrees.sum())
        refused += int((~agrees).sum())
        ends.append(
            (
                nodes.of(block.index, pairs.a[agrees], outside=pairs.carried_a[agrees]),
                nodes.of(pairs.neighbour[agrees], pairs.b[agrees], outside=pairs.carried_b[agrees]),
            )
        )
        waiting += len(ends[-1][0])
        if waiting >= BATCH:
            joining.join(*map(np.concatenate, zip(*ends, strict=True)))
            ends, waiting = [], 0
    if ends:
        joining.join(*map(np.concatenate, zip(*ends, strict=True)))
    return joined, refused


def _mark_those_in_cores(
    blocks: _Blocks, nodes: SegmentNodes, *, joining: Joining, ids: Ids
) -> None:
    """Put a 1 where a node leads a component that has voxels in a core."""
    for block, table in blocks.tables():
        is_in_core = table.core_voxels > 0
        ids[joining.leaders(nodes.of_block(block.index, table.carried)[is_in_core])] = 1


def _number(ids: Ids, carried: Ids) -> tuple[int, int]:
    """Put ids where there are ones; return how many there are, and the largest."""
    largest_carried = int(carried[-1]) if len(carried) else 0
    count = largest = new = 0
    for start in range(0, len(ids), _NODES_AT_ONCE):
        part = ids[start : start + _NODES_AT_ONCE]
        leaders = np.flatnonzero(part)
        if not len(leaders):
            continue
        old = leaders[leaders + start < len(carried)]
        part[old] = carried[old + start]
        others = leaders[len(old) :]
        if largest_carried + new + len(others) > _LARGEST_ID:
            raise LabelError(
                f"carried ids up to {largest_carried} leave no room for new ones below 2**64: "
                "give the initial segmentation smaller ids, for example by floodem convert "
                "--relabel"
            )
        part[others] = np.uint64(largest_carried + new + 1) + np.arange(
            len(others), dtype=np.uint64
        )
        new += len(others)
        count += len(leaders)
        largest = int(part[leaders[-1]])
    return count, largest


def _write(blocks: _Blocks, nodes: SegmentNodes, *, joining: Joining, ids: Ids) -> None:
    """Write the final ids of each block's segments, and the table of all pairs."""
    table = JoinsTable(blocks.objects, plan=blocks.store.plan)

    def mappings() -> Iterator[tuple[Block, Ids]]:
        for block, (pairs, carried) in blocks.pairs_and_carried():
            mine = ids[joining.leaders(nodes.of_block(block.index, carried))]
            final = np.concatenate([np.zeros(1, np.uint64), mine])
            theirs = nodes.of(pairs.neighbour, pairs.b, outside=pairs.carried_b)
            table.add(block, pairs, id_a=final[pairs.a], id_b=ids[joining.leaders(theirs)])
            yield block, final

    def write(mapping: tuple[Block, Ids]) -> None:
        block, final = mapping
        packed = pack_columns({"ids": final}, version=MAPPING_VERSION)
        blocks.objects.write(f"mapping/{block.key}.npz", packed)

    for _ in in_order(write, mappings(), threads=_AT_ONCE, ahead=_AHEAD):
        pass
    table.close()
