"""Examples by number: what is cut, what is wanted there, and what a configuration makes of it."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from floodem.errors import FloodemError, GeometryError, LabelError, OptionError
from floodem.geometry import Box
from floodem.training.augmentation.options import AugmentationOptions
from floodem.training.configuration.options import (
    MovementOptions,
    SamplingOptions,
    TrainOptions,
    VolumeOptions,
)
from floodem.training.coordinates.samplers import Draw
from floodem.training.examples.example import Examples
from floodem.training.examples.preparation import find_coordinates, make_in_flight, margin
from floodem.training.examples.sources import open_training_data
from training_cases import (
    AS_IT_IS,
    CPU,
    TINY,
    blobs,
    centres,
    smooth_image,
    training_data,
    training_volume,
)

SHAPE = (16, 26, 26)
PATCH = (5, 7, 9)
LABELS = blobs(SHAPE)


def at(*centre, volume="volume"):
    return lambda number: Draw(volume=volume, centre=centre)


def examples(sampler, *, labels=LABELS, augmentation=AS_IT_IS, pads=False, seed=0, **options):
    volume = training_volume(smooth_image(SHAPE), labels, **options)
    return Examples(
        training_data(volume),
        sampler,
        augmentation=augmentation,
        patch_shape=PATCH,
        seed=seed,
        pads=pads,
    )


def all_equal(one, other):
    return all(
        torch.equal(getattr(one, name), getattr(other, name))
        for name in ("image", "targets", "weights")
    )


def test_an_example_wants_the_object_of_its_centre_and_nothing_else():
    centre = tuple(int(i) for i in np.argwhere(LABELS[3:13, 4:22, 5:21])[100] + (3, 4, 5))
    example = examples(at(*centre))(0)
    window = tuple(slice(c - s // 2, c + s // 2 + 1) for c, s in zip(centre, PATCH, strict=True))
    own = LABELS[window] == LABELS[centre]
    np.testing.assert_array_equal(example.targets, np.where(own, 0.95, 0.05).astype(np.float32))
    expected = (smooth_image(SHAPE)[window].astype(np.float32) - 128) / 33
    np.testing.assert_array_equal(example.image, expected.astype(np.float32))
    np.testing.assert_array_equal(example.weights, np.ones(PATCH))
    assert 0 < own.mean() < 1


def test_a_centre_on_background_wants_nothing():
    labels = LABELS.copy()
    labels[8, 13, 13] = 0
    assert torch.all(examples(at(8, 13, 13), labels=labels)(0).targets == 0.05)


def test_unlabelled_voxels_are_outside_the_object_and_of_no_weight_where_unknown():
    labels = LABELS.copy()
    labels[8, 13, 13] = 77
    example = examples(at(8, 13, 13), labels=labels, unlabelled="unknown")(0)
    window = labels[6:11, 10:17, 9:18]
    np.testing.assert_array_equal(example.weights, (window != 0).astype(np.float32))
    assert (example.weights == 0).any()
    assert torch.all(example.targets[example.weights == 0] == 0.05)


def test_coordinates_of_an_unknown_volume_are_refused_by_name():
    with pytest.raises(OptionError, match=r"a volume 'other'; the run has volume"):
        examples(at(8, 13, 13, volume="other"))(0)


@pytest.mark.parametrize("centre", [(1, 13, 13), (8, 23, 13), (8, 13, 3), (14, 13, 13)])
def test_a_patch_that_leaves_its_volume_is_refused_or_padded(centre):
    with pytest.raises(GeometryError, match="leaves 0:16,0:26,0:26"):
        examples(at(*centre))(0)
    example = examples(at(*centre), pads=True)(0)
    start = [c - s // 2 for c, s in zip(centre, PATCH, strict=True)]
    for index in np.ndindex(*PATCH):
        voxel = tuple(a + i for a, i in zip(start, index, strict=True))
        is_inside = all(0 <= v < size for v, size in zip(voxel, SHAPE, strict=True))
        assert example.weights[index] == is_inside
        if not is_inside:
            assert example.image[index] == 0
            assert example.targets[index] == 0.05


def test_a_patch_that_just_fits_is_not_refused():
    for centre in [(2, 3, 4), (13, 22, 21)]:
        assert examples(at(*centre))(0).weights.min() == 1
    with pytest.raises(GeometryError):
        examples(at(2, 3, 4), box=Box((1, 0, 0), SHAPE))(0)


def test_a_patch_that_leaves_its_volume_once_its_axes_are_exchanged_is_refused():
    augmentation = AugmentationOptions(reflectable_axes=(), permutable_axes=(1, 2))
    for centre in [(8, 4, 13), (8, 21, 13)]:
        sampler = at(*centre)
        assert examples(sampler, augmentation=augmentation)(0).weights.min() == 1
    with pytest.raises(GeometryError, match="leaves"):
        examples(at(8, 3, 13), augmentation=augmentation)(0)


@pytest.mark.parametrize("preset", ["none", "light", "full"])
def test_an_example_follows_from_its_number_and_the_seed_alone(preset):
    augmentation = AugmentationOptions(preset=preset)
    sampler = centres(LABELS, (4, 6, 6))
    forward, backward, other = (
        examples(sampler, augmentation=augmentation, pads=True, seed=seed) for seed in (3, 3, 4)
    )
    found = [forward(number) for number in range(6)]
    for number in reversed(range(6)):
        assert all_equal(backward(number), found[number])
    assert not all(all_equal(other(number), found[number]) for number in range(6))
    again = forward(2)
    again.image.zero_()
    assert all_equal(forward(2), found[2])


# ---------------------------------------------------------------- preparation


def run_options(folder, *, shape=SHAPE, names=("volume",), **options):
    """A run over volumes in files."""
    volumes = []
    for number, name in enumerate(names):
        path = folder / f"{name}.h5"
        with h5py.File(path, "w") as file:
            file["image"], file["labels"] = smooth_image(shape, seed=number), blobs(shape)
        volumes.append(VolumeOptions(name=name, image=f"{path}@image", labels=f"{path}@labels"))
    sampling = {"lom_radius": (1, 2, 2), "min_size": 1, **options.pop("sampling", {})}
    return TrainOptions(
        network=TINY,
        volumes=tuple(volumes),
        sampling=SamplingOptions(**sampling),
        batch_size=2,
        **options,
    )


def prepared(options, *, index=None, **arguments):
    with open_training_data(options, device=CPU) as data:
        index = index or find_coordinates(options, data)
        one = make_in_flight(
            options, data, index=index, device=CPU, dtype=torch.float32, **arguments
        )
        one.close()
        return one


def test_a_configuration_becomes_examples_in_flight(tmp_path):
    one = prepared(run_options(tmp_path, names=("first", "second"), accumulate=3))
    seen = torch.cat([one.gather(number).inputs_bczyx for number in range(3)])
    assert seen.shape == (6, 2, *TINY.fov)
    assert len({tuple(image.flatten().tolist()) for image in seen[:, 0]}) == 6


def test_processes_share_the_slots_of_a_run(tmp_path):
    options = run_options(tmp_path, accumulate=2)  # each example ends with its first step
    alone = prepared(replace(options, batch_size=4))
    parts = [prepared(options, rank=rank, world=2) for rank in range(2)]
    for _ in range(3):
        seen = torch.cat([alone.gather(number).inputs_bczyx for number in range(2)])
        shared = [part.gather(number).inputs_bczyx for part in parts for number in range(2)]
        assert torch.equal(seen, torch.cat(shared))
        for one in (alone, *parts):
            for number in range(2):
                one.scatter(number, torch.full_like(one.gather(number).seeds_bczyx, -4.0))


def test_examples_that_could_not_begin_are_refused(tmp_path):
    options = run_options(tmp_path, movement=MovementOptions(init=0.85))
    with pytest.raises(OptionError, match=r"init 0.85 lies below movement.threshold 0.9"):
        prepared(options)
    prepared(replace(options, movement=MovementOptions(init=0.9)))


def test_coordinates_of_other_volumes_are_refused(tmp_path):
    options = run_options(tmp_path, names=("left", "right"))
    left = options.volumes[0]
    with open_training_data(options, device=CPU) as data:
        of_both = find_coordinates(options, data)
    only = replace(options, volumes=(left,))
    with pytest.raises(FloodemError, match="right"):
        prepared(only, index=of_both)
    with open_training_data(only, device=CPU) as data:
        of_left = find_coordinates(only, data)
    with pytest.raises(FloodemError, match="right"):
        prepared(options, index=of_left)


@pytest.mark.parametrize(
    ("movement", "sampling", "expected"),
    [
        ({}, {}, (3, 5, 5)),
        ({"moves": 2}, {}, (4, 7, 7)),
        ({"policy": "max_pred_moves"}, {}, (4, 7, 7)),
        ({}, {"margin": (0, 1, 9)}, (0, 1, 9)),
        ({}, {"out_of_volume": "pad"}, (0, 0, 0)),
        ({}, {"out_of_volume": "pad", "margin": (1, 1, 1)}, (1, 1, 1)),
    ],
)
def test_centres_keep_what_a_patch_needs_free_unless_told_otherwise(movement, sampling, expected):
    options = TrainOptions(
        network=TINY,
        movement=MovementOptions(**movement),
        sampling=SamplingOptions(**sampling),
    )
    assert margin(options) == expected


def test_centres_keep_free_what_a_patch_needs_once_its_axes_are_exchanged():
    network = replace(TINY, fov=(5, 7, 11))
    for axes, expected in [((), (3, 5, 7)), ((1, 2), (3, 7, 7)), ((0, 1, 2), (7, 7, 7))]:
        augmentation = AugmentationOptions(permutable_axes=axes)
        assert margin(TrainOptions(network=network, augmentation=augmentation)) == expected


def test_a_margin_too_small_for_the_patches_is_refused_before_the_first_step(tmp_path):
    options = run_options(tmp_path, sampling={"margin": (0, 0, 0)})
    with pytest.raises(GeometryError, match=r"^sampling.margin 0,0,0 is less .* 3,5,5 voxels"):
        prepared(options)


def with_coordinates(options, path, *, box):
    """A run on a part of its volume, with the centres of all of it from a file."""
    if not path.exists():
        with open_training_data(options, device=CPU) as data:
            find_coordinates(options, data).save(path)
    (volume,) = options.volumes
    return replace(
        options,
        volumes=(replace(volume, box=box),),
        sampling=replace(options.sampling, coordinates=str(path)),
    )


def test_of_coordinates_of_a_larger_box_those_inside_are_drawn_and_a_notice_says_so(tmp_path):
    part = with_coordinates(
        run_options(tmp_path), tmp_path / "centres.npz", box=Box((0, 0, 0), (16, 26, 20))
    )
    told = []
    with open_training_data(part, device=CPU) as data:
        index = find_coordinates(part, data, notice=told.append)
    assert index.free_box("volume") == Box((3, 5, 5), (13, 21, 15))
    found = np.concatenate(
        [ranks for one in index.partitions("volume") for ranks in index.centres("volume", one)]
    )
    inside = (blobs(SHAPE) != 0)[3:13, 5:21, 5:15]
    assert np.array_equal(
        found[np.lexsort(found.T[::-1])], np.argwhere(inside) + np.array((3, 5, 5))
    )
    (sentence,) = told
    assert "beyond 0:16,0:26,0:20 (z,y,x) of the volume: " in sentence
    assert f"{len(found):,} of " in sentence
    prepared(part)


def test_a_box_too_small_for_every_centre_of_the_coordinates_is_refused(tmp_path):
    part = with_coordinates(
        run_options(tmp_path), tmp_path / "centres.npz", box=Box((0, 0, 0), (16, 26, 10))
    )
    with pytest.raises(GeometryError, match="reach 3,5,5 .* 0:16,0:26,0:10 of the volume has no"):
        prepared(part)


def test_coordinates_of_another_part_of_the_volume_are_refused(tmp_path):
    path = tmp_path / "centres.npz"
    options = run_options(tmp_path, shape=(16, 26, 40))
    (volume,) = options.volumes
    left = replace(options, volumes=(replace(volume, box=Box((0, 0, 0), (16, 26, 20))),))
    with open_training_data(left, device=CPU) as data:
        find_coordinates(left, data).save(path)
    right = with_coordinates(options, path, box=Box((0, 0, 20), (16, 26, 40)))
    with pytest.raises(GeometryError, match="no centre in the volume .* inside 0:16,0:26,20:40"):
        prepared(right)


def test_coordinates_of_another_volume_of_the_same_name_are_refused(tmp_path):
    larger, smaller = tmp_path / "larger", tmp_path / "smaller"
    larger.mkdir()
    smaller.mkdir()
    whole = run_options(larger, shape=(16, 26, 30))
    with_coordinates(whole, tmp_path / "centres.npz", box=None)
    other = with_coordinates(
        run_options(smaller), tmp_path / "centres.npz", box=Box((0, 0, 0), SHAPE)
    )
    with pytest.raises(GeometryError, match="--box 0:16,0:26,0:26"):
        prepared(other)


def test_coordinates_are_read_from_the_file_that_is_named(tmp_path):
    options = run_options(tmp_path)
    with open_training_data(options, device=CPU) as data:
        made = find_coordinates(options, data)
        made.save(tmp_path / "centres.npz")
        named = replace(
            options, sampling=replace(options.sampling, coordinates=str(tmp_path / "centres.npz"))
        )
        found = find_coordinates(named, data)
    assert found.volume_names == made.volume_names
    np.testing.assert_array_equal(found.segments, made.segments)
    seen = [prepared(one).gather(0).inputs_bczyx for one in (options, named)]
    assert torch.equal(*seen)


def test_a_margin_that_leaves_nothing_is_refused(tmp_path):
    with pytest.raises(FloodemError, match="margin"):
        prepared(run_options(tmp_path, sampling={"margin": (8, 1, 1)}))


def test_labels_without_a_large_enough_object_are_refused(tmp_path):
    with pytest.raises(LabelError, match="no object of 1000000 voxels"):
        prepared(run_options(tmp_path, sampling={"min_size": 10**6}))
