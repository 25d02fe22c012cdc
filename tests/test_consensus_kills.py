"""A consensus that is killed again and again ends with the same voxels."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from consensus_cases import blobs, read, store
from killing import finish, kill_often

SHAPE = (20, 24, 28)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")


def command(folder, destination, *more):
    return [
        *("consensus", str(folder / "a.zarr"), str(folder / "b.zarr"), str(destination)),
        *("--block", "10,12,14", "--split-min-size", "3", *more),
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    for seed, name in enumerate("ab"):
        store(folder / f"{name}.zarr", blobs(SHAPE, seed=seed))
    finish(command(folder, folder / "warm.zarr", "--workers", "1"))
    seconds = finish(command(folder, folder / "whole.zarr", "--workers", "1"))
    return folder, seconds


@pytest.mark.parametrize(
    ("seed", "kills", "workers"),
    [
        (0, 3, 1),
        pytest.param(1, 10, 1, marks=pytest.mark.slow),
        pytest.param(2, 10, 2, marks=pytest.mark.slow),
    ],
)
def test_kills_at_random_moments_end_in_the_same_voxels(whole, seed, kills, workers):
    folder, seconds = whole
    killed = folder / f"killed-{seed}.zarr"
    line = command(folder, killed, "--workers", str(workers))
    kill_often(line, seed=seed, kills=kills, longest_s=seconds)
    np.testing.assert_array_equal(read(killed), read(folder / "whole.zarr"))


def test_what_a_killed_run_left_beside_its_destination_is_removed(whole):
    folder, _ = whole
    left, of_another = folder / ".left.zarr.123-1.partial", folder / ".left.zarr.zarr.123-1.partial"
    for one in (left, of_another):
        one.mkdir()
    finish(command(folder, folder / "left.zarr", "--workers", "1"))
    assert not left.exists()
    assert of_another.exists()
