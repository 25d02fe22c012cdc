"""A block is held against its neighbours: labels of two halos in, ``pairs/KEY.npz`` out.

Two blocks are compared in their zone: where both halos, each less `trim` voxels at its
faces inside the box, overlap::

    |<----------- halo of A ---------->|
                      |<----------- halo of B ---------->|
                      | t |<-zone->| t |
                               ^ where the cores meet

Each pair of neighbours is compared once, by the one with the lower number, and from
each of the two only the zone is read.

Why nothing is lost: let every block hold the connected parts (by faces, edges and
corners), within its halo, of each true object, let the trim be less than the margin on
every axis that is cut, and let one shared voxel be enough. Then both blocks have the same
pieces in a zone, namely the connected parts of each object in it: all that meet agree
wholly, and only parts of one object are joined. And any two neighbouring voxels u, v of
an object come together. Say u lies in the core of A and v in that of B: v is at most one
voxel outside of A's core, so it is in the trimmed halos of both, hence in their zone; A
holds u and v in one segment, B holds v, and the two pieces at v agree. So a volume that is
cut and joined equals the uncut one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt32

from floodem.assembly.agreement import JoinRule, Verdict, compare_zone
from floodem.assembly.block_store import BlockStore, SegmentTable
from floodem.assembly.blocks import Block, BlockPlan
from floodem.assembly.joins_table import BlockPairs, pairs_with, write_pairs
from floodem.errors import OptionError, VolumeFormatError
from floodem.geometry import Box, Zyx
from floodem.volumes.volume import Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTask:
    """One block to be compared with its forward neighbours; it can be sent to other processes.

    Attributes
    ----------
    store
        The blocks, all flooded.
    block
        The one with the lowest number.
    rule
        When pieces agree.
    """

    store: BlockStore
    block: Block
    rule: JoinRule


def require_zones(plan: BlockPlan, *, trim: Zyx) -> None:
    """Refuse a plan whose neighbouring blocks would have nothing to compare.

    Raises
    ------
    OptionError
        When the trim is as large as the halo on an axis that is cut.
    """
    for axis, count, margin, less in zip("zyx", plan.grid, plan.margin, trim, strict=True):
        if count > 1 and less >= margin:
            raise OptionError(
                f"halo {plan.margin} (z,y,x) leaves nothing to compare blocks by on {axis}, where "
                f"{less} voxels at its faces do not count: give a halo above {trim}"
            )


def trimmed(plan: BlockPlan, block: Block, *, trim: Zyx) -> Box:
    """Return a block's halo less `trim` voxels at its faces inside the box."""
    halo, box = block.halo, plan.box
    start = [
        low if low == end else low + less
        for low, end, less in zip(halo.start, box.start, trim, strict=True)
    ]
    stop = [
        high if high == end else high - less
        for high, end, less in zip(halo.stop, box.stop, trim, strict=True)
    ]
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def compare_block_task(task: PairTask) -> dict[str, Any]:
    """Compare a block with its forward neighbours and write what they share.

    Returns
    -------
    dict
        ``neighbours`` that it was compared with, ``voxels`` of the zones, and how many
        pairs of pieces were ``joined`` and ``refused``.

    Raises
    ------
    OptionError
        When there is nothing to compare by.
    VolumeFormatError
        When a block was not flooded, or is damaged.
    StorageError
        When the disk or the server refuses.
    """
    require_zones(task.store.plan, trim=task.rule.trim)
    found = list(_compared(task))
    write_pairs(task.store, task.block, pairs=[pairs for pairs, _ in found])
    rows = sum(len(pairs) for pairs, _ in found)
    joined = sum(int((pairs.verdict == Verdict.JOINED).sum()) for pairs, _ in found)
    return {
        "neighbours": len(found),
        "voxels": sum(zone.size for _, zone in found),
        "joined": joined,
        "refused": rows - joined,
    }


def _compared(task: PairTask) -> Iterator[tuple[BlockPairs, Box]]:
    """Yield what a block shares with each forward neighbour that has segments, and the zone."""
    store, block, rule = task.store, task.block, task.rule
    ours = store.read_table(block)
    if not len(ours):
        return
    reach = trimmed(store.plan, block, trim=rule.trim)
    with store.open_labels(block) as volume:
        neighbours = store.plan.neighbours(block)
        for axis, group in itertools.groupby(neighbours, lambda other: _first_axis(block, other)):
            near = _shared(
                reach, trimmed(store.plan, _next(store.plan, block, axis), trim=rule.trim)
            )
            slab = None
            for neighbour in group:
                theirs = store.read_table(neighbour)
                if not len(theirs):
                    continue
                # Read once for all neighbours on this side: their zones are parts of the first's.
                slab = volume.read(near) if slab is None else slab
                zone = _shared(reach, trimmed(store.plan, neighbour, trim=rule.trim))
                with store.open_labels(neighbour) as other:
                    found = compare_zone(
                        np.ascontiguousarray(slab[zone.slices(origin=near.start)]),
                        other.read(zone),
                        rule=rule,
                        start=zone.start,
                    )
                _require_known(found.a, ours, volume=volume)
                _require_known(found.b, theirs, volume=other)
                pairs = pairs_with(
                    neighbour, found, carried_a=ours.carried, carried_b=theirs.carried
                )
                yield pairs, zone


def _first_axis(block: Block, neighbour: Block) -> int:
    """Return the first axis on which a neighbour lies further on."""
    return next(axis for axis in range(3) if neighbour.place[axis] != block.place[axis])


def _next(plan: BlockPlan, block: Block, axis: int) -> Block:
    """Return the block behind the far face on one axis."""
    z, y, x = (at + (one == axis) for one, at in enumerate(block.place))
    return plan.at((z, y, x))


def _shared(one: Box, other: Box) -> Box:
    zone = one.intersection(other)
    assert zone is not None, "neighbours without a zone, in spite of require_zones"
    return zone


def _require_known(
    ids: UInt32[np.ndarray, "pairs"], table: SegmentTable, *, volume: Volume
) -> None:
    largest = int(ids.max(initial=0))
    if largest > len(table):
        raise VolumeFormatError(
            f"{volume.uri} holds label {largest}, and its table has {len(table)} segments: one of "
            "both is of another run; begin again with --overwrite"
        )
