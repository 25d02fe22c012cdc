"""An agglomeration that is killed again and again ends with the same edges."""

from __future__ import annotations

import sys

import pytest

from agglomeration_cases import edges_of, labels_of, write_inputs
from killing import finish, kill_often

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")


def command(inputs, graph, *more):
    return [
        *("agglomerate", inputs["segmentation"], inputs["image"], str(graph)),
        *("--model", str(inputs["model"]), "--device", "cpu"),
        *("--radius", "8,10,20", "--analysis-radius", "5,6,16", "--block", "11,20,24"),
        *("--apply", f"{graph}-merged.zarr", *more),
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    inputs = write_inputs(folder)
    finish(command(inputs, folder / "warm"))
    seconds = finish(command(inputs, folder / "whole"))
    return folder, inputs, seconds


@pytest.mark.parametrize(
    ("seed", "kills", "more"),
    [
        (0, 3, ()),
        pytest.param(1, 10, (), marks=pytest.mark.slow),
        pytest.param(2, 10, ("--workers", "2"), marks=pytest.mark.slow),
    ],
)
def test_kills_at_random_moments_end_in_the_same_edges(whole, seed, kills, more):
    folder, inputs, seconds = whole
    graph = folder / f"killed-{seed}"
    kill_often(command(inputs, graph, *more), seed=seed, kills=kills, longest_s=seconds)
    assert edges_of(graph) == edges_of(folder / "whole")
    merged = labels_of(folder / f"killed-{seed}-merged.zarr")
    assert (merged == labels_of(folder / "whole-merged.zarr")).all()
    assert not list(folder.glob(f".killed-{seed}*"))
