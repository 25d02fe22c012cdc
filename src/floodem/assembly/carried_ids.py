"""All ids that blocks carry, each once: ids block by block in, one ascending array out.

An initial segmentation may name more objects than fit in memory, so they are sorted in
runs, which lie in files and are merged once all blocks were asked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from floodem.files import storage_error
from floodem.labels.runs import Ids

RUN = 2**23
"""Ids sorted at once: 64 MB, and about twice that while they are sorted."""


@contextlib.contextmanager
def each_id_once(parts: Iterable[Ids], scratch: Path, *, run: int = RUN) -> Iterator[Ids]:
    """Give all ids of the parts, ascending, for as long as the body runs.

    Parameters
    ----------
    parts
        Arrays of ids, each small.
    scratch
        Folder for files, of which there are none where all fit into one run.
    run
        Ids held in memory, at least 1.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    runs: list[Path] = []
    whole = scratch / "carried"
    try:
        held, count = [np.zeros(0, np.uint64)], 0
        for part in parts:
            held.append(part)
            count += len(part)
            if count > run:
                held = [np.unique(np.concatenate(held))]
                count = len(held[0])
            # Only what is different counts: many blocks carry the same few.
            if count > run:
                runs.append(scratch / f"carried-{len(runs)}")
                _write(runs[-1], held)
                held, count = [], 0
        rest = np.unique(np.concatenate([np.zeros(0, np.uint64), *held]))
        if not runs:
            yield rest
            return
        ascending = [*map(_mapped, runs), rest]
        _write(whole, _merged(ascending, at_once=max(1, run // len(ascending))))
        yield _mapped(whole)
    finally:
        with contextlib.suppress(OSError):
            for path in (*runs, whole):
                path.unlink(missing_ok=True)


def _merged(runs: list[Ids], *, at_once: int) -> Iterator[Ids]:
    """Yield what is in ascending arrays, ascending and each once; holds `at_once` of each."""
    while runs := [ids for ids in runs if len(ids)]:
        # Nothing below this can come later from a run of which there is more.
        bound = min(ids[:at_once][-1] for ids in runs)
        counts = [int(np.searchsorted(ids[:at_once], bound, side="right")) for ids in runs]
        yield np.unique(
            np.concatenate([ids[:taken] for ids, taken in zip(runs, counts, strict=True)])
        )
        runs = [ids[taken:] for ids, taken in zip(runs, counts, strict=True)]


def _write(path: Path, parts: Iterable[Ids]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            file.writelines(np.ascontiguousarray(part).data for part in parts)
    except OSError as error:
        raise storage_error("write", path, error) from error


def _mapped(path: Path) -> Ids:
    return np.memmap(path, dtype=np.uint64, mode="r")
