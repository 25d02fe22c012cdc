"""A finished block goes to disk: labels, probabilities, and the record beside them.

In: a `BlockFlooder` that has used all its seeds. Out: the volume at the
destination and the files of the run folder, complete before the receipt says so.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from floodem.files import write_text
from floodem.flooding.addresses import Outputs
from floodem.flooding.block import BlockFlooder, SeedOutcome
from floodem.flooding.flood import FloodEnd
from floodem.flooding.run_folder import ORIGINS, OVERLAPS, SEEDS, RunFolder
from floodem.geometry import Box, VoxelSize, Zyx, tiles
from floodem.volumes import create_volume
from floodem.volumes.volume import Array, Volume

ORIGINS_VERSION = 1
LABEL_DTYPE, PROBABILITY_DTYPE = np.uint64, np.uint8
CUT_SHORT = frozenset({FloodEnd.MAX_CALLS, FloodEnd.MAX_VOXELS})
"""How floods end that hit a limit."""

_WRITE_VOXELS = 64 * 2**20 // 8
"""Labels are widened to 64 bits in pieces of about 64 MB."""


def write_results(
    flooder: BlockFlooder,
    folder: RunFolder,
    *,
    outputs: Outputs,
    box: Box,
    voxel_size: VoxelSize,
) -> dict[str, Any]:
    """Write the labels (uint64), the probabilities (uint8) and the record of a block.

    Returns
    -------
    dict
        segments, covered, counters and the SHA-256 of the labels: what run.json
        and the receipt keep.

    Raises
    ------
    StorageError
        When the file system refuses; running again repeats only the writing.
    """
    canvas = flooder.canvas
    for uri, dtype in _destinations(outputs):
        array = canvas.segmentation if dtype is LABEL_DTYPE else canvas.probability
        _write_volume(uri, array, dtype, box=box, voxel_size=voxel_size)
    folder.write_json(ORIGINS, origins_record(flooder, corner=box.start))
    folder.write_json(OVERLAPS, overlaps_record(flooder))
    write_text(folder.path / SEEDS, rejected_seeds(flooder, corner=box.start))
    return {
        "segments": len(flooder.origins),
        "covered": float(np.count_nonzero(canvas.segmentation) / canvas.segmentation.size),
        "cut_short": [
            label for label, origin in flooder.origins.items() if origin.end in CUT_SHORT
        ],
        "counters": all_counters(flooder),
        "labels_sha256": hashlib.sha256(canvas.segmentation.data).hexdigest(),
    }


def require_creatable(outputs: Outputs, *, box: Box, voxel_size: VoxelSize) -> None:
    """Refuse addresses to which results could not be written, before they are computed.

    Raises
    ------
    FloodemError
        Whatever `create_volume` refuses.
    """
    for uri, dtype in _destinations(outputs):
        _create(uri, dtype, box=box, voxel_size=voxel_size).discard()


def _destinations(outputs: Outputs) -> Iterator[tuple[str, type[np.generic]]]:
    yield outputs.labels, LABEL_DTYPE
    if outputs.probabilities is not None:
        yield outputs.probabilities, PROBABILITY_DTYPE


def _create(uri: str, dtype: type[np.generic], *, box: Box, voxel_size: VoxelSize) -> Volume:
    # The run owns its destination: a half-written one of a killed process is replaced.
    return create_volume(
        uri, shape=box.shape, dtype=dtype, voxel_size=voxel_size, offset=box.start, overwrite=True
    )


def _write_volume(
    uri: str, array: Array, dtype: type[np.generic], *, box: Box, voxel_size: VoxelSize
) -> None:
    with _create(uri, dtype, box=box, voxel_size=voxel_size) as volume:
        for tile in tiles(box, core=_write_core(volume.chunks, box.shape)):
            volume.write(tile.core, array[tile.core.slices(origin=box.start)].astype(dtype))


def _write_core(chunks: Zyx, shape: Zyx) -> Zyx:
    """Return whole chunks in z, all of y and x, of about `_WRITE_VOXELS`."""
    layers = max(1, _WRITE_VOXELS // (chunks[0] * shape[1] * shape[2]))
    return (layers * chunks[0], shape[1], shape[2])


def all_counters(flooder: BlockFlooder) -> dict[str, int]:
    """Return the counters of a block, its seeds among them."""
    return {"seeds": len(flooder.seeds), "network_calls": 0, **flooder.counters}


def overlaps_record(flooder: BlockFlooder) -> dict[str, Any]:
    """Return what overlaps.json holds."""
    return {"version": ORIGINS_VERSION, "overlaps": flooder.overlaps}


def origins_record(flooder: BlockFlooder, *, corner: Zyx) -> dict[str, Any]:
    """Return what origins.json holds.

    Parameters
    ----------
    corner
        Position of the block's first voxel in the volume, z, y, x.
    """
    return {
        "version": ORIGINS_VERSION,
        "origins": {
            label: {
                "start_zyx": [a + b for a, b in zip(origin.start, corner, strict=True)],
                "iters": origin.calls,
                "seconds": round(origin.seconds, 3),
                "voxels": origin.voxels,
                "end": origin.end.value,
            }
            for label, origin in flooder.origins.items()
        },
    }


def rejected_seeds(flooder: BlockFlooder, *, corner: Zyx) -> str:
    """Return seeds.csv: every seed that became no segment, z, y, x in the volume, and why.

    Parameters
    ----------
    corner
        Position of the block's first voxel in the volume, z, y, x.
    """
    rejected = flooder.outcomes != SeedOutcome.ACCEPTED
    positions = (flooder.seeds[rejected] + np.asarray(corner)).tolist()
    outcomes = flooder.outcomes[rejected].tolist()
    names = {outcome.value: outcome.name.lower().replace("_", " ") for outcome in SeedOutcome}
    text = io.StringIO()
    text.write("z,y,x,reason\n")
    for (z, y, x), outcome in zip(positions, outcomes, strict=True):
        text.write(f"{z},{y},{x},{names[outcome]}\n")
    return text.getvalue()
