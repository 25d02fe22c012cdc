"""A project that is killed again and again ends with the results of one that was not."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from project_cases import command, results, write_data, write_project
from train_runs import tiny_values, write_volume

TIMEOUT_S = 300
SHAPE = (37, 40, 64)
BOX = "100:137,200:240,300:364"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")


def run_undisturbed(path: Path) -> float:
    """Run a project in a process of its own; return how long it took."""
    began = time.monotonic()
    whole = subprocess.run(command(path), capture_output=True, timeout=TIMEOUT_S, check=False)
    assert whole.returncode == 0, whole.stderr.decode()
    return time.monotonic() - began


def kill_often(path: Path, moments: random.Random, *, kills: int, longest_s: float) -> None:
    """Start a run again and again and kill all its processes; let the last one end.

    Lives are drawn from half a second, while modules are loaded, to `longest_s`. A run that
    ends before its kill begins again from nothing, so that every kill is one.
    """
    killed = 0
    while killed < kills:
        with subprocess.Popen(
            command(path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        ) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moments.uniform(0.5, longest_s))
            if process.poll() is not None:
                assert process.stderr is not None
                assert process.returncode == 0, process.stderr.read().decode()
                shutil.rmtree(path.with_suffix(""))
                longest_s /= 2
                continue
            os.killpg(process.pid, signal.SIGKILL)
        killed += 1
    run_undisturbed(path)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    write_data(folder)
    seconds = run_undisturbed(write_project(folder, "whole.toml"))
    return folder, results(folder / "whole"), seconds


def test_three_kills_change_no_result(expected):
    folder, wanted, seconds = expected
    path = write_project(folder, "killed.toml")
    kill_often(path, random.Random(1), kills=3, longest_s=seconds / 2)
    assert results(folder / "killed") == wanted


@pytest.mark.parametrize(
    "stage",
    [
        "segment",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("agglomerate", "merge", "evaluate", "mesh", "scene")
        ),
    ],
)
def test_a_kill_as_soon_as_a_stage_is_begun_changes_no_result(expected, stage):
    folder, wanted, _ = expected
    path = write_project(folder, f"at-{stage}.toml")
    record = folder / f"at-{stage}" / "stages" / f"{stage}.json"
    process = subprocess.Popen(
        command(path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + TIMEOUT_S
    while not record.exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(TIMEOUT_S)
    run_undisturbed(path)
    assert results(folder / f"at-{stage}") == wanted


def test_a_kill_amid_changed_options_ends_with_the_new_results(expected):
    folder, _, seconds = expected
    changes = {"segment": {"segment_threshold": 0.99}, "mesh": {"error": 20.0}}
    run_undisturbed(write_project(folder, "fresh.toml", **changes))
    path = write_project(folder, "changed.toml")
    run_undisturbed(path)
    write_project(folder, "changed.toml", **changes)
    kill_often(path, random.Random(3), kills=2, longest_s=seconds * 0.7)
    assert results(folder / "changed") == results(folder / "fresh")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_ten_kills_change_no_result(tmp_path, seed):
    write_data(tmp_path, shape=SHAPE)
    large = {
        "image": {"box": BOX},
        "segment": {
            "block": [20, 20, 32],
            "halo": [10, 10, 12],
            "min_shared": 1,
            "checkpoint_seconds": 0.2,
            "consensus": "reverse-seeds",
            "split_min_size": 20,
        },
        "cluster": {"workers": 1 + seed % 2},
        "evaluate": {"report": True},
    }
    seconds = run_undisturbed(write_project(tmp_path, "whole.toml", **large))
    path = write_project(tmp_path, "killed.toml", **large)
    kill_often(path, random.Random(seed), kills=10, longest_s=seconds / 2)
    assert results(tmp_path / "killed") == results(tmp_path / "whole")


@pytest.mark.slow
def test_ten_kills_of_a_project_that_trains_change_no_result(tmp_path):
    write_volume(tmp_path)
    values = tiny_values(tmp_path, max_steps=60)
    train = [f"{key} = {values[key]}" for key in ("batch_size", "max_steps", "log_steps")]
    text = "\n".join(
        [
            *("version = 1", "[image]", 'source = "image0.npy"', "voxel_size = [30, 6, 6]"),
            *("[labels]", 'source = "labels0.npy"', "voxel_size = [30, 6, 6]"),
            *("[train]", *train, 'device = "cpu"', "threads = 1", "checkpoint_minutes = 0.005"),
            *("[train.network]", "arguments = { depth = 2, features = 4 }"),
            *("fov = [5, 7, 7]", "deltas = [1, 2, 2]"),
            *("[train.sampling]", "min_size = 10", "lom_radius = [3, 3, 3]"),
            *("[train.optimiser]", "learning_rate = 0.01"),
            *("[segment]", "min_segment_size = 20", "max_calls = 5", 'device = "cpu"'),
            *("[evaluate]", "report = false", "[mesh]", "[cluster]", "workers = 1"),
        ]
    )
    for name in ("whole.toml", "killed.toml"):
        (tmp_path / name).write_text(f"{text}\n", encoding="utf-8")
    seconds = run_undisturbed(tmp_path / "whole.toml")
    path = tmp_path / "killed.toml"
    kill_often(path, random.Random(7), kills=10, longest_s=seconds / 2)
    wanted = results(tmp_path / "whole")
    assert {"model.safetensors", "labels.zarr", "scores.json", "meshes"} <= set(wanted)
    assert results(tmp_path / "killed") == wanted
