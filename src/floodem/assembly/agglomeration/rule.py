"""When two segments are one: scores of decision points in, yes or no out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

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
