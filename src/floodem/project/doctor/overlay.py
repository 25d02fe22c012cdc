"""Whether labels lie on their image: two open volumes in, findings out.

Objects end at membranes, and membranes are dark. So where objects end the image is darker
than around, if both lie on each other; turned round, mirrored or moved, labels know nothing
of the image.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

from floodem.geometry import Box, Zyx
from floodem.labels.runs import Labels
from floodem.project.doctor.findings import Finding, Level
from floodem.volumes.volume import Array, Volume

PART = "labels"

SECTIONS, EDGE = 12, 256
"""Sections and voxels along y and x of the box that is compared."""

FEWEST_SECTIONS, SMALLEST_EDGE = 3, 48
"""Smaller boxes say too little."""

BORDER_WIDTH = 1.5
"""Standard deviation in voxels by which borders of objects are widened to membranes."""

FINE, COARSE = 1.0, 8.0
"""Standard deviations in voxels between which the image is looked at."""

MATCH = 0.08
"""Correlation of borders and darkness from which they belong together. Truth: 0.50 (FIB-25), 0.22
(SNEMI3D), 0.8 (synthetic); mirrored or turned round at most 0.04."""

BETTER = 1.5
"""How many times better another position must fit: one section off leaves 0.5 to 0.9 of the
correlation."""

MOST_MOVED = 12
"""Voxels along y and x within which a better place is looked for."""

SEEN_MOVE = 3
"""Voxels along y and x from which a shift is told: borders are a matter of taste within two."""

_NAMES = {0: "z", 1: "y", 2: "x"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One way in which labels may lie: first mirrored, then y and x swapped, then moved."""

    mirrored: tuple[bool, bool, bool] = (False, False, False)
    is_swapped: bool = False
    dz: int = 0

    def says(self) -> str:
        """Name it."""
        words = []
        axes = [_NAMES[axis] for axis, is_so in enumerate(self.mirrored) if is_so]
        if axes:
            words.append(f"mirrored along {' and '.join(axes)}")
        if self.is_swapped:
            words.append("with y and x swapped")
        if self.dz:
            words.append(f"{abs(self.dz)} sections {'higher' if self.dz > 0 else 'lower'}")
        return " and ".join(words)


def turns() -> tuple[Turn, ...]:
    """Return all that labels are tried in, but for as they are."""
    mirrors = itertools.product((False, True), repeat=3)
    found = [
        Turn(mirrored=(z, y, x), is_swapped=swapped)
        for (z, y, x), swapped in itertools.product(mirrors, (False, True))
        if any((z, y, x, swapped))
    ]
    return (*found, *(Turn(dz=dz) for dz in (-2, -1, 1, 2)))


def look_at_overlay(image: Volume, labels: Volume) -> Iterator[Finding]:
    """Yield whether objects end at membranes, or do so when turned or moved."""
    common = image.box.intersection(labels.box)
    box = None if common is None else compared_box(common)
    if box is None:
        yield _finding(
            Level.NOTE, "too little lies under the labels to tell whether they fit", value=None
        )
        return
    bright = brightness(image.read(box))
    usual = correlation(bright, borders(labels.read(box)))
    other = {}
    for turn in turns():
        turned = turned_labels(labels, box, turn=turn)
        if turned is not None:
            other[turn] = correlation(bright, borders(turned))
    best = max(other, key=lambda turn: abs(other[turn]), default=None)
    if best is not None and abs(other[best]) > max(MATCH, BETTER * abs(usual)):
        yield _finding(
            Level.PROBLEM,
            f"labels fit better {best.says()}: correlation with the image {abs(other[best]):.2f} "
            f"instead of {abs(usual):.2f}",
            value={"as given": usual, best.says(): other[best]},
            reason=f"borders of objects lie on membranes; {BETTER:g} times better is no chance",
            advice="turn the labels round (floodem convert --axes) or export them again",
        )
        return
    yield from _as_given(usual, bright=bright, labels=labels.read(box))


def _as_given(
    usual: float, *, bright: Float32[np.ndarray, "z y x"], labels: Labels
) -> Iterator[Finding]:
    dy, dx, moved = best_move(bright, borders(labels))
    is_off = max(abs(dy), abs(dx)) >= SEEN_MOVE and abs(moved) > max(MATCH, BETTER * abs(usual))
    if abs(usual) < MATCH and not is_off:
        yield _finding(
            Level.WARNING,
            f"borders of objects hardly lie on membranes: correlation with darkness {-usual:.2f}",
            value=usual,
            reason=f"labels of this image have {MATCH} and more; no mirrored or moved version fits",
            advice="check that labels and image belong together (floodem view IMAGE LABELS)",
        )
        return
    if is_off:
        yield _finding(
            Level.WARNING,
            f"labels fit better {dy:+d} and {dx:+d} voxels farther along y and x: correlation "
            f"{abs(moved):.2f} instead of {abs(usual):.2f}",
            value={"as given": usual, "moved": moved, "by": [0, dy, dx]},
            reason="borders of objects lie on membranes",
            advice="correct the offset of one of both (floodem convert --offset)",
        )
    elif usual > 0:
        yield _finding(
            Level.WARNING,
            f"objects end where the image is bright (correlation {usual:.2f}): contrast is "
            "inverted",
            value=usual,
            reason="membranes are dark in images that networks are trained on",
            advice="invert the image, unless all images for this network are so",
        )
    else:
        yield _finding(
            Level.OK,
            f"objects end at membranes: correlation with darkness {-usual:.2f}",
            value=usual,
        )


def _finding(
    level: Level, says: str, *, value: object, reason: str = "", advice: str = ""
) -> Finding:
    return Finding(
        level=level,
        part=PART,
        what="overlay",
        says=says,
        value=value,
        reason=reason,
        advice=advice,
    )


def compared_box(common: Box) -> Box | None:
    """Return a box in the middle, of about equal edges along y and x; None: too small."""
    depth = min(SECTIONS, common.shape[0])
    edge = min(EDGE, *common.shape[1:])
    if depth < FEWEST_SECTIONS or edge < SMALLEST_EDGE:
        return None
    z, y, x = (
        start + (size - length) // 2
        for start, size, length in zip(common.start, common.shape, (depth, edge, edge), strict=True)
    )
    return Box.from_shape((depth, edge, edge), start=(z, y, x))


def turned_labels(labels: Volume, box: Box, *, turn: Turn) -> Labels | None:
    """Return the labels that would lie in a box if the whole volume were turned so.

    None where the turned volume does not reach there.
    """
    start, stop = list(box.start), list(box.stop)
    if turn.is_swapped:
        # What lies at (y, x) lay at (x, y), counted from the volume's first voxel.
        (_, y0, x0) = labels.box.start
        start[1], start[2] = box.start[2] - x0 + y0, box.start[1] - y0 + x0
        stop[1], stop[2] = box.stop[2] - x0 + y0, box.stop[1] - y0 + x0
    for axis, is_mirrored in enumerate(turn.mirrored):
        if is_mirrored:
            both = labels.box.start[axis] + labels.box.stop[axis]
            start[axis], stop[axis] = both - stop[axis], both - start[axis]
    start[0] -= turn.dz
    stop[0] -= turn.dz
    place = Box(_triple(start), _triple(stop))
    if not labels.box.contains(place):
        return None
    found = labels.read(place)
    steps = tuple(slice(None, None, -1 if is_so else None) for is_so in turn.mirrored)
    turned: Labels = found[steps].swapaxes(1, 2) if turn.is_swapped else found[steps]
    return turned


def _triple(values: list[int]) -> Zyx:
    return (values[0], values[1], values[2])


def borders(labels: Labels) -> Float32[np.ndarray, "z y x"]:
    """Return where objects end along y or x, widened to membranes."""
    is_border = np.zeros(labels.shape, bool)
    for axis in (1, 2):
        low = tuple(slice(None, -1) if one == axis else slice(None) for one in range(3))
        high = tuple(slice(1, None) if one == axis else slice(None) for one in range(3))
        differs = labels[low] != labels[high]
        is_border[low] |= differs
        is_border[high] |= differs
    width = (0, BORDER_WIDTH, BORDER_WIDTH)
    wide: Float32[np.ndarray, "z y x"] = ndimage.gaussian_filter(
        is_border.astype(np.float32), width, truncate=2
    )
    return wide


def brightness(grey: Array) -> Float32[np.ndarray, "z y x"]:
    """Return an image without noise and slow changes, section by section."""
    image = np.nan_to_num(grey.astype(np.float64), posinf=0, neginf=0).astype(np.float32)
    fine, coarse = (
        ndimage.gaussian_filter(image, (0, width, width), truncate=3) for width in (FINE, COARSE)
    )
    levelled: Float32[np.ndarray, "z y x"] = fine - coarse
    return levelled


def correlation(a: Float32[np.ndarray, "z y x"], b: Float32[np.ndarray, "z y x"]) -> float:
    """Return the correlation coefficient; 0 where one of both is constant."""
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt(float((a * a).sum()) * float((b * b).sum())))
    return float((a * b).sum()) / scale if scale > 0 else 0.0


def best_move(
    bright: Float32[np.ndarray, "z y x"], edges: Float32[np.ndarray, "z y x"]
) -> tuple[int, int, float]:
    """Return by how much borders must be moved along y and x to fit best, and how well they do."""
    a, b = bright - bright.mean(), edges - edges.mean()
    product = np.fft.irfft2((np.fft.rfft2(a) * np.conj(np.fft.rfft2(b))).sum(axis=0), s=a.shape[1:])
    scale = float(np.sqrt(float((a * a).sum()) * float((b * b).sum())))
    reach = np.arange(-MOST_MOVED, MOST_MOVED + 1)
    near = product[np.ix_(reach, reach)] / max(scale, 1e-12)
    y, x = np.unravel_index(int(np.abs(near).argmax()), near.shape)
    return int(reach[y]), int(reach[x]), float(near[y, x])
