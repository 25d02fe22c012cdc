"""One object from one seed, in memory, equal to what a run would have found."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import floodem
from array_volume import ArrayVolume
from bright import bright_model, bright_tubes
from floodem.errors import GeometryError, VolumeNotFoundError
from floodem.flooding.canvas import quantise_probability
from floodem.flooding.flood import FloodEnd
from floodem.flooding.masks import parse_mask
from floodem.flooding.options import FloodOptions
from floodem.flooding.request import SegmentRequest
from floodem.flooding.seeds.explicit import explicit_seeds
from floodem.flooding.segment import segment
from floodem.geometry import Box, VoxelSize
from floodem.volumes import create_volume, open_volume

OFFSET = (100, 200, 300)
SEED = (105, 206, 320)
"""On the axis of the first tube, in the volume."""


def request(**changes):
    return SegmentRequest(device="cpu", **changes)


@pytest.fixture
def volume():
    image, _ = bright_tubes()
    return ArrayVolume(image, offset=OFFSET, voxel_size=VoxelSize(30, 6, 6))


@pytest.fixture(scope="module")
def model():
    return bright_model()


def test_a_seed_gives_the_object_it_lies_in(volume, model):
    made = floodem.flood_at(volume, SEED, model=model, request=request())
    _, truth = bright_tubes()
    grown = truth == truth[5, 6, 20]
    assert made.end is FloodEnd.EXHAUSTED
    assert made.seed == SEED
    assert made.box == volume.box
    assert not (made.mask & ~grown).any()
    assert made.voxels == np.count_nonzero(made.mask) > 0.8 * np.count_nonzero(grown)
    assert made.calls > 10


@settings(max_examples=8, deadline=None)
@given(
    st.tuples(st.integers(103, 106), st.integers(204, 209), st.integers(304, 359)),
    st.sampled_from([0.0, -1.0]),
    st.sampled_from([None, 7]),
)
def test_the_object_is_that_of_a_run_with_this_one_seed(tmp_path_factory, seed, disco, max_calls):
    model = bright_model()
    image, _ = bright_tubes()
    volume = ArrayVolume(image, offset=OFFSET, voxel_size=VoxelSize(30, 6, 6))
    options = FloodOptions(
        min_segment_size=1,
        disco_seed_threshold=disco,
        max_calls=max_calls,
        seeds=explicit_seeds(np.array([seed])),
    )
    folder = tmp_path_factory.mktemp("run")
    labels, probabilities = f"{folder / 'l.h5'}@labels", f"{folder / 'p.h5'}@p"
    segment(
        volume,
        labels,
        model=model,
        request=request(options=options, probabilities=probabilities),
    )
    made = floodem.flood_at(volume, seed, model=model, request=request(options=options))
    with open_volume(labels) as run, open_volume(probabilities) as known:
        np.testing.assert_array_equal(made.mask, run.read() == 1)
        np.testing.assert_array_equal(
            np.where(made.mask, made.probability, 0), np.where(run.read() == 1, known.read(), 0)
        )


def test_every_network_call_is_told_while_the_object_grows(volume, model):
    told = []

    def look(step):
        section = step.probability(SEED[0])
        told.append((step.calls, step.voxels, step.reach, np.nansum(section >= 0.6)))
        assert not step.logits.flags.writeable
        assert step.box.contains(step.reach)

    made = floodem.flood_at(volume, SEED, model=model, request=request(), on_step=look)
    calls, voxels, reaches, shown = zip(*told, strict=True)
    assert calls == tuple(range(1, made.calls + 1))
    assert voxels[-1] == made.voxels
    assert reaches[0].shape == model.description.fov
    assert all(b.contains(a) for a, b in itertools.pairwise(reaches))
    assert shown[0] < shown[-1] == made.mask[SEED[0] - OFFSET[0]].sum()


def test_a_section_outside_of_the_box_is_refused(volume, model):
    def look(step):
        with pytest.raises(GeometryError, match="section 99 is outside .* give 100 to 123"):
            step.probability(99)

    floodem.flood_at(volume, SEED, model=model, request=request(), on_step=look)


def test_a_flood_that_is_told_to_stop_keeps_what_it_has(volume, model):
    whole = floodem.flood_at(volume, SEED, model=model, request=request())
    calls = []
    part = floodem.flood_at(
        volume,
        SEED,
        model=model,
        request=request(),
        on_step=lambda step: calls.append(step.calls),
        should_stop=lambda: len(calls) == 3,
    )
    assert part.end is None
    assert part.calls == 3
    assert 0 < part.voxels < whole.voxels


def test_a_seed_in_the_dark_gives_an_empty_mask(volume, model):
    made = floodem.flood_at(volume, (112, 213, 320), model=model, request=request())
    assert made.end is FloodEnd.WEAK_SEED
    assert made.voxels == 0
    assert made.probability.any()


def test_the_flood_stays_in_its_box(volume, model):
    box = Box((100, 200, 310), (112, 214, 340))
    made = floodem.flood_at(volume, SEED, model=model, box=box, request=request())
    assert made.box == box
    assert made.mask.shape == box.shape
    within = floodem.flood_at(volume, SEED, model=model, request=request(box=box))
    np.testing.assert_array_equal(made.mask, within.mask)


def test_without_a_box_only_what_is_near_the_seed_is_read(model, monkeypatch):
    monkeypatch.setattr("floodem.flooding.flood_at.DEFAULT_REACH", 10)
    image, _ = bright_tubes((24, 40, 300))
    volume = ArrayVolume(image, voxel_size=VoxelSize(30, 6, 6))
    made = floodem.flood_at(volume, (5, 6, 150), model=model, request=request())
    assert volume.reads == [made.box] == [Box((0, 0, 140), (16, 17, 161))]


def test_masks_and_earlier_segments_count_as_in_a_run(volume, model, tmp_path):
    cut = request(masks=[parse_mask("where: x > 330")])
    whole = floodem.flood_at(volume, SEED, model=model, request=request())
    made = floodem.flood_at(volume, SEED, model=model, request=cut)
    assert 0 < made.voxels < whole.voxels
    there = f"{tmp_path / 'there.h5'}@labels"
    with create_volume(
        there,
        shape=volume.shape,
        dtype=np.uint32,
        voxel_size=VoxelSize(30, 6, 6),
        offset=OFFSET,
    ) as labels:
        block = np.zeros(volume.shape, np.uint32)
        block[:, :, 40:] = 7
        labels.write(labels.box, block)
    kept = request(init_segmentation=there)
    made = floodem.flood_at(volume, SEED, model=model, request=kept)
    assert not made.mask[:, :, 40:].any()
    with pytest.raises(GeometryError, match=r"lies in segment 7 of the initial"):
        floodem.flood_at(volume, (105, 206, 350), model=model, request=kept)
    with pytest.raises(GeometryError, match=r"is masked: give a voxel that is not"):
        floodem.flood_at(volume, (105, 206, 350), model=model, request=cut)


@pytest.mark.parametrize(
    ("seed", "box", "says"),
    [
        ((0, 0, 0), None, r"seed \(0, 0, 0\) \(z,y,x\) is outside of array"),
        ((100, 206, 320), None, r"nearer to the border .* than half the field of view, \(3, 4, 4"),
        (SEED, Box((108, 200, 300), (124, 240, 364)), "nearer to the border"),
        (SEED, Box((0, 0, 0), (10, 10, 10)), "is not inside array"),
        (SEED, Box((100, 200, 300), (102, 240, 364)), "smaller than the network's field of view"),
    ],
)
def test_a_seed_from_which_nothing_can_begin_is_refused(volume, model, seed, box, says):
    with pytest.raises(GeometryError, match=says):
        floodem.flood_at(volume, seed, model=model, box=box, request=request())


def test_addresses_and_names_do_as_well_as_open_things(volume, tmp_path):
    address = f"{tmp_path / 'em.h5'}@raw"
    with create_volume(
        address, shape=volume.shape, dtype=np.uint8, voxel_size=VoxelSize(8, 8, 8)
    ) as written:
        written.write(written.box, volume.read())
    made = floodem.flood_at(address, (12, 20, 30), model="synthetic", request=request())
    assert made.notices == ()
    with pytest.raises(VolumeNotFoundError):
        floodem.flood_at(tmp_path / "no.h5", SEED, model="synthetic", request=request())


def test_probabilities_are_quantised_as_a_run_does(volume, model):
    last = {}
    made = floodem.flood_at(
        volume,
        SEED,
        model=model,
        request=request(),
        on_step=lambda step: last.update(logits=step.logits.copy()),
    )
    visited = ~np.isnan(last["logits"])
    assert (made.probability[~visited] == 0).all()
    np.testing.assert_array_equal(
        made.probability[visited], quantise_probability(last["logits"][visited])
    )
