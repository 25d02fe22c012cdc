"""Pictures of a place: a cut-out in, slices in colours as PNG out.

Two parts are blue and orange, other segments pale by their ids, outlines of the truth
white; what the two parts make together has a yellow line around it. The colours are told
apart by colour-blind readers as well (Okabe and Ito 2008).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8, UInt64

from floodem.geometry import VoxelSize, Zyx
from floodem.project.report.places import CutOut, Highlight

if TYPE_CHECKING:
    from PIL import Image

PLANES = ("xy", "xz", "yz")
"""In the order of the axis that they cut: z, y, x."""

Colour = tuple[int, int, int]
FIRST, SECOND, WHOLE = (0, 114, 178), (230, 140, 0), (240, 228, 66)
"""Colours of the two parts, and of the line around both."""

_OUTLINE = (255, 255, 255)
_PALE = (
    (86, 180, 233),
    (0, 158, 115),
    (204, 121, 167),
    (170, 130, 200),
    (150, 170, 60),
    (190, 120, 100),
    (90, 200, 190),
    (160, 160, 160),
)
_PALE_ALPHA, _STRONG_ALPHA, _OUTLINE_ALPHA = 0.30, 0.62, 0.75
_STRONG_ALPHA_BARE = 0.9
"""Without an image there is nothing to see below."""

_EDGE_PIXELS = 363
"""Longest edge of a picture: three pixels for each of the voxels that are shown."""

_NOTHING_GREY = 96
"""Where there is no image."""

_DARKEST, _BRIGHTEST = 1.0, 99.0
"""Percentiles of the grey values that become black and white."""

_BAR_SHARE = 0.3
_BAR_HEIGHT, _BAR_MARGIN, _TEXT_HEIGHT = 5, 9, 14
_SPREAD = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio: neighbouring ids get colours far apart (Knuth, TAOCP 3, 6.4)."""

Pixels = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How long things are in a picture.

    Attributes
    ----------
    voxel_size
        In nanometres, or None where nobody states it.
    pixels_per_unit
        Pixels for a nanometre, or for a voxel.
    """

    voxel_size: VoxelSize | None
    pixels_per_unit: float

    @classmethod
    def of(cls, shape: Zyx, voxel_size: VoxelSize | None) -> Scale:
        """Let the longest edge of a box fill a picture."""
        sizes = (1.0, 1.0, 1.0) if voxel_size is None else voxel_size.zyx_nm
        longest = max(size * edge for size, edge in zip(sizes, shape, strict=True))
        return cls(voxel_size=voxel_size, pixels_per_unit=_EDGE_PIXELS / longest)

    def pixels(self, axis: int, *, voxels: int) -> int:
        """Return how many pixels so many voxels take along an axis."""
        size = 1.0 if self.voxel_size is None else self.voxel_size.zyx_nm[axis]
        return max(1, round(voxels * size * self.pixels_per_unit))

    def bar(self) -> tuple[int, str]:
        """Return length in pixels and text of the scale bar: 1, 2 or 5 times a power of ten."""
        most = _BAR_SHARE * _EDGE_PIXELS / self.pixels_per_unit
        power = 10.0 ** np.floor(np.log10(most))
        length = next(power * times for times in (5, 2, 1) if power * times <= most)
        if self.voxel_size is None:
            text = f"{length:g} voxels"
        else:
            text = f"{length:g} nm" if length < 1000 else f"{length / 1000:g} \N{MICRO SIGN}m"
        return round(length * self.pixels_per_unit), text


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Slice:
    """One plane of a cut-out, all of one shape (down, right); y is down in xy and yz."""

    axis: int
    grey: Float32[np.ndarray, "down right"] | None
    segments: UInt64[np.ndarray, "down right"]
    truth: UInt64[np.ndarray, "down right"]
    whole: UInt64[np.ndarray, "down right"]
    first: Bool[np.ndarray, "down right"]
    second: Bool[np.ndarray, "down right"]


def take_slice(
    cut: CutOut,
    shown: Highlight,
    *,
    grey: Float32[np.ndarray, "z y x"] | None,
    number: int,
    axis: int,
    index: int,
) -> Slice:
    """Cut one plane out.

    Parameters
    ----------
    grey
        The image from 0 to 255, see `grey_levels`.
    number
        Of the segmentation.
    axis, index
        Which axis is cut (0 for z) at which voxel of the cut-out.
    """

    def plane(volume: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        taken: np.ndarray[Any, Any] = np.take(volume, index, axis=axis)
        return taken.T if PLANES[axis] == "yz" else taken

    return Slice(
        axis=axis,
        grey=None if grey is None else plane(grey),
        segments=plane(cut.segmentations[number]),
        truth=plane(cut.truth),
        whole=plane(shown.whole),
        first=plane(shown.first),
        second=plane(shown.second),
    )


def grey_levels(image: Float32[np.ndarray, "z y x"]) -> Float32[np.ndarray, "z y x"]:
    """Return an image from 0 to 255 with even contrast; `_NOTHING_GREY` where it has no voxel."""
    known = image[np.isfinite(image)]
    if not known.size:
        return np.full(image.shape, _NOTHING_GREY, np.float32)
    low, high = np.percentile(known, (_DARKEST, _BRIGHTEST))
    span = high - low if high > low else 1.0
    levels = np.clip((image - low) / span, 0, 1) * 255
    found: Float32[np.ndarray, "z y x"] = np.nan_to_num(levels, nan=_NOTHING_GREY).astype(
        np.float32
    )
    return found


def draw_slice(one: Slice, scale: Scale) -> Pixels:
    """Return a slice in colours, without its scale bar."""
    down, right = _axes(one.axis)
    rows, columns = (
        _stretched(size, scale.pixels(axis, voxels=size))
        for size, axis in zip(one.segments.shape, (down, right), strict=True)
    )

    def large(plane: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = plane[rows][:, columns]
        return found

    pixels = np.repeat(_below(one)[..., None], 3, axis=2)
    strong = _STRONG_ALPHA if one.grey is not None else _STRONG_ALPHA_BARE
    others = (one.segments != 0) & ~one.first & ~one.second
    _blend(pixels, others, _colours(one.segments), alpha=_PALE_ALPHA)
    _blend(pixels, one.first, FIRST, alpha=strong)
    _blend(pixels, one.second, SECOND, alpha=strong)
    wide = large(pixels)
    _blend(wide, _edges(large(one.truth)), _OUTLINE, alpha=_OUTLINE_ALPHA)
    _blend(wide, _thick(_edges(large(one.whole))), WHOLE, alpha=1.0)
    drawn: Pixels = np.clip(np.rint(wide), 0, 255).astype(np.uint8)
    return drawn


def png(pixels: Pixels, scale: Scale) -> bytes:
    """Return a picture with its scale bar as a PNG file."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    _draw_bar(picture, scale)
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def _axes(axis: int) -> tuple[int, int]:
    """Return which axes run down and right in a plane."""
    return {0: (1, 2), 1: (0, 2), 2: (1, 0)}[axis]


def _stretched(size: int, pixels: int) -> Int64[np.ndarray, "pixels"]:
    """Return for every pixel the voxel under it."""
    return ((np.arange(pixels) + 0.5) * size / pixels).astype(np.int64)


def _below(one: Slice) -> Float32[np.ndarray, "down right"]:
    if one.grey is None:
        return np.full(one.segments.shape, _NOTHING_GREY, np.float32)
    return one.grey.astype(np.float32)


def _colours(labels: UInt64[np.ndarray, "down right"]) -> Float32[np.ndarray, "down right 3"]:
    mixed = (labels * np.uint64(_SPREAD)) >> np.uint64(32)
    found: Float32[np.ndarray, "down right 3"] = np.array(_PALE, np.float32)[
        (mixed % np.uint64(len(_PALE))).astype(np.int64)
    ]
    return found


def _blend(
    pixels: Float32[np.ndarray, "down right 3"],
    mask: Bool[np.ndarray, "down right"],
    colour: Any,
    *,
    alpha: float,
) -> None:
    """Lay a colour, or one for each pixel, over part of a picture."""
    wide = np.broadcast_to(np.asarray(colour, np.float32), pixels.shape)
    pixels[mask] = (1 - alpha) * pixels[mask] + alpha * wide[mask]


def _edges(labels: UInt64[np.ndarray, "down right"]) -> Bool[np.ndarray, "down right"]:
    """Return pixels whose right or lower neighbour is something else."""
    edges = np.zeros(labels.shape, bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges


def _thick(edges: Bool[np.ndarray, "down right"]) -> Bool[np.ndarray, "down right"]:
    from scipy.ndimage import binary_dilation

    found: Bool[np.ndarray, "down right"] = binary_dilation(edges, np.ones((2, 2), bool))
    return found


def _draw_bar(picture: Image.Image, scale: Scale) -> None:
    from PIL import ImageDraw, ImageFont

    length, text = scale.bar()
    pen = ImageDraw.Draw(picture)
    left, bottom = _BAR_MARGIN, picture.height - _BAR_MARGIN
    top = bottom - _BAR_HEIGHT
    pen.rectangle((left - 1, top - 1, left + length, bottom), fill=(0, 0, 0))
    pen.rectangle((left, top, left + length - 1, bottom - 1), fill=(255, 255, 255))
    pen.text(
        (left, top - _TEXT_HEIGHT - 6),
        text,
        font=ImageFont.load_default(_TEXT_HEIGHT),
        fill=(255, 255, 255),
        stroke_width=2,
        stroke_fill=(0, 0, 0),
    )
