"""A few decision points as one task: plain values in, scores as plain values out, in any process.

Volumes and network stay open for the next task of a process; whoever had the tasks done closes
with `close_resegmenter`. What a point gives does not depend on the task it is in: the fewer
points a task has the less is lost where it is interrupted, and those near each other read
the same chunks.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from floodem.assembly.agglomeration.resegmentation.options import ResegmentationOptions
from floodem.assembly.agglomeration.resegmentation.resegmenter import Resegmenter
from floodem.assembly.agglomeration.resegmentation.scores import PointScores
from floodem.assembly.sources import source_stamp, task_model
from floodem.cluster.context import TaskContext, task_context
from floodem.errors import StoppedError
from floodem.flooding.options import FloodOptions
from floodem.geometry import VoxelSize, Zyx
from floodem.shapes.source import LabelSource
from floodem.volumes.source import VolumeSource

ASKED_EVERY_S = 0.2
"""How long a stop may go unheard by a task that waits for its turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointToScore:
    """One decision point of a task.

    Attributes
    ----------
    id_a, id_b
        The segments.
    position
        The voxel z, y, x, in the frame of the segmentation.
    """

    id_a: int
    id_b: int
    position: Zyx


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTask:
    """Some points to be scored; it can be sent to other processes.

    Attributes
    ----------
    image, segmentation
        Where they are.
    voxel_size
        As stated; None: the segmentation's, or the image's, or the model's.
    model, model_digest
        The network's file or name, and what `Model.digest` says of it.
    network
        Code of another package that the model names, as the user gave it, or None.
    flood
        Of every flood.
    device, dtype
        Names, as of `floodem.segment`.
    """

    image: VolumeSource
    segmentation: LabelSource
    voxel_size: VoxelSize | None
    model: str
    model_digest: str
    options: ResegmentationOptions
    flood: FloodOptions
    points: tuple[PointToScore, ...]
    device: str = "auto"
    dtype: str = "auto"
    network: str | None = None


def score_points_task(task: ScoreTask) -> dict[str, Any]:
    """Score the points of a task, in their order.

    Returns
    -------
    dict
        ``scores`` (for each point the fields of `PointScores`, in their order, as
        `scores_from_rows` reads them), ``calls`` of the network, ``seconds``, and
        ``computed_on`` (device and number format, on which the last digits depend).

    Raises
    ------
    StoppedError
        When the run was told to stop; the task is then done anew.
    FloodemError
        When something is refused.
    """
    context = task_context()
    names = [field.name for field in fields(PointScores)]
    with _turn(context):
        began = time.monotonic()
        resegmenter = _kept_resegmenter(task)
        rows: list[list[Any]] = []
        calls = 0
        for point in task.points:
            if context.should_stop():
                raise StoppedError(
                    "stopped between two decision points: run the same command again to go on"
                )
            scores = resegmenter.score(
                point.id_a, point.id_b, point.position, should_stop=context.should_stop
            )
            rows.append([getattr(scores, name) for name in names])
            calls += scores.calls
            context.report({"points": len(rows), "calls": calls})
        return {
            "scores": rows,
            "calls": calls,
            "seconds": round(time.monotonic() - began, 3),
            "computed_on": resegmenter.computes_on,
        }


def scores_from_rows(receipts: Sequence[Mapping[str, Any]]) -> list[PointScores]:
    """Return the scores of the points of many tasks, in order.

    Parameters
    ----------
    receipts
        What `score_points_task` has returned, also if it was written as JSON since.
    """
    names = [field.name for field in fields(PointScores)]
    return [
        PointScores(**dict(zip(names, row, strict=True)))
        for receipt in receipts
        for row in receipt["scores"]
    ]


_scoring = threading.Lock()
"""One task of a process is done at a time: two would only slow each other on one device."""

_kept: dict[Any, tuple[Resegmenter, contextlib.ExitStack]] = {}
"""At most one, by all of the task but its points."""


@contextlib.contextmanager
def _turn(context: TaskContext) -> Iterator[None]:
    while not _scoring.acquire(timeout=ASKED_EVERY_S):
        if context.should_stop():
            raise StoppedError("stopped before its turn: run the same command again to go on")
    try:
        yield
    finally:
        _scoring.release()


def _kept_resegmenter(task: ScoreTask) -> Resegmenter:
    """Return that of the process for everything that the task has beside its points."""
    values = [getattr(task, field.name) for field in fields(task) if field.name != "points"]
    # Workers of a cluster outlive runs, and files change.
    key = repr([values, source_stamp(task.image.uri), source_stamp(task.segmentation.uri)])
    if key not in _kept:
        _close()
        if task.network is not None:
            from floodem.network.registry import register_network

            register_network(task.network)
        model = task_model(task.model, task.model_digest)
        with contextlib.ExitStack() as opening:
            made = Resegmenter(
                opening.enter_context(task.image.open()),
                opening.enter_context(task.segmentation.open()),
                model=model,
                options=task.options,
                flood=task.flood,
                device=task.device,
                dtype=task.dtype,
                voxel_size=task.voxel_size,
            )
            _kept[key] = made, opening.pop_all()
    return _kept[key][0]


def close_resegmenter() -> None:
    """Close what tasks of this process have opened; by who had them done."""
    with _scoring:
        _close()


def _close() -> None:
    while _kept:
        _kept.popitem()[1][1].close()
