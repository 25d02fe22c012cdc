"""What a run learns from: opening, checking and normalising volumes, and cutting patches."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from floodem.errors import FloodemError, GeometryError, LabelError, OptionError, VolumeFormatError
from floodem.geometry import Box, VoxelSize
from floodem.training.configuration.options import TrainOptions, VolumeOptions
from floodem.training.examples import sources
from floodem.training.examples.sources import open_training_data
from floodem.volumes import open_volume, statistics
from floodem.volumes.declared import VOXEL_SIZE_KEY
from training_cases import CPU, blobs, smooth_image, training_volume

SHAPE = (10, 14, 18)
MEAN, STDDEV = 100.0, 20.0


def write(path, **datasets):
    """Write datasets with a voxel size to an HDF5 file."""
    with h5py.File(path, "w") as file:
        for name, array in datasets.items():
            file[name] = array
    return str(path)


def options(folder, *, image=None, labels=None, mask=None, **of_volume):
    """Options of a run over files in a folder."""
    datasets = {
        "image": smooth_image(SHAPE) if image is None else image,
        "labels": blobs(SHAPE) if labels is None else labels,
    }
    if mask is not None:
        datasets["mask"] = mask
        of_volume["loss_mask"] = f"{folder / 'data.h5'}@mask"
    path = write(folder / "data.h5", **datasets)
    volume = VolumeOptions(image=f"{path}@image", labels=f"{path}@labels", **of_volume)
    return TrainOptions(volumes=(volume,))


def opened(folder, **arguments):
    return open_training_data(options(folder, **arguments), device=CPU)


def read_lazily(monkeypatch):
    monkeypatch.setattr(sources, "RESIDENT_SHARE", 0)


@pytest.mark.parametrize("is_loaded", [True, False])
@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "int32", "float32", "float64"]
)
def test_images_of_any_type_are_normalised_alike_however_often_they_are_cut(dtype, is_loaded):
    top = 100 if dtype == "int8" else 250
    image = np.random.default_rng(1).integers(0, top, SHAPE).astype(dtype)
    kept = image.copy()
    volume = training_volume(image, blobs(SHAPE), image_mean=MEAN, image_stddev=STDDEV)
    if is_loaded:
        volume.load()
    assert volume.is_resident == is_loaded
    for _ in range(3):
        patch = volume.cut((5, 7, 9), (5, 7, 7))
        expected = (image[3:8, 4:11, 6:13].astype(np.float32) - MEAN) / STDDEV
        np.testing.assert_array_equal(patch.image.numpy(), expected.astype(np.float32))
    np.testing.assert_array_equal(image, kept)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "float32", "float64"])
def test_what_a_volume_takes_on_the_device_is_known_before_it_is_loaded(dtype):
    mask = np.ones(SHAPE, np.uint8)
    volume = training_volume(np.zeros(SHAPE, dtype), blobs(SHAPE), mask=mask)
    expected = volume.resident_bytes
    volume.load()
    held = volume._resident
    assert expected == sum(
        one.numel() * one.itemsize for one in (held.image, held.labels, held.mask)
    )


def test_patches_read_from_files_equal_those_from_memory(tmp_path, monkeypatch):
    ids = np.array([0, 7, 2**32 + 7, 2**40, 2**63], np.uint64)
    labels = ids[blobs(SHAPE) % len(ids)]
    mask = (smooth_image(SHAPE, seed=9) > 120).astype(np.uint8)
    box = Box((1, 2, 3), (10, 13, 17))
    run = options(tmp_path, labels=labels, mask=mask, box=box)
    with open_training_data(run, device=CPU) as resident:
        read_lazily(monkeypatch)
        with open_training_data(run, device=CPU) as lazy:
            assert resident.is_resident
            assert not lazy.is_resident
            for centre in [(5, 7, 9), (2, 3, 16), (9, 12, 3)]:
                whole, part = (data.first.cut(centre, (7, 9, 9)) for data in (resident, lazy))
                assert torch.equal(whole.image, part.image)
                assert torch.equal(whole.weights, part.weights)
                # Numbers may differ; which voxels share one may not.
                for index in np.ndindex(whole.shape):
                    same = whole.labels == whole.labels[index]
                    assert torch.equal(same, part.labels == part.labels[index])
                assert torch.equal(whole.labels == 0, part.labels == 0)


def test_ids_that_are_equal_in_their_low_32_bits_are_different_objects():
    labels = np.full(SHAPE, 5, np.uint64)
    labels[:, 7:] += 2**32
    volume = training_volume(smooth_image(SHAPE), labels)
    lazy = volume.cut((5, 7, 9), (3, 3, 3))
    volume.load()
    for patch in (lazy, volume.cut((5, 7, 9), (3, 3, 3))):
        assert patch.labels.dtype == torch.int32
        assert (patch.labels == patch.labels[patch.centre]).float().mean() == pytest.approx(2 / 3)
        assert torch.all(patch.labels > 0)


def test_volumes_that_fit_lie_in_memory_and_the_rest_is_read(tmp_path, monkeypatch):
    big, small = (8, 16, 16), (4, 8, 8)
    paths = [
        write(tmp_path / f"{shape[0]}.h5", image=smooth_image(shape), labels=blobs(shape))
        for shape in (big, small)
    ]
    run = TrainOptions(
        volumes=tuple(
            VolumeOptions(name=name, image=f"{path}@image", labels=f"{path}@labels")
            for name, path in zip(("big", "small"), paths, strict=True)
        )
    )
    monkeypatch.setattr(sources, "available_memory", lambda: 4 * (1 + np.prod(small) * 5))
    with open_training_data(run, device=CPU) as data:
        assert list(data.volumes) == ["big", "small"]
        assert [volume.is_resident for volume in data.volumes.values()] == [False, True]
        assert not data.is_resident


def test_nothing_is_kept_in_memory_where_the_system_does_not_say_how_much_is_free(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(sources, "available_memory", lambda: None)
    with opened(tmp_path) as data:
        assert not data.is_resident


@given(
    centre=st.tuples(*(st.integers(4, size - 1) for size in SHAPE)),
    start=st.tuples(*(st.integers(0, size // 2 - 1) for size in SHAPE)),
    is_loaded=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_what_lies_outside_the_box_is_grey_unlabelled_and_weighs_nothing(centre, start, is_loaded):
    image, labels = smooth_image(SHAPE), blobs(SHAPE)
    labels[labels == 0] = 99
    box = Box(start, (9, 13, 17))
    volume = training_volume(image, labels, box=box, image_mean=MEAN, image_stddev=STDDEV)
    if is_loaded:
        volume.load()
    patch = volume.cut(centre, (5, 7, 9))
    for index in np.ndindex(patch.shape):
        voxel = tuple(c + i - s // 2 for c, i, s in zip(centre, index, patch.shape, strict=True))
        if box.contains_point(voxel):
            assert patch.image[index] == pytest.approx((image[voxel] - MEAN) / STDDEV, abs=1e-5)
            assert patch.labels[index] > 0
            assert patch.weights[index] == 1
        else:
            assert (patch.image[index], patch.labels[index], patch.weights[index]) == (0, 0, 0)


def test_a_patch_wholly_outside_its_volume_is_refused():
    volume = training_volume(smooth_image(SHAPE), blobs(SHAPE))
    with pytest.raises(GeometryError, match="belong to another volume"):
        volume.cut((5, 7, 30), (5, 7, 7))


def test_patches_are_cut_in_the_frame_of_the_volume():
    image, labels = smooth_image(SHAPE), blobs(SHAPE)
    here = training_volume(image, labels).cut((5, 7, 9), (3, 5, 5))
    there = training_volume(image, labels, offset=(100, 200, 300))
    for _ in range(2):
        moved = there.cut((105, 207, 309), (3, 5, 5))
        assert torch.equal(here.image, moved.image)
        assert torch.equal(
            here.labels == here.labels[1, 2, 2], moved.labels == moved.labels[1, 2, 2]
        )
        there.load()


def test_voxels_under_the_loss_mask_and_of_unknown_truth_weigh_nothing():
    labels = blobs(SHAPE)
    mask = (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 3).astype(np.uint8)
    window = (slice(2, 9), slice(3, 12), slice(5, 14))
    for unlabelled in ("background", "unknown"):
        for given_mask in (None, mask):
            expected = np.ones(SHAPE)
            if given_mask is not None:
                expected[mask == 0] = 0
            if unlabelled == "unknown":
                expected[labels == 0] = 0
            volume = training_volume(
                smooth_image(SHAPE), labels, mask=given_mask, unlabelled=unlabelled
            )
            for _ in range(2):
                patch = volume.cut((5, 7, 9), (7, 9, 9))
                np.testing.assert_array_equal(patch.weights, expected[window])
                volume.load()


def test_grey_levels_are_measured_in_the_box_where_they_are_not_given(tmp_path):
    image = smooth_image(SHAPE)
    image[:, :, 9:] = 255
    box = Box((0, 0, 0), (10, 14, 9))
    with opened(tmp_path, image=image, box=box) as data:
        with open_volume(data.first.options.image) as volume:
            suggested = statistics(volume, box=box).suggested
        assert data.mean_stddev == (suggested.image_mean, suggested.image_stddev)
        assert abs(data.first.mean - image[:, :, :9].mean()) < 5


@pytest.mark.parametrize(
    "given",
    [{"image_mean": 128.0}, {"image_stddev": 33.0}],
    ids=["mean only", "standard deviation only"],
)
def test_one_of_mean_and_standard_deviation_alone_is_refused(tmp_path, given):
    with pytest.raises(OptionError, match="give both, or neither"):
        opened(tmp_path, **given)


@pytest.mark.parametrize("stddev", [0.0, -1.0, float("nan"), float("inf")])
def test_a_standard_deviation_that_cannot_normalise_is_refused(tmp_path, stddev):
    with pytest.raises(OptionError, match=f"standard deviation {stddev}"):
        opened(tmp_path, image_mean=128.0, image_stddev=stddev)


def test_an_image_of_one_grey_value_is_refused(tmp_path):
    with pytest.raises(OptionError, match="one grey value only"):
        opened(tmp_path, image=np.full(SHAPE, 7, np.uint8))


REFUSED = {
    "labels of another shape": (
        {"labels": blobs((10, 14, 17))},
        VolumeFormatError,
        "17",
    ),
    "a mask of another shape": ({"mask": np.ones((9, 14, 18), np.uint8)}, VolumeFormatError, "9"),
    "labels that are no whole numbers": (
        {"labels": blobs(SHAPE).astype(np.float32)},
        VolumeFormatError,
        "whole numbers",
    ),
    "negative labels": ({"labels": blobs(SHAPE).astype(np.int32) - 1}, LabelError, "negative"),
    "a box outside": ({"box": Box((0, 0, 0), (10, 14, 19))}, GeometryError, "not inside"),
    "an empty box": ({"box": Box((0, 0, 0), (10, 0, 18))}, GeometryError, "empty"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_together_is_refused_before_anything_is_learned(tmp_path, case):
    arguments, error, words = REFUSED[case]
    with pytest.raises(error, match=words):
        opened(tmp_path, **arguments)


def grey(shape=(12, 40, 40), *, smoothed=0):
    """An image as microscopes make them, the noise of its pixels blurred away or not."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=shape), smoothed)
    return np.clip(128 + 30 * noise / noise.std(), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("smoothed", [0, 2])
@pytest.mark.parametrize("dtype", ["uint8", "uint32"])
def test_an_image_given_as_labels_is_refused_with_the_share_of_neighbours_that_differ(
    tmp_path, smoothed, dtype
):
    image = grey(smoothed=smoothed)
    with pytest.raises(LabelError, match="labels of .*@image, looks like an image: 9.% of") as says:
        opened(tmp_path, image=image, labels=image.astype(dtype))
    assert "@labels" in str(says.value)
    framed = np.pad(image, [(0, 0), (60, 60), (60, 60)]).astype(dtype)
    with pytest.raises(LabelError, match="looks like an image"):
        opened(tmp_path, image=framed.astype(np.uint8), labels=framed)


def strewn(shape):
    """Lines of one voxel, each of its own number, on background."""
    labels = np.zeros(shape, np.uint32)
    labels[:, ::2, ::2] = np.arange(labels[0, ::2, ::2].size).reshape(labels[0, ::2, ::2].shape) + 1
    return labels


def cubes(shape, *, edge):
    """Touching objects of a few voxels."""
    z, y, x = np.indices(shape) // edge
    return (1 + x + 100 * (y + 100 * z)).astype(np.uint32)


SEGMENTATIONS = {
    "one object": np.ones((12, 40, 40), np.uint8),
    "one object and noise in the middle": np.where(
        np.indices((12, 80, 80)).max(axis=0) < 60, 7, grey((12, 80, 80))
    ),
    "a small crop": blobs((3, 4, 4)),
    "many small objects": cubes((12, 40, 40), edge=2),
    "lines of one voxel": strewn((12, 40, 40)),
    "no object": np.zeros((12, 40, 40), np.uint8),
    "squares of two voxels": np.repeat(grey((12, 20, 20)), 2, axis=1).repeat(2, 2),
}


@pytest.mark.parametrize("case", SEGMENTATIONS)
def test_a_segmentation_is_never_taken_for_an_image(tmp_path, case):
    labels = SEGMENTATIONS[case]
    with opened(tmp_path, image=grey(labels.shape), labels=labels) as data:
        assert len(data.volumes) == 1


def test_one_address_for_image_and_labels_is_refused(tmp_path, monkeypatch):
    (volume,) = options(tmp_path).volumes
    monkeypatch.chdir(tmp_path)
    for labels in (volume.image, "data.h5@image", "./data.h5@/image", "data.h5"):
        same = VolumeOptions(image=volume.image, labels=labels)
        with pytest.raises(OptionError, match=f"{labels} is given as image and as labels"):
            open_training_data(TrainOptions(volumes=(same,)), device=CPU)


@pytest.mark.parametrize("what", ["image", "labels"])
def test_a_volume_without_an_address_is_refused(tmp_path, what):
    (volume,) = options(tmp_path).volumes
    given = {"image": volume.image, "labels": volume.labels, what: ""}
    for name, called in [("volume", "the volume"), ("slab", "volume 'slab'")]:
        unfinished = TrainOptions(volumes=(VolumeOptions(name=name, **given),))
        with pytest.raises(
            OptionError, match=f"^{called} has no {what}: give --{what} .* volume.{what} "
        ):
            open_training_data(unfinished, device=CPU)


def test_a_run_without_volumes_is_refused():
    with pytest.raises(OptionError, match="nothing to learn from"):
        open_training_data(TrainOptions(), device=CPU)


def test_files_are_closed_when_a_later_volume_is_refused(tmp_path):
    (good,) = options(tmp_path).volumes
    bad = VolumeOptions(name="second", image=good.image, labels=str(tmp_path / "none.h5"))
    with pytest.raises(FloodemError):
        open_training_data(TrainOptions(volumes=(good, bad)), device=CPU)
    # HDF5 refuses to open for writing what is still open for reading.
    with h5py.File(tmp_path / "data.h5", "a") as file:
        file["more"] = 1


def test_the_digest_changes_with_everything_that_is_learned_from(tmp_path, monkeypatch):
    def digest(**arguments):
        with opened(tmp_path, **{"image_mean": 1.0, "image_stddev": 2.0, **arguments}) as data:
            return data.digests()["volume"]

    image, labels = smooth_image(SHAPE), blobs(SHAPE)
    other_image, other_labels = image.copy(), labels.copy()
    other_image[9, 13, 17] ^= 1
    other_labels[9, 13, 17] += 1
    mask = np.ones(SHAPE, np.uint8)
    first = digest()
    found = [
        first,
        digest(image=other_image),
        digest(labels=other_labels),
        digest(mask=mask),
        digest(mask=mask * 2 - (np.arange(18) == 3).astype(np.uint8)),
        digest(image_mean=1.5),
        digest(unlabelled="unknown"),
        digest(box=Box((0, 0, 0), (10, 14, 17))),
    ]
    assert len(set(found)) == len(found)
    read_lazily(monkeypatch)
    assert digest() == first


def test_opening_and_digests_report_progress(tmp_path):
    told = []
    with open_training_data(options(tmp_path), device=CPU, progress=told.append) as data:
        data.digests(told.append)
    assert [(one.stage, one.done, one.total) for one in told] == [
        ("open volumes", 1, 1),
        ("digest", 1, 1),
    ]


def test_the_voxel_size_is_that_of_the_image():
    volume = training_volume(smooth_image(SHAPE), blobs(SHAPE))
    assert volume.voxel_size is None
    volume.image.voxel_size = VoxelSize(30.0, 6.0, 6.0)
    again = sources.TrainingVolume(
        volume.options, image=volume.image, labels=volume.labels, mask=None, device=CPU,
        dtype=torch.float32,
    )  # fmt: skip
    assert again.voxel_size == VoxelSize(30.0, 6.0, 6.0)


def with_voxel_size(path, *, zyx_nm):
    """Say in an HDF5 file how large the voxels of its image are."""
    with h5py.File(path, "a") as file:
        file["image"].attrs[VOXEL_SIZE_KEY] = zyx_nm


def test_voxels_are_as_large_as_the_options_say_where_files_do_not(tmp_path):
    with opened(tmp_path) as data:
        assert data.voxel_size is None
    with opened(tmp_path, voxel_size=VoxelSize(30.0, 6.0, 6.0)) as data:
        assert data.voxel_size == VoxelSize(30.0, 6.0, 6.0)


def test_a_voxel_size_that_contradicts_the_file_is_refused(tmp_path):
    run = options(tmp_path, voxel_size=VoxelSize(30.0, 6.0, 6.0))
    with_voxel_size(tmp_path / "data.h5", zyx_nm=(30.01, 6.0, 6.0))
    with open_training_data(run, device=CPU) as data:
        assert data.voxel_size == VoxelSize(30.01, 6.0, 6.0)
    with_voxel_size(tmp_path / "data.h5", zyx_nm=(30.0, 8.0, 8.0))
    with pytest.raises(OptionError, match="voxel_size 30,6,6 nm, but .* says 30,8,8 nm"):
        open_training_data(run, device=CPU)


def test_the_model_gets_the_voxel_size_of_the_first_volume_that_has_one(tmp_path):
    (tmp_path / "other").mkdir()
    first, other = options(tmp_path).volumes, options(tmp_path / "other", name="other").volumes
    with_voxel_size(tmp_path / "other" / "data.h5", zyx_nm=(30.0, 6.0, 6.0))
    with open_training_data(TrainOptions(volumes=(*first, *other)), device=CPU) as data:
        assert data.first.voxel_size is None
        assert data.voxel_size == VoxelSize(30.0, 6.0, 6.0)
