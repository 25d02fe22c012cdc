"""What checking a converted volume finds: levels, damages, and whether all is whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from floodem.geometry import Box


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """Something that is not as its receipt says.

    Attributes
    ----------
    level
        Level of the pyramid, 0 for the finest.
    box
        Where, in the level's own frame (z, y, x): a chunk where receipts tell chunks
        apart, else a block.
    reason
        What is wrong, half a sentence.
    """

    level: int
    box: Box
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelCheck:
    """How one level stands.

    Attributes
    ----------
    blocks
        How many it has.
    receipts
        How many of them were written, by the record.
    damaged
        How many of these are not what was written, and in a finished volume those
        without a receipt as well.
    """

    level: int
    blocks: int
    receipts: int
    damaged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What checking a converted volume has found.

    Attributes
    ----------
    uri
        Its address.
    record
        Address of the record.
    is_finished
        Whether the conversion came to its end; otherwise only what it has written
        was checked.
    is_lossy
        Whether the receipts are of what a lossy format gave back.
    """

    uri: str
    record: str
    is_finished: bool
    is_lossy: bool
    levels: tuple[LevelCheck, ...]
    damages: tuple[Damage, ...]

    @property
    def is_whole(self) -> bool:
        """Whether all that was written is there and unchanged."""
        return not self.damages

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "uri": self.uri,
            "record": self.record,
            "is_finished": self.is_finished,
            "is_lossy": self.is_lossy,
            "is_whole": self.is_whole,
            "levels": [
                {
                    "level": one.level,
                    "blocks": one.blocks,
                    "receipts": one.receipts,
                    "damaged": one.damaged,
                }
                for one in self.levels
            ],
            "damages": [
                {"level": one.level, "box": str(one.box), "reason": one.reason}
                for one in self.damages
            ],
        }
