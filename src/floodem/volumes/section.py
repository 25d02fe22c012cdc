"""What one image file says about itself, before its pixels are read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import VolumeFormatError
from floodem.geometry import VoxelSize
from floodem.volumes.damage import damaged

IMAGE = "an image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Size (y, x), type, description text and voxel size of one section."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    text: str = ""
    voxel_size: VoxelSize | None = None


def colour_image(path: Path) -> VolumeFormatError:
    """Say that a section is not grey."""
    return VolumeFormatError(
        f"{path} is a colour image, and a volume has one value per voxel: "
        "convert the sections to grey first"
    )


def damaged_image(path: Path, reason: object) -> VolumeFormatError:
    """Say that a section cannot be read."""
    return damaged(path, kind=IMAGE, reason=reason)


def sync_file(path: Path) -> None:
    """Make a written file durable."""
    with open(path, "rb+") as handle:
        os.fsync(handle.fileno())
