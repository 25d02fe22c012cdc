"""What an examination finds and proposes: records that can be read and sent as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How much a finding matters.

    ``ok``: as it should be. ``note``: worth knowing. ``warning``: results suffer, or may.
    ``problem``: work fails or its result is useless before this is mended.
    """

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    PROBLEM = "problem"

    @property
    def weight(self) -> int:
        """0 for what is in order, 3 for a problem."""
        return list(Level).index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    level
        How much it matters.
    part
        What was looked at: ``machine``, ``image``, ``sections``, ``labels`` or ``model``.
    what
        A name that stays the same: ``voxel size``.
    says
        One sentence with the value.
    value
        The same for programs: plain JSON values; triples are z, y, x.
    reason
        What the judgement rests on: a threshold and where it comes from; may be empty.
    advice
        What to do; empty where nothing is to be done.
    """

    level: Level
    part: str
    what: str
    says: str
    value: Any = None
    reason: str = ""
    advice: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {**values, "level": str(self.level)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """An option that fits the data.

    Attributes
    ----------
    option
        ``TABLE.KEY`` as a project file has them: ``segment.min_boundary_dist``. Behind
        ``train.`` stands a key of the training configuration (``train.network.fov``).
    value
        A number, a boolean, a list of numbers (triples are z, y, x), or a table of such.
    reason
        Why this value.
    """

    option: str
    value: Any
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"option": self.option, "value": self.value, "reason": self.reason}
