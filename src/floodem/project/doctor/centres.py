"""Where training examples can be centred: labels and a margin in, findings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from floodem.counting import counted
from floodem.errors import LabelError
from floodem.geometry import Box, Zyx
from floodem.labels.partitions import EXCLUDED
from floodem.progress import ProgressListener
from floodem.project.doctor.findings import Finding, Level
from floodem.training.coordinates.partitioning import PartitionedLabels, Partitioning
from floodem.volumes.volume import Volume

PART = "labels"

FEWEST_CENTRES = 10_000
"""Voxels on which examples can be centred: with fewer, a batch of 4 sees each again within 2,500
steps of a million."""

FEWEST_IN_CLASS = 100
"""Voxels of a partition; as many examples are drawn from each, so that fewer come again and
again."""


def count_centres(
    labels: Volume,
    box: Box,
    *,
    by: Partitioning,
    margin: Zyx,
    progress: ProgressListener | None = None,
) -> Mapping[int, int]:
    """Count the voxels of each partition on which an example can be centred.

    Parameters
    ----------
    box
        The part to look at.
    margin
        Voxels at each face that hold no centre.

    Returns
    -------
    Mapping
        By partition from 1 on, those without a voxel among them; empty where no object is
        large enough.

    Raises
    ------
    GeometryError
        When radius or margin leave nothing of the box.
    """
    try:
        partitions = PartitionedLabels(labels, by=by, box=box, progress=progress)
    except LabelError:
        return {}
    inner = box.grow((-margin[0], -margin[1], -margin[2]))
    counts = np.zeros(EXCLUDED + 1, np.int64)
    for place, found in partitions.blocks():
        part = place.intersection(inner)
        if part is not None:
            seen = found[part.slices(origin=place.start)]
            counts += np.bincount(seen.reshape(-1), minlength=EXCLUDED + 1)
    return {number: int(counts[number]) for number in range(1, len(by.thresholds) + 2)}


def look_at_centres(
    counts: Mapping[int, int], *, by: Partitioning, margin: Zyx, is_all: bool
) -> Iterator[Finding]:
    """Yield whether there are enough centres, in each partition too."""
    near = ",".join(map(str, margin))
    if not counts:
        yield _finding(
            Level.PROBLEM,
            f"no object has {by.min_size:,} voxels: there is nothing to centre an example on",
            value={},
            advice="give a smaller --sampling.min-size, or more labels",
        )
        return
    total = sum(counts.values())
    seen = "" if is_all else " in the box that was looked at"
    level = Level.OK if total >= FEWEST_CENTRES else Level.PROBLEM if not total else Level.WARNING
    yield _finding(
        level,
        f"{counted(total, 'voxel')} can be centres of examples{seen}, {near} voxels (z,y,x) away "
        "from faces",
        value={"total": total, "partitions": {str(one): count for one, count in counts.items()}},
        reason="" if level is Level.OK else f"fewer than {FEWEST_CENTRES:,}",
        advice=""
        if level is Level.OK
        else "take more labels, a smaller field of view, or --sampling.out-of-volume pad",
    )
    few = [one for one, count in counts.items() if 0 < count < FEWEST_IN_CLASS]
    empty = [one for one, count in counts.items() if not count]
    if total and (few or (empty and is_all)):
        named = "; ".join(f"{one}: {counts[one]}" for one in (*few, *empty))
        yield _finding(
            Level.NOTE,
            f"partitions with hardly any centre{seen} ({named})",
            value={str(one): counts[one] for one in (*few, *empty)},
            reason=f"as many examples are drawn from each partition; below {FEWEST_IN_CLASS} "
            "the same voxels come again and again",
            advice="the proposed thresholds leave them out" if few else "",
            what="partitions",
        )


def useful_thresholds(counts: Mapping[int, int], *, by: Partitioning) -> tuple[float, ...]:
    """Return the thresholds without those that make partitions with hardly any centre.

    A partition that is too small is joined with the next one above it; the last one, with
    the one below.
    """
    kept: list[float] = []
    waiting = 0
    for number, threshold in enumerate(by.thresholds, start=1):
        waiting += counts.get(number, 0)
        if waiting >= FEWEST_IN_CLASS:
            kept.append(threshold)
            waiting = 0
    if kept and waiting + counts.get(len(by.thresholds) + 1, 0) < FEWEST_IN_CLASS:
        kept.pop()
    return tuple(kept) or by.thresholds


def _finding(
    level: Level,
    says: str,
    *,
    value: object,
    reason: str = "",
    advice: str = "",
    what: str = "centres",
) -> Finding:
    return Finding(
        level=level,
        part=PART,
        what=what,
        says=says,
        value=value,
        reason=reason,
        advice=advice,
    )
