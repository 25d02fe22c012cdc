"""The demo shows neurons without data, with a network that comes along."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import floodem
from floodem.cli.demo import (
    DISCO_SEED_THRESHOLD,
    MIN_SEGMENT_SIZE,
    PRESET,
    SEGMENT_THRESHOLD,
    TRAINED_SEEDS,
)
from floodem.errors import ModelError, VolumeNotFoundError
from floodem.flooding.options import FloodOptions
from floodem.network.model_file import load_model
from floodem.network.shipped import SHIPPED, shipped_model
from floodem.volumes.synthetic import SyntheticOptions, synthesize

MOST_BYTES = 2 * 10**6
SMALL = (64, 72, 72)


def run_demo(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "floodem", "demo", "out", "--no-view", *arguments],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_network_is_small_and_says_what_it_was_trained_on(name):
    assert len(shipped_model(name)) <= MOST_BYTES
    description = load_model(name).description
    assert "synthetic" in description.source
    assert description.licence == "Apache-2.0"
    assert description.voxel_size == SyntheticOptions.preset(PRESET).voxel_size
    assert description.training["step"] > 0


def test_a_file_goes_before_a_shipped_network_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load_model("synthetic")
    Path("synthetic").write_bytes(b"no model")
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        load_model("synthetic")


def test_shipped_networks_are_named_where_a_file_is_missing(tmp_path):
    with pytest.raises(VolumeNotFoundError, match="one that floodem ships \\(synthetic\\)"):
        load_model(tmp_path / "synthetic")


def test_the_demo_prints_its_commands_and_a_score_and_ends(tmp_path):
    done = run_demo(tmp_path, "--shape", "64,72,72")
    assert done.returncode == 0, done.stderr
    commands = re.findall(r"^\$ floodem (\w+)", done.stdout, re.MULTILINE)
    assert commands == ["synthetic", "segment", "evaluate"]
    flooding = re.search(r"^\$ (floodem segment .*)$", done.stdout, re.MULTILINE)
    assert flooding is not None
    words = shlex.split(flooding[1])
    assert words[words.index("--model") + 1] == "synthetic"
    assert "[" not in flooding[1]
    assert "all truth" in done.stdout
    assert "to see it: floodem view" in done.stdout
    run = json.loads((tmp_path / "out" / "labels-2026-auto.zarr.floodem" / "run.json").read_text())
    assert run["summary"]["segments"] > 0


def test_the_demo_again_makes_nothing_anew(tmp_path):
    first = run_demo(tmp_path, "--shape", "64,64,64")
    again = run_demo(tmp_path, "--shape", "64,64,64")
    assert first.returncode == again.returncode == 0, again.stderr
    assert first.stdout.splitlines()[-5:] == again.stdout.splitlines()[-5:]


def test_the_demo_refuses_too_small_tissue_in_one_sentence(tmp_path):
    done = run_demo(tmp_path, "--shape", "16,16,16")
    assert done.returncode == 2
    assert done.stderr.startswith("error: shape 16,16,16 (z,y,x)")
    assert len(done.stderr.splitlines()) == 1


def test_the_shipped_network_fills_unseen_tissue_without_mergers(tmp_path):
    options = SyntheticOptions.preset(PRESET, seed=TRAINED_SEEDS + 77, shape=SMALL)
    tissue = synthesize(options)
    image = tmp_path / "tissue.npy"
    np.save(image, tissue.image)
    flood = FloodOptions(
        min_segment_size=MIN_SEGMENT_SIZE,
        segment_threshold=SEGMENT_THRESHOLD,
        disco_seed_threshold=DISCO_SEED_THRESHOLD,
    )
    request = floodem.SegmentRequest(options=flood)
    floodem.segment(image, tmp_path / "labels.npy", model="synthetic", request=request)
    scores = floodem.evaluate(np.load(tmp_path / "labels.npy"), tissue.labels, border=(16, 16, 16))
    assert scores.all_truth.adapted_rand_error <= 0.05
    assert scores.where_both_label.adapted_rand_error <= 0.02
