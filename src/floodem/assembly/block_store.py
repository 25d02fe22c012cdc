"""What blocks leave for the stages after them: labels and tables in, the same out.

``blocks/KEY.zarr`` holds the labels of a block's halo (uint32, its own ids 1 to n),
``blocks/KEY.npz`` the table of its segments. Both lie beside the destination, on a
disk or on a server. A block without segments has no labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt32, UInt64

from floodem.assembly.blocks import Block, BlockPlan
from floodem.assembly.columns import pack_columns, unpack_columns
from floodem.errors import VolumeFormatError
from floodem.geometry import Box
from floodem.volumes import create_volume, open_volume
from floodem.volumes.servers.addresses import without_secrets
from floodem.volumes.servers.transport import open_store
from floodem.volumes.volume import Volume

TABLE_VERSION = 1
_TABLE = "table of segments"
_CHUNK = (64, 64, 64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegmentTable:
    """The segments of one block, in the order of their ids 1 to n.

    Attributes
    ----------
    carried
        What the first segments are called outside: ids of an initial segmentation or a
        coarser level, which may come in many blocks. The segments after them are new.
    voxels, core_voxels
        In the halo, and in the core alone.
    starts
        Seeds of the new segments, z, y, x in the volume.
    calls
        Network calls of the new segments.
    is_cut_short
        Which new segments hit a limit.
    """

    carried: UInt64[np.ndarray, "carried"]
    voxels: Int64[np.ndarray, "segments"]
    core_voxels: Int64[np.ndarray, "segments"]
    starts: Int64[np.ndarray, "new 3"]
    calls: Int64[np.ndarray, "new"]
    is_cut_short: np.ndarray[tuple[int], np.dtype[np.bool_]]

    def __len__(self) -> int:
        return len(self.voxels)


_NO_SEGMENTS = SegmentTable(
    carried=np.zeros(0, np.uint64),
    voxels=np.zeros(0, np.int64),
    core_voxels=np.zeros(0, np.int64),
    starts=np.zeros((0, 3), np.int64),
    calls=np.zeros(0, np.int64),
    is_cut_short=np.zeros(0, bool),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockStore:
    """The blocks of one run; it can be sent to other processes.

    Attributes
    ----------
    address
        The run's folder, ``DST.floodem``.
    plan
        How the volume is cut.
    """

    address: str
    plan: BlockPlan

    def write(
        self, block: Block, labels: UInt32[np.ndarray, "z y x"], *, table: SegmentTable
    ) -> None:
        """Keep the labels of a block's halo, and its table after them.

        Raises
        ------
        StorageError
            When the disk or the server refuses.
        """
        if len(table):
            with create_volume(
                self._labels(block),
                shape=block.halo.shape,
                dtype=np.uint32,
                offset=block.halo.start,
                chunks=_CHUNK,
                shards=_whole_chunks(block.halo),
                overwrite=True,
            ) as volume:
                volume.write(block.halo, labels)
        packed = pack_columns(_columns(table), version=TABLE_VERSION)
        open_store(self.address).write(self._table(block), packed)

    def open_labels(self, block: Block) -> Volume:
        """Open the labels of a block that has segments.

        Raises
        ------
        VolumeNotFoundError
            When it has none, or was not flooded.
        VolumeFormatError
            When they are damaged or not of this block.
        """
        volume = open_volume(self._labels(block))
        if volume.box != block.halo or volume.dtype != np.uint32:
            found = f"{volume.dtype} in {volume.box}, not uint32 in {block.halo} (z,y,x)"
            volume.close()
            raise VolumeFormatError(
                f"{volume.uri} holds {found}: it is not of this run, begin again with --overwrite"
            )
        return volume

    def read_table(self, block: Block) -> SegmentTable:
        """Return the segments of a block.

        Raises
        ------
        VolumeFormatError
            When the table is missing, damaged, of another version or of another block.
        UnsafeFileError
            When it declares more than its bytes can hold.
        StorageError
            When the disk or the server refuses.
        """
        name = self._table(block)
        uri = f"{without_secrets(self.address)}/{name}"
        columns = unpack_columns(
            open_store(self.address).read(name),
            like=_columns(_NO_SEGMENTS),
            version=TABLE_VERSION,
            what=_TABLE,
            uri=uri,
        )
        count = int(np.count_nonzero(columns["carried"]))
        table = SegmentTable(
            carried=columns["carried"][:count],
            voxels=columns["voxels"],
            core_voxels=columns["core_voxels"],
            starts=columns["starts"][count:],
            calls=columns["calls"][count:],
            is_cut_short=columns["is_cut_short"][count:],
        )
        reason = _contradiction(table, block)
        if reason is not None:
            raise VolumeFormatError(
                f"{uri} cannot be used as {_TABLE}, because {reason}: begin again with --overwrite"
            )
        return table

    def _labels(self, block: Block) -> str:
        return f"zarr3://{self.address}/blocks/{block.key}.zarr"

    @staticmethod
    def _table(block: Block) -> str:
        return f"blocks/{block.key}.npz"


def _columns(table: SegmentTable) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    """Return columns of equal length: what only carried or only new segments have is 0 elsewhere.

    Ids of segments are never 0, so that the first 0 tells where the new ones begin.
    """
    carried, new = len(table.carried), len(table.calls)
    return {
        "carried": np.concatenate([table.carried, np.zeros(new, np.uint64)]),
        "voxels": table.voxels,
        "core_voxels": table.core_voxels,
        "starts": np.concatenate([np.zeros((carried, 3), np.int64), table.starts]),
        "calls": np.concatenate([np.zeros(carried, np.int64), table.calls]),
        "is_cut_short": np.concatenate([np.zeros(carried, bool), table.is_cut_short]),
    }


def _contradiction(table: SegmentTable, block: Block) -> str | None:
    """Say what cannot be in a table of this block, or return None."""
    ids = table.carried
    if not bool(np.all(ids[:-1] < ids[1:])) or bool(np.any(ids == 0)):
        return "its carried ids do not ascend"
    voxels, core_voxels = table.voxels, table.core_voxels
    for counts, box in ((voxels, block.halo), (core_voxels, block.core)):
        # Compared one by one first: a sum of damaged numbers may come out right.
        if np.any((counts < 0) | (counts > box.size)) or int(counts.sum()) > box.size:
            return f"it counts other voxels than box {box} has"
    if np.any(core_voxels > voxels):
        return "a core has more voxels of a segment than the halo"
    first, last = np.array(block.halo.start), np.array(block.halo.stop)
    if np.any((table.starts < first) | (table.starts >= last)):
        return f"a segment begins outside of {block.halo}"
    return None


def _whole_chunks(halo: Box) -> tuple[int, int, int]:
    z, y, x = (-(-size // edge) * edge for size, edge in zip(halo.shape, _CHUNK, strict=True))
    return (z, y, x)
