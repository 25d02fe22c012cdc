"""Which augmentations an example goes through, and how strong they are."""

from __future__ import annotations

from dataclasses import dataclass, field

from floodem.errors import OptionError

AXES = (0, 1, 2)
"""z, y, x."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationOptions:
    """Table ``augmentation``."""

    reflectable_axes: tuple[int, ...] = field(
        default=(0, 1, 2),
        metadata={"help": "Axes along which half of the examples are flipped: 0 z, 1 y, 2 x."},
    )
    permutable_axes: tuple[int, ...] = field(
        default=(1, 2),
        metadata={"help": "Axes that are exchanged at random; leave out z where it is coarser."},
    )

    def __post_init__(self) -> None:
        for name in ("reflectable_axes", "permutable_axes"):
            axes = getattr(self, name)
            if len(set(axes)) < len(axes) or any(axis not in AXES for axis in axes):
                raise OptionError(
                    f"augmentation.{name} {list(axes)} are not different axes out of "
                    "0 (z), 1 (y) and 2 (x)"
                )
