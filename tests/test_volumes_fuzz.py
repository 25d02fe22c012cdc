"""Damaged and hostile files: one sentence each, in bounded memory, and nothing is executed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fuzz.mutations import BYTE_MUTATIONS, mutate_json, nest_json
from fuzz.specimens import SPECIMENS, Specimen

WORKER = Path(__file__).parent / "fuzz" / "worker.py"

QUICK_INPUTS = 25
SLOW_INPUTS = 10_000
"""Over all formats together."""

GROWTH_BYTES = 700 * 2**20
"""What reading one damaged file may add: the 256 MB that readers are told of, twice, and slack."""

LONGEST_SENTENCE = 700
HANGS_AFTER_S = 600

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


def attempts(specimen: Specimen, folder: Path, *, count: int, seed: int) -> list[dict]:
    """Let a process of its own open damaged copies; tell what came of each."""
    cases = list(damaged_copies(specimen, folder, count=count, seed=seed))
    lines = [json.dumps([specimen.make(_empty(folder / "warm"))]), *map(json.dumps, cases)]
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(WORKER)],
        input="\n".join(lines) + "\n",
        capture_output=True,
        encoding="utf-8",
        timeout=HANGS_AFTER_S,
        check=False,
        cwd=WORKER.parent.parent,
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"died at {told[-1:]}:\n{done.stderr[-3000:]}"
    ended = [one for one in told if "outcome" in one]
    assert len(ended) == len(cases)
    return ended


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def faults(ended: list[dict]) -> list[str]:
    """List what is wrong with how the copies were treated."""
    found = []
    for one in ended:
        message = one["message"]
        if one["outcome"] == "crashed":
            found.append(f"{one['name']}: {message}")
        elif one["outcome"] == "refused" and not is_a_sentence(message):
            found.append(f"{one['name']}: no sentence: {message!r}")
        if one["grown"] > GROWTH_BYTES:
            found.append(f"{one['name']}: memory grew by {one['grown'] / 2**20:.0f} MB")
    return found


def is_a_sentence(message: str) -> bool:
    """One printable line of bearable length that is no traceback and no status code."""
    return (
        0 < len(message) <= LONGEST_SENTENCE
        and message.isprintable()
        and "Traceback" not in message
        and "tensorstore" not in message.lower()
    )


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
