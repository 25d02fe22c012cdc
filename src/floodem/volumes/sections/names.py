"""Names of section files: which order they have, which numbers they bear, and what is missing.

Names come in; a natural order, numbers, and sentences about gaps go out.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from floodem.volumes.stored import refusals

_DIGITS = re.compile(r"(\d+)")


def natural_order(name: str) -> tuple[list[tuple[int, int | str]], str]:
    """Return a sort key by which z2 comes before z10, whatever the case of letters."""
    parts = _DIGITS.split(name.casefold())
    key: list[tuple[int, int | str]] = [
        (0, int(part)) if part.isdecimal() else (1, part) for part in parts if part
    ]
    return key, name


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """What lies in a folder of sections, by name: sections in order, folders, and the rest."""

    path: Path
    sections: tuple[str, ...]
    folders: tuple[str, ...]
    hidden: tuple[str, ...]
    others: tuple[str, ...]


def list_folder(path: Path, extensions: Sequence[str]) -> Folder:
    """Sort what is in a folder into sections (by ending, not hidden) and other things."""
    found: dict[str, list[str]] = {"sections": [], "folders": [], "hidden": [], "others": []}
    with refusals("read", str(path)), os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                found["hidden"].append(entry.name)
            elif entry.is_dir():
                found["folders"].append(entry.name)
            elif entry.name.lower().endswith(tuple(extensions)) and entry.is_file():
                found["sections"].append(entry.name)
            else:
                found["others"].append(entry.name)
    found["sections"].sort(key=natural_order)
    return Folder(
        path=path,
        sections=tuple(found.pop("sections")),
        **{kind: tuple(sorted(names)) for kind, names in found.items()},
    )


def section_numbers(names: Sequence[str]) -> list[int] | None:
    """Return the number that each section bears in its name, None where that cannot be told.

    It is the one group of digits that changes from name to name, or the first of
    several that never falls; a single section bears the last one.
    """
    groups = [[int(digits) for digits in _DIGITS.findall(Path(name).stem)] for name in names]
    if not groups or not groups[0] or len({len(group) for group in groups}) != 1:
        return None
    columns = list(zip(*groups, strict=True))
    changing = [column for column in columns if len(set(column)) > 1]
    if not changing:
        return list(columns[-1]) if len(names) == 1 else None
    rising = [column for column in changing if list(column) == sorted(column)]
    return list(rising[0]) if rising else None


def gaps(names: Sequence[str], *, uri: str) -> list[str]:
    """Say in at most two sentences which numbers are missing or doubled in a row of sections.

    Numbers go up by the step that is most frequent (by ten, say), and a row in which
    it makes less than half of all steps has no numbering.
    """
    odd = set(strangers(names))
    names = [name for name in names if name not in odd]
    numbers = section_numbers(names)
    if numbers is None or len(numbers) < 2:
        return []
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    said = []
    counts = Counter(width for width in steps if width > 0)
    step = min(counts, key=lambda width: (-counts[width], width), default=1)
    wide = [at for at, width in enumerate(steps) if width > step]
    if wide and 2 * counts[step] >= counts.total():
        at = wide[0]
        more = len(wide) - 1
        said.append(
            f"{uri}: {_missing(names[at], numbers[at] + step, numbers[at + 1] - step)} missing "
            f"between {names[at]} and {names[at + 1]}"
            + (f" (and {more} more gap{'s' * (more > 1)} later)" if more else "")
            + ": the volume goes on without a gap, so what follows lies too low in z"
        )
    doubled = [at for at, width in enumerate(steps) if width == 0]
    if doubled:
        at = doubled[0]
        said.append(
            f"{uri}: {names[at]} and {names[at + 1]} have the same number: both are sections"
        )
    return said


def strangers(names: Sequence[str]) -> list[str]:
    """Return the names without any digit where most sections bear numbers."""
    without = [name for name in names if not _DIGITS.search(Path(name).stem)]
    return without if 2 * len(without) < len(names) else []


def told_strangers(names: Sequence[str], *, uri: str) -> list[str]:
    """Say which images bear no number although most sections do; they may be an overview."""
    found = strangers(names)
    if not found:
        return []
    one, more = found[0], len(found) - 1
    rest = f" (and {more} more image{'s' * (more > 1)})" if more else ""
    return [
        (
            f"{uri}: {one}{rest} among numbered sections bears no number: it is taken as a "
            "section; if it is none, move it to another folder"
        )
    ]


def _missing(name: str, first: int, last: int) -> str:
    """Name the missing numbers as wide as their neighbour writes its own."""
    width = max(
        (len(digits) for digits in _DIGITS.findall(Path(name).stem) if digits.startswith("0")),
        default=1,
    )
    if first >= last:
        return f"section {first:0{width}d} is"
    return f"sections {first:0{width}d} to {last:0{width}d} are"


def ignored(folder: Folder, *, uri: str) -> list[str]:
    """Say in at most two sentences what lies beside the sections and is passed over."""
    said = []
    others = sorted((*folder.others, *folder.folders))
    for names, what in ((folder.hidden, "hidden"), (others, "other")):
        if names:
            count = f"{len(names)} {what} file{'s' if len(names) > 1 else ''}"
            first = names[0] if len(names) == 1 else f"first {names[0]}"
            said.append(f"{uri}: {count} beside the sections {_is(names)} passed over ({first})")
    return said


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
