"""Damaged and hostile files: one sentence each, in bounded memory, and nothing is executed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuzz.driver import faults, open_in_a_process
from fuzz.mutations import BYTE_MUTATIONS, mutate_json, nest_json
from fuzz.specimens import SPECIMENS, Specimen

QUICK_INPUTS = 25
SLOW_INPUTS = 10_000
"""Over all formats together."""

_DOCUMENTS = (".json", ".zattrs", ".zarray", ".zgroup", "info")


def damaged_copies(
    specimen: Specimen, folder: Path, *, count: int, seed: int
) -> Iterator[dict[str, str]]:
    """Write copies of a specimen, each with one damaged file."""
    random = np.random.default_rng(seed)
    sound = folder / "sound"
    sound.mkdir()
    uri = specimen.make(sound)
    files = sorted(path for path in sound.rglob("*") if path.is_file())
    documents = [path for path in files if path.name.endswith(_DOCUMENTS)]
    for index in range(count):
        copy = folder / str(index)
        shutil.copytree(sound, copy)
        if documents and random.random() < 0.6:
            victim = documents[int(random.integers(len(documents)))]
        else:
            victim = files[int(random.integers(len(files)))]
        data = victim.read_bytes()
        if victim in documents and random.random() < 0.7:
            mutations = (mutate_json, mutate_json, mutate_json, nest_json)
        else:
            mutations = BYTE_MUTATIONS
        mutation = mutations[int(random.integers(len(mutations)))]
        (copy / victim.relative_to(sound)).write_bytes(mutation(data, random) if data else b"?")
        name = f"{specimen}-{index}-{mutation.__name__}-{victim.name}"
        yield {"name": name, "uri": uri.replace(str(sound), str(copy))}


def attempts(specimen: Specimen, folder: Path, *, count: int, seed: int) -> list[dict[str, Any]]:
    """Let a process of its own open damaged copies; tell what came of each."""
    warm = folder / "warm"
    warm.mkdir()
    cases = list(damaged_copies(specimen, folder, count=count, seed=seed))
    return open_in_a_process(cases, warm=[specimen.make(warm)])


@pytest.mark.skipif(sys.platform == "win32", reason="memory is measured by POSIX calls")
@pytest.mark.parametrize("specimen", SPECIMENS, ids=str)
def test_a_few_damaged_files_of_every_format(tmp_path: Path, specimen: Specimen) -> None:
    ended = attempts(specimen, tmp_path, count=QUICK_INPUTS, seed=1)
    assert not faults(ended), "\n".join(faults(ended))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="memory is measured by POSIX calls")
@pytest.mark.parametrize("specimen", SPECIMENS, ids=str)
def test_ten_thousand_damaged_files(tmp_path: Path, specimen: Specimen) -> None:
    count = -(-SLOW_INPUTS // len(SPECIMENS))
    ended = attempts(specimen, tmp_path, count=count, seed=2)
    assert not faults(ended), "\n".join(faults(ended)[:20])
