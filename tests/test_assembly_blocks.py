"""How a volume is cut: cores partition it, halos overlap with neighbours and nobody else."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floodem.assembly.blocks import BlockPlan
from floodem.assembly.proposals import default_halo, propose_plan
from floodem.errors import GeometryError, ResourceError
from floodem.geometry import Box

FOV = (33, 33, 33)
MOST_BLOCKS_ALONG = 4
triples = st.tuples(*[st.integers(1, 12)] * 3)
starts = st.tuples(*[st.integers(-50, 50)] * 3)


@st.composite
def plans(draw):
    core = draw(triples)
    shape = tuple(draw(st.integers(1, MOST_BLOCKS_ALONG * edge)) for edge in core)
    margin = tuple(draw(st.integers(0, edge // 2)) for edge in core)
    return BlockPlan(
        box=Box.from_shape(shape, start=draw(starts)),
        core=core,
        margin=margin,
        least=tuple(draw(st.integers(1, 2 * edge)) for edge in core),
    )


@settings(deadline=None)
@given(plans())
def test_cores_partition_the_box(plan):
    seen = np.zeros(plan.box.shape, np.uint8)
    for block in plan:
        seen[block.core.slices(origin=plan.box.start)] += 1
        assert plan.box.contains(block.halo)
        assert block.halo.contains(block.core)
    assert (seen == 1).all()


@settings(deadline=None)
@given(plans())
def test_blocks_are_found_by_number_and_by_place(plan):
    blocks = list(plan)
    assert len(blocks) == len(plan) == math.prod(plan.grid)
    assert [block.index for block in blocks] == list(range(len(plan)))
    assert blocks == [plan.at(block.place) for block in blocks]
    assert len({block.key for block in blocks}) == len(blocks)
    assert sorted(blocks, key=lambda block: block.key) == blocks


@settings(deadline=None)
@given(plans())
def test_halos_overlap_with_neighbours_only_and_each_pair_comes_once(plan):
    pairs = {
        frozenset((block.index, other.index)) for block in plan for other in plan.neighbours(block)
    }
    assert sum(1 for block in plan for _ in plan.neighbours(block)) == len(pairs)
    for one, other in itertools.combinations(plan, 2):
        if one.halo.intersection(other.halo) is not None:
            assert frozenset((one.index, other.index)) in pairs


@settings(deadline=None)
@given(plans())
def test_no_core_is_thinner_than_the_least_unless_the_box_or_the_block_is(plan):
    for block in plan:
        for axis, least in enumerate(plan.least):
            thinnest = min(least, plan.box.shape[axis], plan.core[axis])
            assert block.core.shape[axis] >= thinnest


@settings(deadline=None)
@given(plans())
def test_the_largest_halo_is_the_largest(plan):
    shapes = [block.halo.shape for block in plan]
    assert plan.largest_halo == tuple(max(edges) for edges in zip(*shapes, strict=True))


@settings(deadline=None)
@given(plans())
def test_a_plan_survives_json(plan):
    assert BlockPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"box": "0:1", "core": [1, 1, 1], "margin": [0, 0, 0], "least": [1, 1, 1]},
        {"box": "0:9,0:9,0:9", "core": [1, 1], "margin": [0, 0, 0], "least": [1, 1, 1]},
        {"box": "0:9,0:9,0:9", "core": "abc", "margin": [0, 0, 0], "least": [1, 1, 1]},
        {"box": None, "core": [1, 1, 1], "margin": [0, 0, 0], "least": [1, 1, 1]},
        {"box": "0:9,0:9,0:9", "core": [0, 1, 1], "margin": [0, 0, 0], "least": [1, 1, 1]},
    ],
)
def test_damaged_plans_are_refused(values):
    with pytest.raises(GeometryError):
        BlockPlan.from_json(values)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"core": (0, 5, 5)}, "not positive"),
        ({"least": (0, 5, 5)}, "not positive"),
        ({"margin": (0, -1, 0)}, "negative or more than half"),
        ({"margin": (3, 0, 0)}, "more than half the block"),
        ({"box": Box((0, 0, 0), (0, 5, 5))}, "empty"),
    ],
)
def test_impossible_plans_are_refused(changes, says):
    values = {"box": Box((0, 0, 0), (20, 20, 20)), "core": (5, 5, 5), "margin": (2, 2, 2)}
    with pytest.raises(GeometryError, match=says):
        BlockPlan(**{**values, **changes})


def test_an_axis_that_is_not_cut_may_have_any_halo():
    plan = BlockPlan(box=Box((0, 0, 0), (4, 50, 50)), core=(4, 25, 25), margin=(9, 9, 9))
    assert plan.grid == (1, 2, 2)


def test_a_volume_that_fits_is_one_block():
    plan = propose_plan(Box((0, 0, 0), (250, 250, 250)), fov=FOV, memory_bytes=2**30)
    assert plan.grid == (1, 1, 1)


@settings(deadline=None)
@given(
    shape=st.tuples(*[st.integers(33, 5000)] * 3),
    memory=st.one_of(st.none(), st.integers(10**9, 10**11)),
    fov=st.sampled_from([(33, 33, 33), (17, 33, 33), (7, 9, 9)]),
)
def test_proposed_blocks_fit_in_memory_are_about_equal_and_end_at_chunks(shape, memory, fov):
    plan = propose_plan(Box((0, 0, 0), shape), fov=fov, memory_bytes=memory)
    halo = plan.largest_halo
    assert math.prod(halo) <= max(512**3, math.prod(3 * edge for edge in (64, 64, 64)))
    if memory is not None:
        assert math.prod(halo) * 48 <= memory
    for axis, count in enumerate(plan.grid):
        if count > 1:
            assert plan.core[axis] % 64 == 0
            # no fewer voxels in the last core than blocks of one chunk less would leave
            assert plan.core[axis] - 64 < -(-shape[axis] // count)
            assert plan.core[axis] >= 2 * plan.margin[axis]


@settings(deadline=None)
@given(size=st.integers(34, 3000), edge=st.integers(66, 700))
def test_no_block_is_thinner_than_the_field_of_view(size, edge):
    plan = propose_plan(Box((0, 0, 0), (size, 100, 100)), fov=FOV, core=(edge, 100, 100), halo=FOV)
    assert all(block.core.shape[0] >= 33 for block in plan)


def test_a_thin_rest_belongs_to_the_block_before_it():
    plan = propose_plan(Box((0, 0, 0), (260, 100, 100)), fov=FOV, core=(128, 100, 100))
    assert [block.core.shape[0] for block in plan] == [128, 132]


def test_blocks_are_equal_rather_than_full():
    plan = propose_plan(Box((0, 0, 0), (600, 600, 600)), fov=FOV, memory_bytes=4 * 10**9)
    assert {block.core.shape for block in plan} >= {(320, 320, 320), (280, 280, 280)}


def test_what_the_user_chooses_is_taken():
    box = Box((0, 0, 0), (500, 500, 500))
    plan = propose_plan(box, fov=FOV, core=(100, 200, 250), halo=(20, 30, 40))
    assert (plan.core, plan.margin) == ((100, 200, 250), (20, 30, 40))
    assert propose_plan(box, fov=FOV, halo=(17, 17, 17), memory_bytes=10**9).margin == (17, 17, 17)
    assert propose_plan(box, fov=FOV, core=(250, 250, 250)).margin == default_halo(FOV)


@pytest.mark.parametrize(
    ("core", "halo", "error", "says"),
    [
        ((20, 100, 100), (10, 20, 20), GeometryError, "smaller than .* field of view .* along z"),
        ((100, 100, 100), (20, 16, 20), GeometryError, "not more than half .* along y"),
        ((50, 100, 100), None, GeometryError, "half the block"),
        ((400, 400, 400), None, ResourceError, "needs 4.9 GB of memory and 2.0 GB"),
    ],
)
def test_blocks_that_do_not_suit_are_refused(core, halo, error, says):
    with pytest.raises(error, match=says):
        propose_plan(
            Box((0, 0, 0), (900, 900, 900)),
            fov=FOV,
            core=core,
            halo=halo,
            memory_bytes=2 * 10**9,
        )


def test_too_little_memory_for_any_block_is_said():
    with pytest.raises(ResourceError, match=r"\(128, 128, 128\) voxels .* give a smaller --block"):
        propose_plan(Box((0, 0, 0), (900, 900, 900)), fov=FOV, memory_bytes=10**8)


def test_a_hundred_teravoxels_are_planned_at_once():
    plan = propose_plan(Box((0, 0, 0), (25_000, 63_000, 63_000)), fov=FOV)
    assert len(plan) > 10**6
    assert plan.block(len(plan) - 1).core.stop == plan.box.stop
