"""When two segments are one: scores of decision points in, yes or no out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from floodem.errors import OptionError


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeRule:
    """Thresholds on the scores of a decision point; all must hold.

    The defaults are the careful rule of the reference, which prefers a split to a merger.

    Attributes
    ----------
    iou
        The floods from both sides must overlap by more than this (voxels in both over voxels
        in either).
    coverage
        Each flood must cover more than this fraction of each segment.
    deleted
        On at least one side less than this fraction of the flood may have been deleted.
    distance_nm
        The segments may be no further apart than this at the decision point; None: any.
    """

    iou: float = 0.8
    coverage: float = 0.6
    deleted: float = 0.02
    distance_nm: float | None = None

    def __post_init__(self) -> None:
        for name in ("iou", "coverage", "deleted"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise OptionError(f"the rule's {name} {value} is no fraction: give 0 to 1")
        if self.distance_nm is not None and not self.distance_nm >= 0:
            raise OptionError(
                f"the rule's distance {self.distance_nm} nm is negative: give 0 or more"
            )

    def accepts(
        self, columns: Mapping[str, Shaped[np.ndarray, "edges"]]
    ) -> Bool[np.ndarray, "edges"]:
        """Tell which edges are merges.

        Parameters
        ----------
        columns
            The fields of `PointScores` and ``distance_nm``, an array each.
        """
        accepted = np.asarray(columns["iou"] > self.iou)
        for name in ("a_covers_a", "a_covers_b", "b_covers_a", "b_covers_b"):
            accepted &= columns[name] > self.coverage
        is_steady = np.zeros(len(accepted), np.bool_)
        for side in ("a", "b"):
            # An empty flood has nothing deleted, and no coverage either.
            most = self.deleted * columns[f"size_{side}"]
            is_steady |= (columns[f"deleted_{side}"] < most) & (columns[f"size_{side}"] > 0)
        accepted &= is_steady
        if self.distance_nm is not None:
            accepted &= columns["distance_nm"] <= self.distance_nm
        return accepted

    def margins(
        self, columns: Mapping[str, Shaped[np.ndarray, "edges"]]
    ) -> Float64[np.ndarray, "edges"]:
        """Tell how far edges are from their threshold; the nearest are worth looking at first.

        Returns
        -------
        array
            1 where scores are perfect, 0 on a threshold, -1 where they are as bad as can be.
            The worst of an edge's scores counts. Each is measured against what there is on
            its side of the threshold. Where only one side was flooded (`is_two_sided`), that
            one's coverages and deletions count; as the edge is no merge, 0 is the most then.

        Parameters
        ----------
        columns
            As `accepts` takes them.
        """
        is_both = is_two_sided(columns)
        coverage = measured_coverage(columns)
        shares = []
        for side in ("a", "b"):
            size = np.asarray(columns[f"size_{side}"], np.float64)
            share = columns[f"deleted_{side}"] / np.maximum(size, 1)
            shares.append(np.where(size > 0, np.minimum(share, 1), 1.0))
        overlap = _margin(np.asarray(columns["iou"], np.float64), self.iou)
        worst = np.minimum(np.where(is_both, overlap, 0.0), _margin(coverage, self.coverage))
        # What shall be small is turned round.
        worst = np.minimum(worst, _margin(1 - np.minimum(*shares), 1 - self.deleted))
        if self.distance_nm is not None:
            lengths = np.asarray(columns["distance_nm"], np.float64)
            worst = np.minimum(worst, _distance_margin(lengths, self.distance_nm))
        clipped: Float64[np.ndarray, "edges"] = np.clip(worst, -1, 1)
        return clipped

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> MergeRule:
        """Return the rule that `to_json` told of.

        Raises
        ------
        OptionError
            When the values are no rule.
        """
        names = {field.name for field in fields(cls)}
        try:
            unknown = sorted(set(values) - names)
            if unknown:
                raise OptionError(f"a rule has no {unknown[0]}: name some of {sorted(names)}")
            numbers: dict[str, Any] = {
                name: None if value is None else float(value) for name, value in values.items()
            }
            return cls(**numbers)
        except (TypeError, ValueError) as error:
            raise OptionError(f"{values!r:.200} is no rule for merges ({error})") from error


def _distance_margin(
    lengths: Float64[np.ndarray, "edges"], limit: float
) -> Float64[np.ndarray, "edges"]:
    """Scale lengths so that none is 1, the limit 0, and its double and all beyond -1."""
    if limit == 0:
        return np.where(lengths > 0, -1.0, 1.0)
    margins: Float64[np.ndarray, "edges"] = 1 - np.minimum(lengths, 2 * limit) / limit
    return margins


def is_two_sided(
    columns: Mapping[str, Shaped[np.ndarray, "edges"]],
) -> Bool[np.ndarray, "edges"]:
    """Tell which edges were flooded from both sides; the others have no iou.

    Parameters
    ----------
    columns
        As `MergeRule.accepts` takes them.
    """
    return np.asarray((columns["seeds_a"] > 0) & (columns["seeds_b"] > 0))


def measured_coverage(
    columns: Mapping[str, Shaped[np.ndarray, "edges"]],
) -> Float64[np.ndarray, "edges"]:
    """Return the least coverage of each edge's floods, of those that were made.

    Returns
    -------
    array
        0 where there was no flood at all.

    Parameters
    ----------
    columns
        As `MergeRule.accepts` takes them.
    """
    least = np.ones(len(columns["iou"]), np.float64)
    for side in ("a", "b"):
        covers = np.minimum(columns[f"{side}_covers_a"], columns[f"{side}_covers_b"])
        least = np.where(columns[f"seeds_{side}"] > 0, np.minimum(least, covers), least)
    has_flood = (columns["seeds_a"] > 0) | (columns["seeds_b"] > 0)
    return np.where(has_flood, least, 0.0)


def _margin(values: Float64[np.ndarray, "edges"], threshold: float) -> Float64[np.ndarray, "edges"]:
    """Scale values of 0 to 1 so that the threshold is 0 and both ends are 1 or -1."""
    above = 1 - threshold if threshold < 1 else 1.0
    below = threshold if threshold > 0 else 1.0
    return (values - threshold) / np.where(values > threshold, above, below)
