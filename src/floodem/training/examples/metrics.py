"""How training goes, in numbers: moves and voxels are counted, shares come out.

Counts are sums, so that those of several processes can be added before they
become shares. Names follow the statistics of the reference (its tracker): moves
that were correct, missed or spurious, also by distance, and the agreement of
finished examples with their truth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from floodem.training.examples.movement import Move, distance, logit

OBJECT_LOGIT = logit(0.9)
"""From here on a voxel of a finished example counts as filled (eval_threshold there)."""

_VOXELS = ("true_positive", "false_positive", "false_negative", "true_negative")
_KINDS = ("correct", "missed", "spurious")


class Metrics:
    """Counts since the last `take`.

    Parameters
    ----------
    distances
        Lengths of all offsets that a policy may judge; moves elsewhere count under 0.
    device
        Where examples lie; their voxels are counted there and fetched only by `take`.
    """

    def __init__(self, distances: Sequence[int], *, device: torch.device) -> None:
        self._distances = frozenset(distances)
        self._moves: Counter[str] = Counter()
        self._voxels = torch.zeros(len(_VOXELS), dtype=torch.int64, device=device)
        self._examples = 0

    def judge(self, moves: Iterable[Move]) -> None:
        """Count moves: taken and wanted, wanted only, or seen only."""
        for move in moves:
            if not (move.is_wanted or move.is_seen):
                continue
            kind = "spurious" if not move.is_wanted else "correct" if move.is_seen else "missed"
            away = distance(move.offset)
            self._moves[f"moves_{kind}"] += 1
            self._moves[f"moves_{kind}_{away if away in self._distances else 0}"] += 1

    def finish(
        self,
        logits_zyx: Float[Tensor, "z y x"],
        targets_zyx: Float[Tensor, "z y x"],
        *,
        weights_zyx: Float[Tensor, "z y x"],
    ) -> None:
        """Count the voxels of an example whose moves are exhausted; weight 0 does not count."""
        counts = weights_zyx > 0
        filled, wanted = logits_zyx >= OBJECT_LOGIT, targets_zyx > 1 / 2
        for number, kind in enumerate(
            (filled & wanted, filled & ~wanted, ~filled & wanted, ~filled & ~wanted)
        ):
            self._voxels[number] += (kind & counts).sum()
        self._examples += 1

    def take(self) -> dict[str, float]:
        """Return all counts by name and begin again at zero."""
        counts = dict.fromkeys(self._names(), 0.0)
        counts |= {name: float(count) for name, count in self._moves.items()}
        counts |= dict(zip(_VOXELS, map(float, self._voxels.tolist()), strict=True))
        counts["examples"] = float(self._examples)
        self._moves.clear()
        self._voxels.zero_()
        self._examples = 0
        return counts

    def _names(self) -> list[str]:
        """Return all names in a fixed order, so that processes can add theirs up."""
        ends = ["", *(f"_{away}" for away in sorted(self._distances | {0}))]
        return [f"moves_{kind}{end}" for end in ends for kind in _KINDS]


def shares(counts: Mapping[str, float]) -> dict[str, float]:
    """Turn counts into what a curve shows.

    Returns
    -------
    values
        ``moves_correct``, ``moves_missed``, ``moves_spurious`` as shares of the moves
        judged, the same with ``_by_distance_N``, ``precision``, ``recall``,
        ``accuracy``, ``specificity`` and ``f1`` over the voxels of finished examples,
        and ``examples`` finished. What was not counted is left out.
    """
    values = {"examples": counts["examples"]}
    ends = {
        name.removeprefix("moves_correct") for name in counts if name.startswith("moves_correct")
    }
    for end in ends:
        kinds = {kind: counts.get(f"moves_{kind}{end}", 0.0) for kind in _KINDS}
        total = sum(kinds.values())
        suffix = f"_by_distance{end}" if end else ""
        if total:
            values |= {f"moves_{kind}{suffix}": count / total for kind, count in kinds.items()}
    tp, fp, fn, tn = (counts[name] for name in _VOXELS)
    ratios = {
        "precision": (tp, tp + fp),
        "recall": (tp, tp + fn),
        "specificity": (tn, tn + fp),
        "accuracy": (tp + tn, tp + fp + fn + tn),
        "f1": (2 * tp, 2 * tp + fp + fn),
    }
    values |= {name: part / whole for name, (part, whole) in ratios.items() if whole}
    return values
