"""Decision points block by block: the address of a segmentation in, tables of contacts out.

Each block answers for the contacts whose lower voxel is in its core, and reads as much around
it as decides how segments grow there (`Lengths.halo`), so that all blocks together find what
the whole volume would::

    |<- halo ->|<------- core ------->|1|<- halo ->|

Tasks leave their tables in the work folder, on a disk or on a server::

    WORK/points/sizes/KEY.npz      ids in a core and their voxels (only with a least size)
    WORK/points/small/KEY.npz      which of them are too small in the whole volume
    WORK/points/contacts/KEY.npz   the nearest places of each pair, all ties

Places in the tables are voxels of the box that is searched, numbered in C order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from floodem.assembly.agglomeration.points.contacts import Contacts, find_contacts, nothing
from floodem.assembly.agglomeration.points.growing import grow
from floodem.assembly.agglomeration.points.lengths import Lengths
from floodem.assembly.blocks import Block, BlockPlan
from floodem.assembly.columns import pack_columns, unpack_columns
from floodem.geometry import Box, Zyx
from floodem.labels import OverlapCounter, OverlapTable, require_labels
from floodem.labels.runs import Ids, Labels, runs, sizes
from floodem.shapes.source import LabelSource, opened_source
from floodem.volumes.servers.addresses import without_secrets
from floodem.volumes.servers.transport import open_store

TABLE_VERSION = 1

_NO_IDS = np.zeros(0, np.uint64)
_NO_COUNTS = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class PointBlocks:
    """A segmentation that is searched for decision points in blocks; any process can use it.

    Attributes
    ----------
    segmentation
        Where it is.
    plan
        How it is cut into cores; the halos are made here.
    work
        Address of the folder for what tasks leave.
    lengths
        How far segments grow.
    min_size
        Segments of fewer voxels, within the box, count as empty space.
    """

    segmentation: LabelSource
    plan: BlockPlan
    work: str
    lengths: Lengths
    min_size: int

    def read_core(self, block: Block) -> Labels:
        """Return the labels of a core.

        Raises
        ------
        LabelError
            When the volume holds no labels.
        """
        return self._read(block.core)

    def read_around(self, block: Block) -> tuple[Labels, Box]:
        """Return the labels that decide about a block, and where they are.

        Segments that are too small are left out.
        """
        core, halo, box = block.core, self.lengths.halo(), self.plan.box
        stop = [
            min(high + 1 + width, end)
            for high, width, end in zip(core.stop, halo, box.stop, strict=True)
        ]
        start = [
            max(low - width, end)
            for low, width, end in zip(core.start, halo, box.start, strict=True)
        ]
        around = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
        labels = self._read(around)
        if self.min_size > 1:
            small = [self.read_small(other) for other in self._blocks_in(around)]
            labels = _without(labels, np.unique(np.concatenate(small)))
        return labels, around

    def read_sizes(self, block: Block) -> OverlapTable:
        """Return the ids in a core and their voxels there, as overlaps with background."""
        found = self._read_table("sizes", block, {"ids": _NO_IDS, "voxels": _NO_COUNTS})
        return OverlapTable(found["ids"], np.zeros_like(found["ids"]), found["voxels"])

    def write_sizes(self, block: Block, ids: Ids, voxels: Any) -> None:
        """Keep the ids in a core and their voxels."""
        self._write_table("sizes", block, {"ids": ids, "voxels": voxels})

    def read_small(self, block: Block) -> Ids:
        """Return which ids in a core are of segments that are too small."""
        ids: Ids = self._read_table("small", block, {"ids": _NO_IDS})["ids"]
        return ids

    def write_small(self, block: Block, ids: Ids) -> None:
        """Keep which ids in a core are of segments that are too small."""
        self._write_table("small", block, {"ids": ids})

    def read_contacts(self, block: Block) -> Contacts:
        """Return the nearest places of the pairs of a block.

        Raises
        ------
        VolumeFormatError
            When they are not there, or damaged.
        """
        like = {field.name: getattr(nothing(), field.name) for field in fields(Contacts)}
        return Contacts(**self._read_table("contacts", block, like))

    def write_contacts(self, block: Block, contacts: Contacts) -> None:
        """Keep the nearest places of the pairs of a block.

        Raises
        ------
        StorageError
            When the disk or the server refuses.
        """
        columns = {field.name: getattr(contacts, field.name) for field in fields(Contacts)}
        self._write_table("contacts", block, columns)

    def _read(self, box: Box) -> Labels:
        volume = opened_source(self.segmentation)
        labels = volume.read(box)
        require_labels(labels, what=f"the segmentation {volume.uri}")
        return labels.astype(f"u{labels.dtype.itemsize}", copy=False)

    def _blocks_in(self, box: Box) -> Iterator[Block]:
        """Yield the blocks whose cores share voxels with a box."""
        plan = self.plan
        axes = zip(box.start, box.stop, plan.box.start, plan.core, plan.grid, strict=True)
        places = [
            range((low - first) // edge, min(count, (high - 1 - first) // edge + 1))
            for low, high, first, edge, count in axes
        ]
        return (plan.at((z, y, x)) for z, y, x in itertools.product(*places))

    def _read_table(self, kind: str, block: Block, like: dict[str, Any]) -> dict[str, Any]:
        name = _name(kind, block)
        return unpack_columns(
            open_store(self.work).read(name),
            like=like,
            version=TABLE_VERSION,
            what=f"the {kind} of decision points",
            uri=f"{without_secrets(self.work)}/{name}",
        )

    def _write_table(self, kind: str, block: Block, columns: dict[str, Any]) -> None:
        open_store(self.work).write(
            _name(kind, block), pack_columns(columns, version=TABLE_VERSION)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTask:
    """One block of a search."""

    blocks: PointBlocks
    block: Block


def count_sizes_task(task: BlockTask) -> dict[str, Any]:
    """Count the voxels of each segment in a core, and keep the table.

    Raises
    ------
    LabelError
        When the volume holds no labels.
    FloodemError
        When something cannot be read or written.
    """
    ids, voxels = sizes(task.blocks.read_core(task.block))
    is_segment = ids != 0
    task.blocks.write_sizes(task.block, ids[is_segment], voxels[is_segment])
    return {"segments": int(is_segment.sum())}


def find_contacts_task(task: BlockTask) -> dict[str, Any]:
    """Grow the segments of a block, and keep the nearest places of each pair.

    Raises
    ------
    LabelError
        When the volume holds no labels.
    FloodemError
        When something cannot be read or written.
    """
    blocks = task.blocks
    labels, around = blocks.read_around(task.block)
    z, y, x = blocks.plan.box.start
    contacts = contacts_of(
        labels,
        core=task.block.core.translate((-z, -y, -x)),
        start=around.translate((-z, -y, -x)).start,
        shape=blocks.plan.box.shape,
        lengths=blocks.lengths,
    )
    blocks.write_contacts(task.block, contacts)
    return {"pairs": len(contacts.starts()), "ties": len(contacts), "voxels": around.size}


def contacts_of(labels: Labels, *, core: Box, start: Zyx, shape: Zyx, lengths: Lengths) -> Contacts:
    """Grow the segments of an array, and find the contacts in a core (see `find_contacts`)."""
    grown = grow(labels, lengths=lengths)
    return find_contacts(grown, core=core, start=start, shape=shape, lengths=lengths)


def write_small_ids(blocks: PointBlocks) -> int:
    """Find the segments that are too small in the whole volume, and keep them for each block.

    Takes memory for the ids of the whole volume (24 bytes each).

    Returns
    -------
    int
        How many are too small.
    """
    counter = OverlapCounter()
    for block in blocks.plan:
        counter.add(blocks.read_sizes(block))
    table = counter.table()
    small = table.ids_a[table.counts < blocks.min_size]
    for block in blocks.plan:
        ids = blocks.read_sizes(block).ids_a
        blocks.write_small(block, ids[np.isin(ids, small, assume_unique=True)])
    return len(small)


def without_small(labels: Labels, *, min_size: int) -> Labels:
    """Return labels whose segments of less than `min_size` voxels are empty space."""
    if min_size <= 1:
        return labels
    ids, voxels = sizes(labels)
    return _without(labels, ids[(voxels < min_size) & (ids != 0)])


def _without(labels: Labels, ids: Ids) -> Labels:
    if not len(ids):
        return labels
    starts, lengths = runs(labels)
    kept = labels.reshape(-1)[starts]
    kept[np.isin(kept, ids.astype(kept.dtype))] = 0
    return np.repeat(kept, lengths).reshape(labels.shape)


def _name(kind: str, block: Block) -> str:
    return f"points/{kind}/{block.key}.npz"
