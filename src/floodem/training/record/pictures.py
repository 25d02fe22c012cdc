"""Three planes through the middle of an example: volumes in, a PNG picture out.

Each row is a plane (xy, xz, yz), each column one of image, label, prediction and
weight, so that one look tells what the network saw, what it should say and what
it says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, UInt8

from floodem.errors import StorageError
from floodem.files import making_folders, replacing, storage_error
from floodem.geometry import VoxelSize

if TYPE_CHECKING:
    from PIL import Image

PLANES = ("xy", "xz", "yz")
"""In the order of the axis that they cut: z, y, x."""

COLUMNS = ("image", "label", "prediction", "weight")

_PICTURE = re.compile(r"step-(\d+)\.png")

_EDGE = 160
"""Pixels of the longest edge of a panel, about."""

_GAP, _CAPTION = 4, 14
_PAPER, _INK = 205, 0
_CONTRAST = 2.0
"""Normalised grey levels from minus to plus this many standard deviations span black to white."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What one example looks like, all of one shape (z, y, x).

    Attributes
    ----------
    image
        Normalised grey levels.
    target, prediction
        Probabilities.
    weight
        What voxels count in the loss, 0 to 1.
    voxel_size
        For the proportions of the planes; None draws voxels as cubes.
    """

    image: Float32[np.ndarray, "z y x"]
    target: Float32[np.ndarray, "z y x"]
    prediction: Float32[np.ndarray, "z y x"]
    weight: Float32[np.ndarray, "z y x"]
    voxel_size: VoxelSize | None = None


def draw_plane(example: Example, plane: str) -> UInt8[np.ndarray, "height width"]:
    """Return the panels of one plane side by side, in pixels of even size."""
    from PIL import Image

    axis = PLANES.index(plane)
    grey = (_CONTRAST + example.image) / (2 * _CONTRAST)
    panels = []
    width, height = _panel_size(example, axis)
    for volume in (grey, example.target, example.prediction, example.weight):
        cut = np.take(volume, volume.shape[axis] // 2, axis=axis)
        pixels = (np.clip(np.nan_to_num(cut), 0, 1) * 255).astype(np.uint8)
        if plane == "yz":
            pixels = pixels.T  # y downwards, as in the xy plane beside it
        panel = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)
        panels += [np.asarray(panel), np.full((height, _GAP), _PAPER, np.uint8)]
    return np.concatenate(panels[:-1], axis=1)


def draw(example: Example) -> Image.Image:
    """Return all planes below each other, with the names of rows and columns."""
    from PIL import Image, ImageDraw

    rows = [draw_plane(example, plane) for plane in PLANES]
    width = max(row.shape[1] for row in rows)
    height = sum(row.shape[0] + _CAPTION + _GAP for row in rows)
    sheet = Image.new("L", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    top = 0
    for plane, row in zip(PLANES, rows, strict=True):
        step = (row.shape[1] + _GAP) // len(COLUMNS)
        for number, name in enumerate(COLUMNS):
            pen.text((number * step, top), f"{name} {plane}", fill=_INK)
        sheet.paste(Image.fromarray(row), (0, top + _CAPTION))
        top += row.shape[0] + _CAPTION + _GAP
    return sheet


def save_picture(example: Example, path: Path) -> None:
    """Write the picture as PNG.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    try:
        with making_folders(path.parent), replacing(path) as partial:
            draw(example).save(partial, format="PNG", optimize=True)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise storage_error("write", path, error) from error


def _panel_size(example: Example, axis: int) -> tuple[int, int]:
    """Return width and height in pixels, in proportion to nanometres; yz lies with z rightwards."""
    edges = _edges(example)
    scale = _EDGE / max(edges)
    z, y, x = (max(1, round(edge * scale)) for edge in edges)
    return ((x, y), (x, z), (z, y))[axis]


def _edges(example: Example) -> tuple[float, float, float]:
    sizes: Any = (1.0, 1.0, 1.0) if example.voxel_size is None else example.voxel_size.zyx_nm
    z, y, x = (n * size for n, size in zip(example.image.shape, sizes, strict=True))
    return (z, y, x)


def picture_path(folder: Path, step: int) -> Path:
    """Return where the picture of a step is kept; names sort by step."""
    return folder / f"step-{step:08d}.png"


def saved_pictures(folder: Path) -> list[tuple[int, Path]]:
    """Return step and path of all pictures in a folder, oldest first."""
    found = [(_PICTURE.fullmatch(path.name), path) for path in folder.glob("*.png")]
    return sorted((int(match[1]), path) for match, path in found if match)
