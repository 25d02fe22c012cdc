"""Even contrast as in ImageJ: near the exact rule, and the same whatever the blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import ndimage

from array_volume import ArrayVolume
from floodem.errors import (
    DestinationExistsError,
    GeometryError,
    OptionError,
    RunConflictError,
    StoppedError,
    StorageError,
    VolumeFormatError,
)
from floodem.geometry import Box, VoxelSize
from floodem.volumes import create_volume, open_volume, verify
from floodem.volumes.conversion import block_plan
from floodem.volumes.grey import equalised
from floodem.volumes.grey.equalisation import clahe, clahe_section
from floodem.volumes.grey.equalised import EqualisedVolume
from floodem.volumes.grey.tables import Rule, clip_histograms
from floodem.volumes.volume import Kind
from reference import clahe as exact

MAX_MEAN_ERROR = 2.0
"""What the issue allows against the exact rule, in grey levels."""

sides = npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)


def tissue(shape, *, seed=0):
    """Grey values with membranes and uneven light, about like a section of neuropil."""
    random = np.random.default_rng(seed)
    rough = ndimage.gaussian_filter(random.standard_normal(shape), 5)
    membranes = 1 - np.exp(-((rough / rough.std() / 0.3) ** 2))
    light = ndimage.gaussian_filter(random.standard_normal(shape), 40)
    grey = 60 + 110 * membranes + 30 * light / light.std() + random.normal(0, 12, shape)
    return np.clip(grey, 0, 255).astype(np.uint8)


def mean_error(section, *, samples=500, **options):
    """Hold random pixels against the exact rule."""
    new = clahe_section(section, **options)
    random = np.random.default_rng(1)
    places = [tuple(random.integers(0, section.shape)) for _ in range(samples)]
    rule = {"block": 127, "bins": 256, "slope": 1.5} | options
    return np.mean(
        [abs(int(new[at]) - exact.equalised_pixel(section, *at, **rule)) for at in places]
    )


@given(
    npst.arrays("uint8", sides),
    st.sampled_from((3, 5, 9, 127)),
    st.sampled_from((2, 16, 256)),
    st.sampled_from((1.0, 1.5, 3.0, 300.0)),
)
@settings(max_examples=60, deadline=None)
def test_a_table_for_every_pixel_equals_the_exact_rule(section, block, bins, slope):
    options = {"block": block, "bins": bins, "slope": slope}
    found = clahe_section(section, **options, spacing=1)
    np.testing.assert_array_equal(found, exact.equalised(section, **options))


@given(
    st.sampled_from(("uint16", "int16", "int8")).flatmap(lambda name: npst.arrays(name, sides)),
    st.sampled_from((3, 127)),
)
@settings(max_examples=40, deadline=None)
def test_other_types_follow_the_rule_over_their_own_range(section, block):
    low, high = int(section.min()), int(section.max())
    found = clahe_section(section, block=block, spacing=1)
    assert found.dtype == section.dtype
    if low == high:
        assert np.array_equal(found, section)
        return
    options = {"block": block, "bins": 256, "slope": 1.5, "value_range": (low, high)}
    expected = exact.equalised(section, **options)
    np.testing.assert_allclose(found.astype(int), expected.astype(int), atol=1)
    assert found.min() >= low
    assert found.max() <= high


@given(
    npst.arrays(np.int64, (3, 32), elements=st.integers(0, 300)),
    st.sampled_from((1.0, 1.5, 4.0)),
)
@settings(deadline=None)
def test_histograms_are_clipped_as_one_by_one(histograms, slope):
    found = clip_histograms(histograms.astype(np.float32), slope=slope)
    for histogram, clipped in zip(histograms, found, strict=True):
        limit = int(np.float32(slope) * np.float32(histogram.sum()) / np.float32(31) + 0.5)
        assert clipped.tolist() == exact.clip_histogram(histogram, limit)


@pytest.mark.parametrize(
    ("shape", "options", "limit"),
    [
        ((200, 230), {}, MAX_MEAN_ERROR / 2),
        ((100, 400), {"slope": 3.0}, MAX_MEAN_ERROR / 2),
        ((60, 300), {"block": 255, "bins": 128}, MAX_MEAN_ERROR / 2),
        # Few pixels in many bins: the exact rule itself jumps from pixel to pixel.
        ((90, 90), {"block": 31}, MAX_MEAN_ERROR),
    ],
)
def test_the_grid_of_tables_is_near_the_exact_rule(shape, options, limit):
    assert mean_error(tissue(shape), **options) <= limit


def test_shared_sections_come_near_the_exact_rule(shared_data):
    with (
        open_volume(shared_data / "snemi3d" / "images") as images,
        open_volume(shared_data / "fib25" / "grayscale_maps.h5") as raw,
    ):
        sections = [images.read()[z] for z in (0, 61)] + [raw.read()[120]]
    errors = [mean_error(section, samples=400) for section in sections]
    assert max(errors) <= MAX_MEAN_ERROR / 2


def test_borders_are_as_near_as_the_middle():
    section = tissue((200, 200))
    new = clahe_section(section).astype(int)
    edge = [(0, x) for x in range(0, 200, 5)] + [(y, 199) for y in range(0, 200, 5)]
    rule = {"block": 127, "bins": 256, "slope": 1.5}
    errors = [abs(new[at] - exact.equalised_pixel(section, *at, **rule)) for at in edge]
    assert np.mean(errors) <= MAX_MEAN_ERROR


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (5, 7), (0, 4)])
def test_sections_smaller_than_a_block_keep_their_shape(shape):
    section = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    assert clahe_section(section).shape == shape


@pytest.mark.parametrize("value", [0, 1, 100, 254, 255])
def test_an_even_section_stays_nearly_as_it_is(value):
    section = np.full((150, 140), value, np.uint8)
    assert np.abs(clahe_section(section).astype(int) - value).max() <= 1


def test_contrast_grows_where_it_was_low_and_light_becomes_even():
    section = tissue((400, 400)).astype(float)
    shaded = (section * np.linspace(0.4, 1, 400)).astype(np.uint8)
    new = clahe_section(shaded, slope=3.0)
    left, right = new[:, 64:128].mean(), new[:, -128:-64].mean()
    assert abs(left - right) < abs(shaded[:, 64:128].mean() - shaded[:, -128:-64].mean()) / 2
    assert new[:, 64:128].std() > 1.2 * shaded[:, 64:128].std()


@pytest.mark.parametrize("tile", [1, 17, 64])
def test_a_section_comes_out_the_same_in_pieces(monkeypatch, tile):
    section = tissue((70, 60))
    whole = clahe_section(section, block=31)
    monkeypatch.setattr(equalised, "_TILE", tile)
    np.testing.assert_array_equal(clahe_section(section, block=31), whole)


@given(
    st.tuples(*[st.integers(1, 40)] * 3),
    st.integers(1, 3),
    st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(0, 25)),
)
@settings(max_examples=25, deadline=None)
def test_a_volume_is_its_sections_whatever_box_blocks_and_threads(chunks, threads, corner):
    image = np.stack([tissue((44, 39), seed=z) for z in range(4)])
    source = ArrayVolume(image, offset=(7, 100, -5), chunks=chunks)
    box = Box((7 + corner[0], 100 + corner[1], -5 + corner[2]), source.box.stop)
    options = {"block": 21, "bins": 256, "slope": 1.5, "value_range": None}
    expected = np.stack([clahe_section(section, block=21) for section in image])
    with EqualisedVolume(source, threads=threads, **options) as even:
        np.testing.assert_array_equal(even.read(box), expected[box.slices(origin=source.offset)])


@pytest.mark.parametrize("threads", [1, 3])
def test_small_blocks_give_the_same_copy(monkeypatch, tmp_path, threads):
    image = np.stack([tissue((44, 39), seed=z) for z in range(4)])
    source = ArrayVolume(image, offset=(7, 100, -5), chunks=(3, 20, 20))
    monkeypatch.setattr(block_plan, "BLOCK_BYTES", 3000)
    monkeypatch.setattr(block_plan, "MEMORY_BYTES", 5000)
    options = {"block": 21, "threads": threads, "kind": Kind.IMAGE}
    made = clahe(source, tmp_path / "even.zarr", chunks=(2, 16, 16), **options)
    assert made.blocks > 4
    with open_volume(tmp_path / "even.zarr") as copy:
        expected = [clahe_section(section, block=21) for section in image]
        np.testing.assert_array_equal(copy.read(), expected)


@pytest.fixture
def image(tmp_path):
    array = np.stack([tissue((80, 90), seed=z) for z in range(5)])
    uri = tmp_path / "em.h5"
    with create_volume(
        uri, shape=array.shape, dtype="uint8", voxel_size=VoxelSize(30, 6, 6), offset=(1, 2, 3)
    ) as volume:
        volume.write(volume.box, array)
    return uri, array


@pytest.mark.parametrize(
    "place", ["even.zarr", "zarr3://even", "even.h5@even", "png://even", "even.tif", "even.npz"]
)
def test_the_copy_keeps_voxel_size_offset_and_type_in_every_format(image, tmp_path, place):
    uri, array = image
    prefix, _, name = place.rpartition("://")
    destination = f"{prefix}://{tmp_path / name}" if prefix else str(tmp_path / name)
    clahe(uri, destination, block=31)
    with open_volume(destination) as copy:
        assert copy.offset == (1, 2, 3)
        assert copy.voxel_size == VoxelSize(30, 6, 6)
        expected = [clahe_section(section, block=31) for section in array]
        np.testing.assert_array_equal(copy.read(), expected)


def test_sixteen_bit_volumes_have_one_range_for_all_sections_and_boxes(tmp_path):
    image = np.stack([tissue((40, 40), seed=z).astype(np.uint16) * (8 + 4 * z) for z in range(3)])
    source, whole, part = (tmp_path / f"{name}.zarr" for name in ("em", "whole", "part"))
    with create_volume(source, shape=image.shape, dtype="uint16") as volume:
        volume.write(volume.box, image)
    clahe(source, whole, kind=Kind.IMAGE)
    clahe(source, part, kind=Kind.IMAGE, box=Box((0, 0, 5), (2, 40, 30)))
    with open_volume(whole) as a, open_volume(part) as b:
        assert np.array_equal(a.read()[:2, :, 5:30], b.read())
        span = (int(image.min()), int(image.max()))
        assert np.array_equal(a.read()[0], clahe_section(image[0], value_range=span))


def test_a_given_range_cuts_what_lies_beyond(tmp_path):
    image = np.arange(0, 6400, dtype=np.uint16).reshape(1, 80, 80)
    found = clahe_section(image[0], value_range=(1000, 5000))
    assert found.min() == 1000
    assert found.max() == 5000


def test_sixteen_bit_values_keep_their_order_within_a_window():
    ramp = np.arange(3000, dtype=np.uint16).reshape(30, 100)
    found = clahe_section(ramp, block=255).astype(int)
    assert (np.diff(found.ravel()) >= -1).all()
    assert len(np.unique(found)) > 1000


def test_an_image_can_be_replaced_by_its_copy(image):
    uri, array = image
    clahe(uri, uri, block=31, overwrite=True)
    with open_volume(uri) as copy:
        assert np.array_equal(copy.read()[0], clahe_section(array[0], block=31))


def test_a_constant_volume_of_sixteen_bits_is_copied(tmp_path):
    with create_volume(tmp_path / "em.zarr", shape=(2, 5, 5), dtype="uint16") as volume:
        volume.write(volume.box, np.full((2, 5, 5), 700, np.uint16))
    clahe(tmp_path / "em.zarr", tmp_path / "even.zarr", kind=Kind.IMAGE)
    with open_volume(tmp_path / "even.zarr") as copy:
        assert (copy.read() == 700).all()


@pytest.mark.parametrize("dtype", ["float32", "uint32", "int64"])
def test_other_types_are_refused_with_advice(dtype):
    for kind in (None, Kind.IMAGE):
        with pytest.raises(
            VolumeFormatError, match=f"holds {dtype}, .* --window LOW,HIGH --dtype uint8"
        ):
            clahe(ArrayVolume(np.zeros((2, 2, 2), dtype)), "never.zarr", kind=kind)
    with pytest.raises(VolumeFormatError, match="8 or 16 bits"):
        clahe_section(np.zeros((2, 2), dtype))


def test_labels_are_refused_unless_they_are_said_to_be_an_image(tmp_path):
    flat = np.full((2, 9, 9), 700, np.uint16)
    wide = ArrayVolume(flat.astype(np.uint32))
    with pytest.raises(VolumeFormatError, match="numbers of objects .* name the image"):
        clahe(wide, tmp_path / "even.zarr")
    declared = ArrayVolume(tissue((9, 9))[None], kind=Kind.LABELS)
    with pytest.raises(VolumeFormatError, match=r"holds labels \(uint8\).*--kind image"):
        clahe(declared, tmp_path / "even.zarr")
    with pytest.raises(VolumeFormatError, match=r"looks like labels \(uint16\).*--kind image"):
        clahe(ArrayVolume(flat), tmp_path / "even.zarr")
    assert list(tmp_path.iterdir()) == []
    clahe(declared, tmp_path / "even.zarr", kind=Kind.IMAGE)


def test_the_copy_is_verified_and_an_identical_call_finds_it_finished(image, tmp_path):
    made = clahe(image[0], tmp_path / "even.zarr", block=31, pyramid=1)
    assert (made.levels, made.was_finished) == (2, False)
    assert verify(tmp_path / "even.zarr").is_whole
    again = clahe(image[0], tmp_path / "even.zarr", block=31, pyramid=1)
    assert again.was_finished


@pytest.mark.parametrize("change", [{"block": 33}, {"bins": 128}, {"slope": 2.0}])
def test_a_stopped_run_goes_on_with_the_same_options_alone(monkeypatch, image, tmp_path, change):
    monkeypatch.setattr(block_plan, "BLOCK_BYTES", 3000)
    monkeypatch.setattr(block_plan, "MEMORY_BYTES", 3000)
    destination = tmp_path / "even.zarr"
    options = {"block": 31, "chunks": (1, 40, 40), "threads": 1}
    questions = itertools.count()
    with pytest.raises(StoppedError, match="same command again"):
        clahe(image[0], destination, **options, should_stop=lambda: next(questions) == 4)
    with pytest.raises(RunConflictError):
        clahe(image[0], destination, **(options | change))
    made = clahe(image[0], destination, **options)
    assert made.resumed_blocks > 0
    with open_volume(destination) as copy:
        expected = [clahe_section(section, block=31) for section in image[1]]
        np.testing.assert_array_equal(copy.read(), expected)


def test_a_range_of_eight_bits_is_served_and_one_beyond_the_type_refused():
    section = np.arange(256, dtype=np.uint8).repeat(16).reshape(64, 64)
    found = clahe_section(section, value_range=(100, 160))
    assert (found.min(), found.max()) == (100, 160)
    with pytest.raises(OptionError, match="range 0 to 4000 is not within uint8"):
        clahe_section(section, value_range=(0, 4000))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"block": 126}, "block 126 is not an odd number"),
        ({"block": 1}, "block 1 is not an odd number"),
        ({"block": 4001}, "block 4001 is not an odd number from 3 to 2047"),
        ({"bins": 1}, "1 bins are not between 2 and 256"),
        ({"bins": 257}, "257 bins"),
        ({"slope": 0.5}, "slope 0.5 is not 1 or more"),
        ({"slope": float("nan")}, "slope nan is not 1 or more"),
        ({"value_range": (9, 9)}, "grey values 9 to 9 are no range"),
        ({"threads": 0}, "0 threads cannot work"),
    ],
)
def test_impossible_options_are_refused_and_nothing_is_made(image, tmp_path, options, sentence):
    with pytest.raises(OptionError, match=sentence):
        clahe(image[0], tmp_path / "even.zarr", **options)
    assert not (tmp_path / "even.zarr").exists()


def test_a_box_outside_is_refused(image, tmp_path):
    with pytest.raises(GeometryError, match="is empty or not inside"):
        clahe(image[0], tmp_path / "even.zarr", box=Box((0, 0, 0), (2, 2, 2)))


def test_what_is_there_stays_unless_it_may_be_replaced(image, tmp_path):
    destination = tmp_path / "even.zarr"
    clahe(image[0], destination, block=31)
    with pytest.raises(DestinationExistsError):
        clahe(image[0], destination)
    with open_volume(destination) as copy:
        assert np.array_equal(copy.read()[0], clahe_section(image[1][0], block=31))


def test_a_failure_on_the_way_leaves_what_was_there(image, tmp_path):
    class Failing(ArrayVolume):
        def _read(self, box):
            raise StorageError("the disk is gone: look for it")

    destination = tmp_path / "even.zarr"
    clahe(image[0], destination, block=31)
    with pytest.raises(StorageError, match="the disk is gone"):
        clahe(Failing(image[1]), destination, overwrite=True)
    with open_volume(destination) as copy:
        assert np.array_equal(copy.read()[0], clahe_section(image[1][0], block=31))
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_progress_is_told_in_voxels(image, tmp_path):
    reports = []
    clahe(image[0], tmp_path / "even.zarr", progress=reports.append)
    assert {report.unit for report in reports} == {"voxels written and read back"}
    assert reports[-1].done == reports[-1].total == 2 * image[1].size


def test_a_denser_grid_is_nearer():
    section = tissue((150, 150))
    best = clahe_section(section, spacing=1).astype(int)
    errors = [
        np.abs(clahe_section(section, spacing=spacing).astype(int) - best).mean()
        for spacing in (127, 32, Rule().spacing)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < MAX_MEAN_ERROR / 3
