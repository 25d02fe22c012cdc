"""What grey values tell: a survey of an image in, findings about its intensities out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from floodem.project.doctor.findings import Finding, Level
from floodem.project.doctor.survey import Survey
from floodem.volumes.grey.report import SATURATION_ADVISED
from floodem.volumes.volume import Array

PART = "image"

FEWEST_LEVELS = 48
"""Grey values that occur, of integers. Images of 8 bits hold 191 (FIB-25) and 256 (SNEMI3D)."""

MOST_PADDING = 0.05
"""Share of voxels in flat squares from which mean and deviation are wrong by as much."""

MOST_FLAT = 0.5
"""Share of voxels that equal their neighbours from which no image is to be seen; images have up
to 0.05 and labels 0.96 (floodem.volumes.kinds)."""

DARK_LINES = 0.45
"""Share of the strongest lines that are darker than their surroundings, below which contrast
may be inverted: FIB-25 has 0.63, SNEMI3D 0.57 and 0.60, inverted ones 0.37 to 0.43."""


def look_at_grey(found: Survey, *, dtype: np.dtype[Any]) -> Iterator[Finding]:
    """Yield what is found about grey values."""
    whole = found.whole()
    if not whole.count:
        yield _finding(
            Level.PROBLEM,
            "grey values",
            "every section that was looked at has one grey value only",
            advice="check the address, the channel and the level",
        )
        return
    yield _finding(
        Level.OK,
        "grey values",
        f"mean {whole.mean:.4g}, standard deviation {whole.stddev:.4g}, from "
        f"{_number(whole.minimum)} to {_number(whole.maximum)}",
        value={"mean": whole.mean, "stddev": whole.stddev},
    )
    yield from _not_finite(found)
    if dtype.kind in "ui":
        yield from _levels(found.values, dtype=dtype)
    yield from _flat(found)
    yield from _cut_off(found)
    yield from _inverted(found)


def _finding(
    level: Level, what: str, says: str, *, value: object = None, reason: str = "", advice: str = ""
) -> Finding:
    return Finding(
        level=level, part=PART, what=what, says=says, value=value, reason=reason, advice=advice
    )


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:g}"


def _not_finite(found: Survey) -> Iterator[Finding]:
    if found.not_finite:
        yield _finding(
            Level.PROBLEM,
            "not finite",
            f"{found.not_finite:,} voxels are NaN or infinite",
            value=found.not_finite,
            reason="a network answers NaN to them, and so does everything behind it",
            advice="write a number there, 0 say, or segment a --box without them",
        )


def _levels(values: Array, *, dtype: np.dtype[Any]) -> Iterator[Finding]:
    used = np.unique(values)
    if len(used) < FEWEST_LEVELS:
        yield _finding(
            Level.WARNING,
            "grey levels",
            f"only {len(used)} grey values occur",
            value=len(used),
            reason=f"images of electron microscopy use {FEWEST_LEVELS} and more; few are left "
            "where labels, masks or screenshots were exported",
            advice="export the image again with its full range",
        )
        return
    is_narrow = dtype.itemsize > 1 and int(used[-1]) - int(used[0]) < 2**8
    yield _finding(
        Level.NOTE if is_narrow else Level.OK,
        "grey levels",
        f"{len(used)} grey values occur"
        + (f", which 8 bits would hold, in {dtype}" if is_narrow else ""),
        value=len(used),
        advice="floodem convert --dtype uint8 halves what is read" if is_narrow else "",
    )


def _flat(found: Survey) -> Iterator[Finding]:
    """Tell of labels given as image, and of black or white padding."""
    shares = [found.sections[z].flat / found.sections[z].looks for z in found.pictured()]
    flat = float(np.mean(shares))
    typical = float(np.median(shares))
    if typical > MOST_FLAT:
        yield _finding(
            Level.WARNING,
            "flat areas",
            f"{typical:.0%} of the voxels equal their neighbours along y and x",
            value=typical,
            reason="noise makes neighbours differ: these are labels, a mask, or mostly padding",
            advice="give the image itself, or segment a --box without padding",
        )
    elif flat > MOST_PADDING:
        yield _finding(
            Level.NOTE,
            "flat areas",
            f"{flat:.0%} of the voxels lie in areas of one grey value, padding or resin",
            value=flat,
            reason=f"from {MOST_PADDING:.0%} on they change mean and deviation noticeably",
            advice="measure both in a box without them (floodem stats --box), and mask them "
            "(segment --mask image:max=0)",
        )


def _cut_off(found: Survey) -> Iterator[Finding]:
    values = found.values
    if not values.size:
        return
    ends = (values.min(), values.max())
    shares = [float(np.mean(values == end)) for end in ends]
    flat = float(np.mean([one.flat / one.looks for one in found.sections.values()]))
    cut = [
        f"{share:.1%} at {end:g}"
        for share, end in zip(shares, ends, strict=True)
        # What is flat is padding, and told as such.
        if share - flat > SATURATION_ADVISED
    ]
    if cut:
        yield _finding(
            Level.NOTE,
            "cut off",
            f"grey values are cut off: {' and '.join(cut)}",
            value=shares,
            reason=f"more than {SATURATION_ADVISED:.0%} at one end is no tail any more",
            advice="export the image again with wider limits if you can",
        )


def _inverted(found: Survey) -> Iterator[Finding]:
    if not found.dark_lines:
        return
    share = float(np.median(found.dark_lines))
    if share < DARK_LINES:
        yield _finding(
            Level.WARNING,
            "contrast",
            f"only {share:.0%} of the strongest lines are darker than what is around them: "
            "membranes seem to be bright",
            value=share,
            reason=f"membranes are dark in images that networks are trained on ({DARK_LINES:.0%} "
            "and more of the lines)",
            advice="invert the image if it is a negative, unless the network was trained on such",
        )
    else:
        yield _finding(
            Level.OK, "contrast", f"membranes are dark ({share:.0%} of the lines)", value=share
        )
