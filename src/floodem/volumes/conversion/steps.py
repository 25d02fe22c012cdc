"""The work of a conversion, block by block: ids counted, voxels copied, levels computed, compared.

Open volumes come in; receipts and progress go out. Several blocks are worked on
at once, each wholly in one thread: read, recode, write, receipt. Volumes that
serve only one thread are asked by one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from floodem.errors import StoppedError
from floodem.geometry import Box, Zyx, tiles
from floodem.labels.runs import Ids, require_labels, runs
from floodem.progress import Progress, ProgressListener
from floodem.volumes.conversion.block_plan import blocks_at_once, coarse_voxel_bytes, voxel_bytes
from floodem.volumes.conversion.block_reading import Reader, compared
from floodem.volumes.conversion.journal import Journal
from floodem.volumes.conversion.pyramid import read_coarse
from floodem.volumes.conversion.receipts import Key, Receipt, receipt_for
from floodem.volumes.conversion.recoding import PIECE_VOXELS, IdCollector, Recoding
from floodem.volumes.parallel import in_order
from floodem.volumes.volume import Array, Kind, Volume

_STAGE = "convert"


class Tally:
    """Counts voxels over all steps for one bar, and asks whether to stop."""

    def __init__(
        self,
        *,
        total: int,
        listener: ProgressListener | None,
        should_stop: Callable[[], bool],
        how_to_go_on: str,
        unit: str,
    ) -> None:
        self._unit = unit
        self._done = 0
        self._total = total
        self._listener = listener
        self._should_stop = should_stop
        self._how_to_go_on = how_to_go_on

    def add(self, voxels: int, note: str) -> None:
        """Count work and report it.

        Raises
        ------
        StoppedError
            When the user wants to stop.
        """
        self._done += voxels
        if self._listener is not None:
            report = Progress(
                stage=_STAGE, done=self._done, total=self._total, unit=self._unit, note=note
            )
            self._listener(report)
        if self._should_stop():
            raise StoppedError(f"stopped: {self._how_to_go_on}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """What every step needs.

    Attributes
    ----------
    journal, receipts
        Of the blocks that are written; steps add theirs to both.
    tally
        Hears of every block.
    threads
        How many blocks are worked on at once, where memory allows.
    writes_in_threads
        Whether several threads may write to the copy; otherwise one does, in order,
        so that the file is the same every time.
    is_lossy
        Whether receipts are taken from what the copy gives back.
    """

    journal: Journal
    receipts: dict[Key, Receipt]
    tally: Tally
    threads: int
    writes_in_threads: bool
    is_lossy: bool

    def count_ids(self, reader: Reader, part: Box, *, block: Zyx) -> Ids:
        """Return the ids of the source but 0, ascending.

        Raises
        ------
        LabelError
            When a value is negative or no whole number.
        """

        def ids_of(box: Box) -> tuple[Ids, int]:
            array = reader.read(box)
            require_labels(array, what=reader.volume.uri)
            return _ids_in(array), box.size

        collector = IdCollector()
        dtype = reader.volume.dtype
        at_once = self._at_once(block, voxel_bytes(dtype, dtype), reader.volume)
        boxes = (tile.core for tile in tiles(part, core=block))
        for ids, voxels in in_order(ids_of, boxes, threads=at_once, ahead=2 * at_once):
            collector.add(ids)
            self.tally.add(voxels, "counting labels")
        return collector.ids()

    def copy(
        self, reader: Reader, copy: Volume, *, to_copy: Zyx, recoding: Recoding, block: Zyx
    ) -> None:
        """Write the finest level."""
        to_source = (-to_copy[0], -to_copy[1], -to_copy[2])

        def voxels(box: Box) -> Array:
            return recoding.apply(reader.read(box.translate(to_source)))

        at_once = self._at_once(block, voxel_bytes(reader.volume.dtype, copy.dtype), copy)
        self._fill(copy, voxels, level=0, block=block, at_once=at_once, note="copying")

    def coarsen(
        self, finer: Volume, coarser: Volume, *, level: int, factors: Zyx, kind: Kind, block: Zyx
    ) -> None:
        """Write one coarser level from the one before it."""

        def voxels(box: Box) -> Array:
            return read_coarse(finer, box, factors=factors, kind=kind)

        at_once = self._at_once(block, coarse_voxel_bytes(coarser.dtype, factors), coarser)
        note = f"level {level}"
        self._fill(coarser, voxels, level=level, block=block, at_once=at_once, note=note)

    def compare(self, reader: Reader, *, level: int, moved: Zyx) -> list[Receipt]:
        """Read a level back and return the receipts that its bytes do not bear out."""
        wrong = []
        own = [receipt for receipt in self.receipts.values() if receipt.level == level]
        for receipt, is_right in compared(reader, own, moved=moved, threads=self.threads):
            if not is_right:
                wrong.append(receipt)
            self.tally.add(receipt.box.size, "verifying")
        return wrong

    def _fill(
        self,
        volume: Volume,
        voxels: Callable[[Box], Array],
        *,
        level: int,
        block: Zyx,
        at_once: int,
        note: str,
    ) -> None:
        def finish(box: Box, array: Array) -> Receipt:
            volume.write(box, array)
            written = volume.read(box) if self.is_lossy else array
            receipt = receipt_for(written, level=level, box=box, chunks=volume.chunks)
            self.journal.add(receipt)
            return receipt

        def work(box: Box) -> tuple[Box, Array | Receipt]:
            array = voxels(box)
            return box, finish(box, array) if self.writes_in_threads else array

        missing = (box for box in self._missing(volume.box, level=level, block=block))
        ahead = 2 * at_once if self.writes_in_threads else at_once
        for box, result in in_order(work, missing, threads=at_once, ahead=ahead):
            receipt = result if isinstance(result, Receipt) else finish(box, result)
            self.receipts[receipt.key] = receipt
            self.tally.add(box.size, note)

    def _missing(self, box: Box, *, level: int, block: Zyx) -> Iterator[Box]:
        for tile in tiles(box, core=block):
            if (level, tile.core.start) not in self.receipts:
                yield tile.core

    def _at_once(self, block: Zyx, itemsize: int, volume: Volume) -> int:
        return blocks_at_once(block, itemsize=itemsize, threads=self.threads, uri=volume.uri)


def _ids_in(labels: Array) -> Ids:
    flat = labels.reshape(-1)
    found = []
    for at in range(0, flat.size, PIECE_VOXELS):
        piece = flat[at : at + PIECE_VOXELS]
        starts, _ = runs(piece)
        found.append(np.unique(piece[starts]))
    return np.unique(np.concatenate(found)).astype(np.uint64)
