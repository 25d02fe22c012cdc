"""Scores of a segmentation as a scene shows them: the JSON of ``floodem evaluate`` in.

Out come numbers for the list of objects, and points where the worst splits and
mergers are. The file names the worst mistakes only (``--worst``): other objects have 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floodem.errors import OptionError, VolumeFormatError
from floodem.viewer.scenes.checking import read_json

FORMAT = "floodem evaluation"
VERSION = 1
MOST_POINTS = 1000

Position = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Point:
    """A mistake and where it is, in voxels of the segmentation (z, y, x)."""

    position_zyx: Position
    text: str
    segments: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectScores:
    """What the mistakes say about the segments that take part in them.

    Attributes
    ----------
    merge_bits
        Variation of information that a segment over several true objects costs.
    split_bits
        The same of a true object, for the segments that are its largest parts.
    notes
        A few words about a segment.
    splits, mergers
        Where the mistakes are.
    summary
        The scores of the whole.
    """

    merge_bits: Mapping[int, float]
    split_bits: Mapping[int, float]
    notes: Mapping[int, str]
    splits: Sequence[Point]
    mergers: Sequence[Point]
    summary: Mapping[str, Any]


def read_scores(path: Path) -> ObjectScores:
    """Read what ``floodem evaluate SEG TRUTH --json`` printed.

    Raises
    ------
    OptionError
        When there is no such file.
    VolumeFormatError
        When it holds something else.
    """
    if not path.is_file():
        raise OptionError(
            f"there is no file {path} with scores: floodem evaluate SEG TRUTH --json prints one"
        )
    values = read_json(path)
    if values.get("format") != FORMAT or values.get("version") != VERSION:
        raise VolumeFormatError(
            f"{path} holds no scores of version {VERSION}: floodem evaluate SEG TRUTH --json "
            "prints them"
        )
    try:
        return _read(values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise VolumeFormatError(
            f"{path} is damaged ({type(error).__name__}: {error}): score the segmentation again"
        ) from error


def _read(values: Mapping[str, Any]) -> ObjectScores:
    merge_bits: dict[int, float] = {}
    split_bits: dict[int, float] = {}
    notes: dict[int, list[str]] = {}
    mergers, splits = [], []
    for merger in values["worst_mergers"]:
        segment, bits = int(merger["segment"]), float(merger["voi_bits"])
        objects = [int(part["object"]) for part in merger["largest"]]
        merge_bits[segment] = bits
        text = f"merges {int(merger['objects'])} objects of the truth"
        notes.setdefault(segment, []).append(f"{text}, mostly {_listed(objects)}")
        mergers += _points(merger, f"segment {segment} {text}: {bits:.3f} bits", [segment])
    for split in values["worst_splits"]:
        whole, bits = int(split["object"]), float(split["voi_bits"])
        segments = [int(part["segment"]) for part in split["largest"]]
        text = f"object {whole} of the truth, split into {int(split['segments'])}"
        for segment in segments:
            split_bits[segment] = max(bits, split_bits.get(segment, 0.0))
            notes.setdefault(segment, []).append(f"part of {text}")
        splits += _points(split, f"{text}: {bits:.3f} bits", segments)
    return ObjectScores(
        merge_bits=merge_bits,
        split_bits=split_bits,
        notes={segment: "; ".join(sentences) for segment, sentences in notes.items()},
        splits=splits[:MOST_POINTS],
        mergers=mergers[:MOST_POINTS],
        summary={
            "coverage": float(values["coverage"]),
            "all_truth": _numbers(values["all_truth"]),
            "where_both_label": _numbers(values["where_both_label"] or {}),
        },
    )


def _points(mistake: Mapping[str, Any], text: str, segments: Sequence[int]) -> list[Point]:
    """Return the place of a mistake: where its largest part faces the next one."""
    places = [part["position_zyx"] for part in mistake["largest"]]
    found = next((place for place in places if place is not None), None)
    if found is None:
        return []
    z, y, x = (float(at) for at in found)
    return [Point((z, y, x), text, tuple(segments))]


def _numbers(scores: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in scores.items()}


def _listed(ids: Sequence[int]) -> str:
    return " and ".join(str(label) for label in ids)
