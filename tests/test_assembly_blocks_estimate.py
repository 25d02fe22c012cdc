"""What a run is said to take before it begins."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bright import bright_model
from flood_cases import VOXEL_SIZE, flood_tasks
from floodem.assembly.blocks import BlockPlan
from floodem.assembly.estimate import CallTime, estimate, expected_calls, time_calls
from floodem.assembly.floods import flood_block_task
from floodem.assembly.proposals import propose_plan
from floodem.assembly.sources import close_sources
from floodem.flooding.masks import parse_mask
from floodem.flooding.request import SegmentRequest
from floodem.geometry import Box

FOV, DELTAS = (33, 33, 33), (8, 8, 8)
CHUNKS = (64, 64, 64)


def told(plan, **changes):
    values = {"fov": FOV, "deltas": DELTAS, "image_bytes": 1, "chunks": CHUNKS}
    return estimate(plan, **{**values, **changes})


def test_the_calls_of_the_published_sample_are_those_that_were_counted():
    assert expected_calls((250, 250, 250), fov=FOV, deltas=DELTAS) == pytest.approx(
        25_799, rel=0.01
    )
    plan = BlockPlan(box=Box((0, 0, 0), (250, 250, 250)), core=(250, 250, 250), margin=(0, 0, 0))
    assert told(plan).network_calls == pytest.approx(25_799, rel=0.01)


def test_a_block_smaller_than_the_field_of_view_takes_no_calls():
    assert expected_calls((32, 100, 100), fov=FOV, deltas=DELTAS) == 0


@settings(deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 300)] * 3),
    core=st.tuples(*[st.integers(40, 120)] * 3),
    margin=st.integers(0, 20),
)
def test_blocks_are_added_up_as_if_they_were_counted_one_by_one(shape, core, margin):
    plan = BlockPlan(box=Box((0, 0, 0), shape), core=core, margin=(margin,) * 3, least=FOV)
    found = told(plan)
    assert found.blocks == len(list(plan))
    assert found.voxels == plan.box.size
    assert found.voxels_with_halos == sum(block.halo.size for block in plan)
    assert found.halo_factor == found.voxels_with_halos / plan.box.size >= 1
    calls = sum(expected_calls(block.halo.shape, fov=FOV, deltas=DELTAS) for block in plan)
    assert abs(found.network_calls - calls) <= len(plan)
    assert found.bytes_read == found.voxels_with_halos
    assert found.label_bytes == 8 * plan.box.size


def test_cutting_adds_fewer_calls_than_voxels():
    found = told(propose_plan(Box((0, 0, 0), (4000, 4000, 4000)), fov=FOV))
    assert 1 < found.calls_factor < found.halo_factor < 1.6


def test_hours_follow_from_what_a_call_takes():
    plan = BlockPlan(box=Box((0, 0, 0), (250, 250, 250)), core=(250, 250, 250), margin=(0, 0, 0))
    assert told(plan).device_hours is None
    assert told(plan).hours_in_words is None
    card = told(plan, timed=CallTime(seconds=0.1, device="NVIDIA H100", dtype="bfloat16"))
    assert card.device_hours == pytest.approx(25_799 * 0.1 / 3600, rel=0.01)
    assert card.hours_in_words == "0.714 GPU-hours on NVIDIA H100, bfloat16"
    processor = told(plan, timed=CallTime(seconds=0.1, device="cpu", dtype="float32"))
    assert processor.hours_in_words == "0.714 hours on cpu, float32"


def test_files_bytes_and_memory_follow_from_the_plan():
    plan = BlockPlan(box=Box((0, 0, 0), (256, 256, 256)), core=(128, 128, 128), margin=(32, 32, 32))
    found = told(plan, level_factors=((2, 2, 2), (4, 4, 4)), slots=2)
    assert found.files >= 64 + 8 + 1 + 8 * 8
    assert found.label_bytes == 8 * (256**3 + 128**3 + 64**3)
    assert found.memory_bytes == 2 * 48 * 160**3
    assert found.work_bytes < found.voxels_with_halos * 4 + 2 * 9 * 160**3


def test_masked_blocks_are_counted_and_masked_places_take_no_calls():
    plan = BlockPlan(box=Box((0, 0, 0), (100, 100, 400)), core=(100, 100, 100), margin=(0, 0, 40))
    request = SegmentRequest(masks=[parse_mask("where: x >= 140")])
    found = told(plan, request=request)
    assert (found.blocks, found.masked_blocks) == (4, 2)
    assert found.bytes_read < found.voxels_with_halos
    # of the first halo (0:140) all is open, of the second (60:240) 80 of 180
    whole = told(plan).network_calls
    assert found.network_calls == pytest.approx(whole * (1 + 80 / 180) / 4, rel=1e-3)


def test_a_plan_becomes_json():
    found = told(propose_plan(Box((0, 0, 0), (900, 900, 900)), fov=FOV))
    values = json.loads(json.dumps(found.to_json()))
    assert values["blocks"] == found.blocks
    assert values["halo_factor"] == found.halo_factor
    assert "25,799" in values["basis"]


def test_calls_are_timed_with_the_network_itself():
    light, heavy = (
        time_calls(bright_model(features=features, depth=4), device="cpu", seconds=0.2)
        for features in (2, 64)
    )
    assert (light.device, light.dtype) == ("cpu", "float32")
    assert 0 < light.seconds < heavy.seconds


def test_the_estimate_is_of_the_size_of_what_blocks_then_take(tmp_path):
    tasks = flood_tasks(tmp_path)
    plan = tasks[0].store.plan
    model = bright_model().description
    found = estimate(
        plan,
        fov=model.fov,
        deltas=model.deltas,
        image_bytes=1,
        chunks=CHUNKS,
        request=tasks[0].request,
        voxel_size=VOXEL_SIZE,
    )
    taken = [flood_block_task(task) for task in tasks]
    close_sources()
    calls = sum(made["counters"]["network_calls"] for made in taken)
    # tubes fill a third of this image, and tissue nearly all of its volume
    assert calls < found.network_calls < 20 * calls
    in_blocks = sum(path.is_file() for path in (tmp_path / "seg.zarr.floodem").rglob("*"))
    assert in_blocks <= found.files
    assert math.isclose(found.voxels, plan.box.size)
