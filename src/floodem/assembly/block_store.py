"""What blocks leave for the stages after them: labels and tables in, the same out.

``blocks/KEY.zarr`` holds the labels of a block's halo (uint32, its own ids 1 to n),
``blocks/KEY.npz`` the table of its segments. Both lie beside the destination, on a
disk or on a server. A block without segments has no labels.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Int64, UInt32, UInt64

from floodem.assembly.blocks import Block, BlockPlan
from floodem.errors import VolumeFormatError
from floodem.geometry import Box
from floodem.volumes import create_volume, open_volume
from floodem.volumes.servers.transport import open_store
from floodem.volumes.volume import Volume

TABLE_VERSION = 1
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
        packed = io.BytesIO()
        columns = {field.name: getattr(table, field.name) for field in fields(table)}
        np.savez_compressed(packed, version=np.int64(TABLE_VERSION), **columns)
        open_store(self.address).write(self._table(block), packed.getvalue())

    def open_labels(self, block: Block) -> Volume:
        """Open the labels of a block that has segments.

        Raises
        ------
        VolumeNotFoundError
            When it has none, or was not flooded.
        """
        return open_volume(self._labels(block))

    def read_table(self, block: Block) -> SegmentTable:
        """Return the segments of a block.

        Raises
        ------
        VolumeFormatError
            When the table is missing or damaged.
        """
        packed = open_store(self.address).read(self._table(block))
        try:
            assert packed is not None
            with np.load(io.BytesIO(packed), allow_pickle=False) as found:
                assert int(found["version"]) == TABLE_VERSION
                return SegmentTable(
                    **{field.name: found[field.name] for field in fields(SegmentTable)}
                )
        except (AssertionError, KeyError, ValueError, OSError, EOFError) as error:
            raise VolumeFormatError(
                f"{self.address}/{self._table(block)} is no table of segments of version "
                f"{TABLE_VERSION}: begin again with --overwrite"
            ) from error

    def _labels(self, block: Block) -> str:
        return f"zarr3://{self.address}/blocks/{block.key}.zarr"

    @staticmethod
    def _table(block: Block) -> str:
        return f"blocks/{block.key}.npz"


def _whole_chunks(halo: Box) -> tuple[int, int, int]:
    z, y, x = (-(-size // edge) * edge for size, edge in zip(halo.shape, _CHUNK, strict=True))
    return (z, y, x)
