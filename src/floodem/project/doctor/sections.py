"""What is wrong with single sections: a survey of an image in, findings about sections out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from floodem.counting import counted
from floodem.project.doctor.findings import Finding, Level
from floodem.project.doctor.survey import Survey
from floodem.volumes.grey.notes import ranges
from floodem.volumes.grey.report import DRIFT_ADVISED, OUTLYING_NAMED, SectionStatistics
from floodem.volumes.grey.statistics import outlying_sections

PART = "sections"

BLURRED = 0.5
"""Finest detail of a section against that of its neighbours. In FIB-25 and SNEMI3D no section
falls below 0.75; a Gaussian of one voxel leaves 0.03 to 0.14."""

NEIGHBOURS = 10
"""Sections to each side that a section is held against."""

FADED = 0.25
"""Contrast (standard deviation) against the median of all; SNEMI3D's flattest section has 0.81."""

HALF_EMPTY = 0.2
"""Share of a section in flat areas, beyond that of the others."""

SAME_PICTURE = 0.2
"""How unlike two sections are, against what is usual, at or below which they are one picture.
Distinct neighbours have 0.33 and more (FIB-25 and synthetic tissue), SNEMI3D but for one pair
0.7."""

BRIGHTER = 0.5
"""How far a section's mean may lie from the others', in standard deviations of the voxels: as
far as this, a fifth of what is tissue looks like membrane, or the other way round."""

UNRELATED = 0.5
"""Likeness of two neighbours, against what is usual, below which they hardly belong together."""

LEAST_LIKENESS = 0.1
"""Below that the usual neighbours are not alike either, and nothing follows; noise has 0, SNEMI3D
0.58."""

SMALLEST_SECTION = 2**12
"""Voxels of a section below which its mean depends on what happens to be there."""

FEWEST = 5
"""Sections from which something can be called usual."""

NAMED = 12


def look_at_sections(found: Survey, *, has_all: bool) -> Iterator[Finding]:
    """Yield what is found about sections.

    Parameters
    ----------
    has_all
        Whether every section was looked at, so that their order can be judged.
    """
    pictured = found.pictured()
    yield from _empty(found, pictured)
    if len(pictured) < FEWEST:
        yield _finding(
            Level.NOTE,
            "count",
            f"{counted(len(pictured), 'section')} with a picture: too few to say what is usual",
            value=len(pictured),
        )
        return
    likeness = found.correlations()
    findings = [
        *_faded(found, pictured),
        *_blurred(found),
        *_repeated(found, likeness),
        *_brightness(found, pictured),
        *_shuffled(likeness, has_all=has_all),
    ]
    yield from findings
    if not findings:
        yield _finding(
            Level.OK,
            "sections",
            f"{counted(len(pictured), 'section')}: none empty, blurred, repeated or much brighter "
            "than others",
            value=len(pictured),
        )


def _finding(
    level: Level, what: str, says: str, *, value: object = None, reason: str = "", advice: str = ""
) -> Finding:
    return Finding(
        level=level, part=PART, what=what, says=says, value=value, reason=reason, advice=advice
    )


def named(sections: Sequence[int]) -> str:
    """Write sections in short: ``section 3``, ``sections 3, 7 to 9 and 40 more``."""
    if len(sections) == 1:
        return f"section {sections[0]}"
    runs = np.split(np.array(sections), np.flatnonzero(np.diff(sections) > 1) + 1)
    if len(runs) <= NAMED:
        return ranges(sections)
    shown = list(itertools.chain.from_iterable(run.tolist() for run in runs[:NAMED]))
    return f"{ranges(shown)} and {len(sections) - len(shown)} more"


def _are(sections: Sequence[int]) -> str:
    return "is" if len(sections) == 1 else "are"


def _empty(found: Survey, pictured: Sequence[int]) -> Iterator[Finding]:
    empty = sorted(set(found.sections) - set(pictured))
    if not empty or not pictured:
        return
    yield _finding(
        Level.WARNING,
        "empty sections",
        f"{named(empty)} {_are(empty)} empty: one grey value only",
        value=empty,
        reason="floods hardly cross what they cannot see; one section is bridged, several are not",
        advice="fill lost sections with a copy of their neighbour, or mask them",
    )


def _faded(found: Survey, pictured: Sequence[int]) -> Iterator[Finding]:
    usual = float(np.median([found.stddev(z) for z in pictured]))
    faded = [z for z in pictured if found.stddev(z) < FADED * usual]
    if faded:
        yield _finding(
            Level.WARNING,
            "faded sections",
            f"{named(faded)} {'has' if len(faded) == 1 else 'have'} hardly any contrast",
            value=faded,
            reason=f"less than {FADED:.0%} of the usual standard deviation {usual:.3g}",
            advice="look at them; fill them with a copy of their neighbour, or mask them",
        )
    flat = {z: found.sections[z].flat / found.sections[z].looks for z in pictured}
    common = float(np.median(list(flat.values())))
    half = [z for z in pictured if flat[z] > common + HALF_EMPTY and z not in faded]
    if half:
        yield _finding(
            Level.WARNING,
            "partly empty sections",
            f"{named(half)} {_are(half)} empty in part: up to {max(flat[z] for z in half):.0%} "
            "have one grey value",
            value=half,
            reason=f"others have {common:.0%}",
            advice="mask what is empty: floods hardly cross it",
        )


def _blurred(found: Survey) -> Iterator[Finding]:
    sharpness = found.sharpness()
    blurred = [z for z in sharpness if sharpness[z] < BLURRED * _around(sharpness, z)]
    if blurred:
        yield _finding(
            Level.WARNING,
            "blurred sections",
            f"{named(blurred)} {_are(blurred)} blurred",
            value=blurred,
            reason=f"their finest detail is below {BLURRED:.0%} of that of the "
            f"{2 * NEIGHBOURS} sections around",
            advice="image them again if you can; train with section augmentation (out of focus)",
        )


def _around(values: Mapping[int, float], z: int) -> float:
    near = [values[at] for at in range(z - NEIGHBOURS, z + NEIGHBOURS + 1) if at in values]
    return float(np.median(near))


def _repeated(found: Survey, likeness: Mapping[int, float]) -> Iterator[Finding]:
    equal = [z for z in likeness if found.pairs[z].is_equal]
    if equal:
        yield _finding(
            Level.WARNING,
            "repeated sections",
            f"{_pairs(equal)} are equal, voxel by voxel",
            value=equal,
            reason="copies fill lost sections, or files were listed twice",
            advice="check the list of files; nothing is to be done about filled gaps",
        )
    usual = 1 - float(np.median([c for z, c in likeness.items() if z not in equal] or [1]))
    same = [z for z, c in likeness.items() if z not in equal and 1 - c <= SAME_PICTURE * usual]
    if same:
        yield _finding(
            Level.NOTE,
            "repeated sections",
            f"{_pairs(same)} show nearly one picture: like each other to "
            f"{max(likeness[z] for z in same):.2f}, others to {1 - usual:.2f}",
            value=same,
            reason="a section may have been imaged twice",
            advice="if so, leave one of both out: what is above lies too high by a section",
        )


def _pairs(lower: Sequence[int]) -> str:
    words = [f"{z} and {z + 1}" for z in lower[:NAMED]]
    more = f" and {len(lower) - NAMED} more pairs" if len(lower) > NAMED else ""
    return f"sections {', '.join(words)}{more}"


def _brightness(found: Survey, pictured: Sequence[int]) -> Iterator[Finding]:
    whole = found.whole()
    if whole.count < SMALLEST_SECTION * len(pictured):
        return
    spread = whole.stddev
    means = np.array([found.mean(z) for z in pictured])
    drift = float(np.std(means)) / spread if spread else 0.0
    if drift > DRIFT_ADVISED:
        yield _finding(
            Level.WARNING,
            "contrast drift",
            f"brightness drifts: the means of sections spread by {drift:.2f} standard deviations",
            value=drift,
            reason=f"from {DRIFT_ADVISED} on; a network is given one mean for all sections",
            advice="floodem clahe SRC DST evens it",
        )
    statistics = [
        SectionStatistics(
            z=z,
            voxels=found.sections[z].moments.count,
            mean=found.mean(z),
            stddev=found.stddev(z),
            minimum=found.sections[z].moments.minimum,
            maximum=found.sections[z].moments.maximum,
        )
        for z in pictured
    ]
    far = {
        one.z: one
        for one in outlying_sections(statistics)
        if one.quantity == "mean" and abs(one.value - one.usual) > OUTLYING_NAMED * spread
    }
    if not far:
        return
    strongest = max(far.values(), key=lambda one: abs(one.value - one.usual))
    distance = abs(strongest.value - strongest.usual) / spread
    yield _finding(
        Level.WARNING if distance >= BRIGHTER else Level.NOTE,
        "brightness",
        f"{named(sorted(far))} {'stands' if len(far) == 1 else 'stand'} out in brightness: section "
        f"{strongest.z} has mean {strongest.value:.4g}, others about {strongest.usual:.4g} "
        f"({distance:.2f} standard deviations)",
        value=sorted(far),
        reason="modified z-score over 3.5 (Iglewicz and Hoaglin 1993); a warning from "
        f"{BRIGHTER} standard deviations of the voxels on",
        advice="look at them; floodem clahe evens brightness",
    )


def _shuffled(likeness: Mapping[int, float], *, has_all: bool) -> Iterator[Finding]:
    """Tell whether sections follow each other as their names do when sorted by letters."""
    if has_all:
        for first in (0, 1):
            breaks = letter_breaks(sorted(likeness), first=first)
            if _are_breaks(likeness, breaks):
                yield _finding(
                    Level.PROBLEM,
                    "order",
                    "sections lie in the order of letters (0, 1, 10, 11, ... 2, 20): they fit each "
                    f"other except where that order jumps, as after sections "
                    f"{', '.join(map(str, breaks[:3]))}",
                    value=breaks,
                    reason="whoever made this volume sorted files by letters (z10 before z2)",
                    advice="make it again from its files: floodem convert sorts by number",
                )
                return
    usual = float(np.median(list(likeness.values()) or [0]))
    if usual < LEAST_LIKENESS:
        return
    unlike = [z for z, c in likeness.items() if c < UNRELATED * usual]
    if unlike:
        yield _finding(
            Level.WARNING,
            "unlike neighbours",
            f"{_pairs(unlike)} are hardly alike: {min(likeness[z] for z in unlike):.2f}, others "
            f"{usual:.2f}",
            value=unlike,
            reason=f"below {UNRELATED:.0%} of what is usual: dirt, fold, gap, shift or wrong order",
            advice="look at them; floodem doctor IMAGE --shift-mask DST masks shifts",
        )


def letter_breaks(pairs: Sequence[int], *, first: int) -> list[int]:
    """Return after which places numbers sorted by letters do not go up by one.

    Parameters
    ----------
    pairs
        Places of lower sections, ascending.
    first
        Number that names begin with.
    """
    if not pairs:
        return []
    count = pairs[-1] - pairs[0] + 2
    numbers = sorted(range(first, first + count), key=str)
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    return [pairs[0] + at for at, step in enumerate(steps) if step != 1]


def _are_breaks(likeness: Mapping[int, float], breaks: Sequence[int]) -> bool:
    """Tell whether nearly all breaks fit worse than nearly all other places."""
    broken = [likeness[z] for z in breaks if z in likeness]
    others = [c for z, c in likeness.items() if z not in set(breaks)]
    if len(broken) < FEWEST - 2 or len(others) < FEWEST:
        return False
    low, high = np.quantile(broken, 0.75), np.quantile(others, 0.25)
    return bool(low < UNRELATED * high)
