"""A conversion killed at any moment: no torn chunk, and the next run gives the same bytes."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conversions import CHUNKED, RESUMABLE, contents, options_for, uris
from floodem.geometry import VoxelSize, Zyx
from floodem.volumes import convert, create_volume, open_volume, verify
from volume_cases import Case

SHAPE: Zyx = (48, 96, 96)
CHUNKS: Zyx = (16, 16, 16)
KILLS, FEW = 50, 3
TIMEOUT_S = 120
EARLIEST = 0.4
"""Before this part of its life a process still imports."""

CONVERT = """
import json, sys
from floodem.volumes import convert
from floodem.volumes.conversion import block_plan
block_plan.BLOCK_BYTES = 2 * 16**3
block_plan.MEMORY_BYTES = 10**6
source, to, options = json.loads(sys.argv[1])
convert(source, to, threads=2, **options)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    array = np.random.default_rng(3).integers(0, 200, SHAPE).astype(np.uint8)
    path = tmp_path / "em.zarr"
    with create_volume(
        path, shape=SHAPE, dtype="uint8", voxel_size=VoxelSize(30, 6, 4), chunks=CHUNKS
    ) as new:
        new.write(new.box, array)
    return path


def start(source: Path, to: str, options: dict[str, Any]) -> subprocess.Popen:
    words = json.dumps([str(source), to, options])
    return subprocess.Popen(
        [sys.executable, "-c", CONVERT, words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def finish(source: Path, to: str, options: dict[str, Any]) -> float:
    """Convert in a process that nobody kills, and return how long it took."""
    began = time.monotonic()
    with start(source, to, options) as process:
        _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, err.decode()
    return time.monotonic() - began


def require_whole(to: str, record: Path) -> None:
    """Hold what is written so far against its receipts."""
    if (record / "conversion.json").exists() or (record / "running" / "receipts.txt").exists():
        found = verify(to)
        assert found.is_whole, found.damages[:3]


def kill_often(folder: Path, source: Path, case: Case, *, kills: int, levels: int) -> None:
    big = {"chunks": CHUNKS, "shards": (32, 32, 32)} if case.extra else {"chunks": CHUNKS}
    options: dict[str, Any] = big if options_for(case) else {}
    options |= {"pyramid": levels} if levels else {}
    whole, _ = uris(folder / "whole", case)
    whole_life_s = finish(source, whole, options)
    expected = contents(folder / "whole")
    moments = random.Random(str(case))
    to, record = uris(folder / "to", case)
    receipts = record / "running" / "receipts.txt"
    killed = resumed = 0
    while killed < kills:
        before = size(receipts)
        process = start(source, to, options)
        if killed % 2:
            time.sleep(whole_life_s * moments.uniform(EARLIEST, 1))
        else:
            while size(receipts) == before and process.poll() is None:
                time.sleep(0.001)
            time.sleep(whole_life_s * moments.uniform(0, 1 - EARLIEST) ** 2)
        is_over = process.poll() is not None
        process.kill()
        _, err = process.communicate(timeout=TIMEOUT_S)
        if is_over:
            assert process.returncode == 0, err.decode()
            assert contents(folder / "to") == expected
            shutil.rmtree(folder / "to")
            continue
        killed += 1
        require_whole(to, record)
        resumed += size(receipts) > 0
    finish(source, to, options)
    assert contents(folder / "to") == expected
    assert verify(to).is_whole
    assert kills < KILLS or resumed > kills // 4, "nearly all kills came before the first block"


@pytest.mark.parametrize(
    "case", [c for c in RESUMABLE if c.name in {"zarr", "precomputed-sharded", "png"}], ids=str
)
def test_a_conversion_killed_a_few_times_gives_the_same_bytes(
    tmp_path: Path, source: Path, case: Case
) -> None:
    kill_often(tmp_path, source, case, kills=FEW, levels=0)


@pytest.mark.slow
@pytest.mark.parametrize("case", RESUMABLE, ids=str)
def test_a_conversion_killed_fifty_times_gives_the_same_bytes(
    tmp_path: Path, source: Path, case: Case
) -> None:
    has_levels = case in CHUNKED and case.name not in {"zarr-inside", "ome-zarr-0.5"}
    kill_often(tmp_path, source, case, kills=KILLS, levels=2 if has_levels else 0)


@pytest.mark.slow
@pytest.mark.parametrize("case", RESUMABLE, ids=str)
def test_what_is_to_be_replaced_is_there_until_its_successor_is_complete(
    tmp_path: Path, source: Path, case: Case
) -> None:
    moments = random.Random(str(case))
    options = {"chunks": CHUNKS} if options_for(case) else {}
    with open_volume(source) as volume:
        new = volume.read()
    np.save(tmp_path / "old.npy", 255 - new)
    whole, _ = uris(tmp_path / "whole", case)
    whole_life_s = finish(source, whole, options)
    to, record = uris(tmp_path / "to", case)
    seen = set()
    for _ in range(KILLS):
        if not (record / "running" / "receipts.txt").exists():
            convert(
                tmp_path / "old.npy", to, voxel_size=VoxelSize(30, 6, 4), overwrite=True, **options
            )
            process = start(source, to, {**options, "overwrite": True})
        else:
            process = start(source, to, options)
        time.sleep(whole_life_s * moments.uniform(EARLIEST, 1.2))
        process.kill()
        process.communicate(timeout=TIMEOUT_S)
        with open_volume(to) as volume:
            found = volume.read()
        is_new = np.array_equal(found, new)
        assert is_new or np.array_equal(found, 255 - new)
        seen.add(is_new)
    assert seen == {True, False}
