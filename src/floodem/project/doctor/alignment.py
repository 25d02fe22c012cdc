"""Jumps of the alignment: an image and a survey of it in, findings about shifted sections out.

Pairs of neighbouring sections are compared by `floodem.project.matching`, in a few
patches each that do not overlap. All pairs of a small volume are compared; of a large
one those that are least alike, and others spread evenly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from floodem.geometry import Box, Zyx
from floodem.progress import Progress, ProgressListener
from floodem.project.doctor.findings import Finding, Level
from floodem.project.doctor.sections import named
from floodem.project.matching import LEAST_QUALITY, Matching, Section, match
from floodem.project.shift_report import LEAST_THRESHOLD, TIMES_USUAL, USUAL_SHARE
from floodem.volumes.volume import Array

PART = "sections"

PATCHES = (160, 96)
"""Edges of a patch in voxels, the better one first; see `floodem.project.matching.Matching`."""

SEARCH = 32
"""Largest shift along y and x that is looked for."""

MOST_PAIRS = 160
"""Pairs that are compared, unless all are asked for: about 8 ms a patch, four patches a pair."""

COARSE = 8
"""Voxels that 90 % of the shifts reach, from which alignment is coarse: the usual step of a field
of view (deltas). Tissue itself wanders: SNEMI3D, in which networks find their way, has 4."""

MOST_ALONG = 2
"""Patches along y and along x."""

FOUND = 0.5
"""Share of a pair's patches that must tell a shift, for the pair to have one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairShift:
    """How one section lies on the one below.

    Attributes
    ----------
    z
        The lower section.
    shift_yx
        Median of the patches; None where fewer than half of those with a picture fit.
    textured, found
        Patches with a picture in both, and those of them that fit somewhere.
    """

    z: int
    shift_yx: tuple[int, int] | None
    textured: int
    found: int

    @property
    def size(self) -> int:
        """The larger component, regardless of its sign; 0 where nothing was found."""
        return 0 if self.shift_yx is None else max(abs(part) for part in self.shift_yx)


def chosen_pairs(likeness: Mapping[int, float], *, most: int) -> list[int]:
    """Return which pairs to compare: all, or half of them the least alike and half spread."""
    places = sorted(likeness)
    if len(places) <= most:
        return places
    suspect = sorted(places, key=lambda z: (likeness[z], z))[: most // 2]
    spread = [places[number * len(places) // (most - most // 2)] for number in range(most // 2)]
    return sorted({*suspect, *spread})


def measure_pairs(
    read: Callable[[Box], Array],
    window: Box,
    pairs: Sequence[int],
    *,
    progress: ProgressListener | None = None,
) -> list[PairShift]:
    """Measure by how much sections are shifted against those below.

    Parameters
    ----------
    read
        Returns the grey values of a box.
    window
        Where to look along y and x (`can_measure`).
    pairs
        Lower sections.
    """
    matching = _matching(window)
    assert matching is not None
    found = []
    for number, z in enumerate(pairs):
        if progress is not None:
            progress(
                Progress(stage="comparing sections", done=number, total=len(pairs), unit="pairs")
            )
        found.append(_measure(read, _patched(window, matching, z), matching=matching))
    return found


def can_measure(window: Box) -> bool:
    """Tell whether patches with room to be shifted fit into a window."""
    return _matching(window) is not None


def too_small(shape: Zyx) -> Finding:
    """Say that shifts are not measured in sections that are too small."""
    least = PATCHES[-1] + 2 * SEARCH
    return _finding(
        Level.OK,
        "alignment",
        f"shifts between sections were not measured: sections of {shape[1]} x {shape[2]} voxels "
        f"have no room for patches that are shifted ({least} x {least})",
        value=None,
    )


def _matching(window: Box) -> Matching | None:
    """Return how patches are compared in a window, or None where it is too small."""
    shortest = min(window.shape[1:])
    for patch in PATCHES:
        if shortest >= patch + 2 * SEARCH:
            return Matching(stride=patch, patch=patch, search=SEARCH)
    return None


def _patched(window: Box, matching: Matching, z: int) -> Box:
    """Return the middle of a window that holds whole patches with room to be shifted."""
    bounds = []
    for start, stop in zip(window.start[1:], window.stop[1:], strict=True):
        count = min(MOST_ALONG, (stop - start - 2 * matching.search) // matching.patch)
        length = count * matching.patch + 2 * matching.search
        first = start + (stop - start - length) // 2
        bounds.append((first, first + length))
    (y0, y1), (x0, x1) = bounds
    return Box((z, y0, x0), (z + 2, y1, x1))


def _measure(read: Callable[[Box], Array], box: Box, *, matching: Matching) -> PairShift:
    grey = read(box)
    inside = np.ones(grey.shape[1:], bool)
    here, there = (Section.prepare(section, inside=inside) for section in grey)
    textured = here.has_texture(matching) & there.has_texture(matching)
    shifts, quality = match(here, there, matching=matching)
    is_found = textured & (quality >= LEAST_QUALITY)
    shift = None
    if textured.any() and is_found.sum() >= FOUND * textured.sum():
        y, x = (int(np.median(component[is_found])) for component in shifts)
        shift = (y, x)
    return PairShift(
        z=box.start[0],
        shift_yx=shift,
        textured=int(textured.sum()),
        found=int(is_found.sum()),
    )


def look_at_alignment(pairs: Sequence[PairShift], *, total: int) -> Iterator[Finding]:
    """Yield what is found about shifts.

    Parameters
    ----------
    pairs
        As measured.
    total
        How many pairs the volume has.
    """
    told = [pair for pair in pairs if pair.shift_yx is not None]
    if not told:
        yield _finding(
            Level.NOTE,
            "alignment",
            "no shifts between sections could be measured: nothing in them fits each other",
            value=None,
        )
        return
    sizes = np.array([pair.size for pair in told])
    usual = int(np.quantile(sizes, USUAL_SHARE, method="inverted_cdf"))
    threshold = max(LEAST_THRESHOLD, TIMES_USUAL * usual)
    large = [pair for pair in told if pair.size >= threshold]
    lost = [pair.z for pair in pairs if pair.textured > 1 and pair.shift_yx is None]
    looked_at = f"{len(pairs):,} of {total:,} pairs of sections compared"
    if usual >= COARSE:
        yield _finding(
            Level.WARNING,
            "alignment",
            f"sections are aligned coarsely: 90 % of the shifts are up to {usual} voxels "
            f"({looked_at})",
            value=usual,
            reason=f"from {COARSE} voxels on, the usual step of a field of view",
            advice="align the sections again (elastic alignment matters most in practice)",
        )
    if large:
        worst = max(large, key=lambda pair: pair.size)
        yield _finding(
            Level.WARNING,
            "alignment jumps",
            f"sections jump behind {named([pair.z for pair in large])}: most behind section "
            f"{worst.z}, by {_signed(worst)} voxels (y,x)",
            value=[{"z": pair.z, "shift_yx": list(pair.shift_yx or ())} for pair in large],
            reason=f"shifts from {threshold} voxels on; 90 % are up to {usual} ({looked_at})",
            advice="align them again, or keep floods from crossing: floodem doctor IMAGE "
            "--shift-mask DST",
        )
    if lost:
        yield _finding(
            Level.NOTE,
            "alignment",
            f"behind {named(lost)} no shift within {SEARCH} voxels fits",
            value=lost,
            reason="most patches of both sections have a picture, and these do not match",
            advice="look at them: folds, lost sections, larger shifts",
        )
    if not large and usual < COARSE:
        yield _finding(
            Level.OK,
            "alignment",
            f"no jumps: 90 % of the shifts are up to {usual} voxels, the largest {sizes.max()} "
            f"({looked_at})",
            value=usual,
        )


def _signed(pair: PairShift) -> str:
    assert pair.shift_yx is not None
    return ",".join(f"{part:+d}" for part in pair.shift_yx)


def _finding(
    level: Level, what: str, says: str, *, value: object, reason: str = "", advice: str = ""
) -> Finding:
    return Finding(
        level=level, part=PART, what=what, says=says, value=value, reason=reason, advice=advice
    )
