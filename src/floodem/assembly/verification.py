"""Whether the result of a cut run still is what its tasks wrote: an address in, the verdict out.

Every task's receipt holds a checksum of the voxels that it wrote. All levels are read
once, part by part, and held against these; nothing is changed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from floodem.assembly.blocks import BlockPlan
from floodem.assembly.destination import LABEL_DTYPE, LabelDestination
from floodem.assembly.output_levels import level_tasks
from floodem.assembly.run_record import RECEIPTS, RunRecord
from floodem.assembly.writing import ChunkSums, pieces
from floodem.errors import FloodemError, RunConflictError, StoppedError
from floodem.flooding.run_folder import RunStatus
from floodem.flooding.verification import SegmentationCheck
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.progress import Progress, ProgressListener
from floodem.volumes import open_volume
from floodem.volumes.conversion.destination import moved_by
from floodem.volumes.servers.transport import Store, open_store
from floodem.volumes.volume import Volume

CUT = "cut"
"""Where run.json keeps how the volume is cut (`BlockPlan.to_json`), in its plan."""

_STAGE = "verify"


def is_cut_run(uri: str) -> bool:
    """Tell whether the run that wrote to an address was cut into blocks.

    Raises
    ------
    StorageError
        When the disk or the server refuses.
    """
    with contextlib.suppress(RunConflictError):
        return RunRecord(uri).read() is not None
    return False


def verify_cut_run(
    uri: str,
    *,
    progress: ProgressListener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> SegmentationCheck:
    """Hold a segmentation, all its levels, against the receipts of its run.

    Parameters
    ----------
    progress
        Called after every part, in voxels.
    should_stop
        Asked after every part; when it answers True the check ends with `StoppedError`.

    Raises
    ------
    RunConflictError
        When there is no finished run, or its record is damaged.
    FloodemError
        When the volume cannot be opened at all.
    """
    record = RunRecord(uri)
    values = record.read()
    if values is None or values["status"] != RunStatus.DONE:
        raise RunConflictError(
            f"the segmentation {record.destination} is not finished: run the same "
            "`floodem segment` again"
        )
    destination = destination_of(uri, values["plan"])
    store = open_store(record.address)
    damages: list[str] = []
    done, stages = 0, list(_stages(destination))
    total = sum(part.box.size for parts in stages for part in parts)
    with open_volume(uri) as volume:
        for number, parts in enumerate(stages):
            level = volume.levels[number]
            for part in parts:
                damages += _damage(level, part, store, destination=destination, level=number)
                done += part.box.size
                if progress is not None:
                    progress(Progress(stage=_STAGE, done=done, total=total, unit="voxels"))
                if should_stop():
                    raise StoppedError("stopped before everything was checked: run it again")
    segments = (values.get("summary") or {}).get("segments")
    return SegmentationCheck(
        uri=uri,
        record=record.address,
        box=destination.plan.box,
        segments=segments if isinstance(segments, int) else 0,
        damages=tuple(damages),
    )


def destination_of(uri: str, plan: dict[str, Any]) -> LabelDestination:
    """Return the destination of a run from the plan in its record.

    Raises
    ------
    RunConflictError
        When the plan is damaged.
    """
    try:
        size = plan["voxel_size_nm_zyx"]
        return LabelDestination(
            uri=uri,
            plan=BlockPlan.from_json(plan[CUT]),
            voxel_size=None if size is None else VoxelSize(*size),
            factors=tuple(_zyx(one) for one in plan["levels"]),
            is_sharded=bool(plan["is_sharded"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunConflictError(
            f"the record of {uri} is damaged (its plan: {error}): begin again with --overwrite"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What one task has written: where, and the name of its receipt."""

    box: Box
    receipt: str


def _stages(destination: LabelDestination) -> Iterator[Sequence[_Part]]:
    """Yield the parts of each level, the finest first."""
    yield [
        _Part(box=block.core, receipt=f"{RECEIPTS}labels/{block.key}.json")
        for block in destination.plan
    ]
    for level in range(1, 1 + len(destination.factors)):
        yield [
            _Part(box=task.argument.box, receipt=f"{RECEIPTS}level-{level}/{task.key}.json")
            for task in level_tasks(destination, level)
        ]


def _damage(
    volume: Volume, part: _Part, store: Store, *, destination: LabelDestination, level: int
) -> list[str]:
    """Return what is wrong with a part, in one sentence or none."""
    where = f"level {level}, box {part.box} (z,y,x)"
    expected = _expected(store.read(part.receipt))
    if expected is None:
        return [f"{where}: {part.receipt} is missing or damaged"]
    chunks = destination.shards or destination.chunks
    moved = moved_by(volume, destination.plan.box, location=destination.location)
    sums = ChunkSums(part.box, chunks=chunks)
    try:
        for piece in pieces(part.box, chunks=chunks):
            found = volume.read(piece.translate(moved))
            sums.add(piece, found.astype(LABEL_DTYPE, copy=False))
    except FloodemError as error:
        return [f"{where}: {error}"]
    return [] if sums.total() == expected else [f"{where}: holds other labels than were written"]


def _expected(data: bytes | None) -> int | None:
    with contextlib.suppress(ValueError, RecursionError):
        match json.loads(data or b""):
            case {"result": {"crc32c": int() as crc}}:
                return crc
    return None


def _zyx(values: Sequence[int]) -> Zyx:
    z, y, x = (int(value) for value in values)
    return (z, y, x)
