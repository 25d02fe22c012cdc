"""What an image's grey values are like: exact numbers, whatever the blocks and threads."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from array_volume import ArrayVolume
from floodem.errors import GeometryError, OptionError
from floodem.geometry import Box
from floodem.volumes import open_volume
from floodem.volumes.conversion import block_plan
from floodem.volumes.grey import statistics as grey_statistics
from floodem.volumes.grey.moments import Moments, moments_of
from floodem.volumes.grey.notes import ranges
from floodem.volumes.grey.report import Histogram
from floodem.volumes.grey.statistics import modified_z_scores, statistics
from floodem.volumes.parallel import in_order
from floodem.volumes.volume import Kind
from reference import statistics as slow

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
REALS = ("float32", "float64")

shapes = npst.array_shapes(min_dims=3, max_dims=3, max_side=6)
integer_arrays = st.sampled_from(INTEGERS).flatmap(lambda name: npst.arrays(name, shapes))
chunkings = st.tuples(*[st.integers(1, 4)] * 3)


def tissue(shape, *, seed=0):
    return np.random.default_rng(seed).normal(130, 30, shape).clip(0, 255).astype(np.uint8)


@given(integer_arrays, chunkings, st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_whole_numbers_give_exact_mean_and_deviation_in_any_blocks(array, chunks, threads):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_plan, "BLOCK_BYTES", 1)
        found = statistics(ArrayVolume(array, chunks=chunks), threads=threads)
    mean, stddev = slow.mean_and_stddev(array)
    assert found.mean == mean
    assert found.stddev == pytest.approx(stddev, rel=1e-15)
    assert (found.minimum, found.maximum) == (int(array.min()), int(array.max()))
    assert found.voxels == array.size == found.histogram.counts.sum()
    for section, one in zip(array, found.sections, strict=True):
        assert (one.mean, one.stddev) == pytest.approx(slow.mean_and_stddev(section), rel=1e-15)
        assert (one.minimum, one.maximum) == (section.min(), section.max())


@given(
    st.sampled_from(("uint8", "int16", "uint16")).flatmap(lambda name: npst.arrays(name, shapes))
)
@settings(deadline=None)
def test_percentiles_of_counted_values_are_exact(array):
    found = statistics(ArrayVolume(array), threads=1)
    expected = {percent: slow.percentile(array, percent) for percent in found.percentiles}
    assert found.percentiles == expected
    numpys = np.percentile(array, list(expected), method="inverted_cdf")
    assert list(expected.values()) == numpys.tolist()


@given(
    npst.arrays("int64", shapes, elements=st.integers(-(2**62), -(2**62) + 50_000)),
    st.sampled_from((1, 50, 99)),
)
@settings(deadline=None)
def test_percentiles_of_wide_integers_are_exact_where_values_are_few(array, percent):
    found = statistics(ArrayVolume(array), threads=1)
    assert found.percentiles[percent] == slow.percentile(array, percent)


@given(
    npst.arrays("float64", shapes, elements=st.floats(-1e6, 1e6)),
    st.sampled_from((0.0, 1e9)),
    chunkings,
)
@settings(deadline=None)
def test_real_numbers_are_summed_without_loss_of_digits(array, shift, chunks):
    array = array + shift
    found = statistics(ArrayVolume(array, chunks=chunks), threads=2)
    assert found.mean == pytest.approx(float(array.mean()), rel=1e-12, abs=1e-9)
    assert found.stddev == pytest.approx(float(array.std()), rel=1e-6, abs=1e-6)
    assert found.voxels == array.size == found.histogram.counts.sum()
    width = (float(array.max()) - float(array.min())) / grey_statistics.FINE_BINS
    for percent, value in found.percentiles.items():
        assert value == pytest.approx(slow.percentile(array, percent), abs=width + 1e-6)


def test_a_large_mean_does_not_spoil_the_deviation():
    array = np.float64(1e15) + np.tile([0.0, 1.0], 500).reshape(10, 10, 10)
    assert statistics(ArrayVolume(array, chunks=(1, 10, 10))).stddev == pytest.approx(0.5)


def test_the_largest_and_smallest_numbers_do_not_overflow():
    for name in ("int64", "uint64"):
        limits = np.iinfo(name)
        array = np.array([limits.min, limits.max] * 4, name).reshape(2, 2, 2)
        found = statistics(ArrayVolume(array))
        assert found.mean == (limits.min + limits.max) / 2
        assert found.stddev == (limits.max - limits.min) / 2
        assert found.histogram.counts[0] == found.histogram.counts[-1] == 4


@pytest.mark.parametrize("dtype", REALS)
def test_nan_and_infinities_are_counted_and_left_out(dtype):
    array = np.array([[[1, 2, np.nan, np.inf]], [[3, -np.inf, 6, np.nan]]], dtype)
    found = statistics(ArrayVolume(array))
    assert (found.voxels, found.not_finite) == (4, 4)
    assert (found.mean, found.minimum, found.maximum) == (3, 1, 6)
    assert found.histogram.counts.sum() == 4
    assert "4 voxels are NaN or infinite" in found.notes[0]


def test_an_image_of_nan_alone_has_no_mean_and_is_still_json():
    found = statistics(ArrayVolume(np.full((2, 3, 3), np.nan, np.float32)))
    assert math.isnan(found.mean)
    assert found.suggested is None
    assert json.loads(found.to_json())["mean"] is None


def test_a_box_is_looked_at_in_the_frame_of_the_volume():
    array = tissue((6, 8, 8))
    box = Box((102, 3, 2), (105, 8, 7))
    found = statistics(ArrayVolume(array, offset=(100, 0, 0)), box=box)
    assert found.mean == array[2:5, 3:8, 2:7].mean()
    assert [section.z for section in found.sections] == [102, 103, 104]


@pytest.mark.parametrize("text", ["0:1,0:1,0:9", "2:2,0:1,0:1"])
def test_a_box_outside_or_empty_is_refused(text):
    with pytest.raises(GeometryError, match="is empty or not inside array"):
        statistics(ArrayVolume(tissue((4, 4, 4))), box=Box.parse(text))


def test_no_thread_cannot_work():
    with pytest.raises(OptionError, match="0 threads cannot work"):
        statistics(ArrayVolume(tissue((4, 4, 4))), threads=0)


def test_memory_holds_a_few_blocks_and_no_more(monkeypatch):
    monkeypatch.setattr(block_plan, "BLOCK_BYTES", 3 * 2**12)
    volume = ArrayVolume(tissue((16, 64, 64)), chunks=(1, 16, 16))
    statistics(volume)
    assert max(box.size for box in volume.reads) <= 2**12
    assert sum(box.size for box in volume.reads) == volume.box.size


def test_wide_types_are_read_twice_and_others_once():
    for dtype, times in (("uint16", 1), ("uint32", 2), ("float32", 2)):
        volume = ArrayVolume(tissue((3, 8, 8)).astype(dtype))
        reports = []
        statistics(volume, progress=reports.append)
        assert sum(box.size for box in volume.reads) == times * volume.box.size
        assert reports[0].done == 0
        assert reports[-1].done == reports[-1].total == times * volume.box.size


def test_saturation_is_the_share_at_the_ends_of_the_type():
    array = np.full((1, 10, 10), 100, np.uint8)
    array[0, 0, :7] = 0
    array[0, 1, :3] = 255
    found = statistics(ArrayVolume(array))
    assert found.saturation == (0.07, 0.03)
    assert "7.0% at 0 and 3.0% at 255" in found.notes[-1]


def test_twelve_bit_data_in_sixteen_bits_are_found_cut_off():
    array = np.full((1, 10, 10), 1000, np.uint16)
    array[0, :2] = 4095
    found = statistics(ArrayVolume(array))
    assert found.saturation == (0, 0)
    assert "20.0% at 4095" in " ".join(found.notes)


def test_constant_sections_take_no_part_in_the_suggestion_and_are_named():
    array = tissue((12, 40, 40))
    array[[3, 4, 5, 9]] = 0
    array[7] = 255
    found = statistics(ArrayVolume(array, offset=(10, 0, 0)))
    rest = array[[0, 1, 2, 6, 8, 10, 11]]
    assert found.constant_sections == (13, 14, 15, 17, 19)
    assert found.suggested.image_mean == pytest.approx(rest.mean())
    assert found.suggested.image_stddev == pytest.approx(rest.std())
    assert found.mean == array.mean()
    assert any("sections 13 to 15, 17, 19 have one grey value only" in n for n in found.notes)
    # Nor in what is said about cut-off values.
    assert max(found.saturation) < 0.01


def test_an_image_of_one_grey_value_has_no_suggestion():
    found = statistics(ArrayVolume(np.full((3, 4, 4), 7, np.uint8)))
    assert found.suggested is None
    assert found.drift == 0
    assert "nothing to normalise" in found.notes[0]


def test_a_darker_and_a_flatter_section_are_named_and_others_are_not():
    array = tissue((40, 64, 64)).astype(np.int16)
    array[17] -= 60
    array[30] = (array[30] - 130) // 3 + 130
    found = statistics(ArrayVolume(array.clip(0, 255).astype(np.uint8), offset=(5, 0, 0)))
    assert {(one.z, one.quantity) for one in found.outlying if one.z == 22} >= {(22, "mean")}
    assert (35, "stddev") in {(one.z, one.quantity) for one in found.outlying}
    assert {one.z for one in found.outlying} == {22, 35}
    (note,) = [note for note in found.notes if "stand out" in note]
    assert "z 22 with mean" in note
    assert "z 35 with stddev" in note


def test_sections_that_stand_out_together_are_named_together():
    array = tissue((60, 64, 64)).astype(np.int16)
    array[20:24] += 60
    found = statistics(ArrayVolume(array.clip(0, 255).astype(np.uint8)))
    assert "z 20 to 23 with mean" in " ".join(found.notes)


def test_drift_of_brightness_advises_clahe_and_steady_sections_do_not():
    steady = tissue((20, 260, 260))
    assert not statistics(ArrayVolume(steady)).notes
    drifting = steady.astype(np.int16) + np.linspace(-40, 40, 20)[:, None, None].astype(np.int16)
    found = statistics(ArrayVolume(drifting.clip(0, 255).astype(np.uint8)))
    assert found.drift > 0.25
    assert any("floodem clahe" in note for note in found.notes)


def test_small_sections_say_nothing_about_drift():
    array = tissue((20, 20, 20)).astype(np.int16)
    array += np.linspace(-40, 40, 20)[:, None, None].astype(np.int16)
    found = statistics(ArrayVolume(array.clip(0, 255).astype(np.uint8)))
    assert found.drift > 0.25
    assert not any("drifts" in note for note in found.notes)


def test_labels_are_remarked_on():
    found = statistics(
        ArrayVolume(np.arange(8, dtype=np.uint64).reshape(2, 2, 2), kind=Kind.LABELS)
    )
    assert "labels" in found.notes[0]


@given(st.lists(st.floats(-100, 100), min_size=3, max_size=20))
@settings(deadline=None)
def test_modified_z_scores_follow_their_source(values):
    array = np.array(values)
    if np.median(np.abs(array - np.median(array))) > 1e-9:
        assert modified_z_scores(array) == pytest.approx(
            np.array(slow.modified_z_scores(values)), rel=1e-6, abs=1e-6
        )


def test_scores_stand_where_most_values_are_equal():
    scores = modified_z_scores(np.array([5.0] * 9 + [50.0]))
    assert scores[:9].tolist() == [0] * 9
    assert scores[9] > grey_statistics.OUTLYING_SCORE
    assert modified_z_scores(np.array([5.0] * 4)).tolist() == [0] * 4


@given(integer_arrays)
@settings(deadline=None)
def test_moments_may_be_added_in_any_order(array):
    sections = [moments_of(section) for section in array]
    assert sum(sections, Moments()) == sum(sections[::-1], Moments()) == moments_of(array)


@given(npst.arrays(np.int64, st.integers(1, 80), elements=st.integers(0, 9)), st.integers(1, 30))
@settings(deadline=None)
def test_a_grouped_histogram_keeps_every_voxel(counts, bins):
    grouped = Histogram(start=0, width=1, counts=counts).grouped(bins)
    assert grouped.counts.sum() == counts.sum()
    assert len(grouped.counts) <= bins
    last = grouped.start + len(grouped.counts) * grouped.width
    occupied = np.flatnonzero(counts)
    if occupied.size:
        assert grouped.start == occupied[0]
        assert last > occupied[-1]


def test_json_and_csv_say_the_same():
    array = tissue((5, 8, 8))
    array[2] = 0
    found = statistics(ArrayVolume(array))
    parsed = json.loads(found.to_json())
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [float(row["mean"]) for row in rows] == [one["mean"] for one in parsed["sections"]]
    assert [row["outlying"] for row in rows].count("constant") == 1
    assert sum(parsed["histogram"]["counts"]) == array.size
    assert parsed["suggested"]["image_mean"] == found.suggested.image_mean


def test_ranges_are_short():
    assert ranges([3]) == "sections 3"
    assert ranges([9, 1, 2, 3, 5]) == "sections 1 to 3, 5, 9"


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_the_order_of_the_items_and_few_are_drawn_ahead(threads):
    drawn = []

    def items():
        for index in range(20):
            drawn.append(index)
            yield index

    results = in_order(lambda item: item * item, items(), threads=threads, ahead=4)
    assert next(results) == 0
    assert len(drawn) <= 4
    assert list(results) == [index * index for index in range(1, 20)]


@pytest.mark.parametrize("threads", [1, 3])
def test_what_a_thread_raises_reaches_the_caller(threads):
    def fail(item):
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        list(in_order(fail, range(5), threads=threads, ahead=2))


def test_the_shared_sections_give_what_the_old_program_printed(shared_data):
    # png_mean_std.py printed "Mean:  132" and "Std :  61".
    with open_volume(shared_data / "snemi3d" / "images") as volume:
        found = statistics(volume)
    assert (round(found.mean), round(found.stddev)) == (132, 61)
    assert found.suggested.image_mean == found.mean
