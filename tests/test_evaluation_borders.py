"""Borders of the truth left out as the CREMI challenge does, whole or block by block."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import distance_transform_edt

from floodem.errors import OptionError, RunConflictError
from floodem.evaluation import evaluate
from floodem.evaluation.borders import LEFT_OUT, near_borders
from floodem.geometry import Box, VoxelSize
from floodem.volumes.in_memory import ArrayVolume
from reference.cremi_border import left_out

SIZE = VoxelSize(40, 4, 4)
SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7)
FEW = st.integers(0, 2)
DISTANCES = st.sampled_from([1, 4, 5.6, 8, 8.95, 12, 25, 100])


@given(hnp.arrays(np.uint32, SHAPES, elements=FEW), DISTANCES)
@settings(deadline=None)
def test_the_mask_is_that_of_the_slow_twin(truth, distance_nm):
    wanted = left_out(truth, distance_nm=distance_nm, pixel_nm=4)
    assert np.array_equal(near_borders(truth, radius=distance_nm / 4), wanted)


def test_distances_compare_as_those_of_the_challenge_do():
    # Its distances are scipy's; each radius is one of them exactly.
    truth = np.zeros((1, 41, 41), np.uint8)
    truth[0, 20, 20] = 1
    border = near_borders(truth, radius=0.5)
    distances = distance_transform_edt(~border[0])
    for radius in np.unique(distances[distances > 0])[:200]:
        assert np.array_equal(near_borders(truth, radius=radius)[0], distances <= radius)


def test_sections_do_not_know_of_each_other():
    truth = np.stack([np.full((6, 6), label, np.uint8) for label in (1, 2)])
    assert not near_borders(truth, radius=3).any()


@given(
    hnp.arrays(np.uint64, (3, 6, 7), elements=FEW),
    hnp.arrays(np.uint64, (3, 6, 7), elements=FEW),
    DISTANCES,
    st.integers(4, 60),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_blocks_and_boxes_see_the_borders_of_the_whole_truth(
    labels, truth, distance_nm, block_voxels, is_cut
):
    box = Box((0, 1, 2), (3, 5, 6)) if is_cut else Box((0, 0, 0), (3, 6, 7))
    inside = box.slices()
    is_counted = ~left_out(truth, distance_nm=distance_nm, pixel_nm=4)[inside]
    assume((truth[inside][is_counted] != 0).any())
    found = evaluate(
        ArrayVolume(labels, voxel_size=SIZE, chunks=(2, 3, 3)),
        ArrayVolume(truth, voxel_size=SIZE, chunks=(2, 3, 3)),
        box=box,
        cremi_border_nm=distance_nm,
        block_voxels=block_voxels,
    )
    wanted = evaluate(labels[inside], np.where(is_counted, truth[inside], 0), worst=0)
    assert found.all_truth == wanted.all_truth
    assert found.where_both_label == wanted.where_both_label
    for mistake in (*found.worst_splits, *found.worst_mergers):
        for part in mistake.largest:
            place = tuple(np.array(part.position) - box.start)
            assert is_counted[place]


def test_background_counts_only_where_it_is_asked_for():
    truth = np.repeat(np.uint64([[[0, 0, 0, 7, 7, 7, LEFT_OUT]]]), 3, axis=1)
    labels = np.ones_like(truth)
    for ignore, voxels in (((0,), 3), ((), 9)):
        found = evaluate(
            labels, truth, ignore=ignore, cremi_border_nm=0.5, voxel_size=VoxelSize(1, 1, 1)
        )
        # Both columns at each border are of it: 2 and 3, 5 and 6.
        assert found.all_truth.voxels == voxels
    assert json.loads(found.to_json())["cremi_border_nm"] == 0.5


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(2)
    uris = []
    for name in ("seg", "truth"):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            labels = np.kron(rng.integers(0, 4, (3, 3, 3)), np.ones((2, 6, 6), np.int64))
            file.create_dataset("labels", data=labels.astype(np.uint64), chunks=(2, 5, 5))
        uris.append(f"{tmp_path}/{name}.h5@labels")
    return uris


def test_tasks_leave_out_the_same(files):
    how = {"cremi_border_nm": 9, "voxel_size": SIZE, "worst": 3}
    whole = evaluate(*files, **how)
    with tempfile.TemporaryDirectory() as folder:
        cut = evaluate(*files, **how, block_voxels=60, work=Path(folder) / "work")
        with pytest.raises(RunConflictError, match="made from other data or with other options"):
            evaluate(*files, worst=3, block_voxels=60, work=Path(folder) / "work")
    assert cut == whole
    assert whole.all_truth.voxels < evaluate(*files).all_truth.voxels


def test_a_border_that_is_none_is_refused(files):
    for distance in (0, -1, float("nan"), float("inf")):
        with pytest.raises(OptionError, match=r"a border of .* nm is none"):
            evaluate(*files, cremi_border_nm=distance, voxel_size=SIZE)
    with pytest.raises(OptionError, match="neither volume states its voxel size"):
        evaluate(*files, cremi_border_nm=25)
    with pytest.raises(OptionError, match="not square in a section"):
        evaluate(*files, cremi_border_nm=25, voxel_size=VoxelSize(40, 4, 5))
