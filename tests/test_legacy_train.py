"""The old train.py: records in, model files that everything else takes, going on where it was."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from floodem.cli.legacy import as_typed
from floodem.cli.main import main
from floodem.cli.train import _flags, _with_volumes
from floodem.errors import (
    FloodemError,
    GeometryError,
    OptionError,
    RunConflictError,
    StoppedError,
    UsageError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.geometry import VoxelSize
from floodem.legacy.checkpoints.tf_bundle import bundle_files
from floodem.legacy.programs import Console, find_program
from floodem.legacy.records.reading import CoordinateRecords
from floodem.legacy.records.writing import write_records
from floodem.legacy.training import model_files
from floodem.legacy.training.model_files import ModelFiles
from floodem.legacy.training.old_words import in_old_words
from floodem.legacy.training.options import run_values
from floodem.legacy.training.start import find_start
from floodem.network.model_file import load_model
from floodem.training.configuration.making import flatten, make_options
from floodem.training.configuration.options import TrainOptions
from reference.tf_bundle import write_bundle
from train_runs import losses, stop_after, weights, write_volume
from training_cases import blobs, smooth_image

SHAPE = (24, 32, 32)
SIZES = '{"depth": 2, "features": 4, "fov_size": [7, 7, 5], "deltas": [2, 2, 1]}'


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder as an old training has it: images and labels in HDF5, coordinates; we are in it."""
    monkeypatch.chdir(tmp_path)
    labels = blobs(SHAPE, seed=0)
    image = smooth_image(SHAPE, seed=0).astype(int) // 4 + 120 * (labels != 0)
    with h5py.File("images.h5", "w") as file:
        file["raw"] = image.astype(np.uint8)
    with h5py.File("labels.h5", "w") as file:
        file["stack"] = labels.astype(np.int64)
    write_centres("coords", inner_places(labels != 0))
    return tmp_path


def inner_places(is_wanted):
    """Where patches fit into the volume."""
    return np.argwhere(is_wanted[3:-3, 5:-5, 5:-5]) + np.array([3, 5, 5])


def write_centres(path, centres_zyx, *, name="v1", seed=0):
    """Shuffled centres, historic schema, gzip."""
    rows = np.random.default_rng(seed).permutation(np.asarray(centres_zyx, np.int64))[:500]
    batch = CoordinateRecords(
        names=(name,), volumes=np.zeros(len(rows), np.int64), centres_xyz=rows[:, ::-1]
    )
    write_records([batch], path, overwrite=True, threads=1)


def old_flags(**over):
    values = {
        "train_coords": "coords",
        "data_volumes": "v1:images.h5:raw",
        "label_volumes": "v1@labels.h5@stack",
        "model_name": "convstack_3d.ConvStack3DFFNModel",
        "model_args": SIZES,
        "image_mean": "131",
        "image_stddev": "62",
        "train_dir": "results",
        "max_steps": "6",
        "batch_size": "2",
        "device": "cpu",
        **over,
    }
    return [word for name, value in values.items() for word in (f"--{name}", value)]


def translated(*more, **over):
    program = find_program("train")
    return program.translation(program.parse([*old_flags(**over), *more]))


UNSET_BY_FLAGS = {"run", "network.name", "sampling.sampler", "sampling.out_of_volume"}
UNSET_BY_FLAGS |= {"checkpoint_minutes", "device"}
"""What is the same in every training here, and what both call alike."""


def option_names():
    """The options that the flags of the old program set."""
    program = find_program("train")
    flags = program.parse([*old_flags(), "--voxel_size=8,8,8"])
    values = run_values(flags, run="results/floodem-run", coordinates="list.npz")
    names = {name.replace("[0]", "") for name in flatten(values)}
    return names - UNSET_BY_FLAGS


class Told:
    """What a program said, and when it is to stop."""

    def __init__(self, should_stop=lambda: False):
        self.said, self.noticed = [], []
        self.console = Console(
            say=self.said.append,
            notice=self.noticed.append,
            progress=None,
            should_stop=should_stop,
        )


def run(*more, should_stop=lambda: False, **over):
    told = Told(should_stop)
    translation = translated(*more, **over)
    told.noticed += translation.notes
    translation.work(told.console)
    return told


def options_of(translation):
    """The options that the command of a translation asks for, as the command line reads them."""
    command = translation.commands[-1]
    assert command[:2] == ("floodem", "train")
    return read_words(command[2:])


def read_words(words):
    given = {}
    names = {"--image": "volume.image", "--labels": "volume.labels", "--init": "network.init"}
    for flag, value in zip(words[::2], words[1::2], strict=True):
        path = names.get(flag, flag.removeprefix("--").replace("-", "_"))
        key = path.replace(".", "__")
        if path.startswith("volume."):
            given.setdefault(key, []).append(value)
        else:
            given[key] = value
    values = _flags(given)
    values["volume"] = _with_volumes(None, values["volume"])
    return make_options(values)


def test_records_become_a_network_that_goes_on_with_the_same_command(place):
    told = run()
    path = place / "results" / "model.ckpt-6.safetensors"
    model = load_model(path).description
    assert (model.network, model.arguments) == ("conv_stack", {"depth": 2, "features": 4})
    assert (model.fov, model.deltas) == ((5, 7, 7), (1, 2, 2))
    assert (model.image_mean, model.image_stddev) == (131, 62)
    assert (model.pad_value, model.move_threshold) == (0.05, 0.9)
    assert told.said[0].startswith("results: step 6 after")
    assert "model_checkpoint_path: results/model.ckpt-6)" in told.said[1].replace("\\", "/")
    assert not told.noticed or all("voxel_size" in one for one in told.noticed)
    before = losses(place / "results" / "floodem-run")
    run(max_steps="11")
    after = losses(place / "results" / "floodem-run")
    assert {step: after[step] for step in before if step < 6} == {
        step: loss for step, loss in before.items() if step < 6
    }
    assert (place / "results" / "model.ckpt-11.safetensors").is_file()
    assert path.is_file()


def test_a_stopped_training_and_one_that_was_not_end_with_the_same_weights(place):
    run(max_steps="20")
    with pytest.raises(StoppedError, match="run the same command again"):
        run(train_dir="stopped", max_steps="20", should_stop=stop_after(12))
    (left,) = (place / "stopped").glob("model.ckpt-*")
    assert left.name not in {"model.ckpt-0.safetensors", "model.ckpt-20.safetensors"}
    run(train_dir="stopped", max_steps="20")
    whole, gone_on = (
        load_model(place / folder / "model.ckpt-20.safetensors").network.state_dict()
        for folder in ("results", "stopped")
    )
    for name in whole:
        torch.testing.assert_close(whole[name], gone_on[name], rtol=0, atol=0)


def test_the_command_that_is_named_trains_the_same(place, capsys):
    run()
    translation = translated(train_dir="typed")
    sample, train = translation.commands
    for words in (sample, train):
        with pytest.raises(SystemExit) as ended:
            main(list(words[1:]))
        assert ended.value.code == 0, capsys.readouterr().err
    whole = load_model(place / "results" / "model.ckpt-6.safetensors").network.state_dict()
    typed = load_model(place / "typed" / "floodem-run" / "latest.safetensors")
    for name, tensor in typed.network.state_dict().items():
        torch.testing.assert_close(tensor, whole[name], rtol=0, atol=0)
    assert shlex.split(as_typed(train)) == list(train)


def test_the_chain_from_labels_to_a_network_closes(place):
    for name, *words in (
        (
            "compute_partitions",
            *("--input_volume", "labels.h5:stack", "--output_volume", "af.h5:af"),
            *("--thresholds", "0.3,0.6,0.9", "--lom_radius", "3,3,3", "--min_size", "10"),
        ),
        (
            "build_coordinates",
            *("--partition_volumes", "v1:af.h5:af", "--coordinate_output", "tf_record_file"),
            *("--margin", "3,5,5"),
        ),
    ):
        program = find_program(name)
        program.translation(program.parse(words)).work(Told().console)
    told = run(train_coords="tf_record_file")
    assert not [one for one in told.noticed if "background" in one or "nearer" in one]
    model = load_model(place / "results" / "model.ckpt-6.safetensors").description
    assert model.training["step"] == 6


def test_old_defaults_are_the_options_of_the_run():
    flags = [
        *("--train_coords", "c", "--data_volumes", "a:i.h5:raw", "--label_volumes", "a:l.h5:x"),
        *("--model_name", "convstack_3d.ConvStack3DFFNModel", "--image_mean", "1"),
        *("--image_stddev", "2", "--model_args", '{"fov_size":[33,33,17],"deltas":[8,8,4]}'),
    ]
    program = find_program("train")
    options = options_of(program.translation(program.parse(flags)))
    assert Path(options.run) == Path("/tmp/floodem-run")
    assert (options.max_steps, options.batch_size, options.checkpoint_minutes) == (10_000, 4, 5)
    assert (options.network.fov, options.network.deltas) == ((17, 33, 33), (4, 8, 8))
    assert options.network.arguments == {"depth": 9, "features": 32}
    optimiser = options.optimiser
    assert (optimiser.name, optimiser.learning_rate, optimiser.schedule) == (
        "sgd",
        0.001,
        "constant",
    )
    assert (optimiser.clip, optimiser.clip_value) == ("element", 0.7)
    assert (optimiser.momentum, optimiser.rmsprop_decay, optimiser.epsilon) == (0.9, 0.9, 1e-8)
    assert (optimiser.beta1, optimiser.beta2, optimiser.average) == (0.9, 0.999, 0)
    movement = options.movement
    assert (movement.policy, movement.moves, movement.shuffle) == ("fixed", 1, "run")
    assert (movement.pad, movement.threshold, movement.init) == (0.05, 0.9, 0.95)
    assert options.augmentation.reflectable_axes == (0, 1, 2)
    assert options.augmentation.permutable_axes == (1, 2)
    assert options.augmentation.preset == "none"
    assert options.picture_minutes == 2
    assert TrainOptions().accumulate == options.accumulate == 1


def test_every_flag_reaches_its_option():
    translation = translated(
        "--noshuffle_moves",
        data_volumes=r"v1:images.h5:raw,b@C:\em\b.h5@raw",
        label_volumes="b:lb.h5:x,v1:labels.h5:stack",
        image_offset_scale_map="b:10:20",
        model_name="ffn.training.models.convstack_3d.ConvStack3DFFNModel",
        seed_pad="0.1",
        threshold="0.6",
        fov_policy="max_pred_moves",
        fov_moves="2",
        permutable_axes="0,1",
        reflectable_axes="",
        optimizer="rmsprop",
        learning_rate="0.01",
        momentum="0.5",
        rmsprop_decay="0.8",
        adam_beta1="0.7",
        adam_beta2="0.75",
        epsilon="1e-4",
        summary_rate_secs="30",
        voxel_size="30,6,6",
        max_steps="77",
    )
    options = options_of(translation)
    first, second = options.volumes
    assert (first.name, first.image, first.labels) == ("v1", "images.h5@raw", "labels.h5@stack")
    assert (second.name, second.image) == ("b", r"C:\em\b.h5@raw")
    assert (first.image_mean, first.image_stddev) == (131, 62)
    assert (second.image_mean, second.image_stddev) == (10, 20)
    assert second.voxel_size == VoxelSize(30, 6, 6)
    movement, optimiser = options.movement, options.optimiser
    assert (movement.policy, movement.moves, movement.shuffle) == ("max_pred_moves", 2, "none")
    assert (movement.pad, movement.threshold) == (0.1, 0.6)
    assert options.augmentation.permutable_axes == (0, 1)
    assert options.augmentation.reflectable_axes == ()
    assert (optimiser.name, optimiser.learning_rate, optimiser.momentum) == ("rmsprop", 0.01, 0.5)
    assert (optimiser.rmsprop_decay, optimiser.epsilon) == (0.8, 1e-4)
    assert (optimiser.beta1, optimiser.beta2) == (0.7, 0.75)
    assert (options.max_steps, options.batch_size, options.picture_minutes) == (77, 2, 0.5)
    assert options.sampling.sampler == "listed"


def test_flags_of_several_machines_are_taken_and_said_to_do_nothing():
    flags = {"master": "", "task": "0", "ps_tasks": "0", "replica_step_delay": "300"}
    more = {"learning_rate_decay_factor": "0.9", "decay_steps": "5", "num_epochs_per_decay": "2"}
    notes = translated("--sync_sgd", total_replicas="1", replicas_to_aggregate="1", **flags).notes
    (sentence,) = [note for note in notes if "no effect" in note]
    assert all(f"--{name}" in sentence for name in (*flags, "sync_sgd", "total_replicas"))
    (sentence,) = [note for note in translated(**more).notes if "no effect" in note]
    assert all(f"--{name}" in sentence for name in more)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"model_name": "resnet.Other"}, "only convstack_3d.ConvStack3DFFNModel is"),
        ({"model_args": "{depth: 9}"}, "is not JSON"),
        ({"model_args": "[1]"}, "no JSON object"),
        ({"model_args": '{"fov_sizes": [1,1,1]}'}, "did you mean fov_size"),
        ({"model_args": '{"fov_size": [33,33,17]}'}, "lacks deltas"),
        ({"model_args": '{"fov_size": [33,33], "deltas": [8,8,4]}'}, "not three whole numbers"),
        ({"model_args": SIZES.replace("2,", "0,", 1)}, "depth 0 is not a whole number from 1"),
        ({"model_args": SIZES[:-1] + ', "batch_size": 4}'}, "give one of them"),
        ({"data_volumes": "v2:images.h5:raw"}, "'v1' is among --label_volumes and not among"),
        ({"image_offset_scale_map": "v9:1:2"}, "names volume 'v9', and the volumes are v1"),
        ({"image_offset_scale_map": "v1:1"}, "is not NAME:MEAN:STDDEV"),
        ({"fov_policy": "window"}, "choose one of fixed, max_pred_moves"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_made(place, wrong, sentence):
    with pytest.raises((OptionError, UsageError), match=sentence):
        translated(**wrong)
    assert not (place / "results").exists()


def test_what_the_data_do_not_allow_is_refused_and_leaves_no_folder(place):
    write_centres("coords", [[5, 10, 10]], name="other")
    with pytest.raises(UsageError, match="holds centres in volume 'other', which is not among"):
        run()
    write_centres("coords", [[5, 10, 32]])
    with pytest.raises(GeometryError, match="which lies at 0:24,0:32,0:32"):
        run()
    (place / "coords").write_bytes(b"no records at all")
    with pytest.raises(FloodemError, match="no TFRecord file"):
        run(train_dir="nothing")
    assert not (place / "nothing").exists()


def test_volumes_are_looked_at_before_records_are_read(place):
    (place / "coords").write_bytes(b"no records at all")
    with pytest.raises(VolumeNotFoundError, match="'nope' is not there"):
        run(data_volumes="v1:images.h5:nope")
    with pytest.raises(VolumeNotFoundError, match="'nope' is not there"):
        run(label_volumes="v1:labels.h5:nope")
    with h5py.File("labels.h5", "r+") as file:
        file["smaller"] = file["stack"][:-1]
    with pytest.raises(VolumeFormatError, match="smaller"):
        run(label_volumes="v1:labels.h5:smaller")
    assert not (place / "results").exists()


def test_a_wrong_name_is_refused_at_the_first_records(place):
    write_centres("coords", [[5, 10, 10]], name="other")
    (place / "broken").write_bytes(b"no records at all")
    with pytest.raises(UsageError, match=r"^coords holds centres in volume 'other'.*\(v1\)"):
        run(train_coords="coords,broken")


def test_refusals_and_notices_speak_of_the_flags_that_were_typed(place):
    run()
    with pytest.raises(RunConflictError) as refused:
        run(max_steps="8", learning_rate="0.5", seed_pad="0.2", image_mean="12")
    said = str(refused.value)
    assert said.startswith("--train_dir results was begun with other options (")
    assert "--learning_rate was 0.001, now 0.5" in said
    assert "--seed_pad was 0.05, now 0.2" in said
    assert "--image_mean was 131.0, now 12.0" in said
    assert "choose another --train_dir; only --max_steps, " in said
    with pytest.raises(OptionError, match=r"train.py: --learning_rate -1.0 is not positive"):
        run(learning_rate="-1")
    assert run().noticed[-1] == (
        "--train_dir results has all its 6 steps: raise --max_steps to go on"
    )
    assert run(max_steps="4").noticed[-1].endswith("raise --max_steps above 6 to go on")


@given(names=st.lists(st.sampled_from(sorted(option_names())), min_size=1, max_size=3))
def test_every_option_that_flags_set_is_called_by_its_flag(names):
    sentence = in_old_words(" and ".join(names), train_dir=Path("results"), steps=0)
    assert sentence.count("--") == len(names)
    assert not any(name in sentence.replace(f"--{name}", "") for name in names)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("raise max_steps above 6 to go on", "raise --max_steps above 506 to go on"),
        (
            "run results/floodem-run is at step 6 already",
            "--train_dir results is at step 506 already",
        ),
        ("give --volume.voxel-size", "give --voxel_size=z,y,x"),
        ("volume[0].image was a, now b", "--data_volumes was a, now b"),
        ("data/volume.image/max_steps.h5 is gone", "data/volume.image/max_steps.h5 is gone"),
        ("the momentum of steps", "the momentum of steps"),
    ],
)
def test_steps_are_counted_as_model_files_count_them_and_paths_stay(ours, theirs):
    assert in_old_words(ours, train_dir=Path("results"), steps=500).replace("\\", "/") == theirs


def test_background_and_patches_that_leave_their_volume_are_said_once(place):
    with h5py.File("labels.h5") as file:
        labels = file["stack"][:]
    inner = inner_places(labels >= 0)[::7]
    near = [[0, 0, 0], [23, 31, 31], [12, 16, 3]]
    write_centres("coords", [*inner[:97], *near])
    with h5py.File("labels.h5", "r+") as file:
        for z, y, x in inner[:25].tolist():
            file["stack"][z, y, x] = 0
        empty = sum(int(file["stack"][z, y, x] == 0) for z, y, x in [*inner[:97].tolist(), *near])
    told = run()
    (background,) = [one for one in told.noticed if "background" in one]
    assert background.startswith(f"{empty}.0% of the centres lie on background")
    (margin,) = [one for one in told.noticed if "nearer" in one]
    assert margin.startswith("3.0% of the centres of v1 lie nearer to its faces than the 3,5,5")
    assert "--margin 3,5,5 avoids it" in margin
    again = run(max_steps="7")
    assert not [one for one in again.noticed if "background" in one or "nearer" in one]


def test_without_normalisation_it_is_measured_and_said(place):
    program = find_program("train")
    words = old_flags()
    del words[words.index("--image_mean") : words.index("--image_mean") + 4]
    translation = program.translation(program.parse(words))
    assert any("are measured" in note for note in translation.notes)
    told = Told()
    translation.work(told.console)
    with h5py.File("images.h5") as file:
        mean = file["raw"][:].mean()
    found = load_model(place / "results" / "model.ckpt-6.safetensors").description
    assert found.image_mean == pytest.approx(mean)


def test_centres_are_drawn_in_the_order_of_the_records(place):
    from floodem.training.coordinates.loading import load_coordinates
    from floodem.training.coordinates.samplers import make_sampler

    run()
    centres = load_coordinates("results/train_coords.npz")
    sampler = make_sampler("listed", centres, seed=0, weights={"v1": 1.0}, background=False)
    places = inner_places(blobs(SHAPE, seed=0) != 0)
    wanted = np.random.default_rng(0).permutation(places.astype(np.int64))[:500]
    assert [sampler(n).centre for n in range(500)] == [tuple(row) for row in wanted.tolist()]
    assert sampler(500 + 3) == sampler(3)


def test_other_records_do_not_mix_with_a_run(place):
    run()
    made = (place / "results" / "train_coords.npz").stat().st_mtime_ns
    run(max_steps="8")
    assert (place / "results" / "train_coords.npz").stat().st_mtime_ns == made
    write_centres("coords", np.argwhere(blobs(SHAPE, seed=0) >= 0)[::5], seed=1)
    with pytest.raises(RunConflictError, match="was begun with coordinates"):
        run(max_steps="9")
    told = run("--overwrite", max_steps="2")
    assert told.said[0].startswith("results: step 2 ")


def old_bundle(folder, *, step, source):
    """A TensorFlow checkpoint with the weights of a model file."""
    old = {"first.0": "conv0_a", "first.1": "conv0_b", "last": "conv_lom"}
    old |= {"residual.0.0": "conv1_a", "residual.0.1": "conv1_b"}
    variables = {"global_step": np.array(step, np.int64)}
    for name, tensor in load_model(source).network.state_dict().items():
        layer, _, part = name.rpartition(".")
        array = tensor.numpy()
        if part == "weight":
            array = array.transpose(2, 3, 4, 1, 0)
        key = f"seed_update/{old[layer]}/{'weights' if part == 'weight' else 'biases'}"
        variables[key] = np.ascontiguousarray(array)
    folder.mkdir(exist_ok=True)
    write_bundle(folder / f"model.ckpt-{step}", variables)


def test_a_folder_of_the_old_program_goes_on_from_its_weights(place):
    run(train_dir="first")
    source = place / "first" / "model.ckpt-6.safetensors"
    old_bundle(place / "results", step=500, source=source)
    old = {path: path.read_bytes() for path in bundle_files(place / "results" / "model.ckpt-500")}
    with pytest.raises(UsageError) as refused:
        translated()
    said = str(refused.value)
    assert "has 500 steps behind it, and --max_steps is 6" in said
    assert "--max_steps above 500 to go on from these weights, or another --train_dir" in said
    translation = translated(max_steps="503")
    (sentence,) = [note for note in translation.notes if "goes on" in note]
    assert "model.ckpt-500, which TensorFlow wrote; steps count on from 500" in sentence
    assert translation.commands[1][:3] == (
        "floodem",
        "import-model",
        str(Path("results/model.ckpt-500")),
    )
    told = run(max_steps="503")
    assert told.said[0].startswith("results: step 503 ")
    begun = load_model(place / "results" / "model.ckpt-500.safetensors").network.state_dict()
    for name, tensor in load_model(source).network.state_dict().items():
        torch.testing.assert_close(begun[name], tensor, rtol=0, atol=0)
    ended = load_model(place / "results" / "model.ckpt-503.safetensors").network.state_dict()
    assert any(not torch.equal(begun[name], ended[name]) for name in begun)
    assert {path: path.read_bytes() for path in old} == old
    again = run(max_steps="505")
    assert again.said[0].startswith("results: step 505 ")
    assert not [one for one in again.noticed if "goes on" in one]


def test_a_checkpoint_of_the_old_program_needs_the_normalisation_it_was_trained_with(place):
    run(train_dir="first")
    old_bundle(place / "results", step=5, source=place / "first" / "model.ckpt-6.safetensors")
    program = find_program("train")
    words = old_flags()
    del words[words.index("--image_mean") : words.index("--image_mean") + 4]
    with pytest.raises(UsageError, match="give --image_mean and --image_stddev as they were"):
        program.translation(program.parse(words))


def test_who_stops_while_records_are_read_finds_nothing_begun(place):
    with pytest.raises(StoppedError, match="stopped before the first step"):
        run(should_stop=lambda: True)
    assert not (place / "results").exists()


def test_model_files_without_their_run_are_gone_on_from(place):
    run(train_dir="first")
    (place / "results").mkdir()
    (place / "first" / "model.ckpt-6.safetensors").rename(
        place / "results" / "model.ckpt-6.safetensors"
    )
    told = run(max_steps="8")
    assert any("from the weights of" in one and "alone" in one for one in told.noticed)
    assert (place / "results" / "model.ckpt-8.safetensors").is_file()
    assert find_start(place / "results", overwrite=False).goes_on
    assert find_start(place / "results", overwrite=True).init is None


def test_the_newest_model_files_stay_and_one_for_each_hour(tmp_path):
    now = 0.0
    source = tmp_path / "latest"
    source.write_bytes(b"weights")
    (tmp_path / "model.ckpt-1.safetensors").write_bytes(b"of somebody else")
    files = ModelFiles(tmp_path, first=0, clock=lambda: now)
    for step in range(100, 140):
        now += 300.0
        files.save(step, source)
    found = sorted(
        int(path.stem.rpartition("-")[2]) for path in tmp_path.glob("model.ckpt-*.safetensors")
    )
    assert found[0] == 1
    assert found[-model_files.KEPT_NEWEST :] == [135, 136, 137, 138, 139]
    # Saved every 300 s, each twelfth is the first of another hour.
    assert found[1:-5] == [111, 123]
    assert files.path(7) == tmp_path / "model.ckpt-7.safetensors"


def test_whoever_saves_is_told_of_each_checkpoint(tmp_path):
    from train_runs import tiny_options, train

    told = []
    write_volume(tmp_path)
    made = train(
        tiny_options(tmp_path, checkpoint_minutes=0.0, max_steps=4),
        saved=lambda step, model: told.append((step, load_model(model).description.training)),
    )
    assert [step for step, _ in told] == [1, 2, 3, 4]
    assert [facts["step"] for _, facts in told] == [1, 2, 3, 4]
    assert weights(made)


def test_explaining_prints_commands_and_does_nothing(place, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["legacy", "train", "--explain", *old_flags()])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("floodem sample coords ")
    assert lines[1].startswith("floodem train --run ")
    assert "--sampling.sampler listed" in lines[1]
    assert not (place / "results").exists()


def test_a_newer_record_trains_as_well_as_a_historic_one(place):
    batch = CoordinateRecords(
        names=("v1",),
        volumes=np.zeros(3, np.int64),
        centres_xyz=np.array([[10, 11, 6], [12, 13, 7], [14, 9, 8]], np.int64),
        labels=np.ones(3, np.int64),
        segment_ids=np.ones(3, np.int64),
        radii=np.ones(3, np.float32),
    )
    for shard in range(2):
        write_records([batch], place / f"newer-{shard:05}-of-00002", threads=1)
    run(train_coords="newer@2", max_steps="1")
    values = json.loads((place / "results" / "floodem-run" / "run.json").read_text())
    assert values["step"] == 1
