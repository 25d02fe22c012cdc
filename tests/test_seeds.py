"""Seed policies: what the golden results need, what slow twins give, what cannot be."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.feature import peak_local_max
from skimage.morphology import disk

from floodem.errors import DependencyError, GeometryError, OptionError
from floodem.flooding.seeds import (
    SeedContext,
    SeedPolicySpec,
    make_policy,
    policy_names,
    seed_policy,
    seed_positions,
)
from floodem.flooding.seeds.edges import distance_to, image_edges
from floodem.flooding.seeds.maxima import local_maxima, noisy_maxima
from reference import seeds as twin

# Mean, standard deviation and half a field of view (z,y,x) of the two golden crops.
GOLDEN = {"fib25": (128, 33, (16, 16, 16)), "snemi3d": (131, 62, (8, 16, 16))}


def context(image, *, segmentation=None, excluded=None, margin=(0, 0, 0), **more):
    return SeedContext(
        image=np.asarray(image, dtype=np.float32),
        segmentation=np.zeros(image.shape, np.uint32) if segmentation is None else segmentation,
        excluded=excluded,
        margin=margin,
        corner=more.pop("corner", (0, 0, 0)),
        **more,
    )


def seeds(name, where, **args):
    return [tuple(row) for row in seed_positions(SeedPolicySpec(name, args), where).tolist()]


def smooth(shape, *, seed=0):
    """An image with a few large bright and dark places, like cells and membranes."""
    coarse = np.random.default_rng(seed).normal(size=[-(-n // 4) for n in shape])
    fine = np.kron(coarse, np.ones((4, 4, 4)))[tuple(slice(0, n) for n in shape)]
    return (fine + 0.1 * np.random.default_rng(seed + 1).normal(size=shape)).astype(np.float32)


@st.composite
def blocks(draw):
    """A small block with a few segments and masks; grey levels may tie."""
    shape = tuple(draw(st.integers(1, 14)) for _ in range(3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([2, 5, 1000]))
    image = (rng.integers(0, levels, shape) / levels - 0.5).astype(np.float32)
    segmentation = ((rng.random(shape) < 0.1) * rng.integers(1, 4, shape)).astype(np.uint32)
    excluded = rng.random(shape) < 0.1 if draw(st.booleans()) else None
    return context(image, segmentation=segmentation, excluded=excluded)


@pytest.mark.parametrize("crop", GOLDEN)
def test_peaks_are_the_seeds_that_the_golden_results_were_grown_from(shared_data, crop):
    mean, stddev, margin = GOLDEN[crop]
    with h5py.File(shared_data / "golden" / f"{crop}-image.h5") as file:
        raw = file["raw"][:]
    golden = json.loads((shared_data / "golden" / f"{crop}-origins.json").read_text("utf-8"))
    image = (raw.astype(np.float32) - np.float32(mean)) / np.float32(stddev)
    found = seeds("PolicyPeaks", context(image, margin=margin))
    assert len(found) == golden["counters"]["seed-policy-calls"] - 1
    origins = [tuple(origin["start_zyx"]) for origin in golden["origins"].values()]
    indices = [found.index(origin) for origin in origins]
    assert indices == sorted(indices)
    assert found == sorted(found)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=3),
    st.integers(1, 4),
    st.sampled_from([None, 0.0, 0.4]),
    st.sampled_from([None, 0.0, 0.5]),
    st.sampled_from([1, 2, 4, 1000]),
    st.integers(0, 2**32 - 1),
)
def test_local_maxima_equal_those_of_scikit_image(
    shape, distance, threshold_abs, threshold_rel, levels, seed
):
    heights = np.random.default_rng(seed).integers(0, levels, shape) / levels
    options = {
        "min_distance": distance,
        "threshold_abs": threshold_abs,
        "threshold_rel": threshold_rel,
    }
    expected = peak_local_max(heights, **options)
    np.testing.assert_array_equal(local_maxima(heights, **options), expected)


@settings(deadline=None, max_examples=100)
@given(
    st.tuples(st.integers(1, 25), st.integers(1, 25)),
    st.integers(1, 5),
    st.integers(1, 3),
    st.sampled_from([3, 20, 1000]),
    st.integers(0, 2**32 - 1),
)
def test_local_maxima_over_a_disk_equal_those_of_scikit_image(
    shape, distance, radius, levels, seed
):
    heights = np.random.default_rng(seed).integers(0, levels, shape) / levels
    expected = peak_local_max(
        heights, min_distance=distance, threshold_rel=0.5, footprint=disk(radius), p_norm=2
    )
    found = local_maxima(heights, min_distance=distance, threshold_rel=0.5, disk_radius=radius)
    np.testing.assert_array_equal(found, expected)


def test_many_local_maxima_are_thinned_as_scikit_image_does_in_batches():
    heights = np.random.default_rng(3).integers(0, 4, (40, 60, 60)).astype(np.float64)
    expected = peak_local_max(heights, min_distance=2)
    assert len(expected) > 500
    np.testing.assert_array_equal(local_maxima(heights, min_distance=2), expected)


def test_an_array_without_any_difference_has_no_peaks():
    assert len(local_maxima(np.ones((9, 9, 9)), min_distance=2, threshold_abs=0.0)) == 0


def test_noise_is_the_same_whatever_the_global_random_state():
    heights = np.zeros((12, 12, 12), dtype=np.float32)
    first = noisy_maxima(heights, min_distance=2, threshold_abs=0.0)
    np.random.seed(7)  # noqa: NPY002 - the global state is what must not matter
    np.testing.assert_array_equal(first, noisy_maxima(heights, min_distance=2, threshold_abs=0.0))
    assert len(first) > 0


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(*[st.integers(1, 8)] * 3),
    st.sampled_from([(1, 1, 1), (5, 1, 1), (1.5, 1, 2)]),
    st.integers(0, 2**32 - 1),
)
def test_distances_equal_those_found_by_looking_at_every_target(shape, edge_lengths, seed):
    targets = np.random.default_rng(seed).random(shape) < 0.1
    found = distance_to(targets, anisotropy=edge_lengths)
    expected = twin.distance(targets, edge_lengths)
    if edge_lengths == (1, 1, 1):
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@settings(deadline=None, max_examples=25)
@given(blocks(), st.sampled_from([(1.0, 1.0, 1.0), (2.0, 1.0, 1.0)]))
def test_peaks_equal_their_slow_twin(block, anisotropy):
    where = context(
        block.image,
        segmentation=block.segmentation,
        excluded=block.excluded,
        seed_anisotropy=anisotropy,
    )
    expected = twin.peaks(block.image, block.segmentation, block.excluded, anisotropy)
    assert seeds("PolicyPeaks", where) == expected


@settings(deadline=None, max_examples=15)
@given(blocks(), st.booleans())
def test_section_peaks_equal_their_slow_twin(block, descending):
    found = seeds(
        "PolicyPeaks2d",
        block,
        min_distance=2,
        threshold_abs=0.5,
        sort_cmp="descending" if descending else "ascending",
    )
    assert found == twin.peaks_2d(
        block.image, block.excluded, min_distance=2, threshold_abs=0.5, descending=descending
    )


@settings(deadline=None, max_examples=25)
@given(blocks())
def test_empty_space_and_intensity_policies_equal_their_slow_twins(block):
    image, segmentation = block.image, block.segmentation
    assert seeds("PolicyFillEmptySpace", block) == twin.fill_empty_space(segmentation)
    assert seeds("PolicyMax", block) == twin.brightest_first(image)
    assert seeds("PolicyMaxPeaks", block) == twin.max_peaks(image, segmentation, block.excluded)
    assert seeds("PolicyImagePeaks3D2D", block) == twin.image_peaks_3d_2d(image)
    assert seeds("PolicyImagePeaks2DDisk", block) == twin.image_peaks_2d_disk(image)


@settings(deadline=None, max_examples=25)
@given(blocks(), st.sampled_from([-0.2, 0.0, 0.5]), st.integers(0, 2), st.booleans())
def test_dense_seeds_equal_their_slow_twin(block, threshold, erosions, invert):
    args = {"threshold": threshold, "num_erosions": erosions, "invert": invert}
    assert seeds("PolicyDenseSeeds", block, **args) == twin.dense_seeds(block.image, **args)


@settings(deadline=None, max_examples=30)
@given(
    st.tuples(st.integers(1, 8), st.integers(1, 20), st.integers(1, 20)),
    st.integers(1, 20),
    st.lists(st.integers(0, 20), max_size=4),
)
def test_grids_equal_their_slow_twins(shape, step, offsets):
    where = context(np.zeros(shape))
    assert seeds("PolicyGrid3d", where) == twin.grid_3d(shape)
    assert seeds("PolicyGrid2d", where) == twin.grid_2d(shape)
    args = {"step": step, "offsets": offsets}
    assert seeds("PolicyGrid3d", where, **args) == twin.grid_3d(shape, **args)
    assert seeds("PolicyGrid2d", where, **args) == twin.grid_2d(shape, **args)


SELF_CONTAINED = [
    ("PolicyPeaks", {}),
    ("PolicyPeaks2d", {"min_distance": 2, "threshold_abs": 0.5}),
    ("PolicyFillEmptySpace", {}),
    ("PolicyMax", {}),
    ("PolicyMaxPeaks", {}),
    ("PolicyImagePeaks3D2D", {}),
    ("PolicyImagePeaks2DDisk", {}),
    ("PolicyGrid3d", {"step": 3}),
    ("PolicyGrid2d", {"step": 3}),
    ("PolicyDenseSeeds", {"threshold": 0.0}),
    ("ReverseCoords", {"policy_to_reverse": "PolicyMax"}),
    ("SequentialPolicies", {"policies": [["PolicyMax", {}], ["PolicyGrid3d", {"step": 2}]]}),
]


@settings(deadline=None, max_examples=20)
@given(blocks(), st.tuples(*[st.integers(0, 8)] * 3))
def test_a_margin_drops_exactly_the_seeds_whose_field_of_view_would_leave_the_block(block, margin):
    tight = context(
        block.image, segmentation=block.segmentation, excluded=block.excluded, margin=margin
    )
    for name, args in SELF_CONTAINED:
        expected = twin.inside(seeds(name, block, **args), block.shape, margin)
        assert seeds(name, tight, **args) == expected, name


@pytest.mark.parametrize(("name", "args"), SELF_CONTAINED)
def test_the_same_block_gives_the_same_seeds_in_the_same_order(name, args):
    image = smooth((24, 24, 24))
    segmentation = np.zeros(image.shape, np.uint32)
    segmentation[[0, -1]] = 1
    where = context(image, segmentation=segmentation, margin=(1, 2, 3))
    found = seed_positions(SeedPolicySpec(name, args), where)
    assert len(found) > 0
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, seed_positions(SeedPolicySpec(name, args), where))


def test_policies_leave_the_block_as_it_was():
    image, segmentation = smooth((16, 16, 16)), np.zeros((16, 16, 16), np.uint32)
    segmentation[:2], excluded = 3, np.zeros(image.shape, bool)
    excluded[5] = True
    before = image.copy(), segmentation.copy(), excluded.copy()
    where = context(image, segmentation=segmentation, excluded=excluded)
    for array in (where.image, segmentation, excluded):
        array.setflags(write=False)
    for name, args in SELF_CONTAINED:
        seeds(name, where, **args)
    for array, old in zip((where.image, segmentation, excluded), before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_no_peak_lies_under_a_mask_or_in_a_segment():
    image = smooth((30, 30, 30))
    excluded = np.zeros(image.shape, bool)
    excluded[:, :12] = True
    segmentation = np.zeros(image.shape, np.uint32)
    segmentation[:, :, 20:] = 5
    found = seeds("PolicyPeaks", context(image, segmentation=segmentation, excluded=excluded))
    assert found
    assert all(y >= 12 and x < 20 for _, y, x in found)


def test_an_image_without_edges_or_wholly_masked_gives_no_seeds():
    flat = np.zeros((12, 12, 12))
    assert seeds("PolicyPeaks", context(flat)) == []
    assert seeds("PolicyPeaks2d", context(flat)) == []
    masked = np.ones(flat.shape, bool)
    assert seeds("PolicyPeaks", context(smooth(flat.shape), excluded=masked)) == []


def test_a_flat_part_of_an_image_holds_no_edges():
    image = np.zeros((60, 4, 4), dtype=np.float32)
    image[:2] = 1.0
    edges = image_edges(image)
    assert edges[1:3].all()
    assert not edges[50:].any()


def test_empty_space_without_any_segment_gives_no_seeds():
    assert seeds("PolicyFillEmptySpace", context(smooth((12, 12, 12)))) == []


def test_seed_anisotropy_changes_which_voxels_are_farthest_from_edges():
    image = smooth((30, 30, 30))
    stretched = context(image, seed_anisotropy=(5.0, 1.0, 1.0))
    assert seeds("PolicyPeaks", context(image)) != seeds("PolicyPeaks", stretched)


def test_reversed_seeds_are_the_others_backwards():
    where = context(smooth((20, 20, 20)), margin=(3, 3, 3))
    forward = seeds("PolicyGrid3d", where, step=5)
    backward = seeds("ReverseCoords", where, policy_to_reverse="PolicyGrid3d", step=5)
    assert backward == forward[::-1]


def test_sequential_policies_follow_one_another():
    where = context(smooth((20, 20, 20)))
    both = seeds(
        "SequentialPolicies", where, policies=[["PolicyPeaks", {}], ["PolicyGrid3d", {"step": 9}]]
    )
    assert both == seeds("PolicyPeaks", where) + seeds("PolicyGrid3d", where, step=9)
    assert seeds("SequentialPolicies", where, policies=[]) == []


def test_every_policy_of_the_reference_is_known():
    assert set(policy_names()) >= {name for name, _ in SELF_CONTAINED} | {
        "PolicyInvertOrigins",
        "PolicyInverseOrigins",
        "ExplicitSeeds",
    }


@pytest.mark.parametrize(
    ("name", "args", "says"),
    [
        ("Peaks", {}, "did you mean PolicyPeaks"),
        ("policypeaks2D", {}, "did you mean PolicyPeaks2d"),
        ("os.system", {}, "choose one of ExplicitSeeds"),
        ("PolicyGrid3d", {"stepp": 3}, "did you mean step?"),
        ("PolicyPeaks", {"step": 3}, "takes none"),
        ("PolicyGrid3d", {"step": 0}, "PolicyGrid3d step is 0"),
        ("PolicyGrid3d", {"step": True}, "whole number"),
        ("PolicyGrid3d", {"offsets": [1, -1]}, "at least 0"),
        ("PolicyGrid2d", {"offsets": "012"}, "list"),
        ("PolicyPeaks2d", {"threshold_abs": float("nan")}, "finite"),
        ("PolicyPeaks2d", {"sort_cmp": "up"}, "ascending or descending"),
        ("PolicyDenseSeeds", {"invert": 1}, "true or false"),
        ("PolicyImagePeaks3D2D", {"min_distance_2d": "2"}, "whole number"),
        ("ReverseCoords", {}, "policy_to_reverse"),
        ("ReverseCoords", {"policy_to_reverse": "PolicyGrid3d", "stepp": 1}, "did you mean step?"),
        ("ReverseCoords", {"policy_to_reverse": 3}, "name a policy"),
        ("SequentialPolicies", {"policies": "PolicyPeaks"}, "list of pairs"),
        ("SequentialPolicies", {"policies": [["PolicyPeaks"]]}, "name a policy"),
    ],
)
def test_an_impossible_policy_is_refused_with_what_is_possible(name, args, says):
    with pytest.raises(OptionError) as refused:
        make_policy(SeedPolicySpec(name, args))
    assert says in str(refused.value)


def test_a_policy_of_ones_own_is_found_by_its_name():
    @seed_policy("PolicyCentreOfTest")
    def centre():
        return lambda block: np.array([[length // 2 for length in block.shape]])

    assert seeds("PolicyCentreOfTest", context(np.zeros((5, 7, 9)))) == [(2, 3, 4)]
    with pytest.raises(ValueError, match="registered already"):
        seed_policy("PolicyCentreOfTest")(lambda: None)


def test_a_policy_of_another_package_is_found_by_its_entry_point(monkeypatch):
    points = [
        EntryPoint("PolicyElsewhere", "floodem.flooding.seeds.grid:PolicyGrid3d", "any"),
        EntryPoint("PolicyGone", "floodem_no_such_package:Policy", "any"),
    ]
    monkeypatch.setattr(
        "floodem.flooding.seeds.registry.entry_points",
        lambda *, group, name=None: [p for p in points if name in {None, p.name}],
    )
    where = context(np.zeros((5, 5, 5)))
    assert seeds("PolicyElsewhere", where, step=4) == seeds("PolicyGrid3d", where, step=4)
    assert {"PolicyElsewhere", "PolicyGone"} <= set(policy_names())
    with pytest.raises(DependencyError, match="floodem_no_such_package"):
        make_policy(SeedPolicySpec("PolicyGone"))


def test_a_policy_that_returns_something_else_is_named():
    seed_policy("PolicyBrokenOfTest")(lambda: lambda block: np.zeros((4, 2)))
    with pytest.raises(OptionError, match=r"PolicyBrokenOfTest gave float64 of shape \(4, 2\)"):
        seeds("PolicyBrokenOfTest", context(np.zeros((5, 5, 5))))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"margin": (-1, 0, 0)}, "negative"),
        ({"seed_anisotropy": (0.0, 1.0, 1.0)}, "not positive"),
    ],
)
def test_an_impossible_block_is_refused(changes, says):
    with pytest.raises(GeometryError, match=says):
        context(np.zeros((3, 3, 3)), **changes)
