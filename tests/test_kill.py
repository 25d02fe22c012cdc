"""A process killed at any moment loses nothing that the next one cannot find again."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bright import bright_model, bright_tubes
from floodem.flooding.request import SegmentRequest
from floodem.flooding.segment import segment
from floodem.network.model_file import save_model
from floodem.volumes import open_volume

KILLS = 20
SHAPE = (63, 148, 220)
LONGEST_LIFE_S = 4.0
TIMEOUT_S = 120


def command(folder: Path, destination: str) -> list[str]:
    return [
        *(sys.executable, "-m", "floodem", "segment"),
        *(str(folder / "em.npy"), destination),
        *("--model", str(folder / "m.safetensors"), "--device", "cpu"),
        *("--checkpoint-seconds", "0.02"),
    ]


def results(destination: str, folder: Path) -> dict:
    origins = json.loads((folder / "origins.json").read_text())["origins"]
    summary = json.loads((folder / "run.json").read_text())["summary"]
    with open_volume(destination) as volume:
        labels = volume.read()
    return {
        "labels": labels,
        "origins": {
            label: (origin["start_zyx"], origin["iters"], origin["voxels"])
            for label, origin in origins.items()
        },
        "overlaps": json.loads((folder / "overlaps.json").read_text()),
        "seeds": (folder / "seeds.csv").read_text(),
        "counters": summary["counters"],
    }


def is_writing(folder: Path, destination: Path) -> bool:
    """Tell whether a temporary file of the run, or of its result, is there now."""
    around = [*folder.parent.iterdir(), *(folder.iterdir() if folder.exists() else ())]
    return any("partial" in path.name for path in around if path.name != destination.name)


@pytest.mark.parametrize("name", ["seg.zarr", "seg.h5@labels"])
def test_a_run_killed_twenty_times_gives_the_same_result(tmp_path, name):
    np.save(tmp_path / "em.npy", bright_tubes(SHAPE)[0])
    save_model(bright_model(), tmp_path / "m.safetensors")
    whole = segment(
        tmp_path / "em.npy",
        tmp_path / "whole.zarr",
        model=tmp_path / "m.safetensors",
        request=SegmentRequest(device="cpu"),
    )
    destination = str(tmp_path / name)
    folder = tmp_path / f"{name}.floodem"
    moments = random.Random(name)
    killed = while_writing = 0
    while killed < KILLS:
        process = subprocess.Popen(
            command(tmp_path, destination), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        waits_for_write = killed % 2
        deadline = time.monotonic() + moments.uniform(0.5, LONGEST_LIFE_S)
        if waits_for_write:
            deadline += LONGEST_LIFE_S
        while process.poll() is None and time.monotonic() < deadline:
            if waits_for_write and is_writing(folder, Path(destination)):
                while_writing += 1
                break
            time.sleep(0.001)
        process.kill()
        output = process.communicate(timeout=TIMEOUT_S)
        if process.returncode == 0:
            break
        assert process.returncode != 1, output[1].decode()
        killed += 1
    last = subprocess.run(
        command(tmp_path, destination), capture_output=True, timeout=TIMEOUT_S, check=False
    )
    assert last.returncode == 0, last.stderr.decode()
    assert killed == KILLS, f"the run was over after {killed} kills: make it longer"
    assert while_writing > 0
    again, expected = results(destination, folder), results(whole.uri, whole.folder)
    np.testing.assert_array_equal(again.pop("labels"), expected.pop("labels"))
    assert again == expected
