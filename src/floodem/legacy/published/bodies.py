"""Published truth made ready: supervoxels and a table come in, a volume of neurons goes out.

FlyEM's HDF5 files hold supervoxels (``stack``, z, y, x) and the neuron of each
(``transforms``, rows of supervoxel and body). What trains or scores wants neurons.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt64

from floodem.errors import VolumeFormatError
from floodem.files import storage_error
from floodem.geometry import Box, VoxelSize

DATASET = "bodies"

_MOST_ROWS = 2**26
_SECTIONS_AT_ONCE = 16


def make_bodies(truth: Path, destination: Path, *, voxel_size: VoxelSize) -> int:
    """Write the neuron of every voxel to a new HDF5 file, in dataset ``bodies``.

    Returns
    -------
    int
        How many voxels lie in supervoxels of no neuron; they are 0.

    Raises
    ------
    VolumeFormatError
        When the file holds something else.
    StorageError
        When the file system refuses.
    """
    from floodem.volumes import create_volume, open_volume

    table = _read_transforms(truth)
    missing = 0
    try:
        destination.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error("replace", destination, error) from error
    with (
        open_volume(f"{truth}@stack") as stack,
        create_volume(
            f"{destination}@{DATASET}", shape=stack.shape, dtype=np.uint64, voxel_size=voxel_size
        ) as bodies,
    ):
        depth, y, x = stack.shape
        for z in range(0, depth, _SECTIONS_AT_ONCE):
            slab = Box((z, 0, 0), (min(z + _SECTIONS_AT_ONCE, depth), y, x))
            found, count = body_of(stack.read(slab), table)
            bodies.write(slab, found)
            missing += count
    return missing


def body_of(
    supervoxels: Integer[np.ndarray, "z y x"], transforms: Integer[np.ndarray, "n 2"]
) -> tuple[UInt64[np.ndarray, "z y x"], int]:
    """Return the neuron of each voxel, and how many voxels that are not 0 have none.

    Parameters
    ----------
    transforms
        Rows of supervoxel and body; of several rows for one supervoxel the last counts.
    """
    table = transforms.astype(np.uint64)
    order = np.argsort(table[:, 0], kind="stable")
    sources, targets = table[order, 0], table[order, 1]
    wanted = supervoxels.astype(np.uint64)
    if not len(sources):
        return np.zeros_like(wanted), int(np.count_nonzero(wanted))
    at = np.searchsorted(sources, wanted, side="right") - 1
    is_known = (at >= 0) & (sources[np.maximum(at, 0)] == wanted)
    bodies = np.where(is_known, targets[np.maximum(at, 0)], np.uint64(0))
    return bodies, int(np.count_nonzero(~is_known & (wanted != 0)))


def _read_transforms(truth: Path) -> Any:
    import h5py

    try:
        with h5py.File(truth, "r") as file:
            table = file.get("transforms")
            if not isinstance(table, h5py.Dataset) or table.dtype.kind not in "iu":
                raise VolumeFormatError(
                    f"{truth} has no table transforms of integers, so its supervoxels cannot be "
                    "added up to neurons: fetch it again with --overwrite"
                )
            if table.ndim != 2 or table.shape[1] != 2 or len(table) > _MOST_ROWS:
                raise VolumeFormatError(
                    f"{truth}: table transforms has shape {table.shape}; expected rows of "
                    "supervoxel and body: fetch it again with --overwrite"
                )
            return table[()]
    except VolumeFormatError:
        raise
    except OSError as error:
        raise storage_error("read", truth, error) from error
