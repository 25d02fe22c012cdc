"""What may be chosen about cutting a volume and joining its blocks: plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from floodem.assembly.agreement import DEFAULT_AGREEMENT, DEFAULT_MIN_SHARED, JoinRule
from floodem.errors import OptionError
from floodem.geometry import Zyx


@dataclass(frozen=True, slots=True, kw_only=True)
class CutOptions:
    """How a volume is cut into blocks and joined again.

    Attributes
    ----------
    block
        Edges of a block's core, z, y, x; None: proposed from memory and field of view,
        and none at all where the volume fits in memory.
    halo
        Voxels looked at around a core, z, y, x; None: proposed.
    agreement, min_shared
        When two blocks' segments are one (`floodem.assembly.agreement.JoinRule`).
    levels
        Coarser levels of the result; ``"auto"``: as many as it takes, where the format
        has them.
    block_seconds
        Longest flooding of one block; None: no limit.
    joins_again
        Keep the blocks that an earlier run there has flooded, and do what follows anew.
    """

    block: Zyx | None = None
    halo: Zyx | None = None
    agreement: float = DEFAULT_AGREEMENT
    min_shared: int = DEFAULT_MIN_SHARED
    levels: int | Literal["auto"] = "auto"
    block_seconds: float | None = None
    joins_again: bool = False

    def __post_init__(self) -> None:
        JoinRule(agreement=self.agreement, min_shared=self.min_shared)
        if self.block_seconds is not None and not self.block_seconds > 0:
            raise OptionError(
                f"a block cannot be flooded in {self.block_seconds} s: give more than 0"
            )

    @property
    def is_asked(self) -> bool:
        """Whether somebody wants the volume cut, whatever its size."""
        return self.block is not None or self.halo is not None

    def rule(self, fov: Zyx) -> JoinRule:
        """Return when segments are one, for a network's field of view.

        The zone of comparison keeps half a field of view away from the faces of halos:
        nearer to them no field of view is centred.
        """
        z, y, x = fov
        return JoinRule(
            agreement=self.agreement,
            min_shared=self.min_shared,
            trim=(z // 2, y // 2, x // 2),
        )

    def to_json(self) -> dict[str, Any]:
        """Return what decides how blocks are joined and written, as JSON values."""
        return {
            "agreement": self.agreement,
            "min_shared": self.min_shared,
            "levels": self.levels,
        }
