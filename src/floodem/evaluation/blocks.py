"""Blocks of a comparison as tasks: addresses of two volumes come in, tables and places go out.

What a task counts it leaves in the work folder, on a disk or on a server, for whoever
adds it up::

    WORK/counts/KEY.npz      pairs of labels and their voxels
    WORK/counts/receipts/    one receipt for each of them
    WORK/places-.../         receipts of looking for the worst mistakes, results included
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from floodem.errors import VolumeFormatError
from floodem.evaluation.alignment import read_both
from floodem.evaluation.grid import BlockGrid
from floodem.evaluation.places import Finding, Search, search_block
from floodem.geometry import Box
from floodem.labels import OverlapCounter, OverlapTable, contingency
from floodem.labels.runs import Labels
from floodem.shapes.source import LabelSource, opened_source
from floodem.volumes.servers.transport import open_store

TABLE_VERSION = 1

MOST_TASKS = 10_000
"""So many tables are soon added up; a task of a larger volume counts several blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two volumes that any process can open and lay over each other.

    Attributes
    ----------
    segmentation, truth
        Where they are.
    blocks
        What is compared, in both volumes' frame.
    work
        Address of the folder for what tasks leave.
    border_radius
        Voxels so near to borders of the truth, in voxels, do not count; None: all do.
    """

    segmentation: LabelSource
    truth: LabelSource
    blocks: BlockGrid
    work: str
    border_radius: float | None = None

    def __len__(self) -> int:
        """Return how many tasks there are."""
        return math.ceil(len(self.blocks) / self.blocks_per_task)

    @property
    def blocks_per_task(self) -> int:
        """How many blocks a task counts; it follows from how many there are."""
        return max(1, math.ceil(len(self.blocks) / MOST_TASKS))

    def numbers(self, number: int) -> range:
        """Return the numbers of the blocks of a task."""
        first = number * self.blocks_per_task
        return range(first, min(first + self.blocks_per_task, len(self.blocks)))

    def box_of(self, number: int) -> Box:
        """Return the smallest box around the blocks of a task."""
        boxes = [self.blocks[index] for index in self.numbers(number)]
        low = np.min([box.start for box in boxes], axis=0).tolist()
        high = np.max([box.stop for box in boxes], axis=0).tolist()
        return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))

    def read(self, number: int) -> Iterator[tuple[Box, tuple[Labels, Labels]]]:
        """Yield the blocks of a task, each with its segmentation and truth.

        Raises
        ------
        LabelError
            When one of the volumes holds no labels.
        """
        volumes = opened_source(self.segmentation), opened_source(self.truth)
        for index in self.numbers(number):
            block = self.blocks[index]
            yield block, read_both(*volumes, box=block, radius=self.border_radius)

    def read_table(self, number: int) -> OverlapTable:
        """Return what a task has counted.

        Raises
        ------
        VolumeFormatError
            When it is not there, or damaged.
        """
        name = self._table(number)
        packed = open_store(self.work).read(name)
        found = None if packed is None else _unpacked(packed)
        if found is None:
            raise VolumeFormatError(
                f"{self.work}/{name} is no table of overlaps of version {TABLE_VERSION}: remove "
                f"{self.work}/counts, and run the same command again"
            )
        return found

    def write_table(self, number: int, table: OverlapTable) -> None:
        """Keep what a task has counted.

        Raises
        ------
        StorageError
            When the disk or the server refuses.
        """
        packed = io.BytesIO()
        np.savez(
            packed,
            version=np.int64(TABLE_VERSION),
            ids_a=table.ids_a,
            ids_b=table.ids_b,
            counts=table.counts,
        )
        open_store(self.work).write(self._table(number), packed.getvalue())

    @staticmethod
    def _table(number: int) -> str:
        return f"counts/{number:06}.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class CountTask:
    """The blocks with one number of a comparison, to be counted."""

    comparison: Comparison
    number: int


def count_task(task: CountTask) -> dict[str, Any]:
    """Count which labels lie on each other in some blocks, and keep the table.

    Raises
    ------
    LabelError
        When one of the volumes holds no labels.
    StorageError, VolumeFormatError
        When something cannot be read or written.
    """
    counter = OverlapCounter()
    for _, labels in task.comparison.read(task.number):
        counter.add(contingency(*labels))
    table = counter.table()
    task.comparison.write_table(task.number, table)
    return {"pairs": len(table), "voxels": int(table.counts.sum())}


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchTask:
    """The blocks with one number of a comparison, to be looked through."""

    comparison: Comparison
    number: int
    search: Search


def search_task(task: SearchTask) -> dict[str, Any]:
    """Look for parts in some blocks; what is found stands in the receipt.

    Raises
    ------
    StorageError, VolumeFormatError
        When something cannot be read.
    """
    findings: list[Finding] = []
    for block, labels in task.comparison.read(task.number):
        findings += search_block(*labels, block=block, search=task.search)
    return {"findings": findings}


def _unpacked(packed: bytes) -> OverlapTable | None:
    """Return the table in an archive, None where it is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            # What is not compressed cannot be larger than the file.
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                return None
        with np.load(io.BytesIO(packed), allow_pickle=False) as found:
            if int(found["version"]) != TABLE_VERSION:
                return None
            ids_a, ids_b, counts = found["ids_a"], found["ids_b"], found["counts"]
    except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile):
        return None
    is_one = (
        ids_a.dtype == ids_b.dtype == np.uint64
        and counts.dtype == np.int64
        and ids_a.shape == ids_b.shape == counts.shape == (counts.size,)
        and (counts > 0).all()
    )
    return OverlapTable(ids_a, ids_b, counts) if is_one else None
