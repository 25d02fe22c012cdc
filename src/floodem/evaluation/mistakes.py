"""Which objects cost most: a table of label pairs in, the worst splits and mergers out.

A split is a truth object in several segments, a merger a segment in several
truth objects. Both are weighed by what they add to the variation of information,
so that the costs of all splits sum to the VOI split of the same voxels. Where in
the volume they lie is found afterwards (floodem.evaluation.places).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from floodem.evaluation.scores import conditional_entropy_bits, group_sizes
from floodem.geometry import Zyx
from floodem.labels import OverlapTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a wrongly cut or joined object.

    Attributes
    ----------
    id
        Of a split: the segment. Of a merger: the truth object.
    voxels
        Voxels that the part shares with the whole.
    position
        A voxel of the part, near the other part (z, y, x, in the volume's frame);
        None until it has been looked for.
    """

    id: int
    voxels: int
    position: Zyx | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A truth object in several segments, or a segment in several truth objects.

    Attributes
    ----------
    id
        The truth object that is split, or the segment that merges.
    voxels
        Its voxels where both volumes have labels.
    parts
        Number of segments (objects) it is cut into (joins); single voxels along
        a boundary count too.
    effective_parts
        The number of equal parts that would cost as much: 1 for an object with
        a ragged boundary only, 2 for one cut in halves.
    voi_bits
        What it adds to VOI split (merge), in bits.
    largest
        The two largest parts, the larger one first.
    """

    id: int
    voxels: int
    parts: int
    effective_parts: float
    voi_bits: float
    largest: tuple[Part, Part]

    def with_positions(self, positions: tuple[Zyx, Zyx]) -> Mistake:
        """Return the same mistake with a voxel for each of its two largest parts."""
        first, second = (
            replace(part, position=position)
            for part, position in zip(self.largest, positions, strict=True)
        )
        return replace(self, largest=(first, second))


def worst_splits(table: OverlapTable, *, limit: int) -> list[Mistake]:
    """Return the truth objects (`ids_b`) whose cuts cost most, the worst first."""
    return _worst(OverlapTable(table.ids_b, table.ids_a, table.counts), limit=limit)


def worst_mergers(table: OverlapTable, *, limit: int) -> list[Mistake]:
    """Return the segments (`ids_a`) whose joins cost most, the worst first."""
    return _worst(table, limit=limit)


def _worst(table: OverlapTable, *, limit: int) -> list[Mistake]:
    """Rank the objects in `ids_a` by cost (ties: smaller id), with their parts in `ids_b`."""
    if not len(table):
        return []
    sizes, ids, group = group_sizes(table.ids_a, table.counts)
    costs = conditional_entropy_bits(table.counts.astype(np.float64), sizes[group])
    cost_of = np.bincount(group, weights=costs)
    parts_of = np.bincount(group)
    ranked = [int(i) for i in np.argsort(-cost_of, kind="stable") if parts_of[i] > 1][:limit]
    return [
        Mistake(
            id=int(ids[index]),
            voxels=int(sizes[index]),
            parts=int(parts_of[index]),
            effective_parts=float(2 ** (cost_of[index] * sizes.sum() / sizes[index])),
            voi_bits=float(cost_of[index]),
            largest=_two_largest(table.select(group == index)),
        )
        for index in ranked
    ]


def _two_largest(parts: OverlapTable) -> tuple[Part, Part]:
    first, second = np.lexsort((parts.ids_b, -parts.counts))[:2]
    return (
        Part(id=int(parts.ids_b[first]), voxels=int(parts.counts[first])),
        Part(id=int(parts.ids_b[second]), voxels=int(parts.counts[second])),
    )
