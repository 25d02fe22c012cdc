"""What follows from an image's grey values: statistics in, sentences with advice out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from floodem.volumes.volume import Kind

if TYPE_CHECKING:
    from floodem.volumes.grey.report import OutlyingSection, Statistics

_NAMED_RUNS = 6


def notes(found: Statistics) -> tuple[str, ...]:
    """Return what a user should know before using these numbers."""
    makers = (_labels, _not_finite, _constant, _outlying, _drift, _saturation)
    return tuple(note for make in makers if (note := make(found)))


def _labels(found: Statistics) -> str:
    if found.kind is not Kind.LABELS:
        return ""
    return f"{found.uri} says that it holds labels: mean and deviation of ids mean nothing"


def _not_finite(found: Statistics) -> str:
    if not found.not_finite:
        return ""
    return f"{found.not_finite} voxels are NaN or infinite and are left out of all numbers"


def _constant(found: Statistics) -> str:
    constant = found.constant_sections
    if not constant:
        return ""
    if len(constant) == len(found.sections):
        return "every section has one grey value only: there is nothing to normalise"
    return (
        f"{_sections(constant)} one grey value only, as missing or padded sections have, "
        "and no part in the suggested mean and deviation"
    )


def _outlying(found: Statistics) -> str:
    from floodem.volumes.grey.report import OUTLYING_NAMED

    least = OUTLYING_NAMED * found.stddev
    runs = _runs_of([one for one in found.outlying if abs(one.value - one.usual) > least])
    if not runs:
        return ""
    named = "; ".join(_in_words(run) for run in runs[:_NAMED_RUNS])
    rest = len(runs) - _NAMED_RUNS
    more = f"; and {rest} more places (--sections lists them)" if rest > 0 else ""
    return (
        "sections stand out from the others (modified z-score over 3.5, Iglewicz and Hoaglin "
        f"1993), look at them: {named}{more}"
    )


def _runs_of(outlying: Sequence[OutlyingSection]) -> list[list[OutlyingSection]]:
    """Put sections together that follow each other and stand out in the same way."""
    runs: list[list[OutlyingSection]] = []
    for one in sorted(outlying, key=lambda one: (one.quantity, one.z)):
        last = runs[-1][-1] if runs else None
        goes_on = last is not None and (last.quantity, last.z + 1, last.score > 0) == (
            one.quantity,
            one.z,
            one.score > 0,
        )
        if goes_on:
            runs[-1].append(one)
        else:
            runs.append([one])
    return sorted(runs, key=lambda run: run[0].z)


def _in_words(run: Sequence[OutlyingSection]) -> str:
    first, last = run[0], run[-1]
    low, high = min(one.value for one in run), max(one.value for one in run)
    where = f"z {first.z}" if first is last else f"z {first.z} to {last.z}"
    values = f"{low:.4g}" if first is last else f"{low:.4g} to {high:.4g}"
    return f"{where} with {first.quantity} {values} (others about {first.usual:.4g})"


def _drift(found: Statistics) -> str:
    from floodem.volumes.grey.report import DRIFT_ADVISED, DRIFT_SECTION_VOXELS

    is_small = found.voxels < DRIFT_SECTION_VOXELS * len(found.sections)
    if is_small or found.drift <= DRIFT_ADVISED:
        return ""
    return (
        f"brightness drifts: the sections' means spread by {found.drift:.2f} standard deviations "
        "of the voxels, and a network expects one brightness; floodem clahe evens it"
    )


def _saturation(found: Statistics) -> str:
    from floodem.volumes.grey.report import SATURATION_ADVISED

    shares = found.share_at_ends()
    if shares is None or found.suggested is None:
        return ""
    ends = zip(shares, (found.minimum, found.maximum), strict=True)
    words = [f"{share:.1%} at {value}" for share, value in ends if share > SATURATION_ADVISED]
    if not words:
        return ""
    return (
        f"grey values are cut off, {' and '.join(words)}: what lay beyond is lost; export the "
        "image again with wider limits if you can, else floodem clahe evens the rest"
    )


def _sections(positions: Sequence[int]) -> str:
    return f"section {positions[0]} has" if len(positions) == 1 else f"{ranges(positions)} have"


def ranges(positions: Iterable[int]) -> str:
    """Write positions in short: ``sections 3, 7 to 9``."""
    ordered = np.array(sorted(positions))
    runs = np.split(ordered, np.flatnonzero(np.diff(ordered) > 1) + 1)
    words = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return f"sections {', '.join(words)}"
