"""Which augmentations an example goes through, and how strong they are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationOptions:
    """Table ``augmentation``."""
