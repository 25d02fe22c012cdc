"""Decision points become tasks: a table of points in, groups of near ones out, in a fixed order.

Points near each other read the same chunks. A task has few of them, since a task that is
interrupted is done again from its beginning; and what a point gives does not depend on
its group.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Int64

from floodem.assembly.agglomeration.points.points import DecisionPoints
from floodem.assembly.agglomeration.resegmentation.tasks import PointToScore, ScoreTask
from floodem.cluster import Task

POINTS_PER_TASK = 8
"""A point takes seconds on a processor and tenths of one on a card; a receipt some 10 ms."""

CELL_VOXELS = 64
"""Edge of the cells by which points are ordered: that of usual chunks."""


def group_order(points: DecisionPoints) -> Int64[np.ndarray, "points"]:
    """Return the rows of the points in the order in which they are scored: cell by cell."""
    z, y, x = (points.positions // CELL_VOXELS).T
    order: Int64[np.ndarray, "points"] = np.lexsort((points.ids_b, points.ids_a, x, y, z))
    return order.astype(np.int64)


def score_tasks(points: DecisionPoints, *, common: ScoreTask) -> list[Task]:
    """Return the tasks that score all points, in `group_order`.

    Parameters
    ----------
    common
        What all of them have in common.
    """
    order = group_order(points)
    tasks = []
    for first in range(0, len(order), POINTS_PER_TASK):
        rows = order[first : first + POINTS_PER_TASK]
        named = zip(
            points.ids_a[rows].tolist(),
            points.ids_b[rows].tolist(),
            points.positions[rows].tolist(),
            strict=True,
        )
        group = tuple(PointToScore(id_a=a, id_b=b, position=(z, y, x)) for a, b, (z, y, x) in named)
        key = f"{first // POINTS_PER_TASK:08}"
        tasks.append(Task(key=key, argument=replace(common, points=group)))
    return tasks
