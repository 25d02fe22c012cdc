"""The final segmentation: cores become part of one volume, whatever format holds it."""

from __future__ import annotations

import numpy as np

from assembly_cases import PLAN, made, truth, write_all
from floodem.volumes import open_volume


def test_cores_of_all_blocks_are_the_segmentation(tmp_path):
    destination, store = made(tmp_path / "seg.zarr", levels=0)
    results = write_all(destination, store)
    with open_volume(destination.target) as labels:
        assert labels.box == PLAN.box
        np.testing.assert_array_equal(labels.read(), truth())
    assert sum(one["voxels"] for one in results) == PLAN.box.size
    assert sum(one["labelled"] for one in results) == np.count_nonzero(truth())


def test_a_core_that_is_written_again_is_the_same(tmp_path):
    destination, store = made(tmp_path / "seg.zarr", levels=0)
    assert write_all(destination, store) == write_all(destination, store)
