"""`floodem.train` makes a network from an image and its labels, or says in a sentence why not."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import train_plugins
from floodem.cli.main import main
from floodem.errors import (
    DestinationExistsError,
    DeviceError,
    FloodemError,
    ModelError,
    OptionError,
    ResourceError,
    RunConflictError,
)
from floodem.files import exclusive
from floodem.geometry import VoxelSize
from floodem.network.model_file import load_model
from floodem.training.augmentation import options as augmentation_options
from floodem.training.augmentation.options import PRESETS
from floodem.training.configuration.making import make_options
from floodem.training.configuration.options import ValidationOptions
from floodem.training.examples.sources import open_training_data
from floodem.training.learning.averaging import WeightAverage
from floodem.training.learning.precision import LossScale
from floodem.training.record.pictures import saved_pictures
from floodem.training.runs.checkpoints import checkpoint_paths
from floodem.training.runs.loop import End
from floodem.training.runs.start import first_network
from floodem.training.runs.voxel_sizes import voxel_size_notices
from floodem.volumes import create_volume, open_volume
from train_runs import (
    assert_same_weights,
    command,
    curve,
    environment,
    losses,
    rows,
    tiny_options,
    tiny_values,
    train,
    weights,
    write_volume,
)


@pytest.fixture(autouse=True)
def unspoiled():
    for loss in (
        train_plugins.nan_from_the_fifth,
        train_plugins.overflowing_third,
        train_plugins.third_gradient_is_nan,
    ):
        loss.count = 0


def flags(values, *, prefix=""):
    """A configuration as flags."""
    words = []
    for name, value in values.items():
        if name == "arguments":
            text = ",".join(f"{key}={entry}" for key, entry in value.items())
            words += [f"--{prefix}{name}", text]
        elif isinstance(value, dict):
            words += flags(value, prefix=f"{prefix}{name}.")
        elif name == "volume":
            words += [word for volume in value for word in flags(volume, prefix="volume.")]
        else:
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            words += [f"--{prefix}{name.replace('_', '-')}", text]
    return words


def run_command(*words):
    with pytest.raises(SystemExit) as ended:
        main(["train", *words])
    return ended.value.code


def test_training_lowers_the_loss_and_leaves_a_model_that_says_what_it_is(tmp_path):
    made = train(tiny_options(tmp_path, max_steps=150))
    curve_of_loss = list(losses(made.folder).values())
    assert np.mean(curve_of_loss[-20:]) < 0.8 * np.mean(curve_of_loss[:20])
    assert (made.step, made.end, made.best) == (150, End.STEPS, None)
    description = load_model(made.latest).description
    assert (description.fov, description.deltas) == ((5, 7, 7), (1, 2, 2))
    assert (description.pad_value, description.move_threshold) == (0.05, 0.9)
    image = np.load(tmp_path / "image0.npy")
    assert description.image_mean == pytest.approx(image.mean())
    assert description.training["step"] == 150
    assert {"data", "configuration", "hours", "fields_of_view"} <= description.training.keys()


def test_a_model_says_whose_data_it_learned_from_and_what_others_may_do_with_it(tmp_path):
    told = {"licence": "CC-BY-4.0", "source": "a fly"}
    described = load_model(train(tiny_options(tmp_path, max_steps=1, **told)).latest).description
    assert (described.licence, described.source) == ("CC-BY-4.0", "a fly")
    plain = load_model(train(tiny_options(tmp_path, run="plain", max_steps=1)).latest).description
    assert (plain.licence, plain.source) == ("", str(tmp_path / "image0.npy"))


def test_a_model_says_how_large_voxels_are_and_a_notice_where_nobody_does(tmp_path):
    options, told = tiny_options(tmp_path, max_steps=1), []
    made = train(options, notice=told.append)
    (sentence,) = [one for one in told if "voxel size" in one]
    assert sentence.startswith(str(tmp_path / "image0.npy"))
    assert sentence.endswith(
        "says no voxel size; the model file will say 1,1,1 nm: give --volume.voxel-size"
    )
    volume = {**tiny_values(tmp_path)["volume"][0], "voxel_size": [30, 6, 6]}
    told.clear()
    train(tiny_options(tmp_path, max_steps=2, volume=[volume]), notice=told.append)  # may change
    assert not [one for one in told if "voxel size" in one]
    assert load_model(made.latest).description.voxel_size == VoxelSize(30.0, 6.0, 6.0)


def test_voxel_sizes_that_do_not_go_together_are_told_before_training(tmp_path):
    told = []
    fine, coarse = (write_volume(tmp_path, seed=seed) for seed in (0, 1))
    fine["voxel_size"], coarse["voxel_size"] = [10, 10, 10], [40, 10, 10]
    options = tiny_options(tmp_path, volume=[fine, coarse], max_steps=1)
    first = train(options, notice=told.append)
    (sentence,) = [one for one in told if "voxels of" in one]
    assert re.search(r"image1.npy has voxels of 40.*and the model file will say 10", sentence)
    tuned = tiny_values(tmp_path, run="fine", volume=[coarse], max_steps=1)
    tuned["network"] = {"init": str(first.latest)}
    told.clear()
    train(make_options(tuned), notice=told.append)
    (sentence,) = [one for one in told if "voxels of" in one]
    assert re.search(r"latest.safetensors was trained on voxels of 10.*volumes have 40", sentence)
    held_out = f"{tmp_path / 'held_out.h5'}@image"
    with create_volume(held_out, shape=(4, 4, 4), dtype="uint8", voxel_size=VoxelSize(8, 8, 5)):
        pass
    scored = dataclasses.replace(options, validation=ValidationOptions(image=held_out))
    with open_training_data(scored, device=torch.device("cpu")) as data:
        last = list(voxel_size_notices(scored, data))[-1]
    assert re.search(r"held_out.h5@image has voxels of 8.*the network learns 10", last)
    coarse["voxel_size"] = [11, 10, 9]
    told.clear()
    train(tiny_options(tmp_path, run="near", volume=[fine, coarse]), notice=told.append)
    assert not [one for one in told if "voxels of" in one]


def test_a_run_keeps_configuration_digests_versions_and_seed(tmp_path):
    options = tiny_options(tmp_path, seed=5)
    made = train(options)
    record = json.loads((made.folder / "run.json").read_text())
    assert record["status"] == "done"
    assert record["configuration"] == options.to_dict()
    assert len(record["identity"]["data of volume volume0"]) == 64
    assert {"floodem", "torch", "numpy", "python"} <= record["versions"].keys()
    assert record["seed"] == 5
    log = (made.folder / "log.txt").read_text()
    assert "begins" in log
    assert "ends at step 12" in log


def test_metrics_say_where_the_time_goes(tmp_path):
    row = rows(train(tiny_options(tmp_path, log_steps=6)).folder)[12]
    parts = [row[f"{part}_share"] for part in ("network", "patches", "optimiser", "rest")]
    assert all(part >= 0 for part in parts)
    assert sum(parts) == pytest.approx(1, abs=0.05)
    assert row["fields_per_s"] > 0


def test_equal_seeds_give_equal_runs_and_others_do_not(tmp_path):
    first, again, other = (
        train(tiny_options(tmp_path, run=str(run), seed=seed)) for run, seed in enumerate((1, 1, 2))
    )
    assert curve(first.folder) == curve(again.folder)
    assert_same_weights(weights(first), weights(again))
    assert losses(first.folder) != losses(other.folder)


def test_accumulated_batches_are_one_large_batch(tmp_path):
    large = train(tiny_options(tmp_path, run="large", batch_size=4, dtype="float64"))
    small = train(tiny_options(tmp_path, run="small", accumulate=2, dtype="float64"))
    for a, b in zip(losses(large.folder).values(), losses(small.folder).values(), strict=True):
        assert a == pytest.approx(b, rel=1e-12)
    assert_same_weights(weights(large), weights(small), tolerance=1e-7)


def test_the_average_of_the_weights_is_what_the_model_file_holds(tmp_path, monkeypatch):
    seen = []
    follow = WeightAverage.follow

    def spy(self):
        follow(self)
        seen.append({name: tensor.clone() for name, tensor in self._followed.items()})

    monkeypatch.setattr(WeightAverage, "follow", spy)
    made = train(tiny_options(tmp_path, optimiser={"average": 0.5}, max_steps=3))
    twin = first_network(tiny_options(tmp_path)).state_dict()
    for step, now in enumerate(seen):
        decay = min(0.5, (1 + step) / (10 + step))
        twin = {name: decay * twin[name] + (1 - decay) * now[name] for name in now}
    assert_same_weights(weights(made), twin, tolerance=1e-6)


def small_scale(scale):
    """A scale that does not overflow at once, as the usual one does, to find its size."""
    scale.scale, scale.good_steps = 256.0, 0


def test_float16_finds_the_size_of_its_scale(tmp_path):
    skipped = [
        row["skipped"]
        for row in rows(train(tiny_options(tmp_path, dtype="float16")).folder).values()
    ]
    assert skipped[-1] < 12
    assert skipped[-1] == skipped[-3]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_learns_about_the_same(tmp_path, dtype, monkeypatch):
    monkeypatch.setattr(LossScale, "__init__", small_scale)
    made = train(tiny_options(tmp_path, dtype=dtype))
    full = losses(train(tiny_options(tmp_path, run="full")).folder)
    half = losses(made.folder)
    assert half != full
    assert list(half.values()) == pytest.approx(list(full.values()), rel=0.05)
    assert all(one.dtype == torch.float32 for one in weights(made).values())


def test_float16_skips_a_step_that_overflows_and_counts_it(tmp_path, monkeypatch):
    monkeypatch.setattr(LossScale, "__init__", small_scale)
    made = train(
        tiny_options(
            tmp_path, dtype="float16", optimiser={"loss": "train_plugins:overflowing_third"}
        )
    )
    assert made.step == 12
    assert [row["skipped"] for row in rows(made.folder).values()] == [0, 0, *[1] * 10]


def test_gradients_that_are_no_numbers_are_skipped_and_counted(tmp_path):
    made = train(tiny_options(tmp_path, optimiser={"loss": "train_plugins:third_gradient_is_nan"}))
    assert rows(made.folder)[12]["skipped"] == 1
    assert all(bool(one.isfinite().all()) for one in weights(made).values())


def test_float16_gives_up_after_many_steps_without_finite_gradients(tmp_path):
    options = tiny_options(
        tmp_path,
        dtype="float16",
        max_steps=1000,
        log_steps=100,
        optimiser={"loss": "train_plugins:nan_from_the_fifth"},
    )
    with pytest.raises(ModelError, match="the last 100 gradients up to step 104 "):
        train(options)


def test_a_loss_that_is_no_number_ends_the_run_and_names_step_and_last_good_weights(tmp_path):
    options = tiny_options(
        tmp_path, optimiser={"loss": "train_plugins:nan_from_the_fifth"}, checkpoint_minutes=0.0
    )
    with pytest.raises(ModelError, match="loss is nan at step 5; .*latest.safetensors.*00000004"):
        train(options)
    assert load_model(options.folder / "latest.safetensors").description.training["step"] == 4
    assert json.loads((options.folder / "run.json").read_text())["status"] == "failed"


@pytest.mark.parametrize("policy", ["fixed", "fixed_window", "max_pred_moves"])
def test_every_movement_policy_trains(tmp_path, policy):
    movement = {"policy": policy, "moves": 2, "threshold": 0.6}
    made = train(tiny_options(tmp_path, movement=movement, max_steps=5))
    assert len(losses(made.folder)) == 5


def test_what_is_trained_segments(tmp_path, capsys):
    made = train(tiny_options(tmp_path, max_steps=5))
    words = ["segment", str(tmp_path / "image0.npy"), str(tmp_path / "seg.zarr")]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--model", str(made.latest), "--device", "cpu", "--max-calls", "5"])
    assert ended.value.code == 0, capsys.readouterr().err
    with open_volume(tmp_path / "seg.zarr") as volume:
        assert volume.shape == (24, 32, 32)


def test_a_finished_run_is_not_begun_again_by_the_same_call(tmp_path):
    options = tiny_options(tmp_path)
    first, told = train(options), []
    before = weights(first)
    again = train(options, notice=told.append)
    assert_same_weights(before, weights(again))
    assert any("all its 12 steps" in sentence for sentence in told)


def test_a_run_beyond_max_steps_is_told_both_numbers(tmp_path):
    train(tiny_options(tmp_path, max_steps=3))
    told = []
    made = train(tiny_options(tmp_path, max_steps=2), notice=told.append)
    assert made.step == 3
    (sentence,) = [one for one in told if "raise max_steps" in one]
    assert "is at step 3 already, and max_steps is 2: raise max_steps above 3" in sentence


def test_a_run_goes_on_for_more_steps_with_other_cadence(tmp_path):
    train(tiny_options(tmp_path))
    more = {"max_steps": 20, "keep_checkpoints": 1, "checkpoint_minutes": 0.0, "log_steps": 2}
    made = train(tiny_options(tmp_path, **more))
    assert made.step == 20
    assert len(checkpoint_paths(made.folder / "checkpoints")) == 1
    whole = losses(train(tiny_options(tmp_path, run="whole", max_steps=20)).folder)
    assert {step: whole[step] for step in range(1, 13)} == {
        step: loss for step, loss in losses(made.folder).items() if step <= 12
    }
    assert "max_steps = 20" in (made.folder / "config.toml").read_text()


def everything(folder):
    return {
        path: path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 9}, "seed was 0, now 9"),
        ({"batch_size": 3}, "batch_size was 2, now 3"),
        ({"optimiser": {"name": "adam"}}, 'optimiser.name was "sgd", now "adam"'),
        ({"network": {"arguments": {"depth": 3, "features": 4}}}, "network.arguments.depth"),
    ],
)
def test_other_options_than_those_of_the_folder_are_refused_by_name(tmp_path, change, named):
    folder = train(tiny_options(tmp_path)).folder
    before = everything(folder)
    with pytest.raises(RunConflictError, match=named) as refused:
        train(tiny_options(tmp_path, **change))
    assert "--overwrite" in str(refused.value)
    assert everything(folder) == before


def test_other_data_than_those_of_the_folder_are_refused(tmp_path):
    folder = train(tiny_options(tmp_path)).folder
    labels = np.load(tmp_path / "labels0.npy")
    labels[0, 0, 0] += 1
    np.save(tmp_path / "labels0.npy", labels)
    before = everything(folder)
    with pytest.raises(RunConflictError, match="data of volume volume0"):
        train(tiny_options(tmp_path))
    assert everything(folder) == before


def test_a_run_does_not_go_on_with_a_preset_that_has_changed(tmp_path, monkeypatch):
    light = {"augmentation": {"preset": "light", "blur_probability": 0.0}}
    folder = train(tiny_options(tmp_path, **light)).folder
    identity = json.loads((folder / "run.json").read_text())["identity"]
    assert identity["augmentation.noise_probability"] == PRESETS["light"]["noise_probability"]
    assert identity["augmentation.blur_probability"] == 0.0
    before = everything(folder)
    later = {**PRESETS, "light": {**PRESETS["light"], "noise_probability": 0.75}}
    monkeypatch.setattr(augmentation_options, "PRESETS", later)
    with pytest.raises(RunConflictError, match="noise_probability = 0.25, now .* 0.75"):
        train(tiny_options(tmp_path, max_steps=20, **light))
    assert everything(folder) == before


def test_overwrite_begins_again_and_forgets_the_run(tmp_path):
    train(tiny_options(tmp_path, max_steps=20))
    made = train(tiny_options(tmp_path, seed=3, max_steps=4), overwrite=True)
    assert list(losses(made.folder)) == [1, 2, 3, 4]
    assert [path.name for path in checkpoint_paths(made.folder / "checkpoints")] == [
        "step-00000004.safetensors"
    ]


def test_overwrite_of_a_run_touches_nothing_before_all_is_known_to_be_well(tmp_path):
    folder = train(tiny_options(tmp_path)).folder
    before = everything(folder)
    with pytest.raises(FloodemError):
        train(tiny_options(tmp_path, sampling={"min_size": 10**9}), overwrite=True)
    assert everything(folder) == before


def test_files_of_others_in_the_folder_are_not_replaced(tmp_path):
    options = tiny_options(tmp_path)
    options.folder.mkdir()
    (options.folder / "config.toml").write_text("mine")
    with pytest.raises(DestinationExistsError, match="config.toml"):
        train(options)
    assert (options.folder / "config.toml").read_text() == "mine"


def test_a_process_killed_while_it_began_leaves_a_folder_to_begin_in(tmp_path):
    made = train(tiny_options(tmp_path, max_steps=2))
    (made.folder / "run.json").unlink()
    assert list(losses(train(tiny_options(tmp_path, max_steps=3)).folder)) == [1, 2, 3]


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    options = tiny_options(tmp_path)
    options.folder.mkdir()
    with (
        exclusive(options.folder / "lock", what="x"),
        pytest.raises(RunConflictError, match="another process"),
    ):
        train(options)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sampling": {"min_size": 10**9}}, "no|empty"),
        ({"sampling": {"margin": [12, 16, 16]}}, "margin"),
        ({"network": {"fov": [4, 7, 7]}}, "odd"),
        ({"network": {"arguments": {"depth": 0, "features": 4}}}, "depth"),
        ({"network": {"arguments": {"depht": 2}}}, "depht"),
        ({"network": {"name": "conv_stak"}}, "nearest: conv_stack"),
        ({"network": {"name": "train_plugins:TwoChannels", "arguments": {}}}, "must return the"),
        ({"optimiser": {"loss": "sigmoid_cross_entrpy"}}, "nearest: sigmoid_cross_entropy"),
        ({"movement": {"init": 0.5}}, "movement.init"),
        ({"network": {"init": "nowhere.safetensors"}}, "nowhere.safetensors"),
        ({"device": "cuda:77"}, "cuda|NVIDIA|card"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_sentence(tmp_path, change, named):
    with pytest.raises(FloodemError, match=named) as refused:
        train(tiny_options(tmp_path, **change))
    assert "\n" not in str(refused.value)


def test_labels_of_another_shape_than_the_image_are_refused(tmp_path):
    write_volume(tmp_path)
    np.save(tmp_path / "labels0.npy", np.load(tmp_path / "labels0.npy")[:20])
    with pytest.raises(FloodemError, match="24.*20|20.*24"):
        train(tiny_options(tmp_path))
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_refused_before_the_first_step(tmp_path, monkeypatch):
    options = tiny_options(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000))
    with pytest.raises(ResourceError, match="training run .* needs"):
        train(options)
    assert not options.folder.exists()


def test_a_disk_that_fills_up_ends_the_run_and_keeps_what_was_saved(tmp_path, monkeypatch):
    train(tiny_options(tmp_path, max_steps=4))
    left = [10**9, 10**9, 0]
    usage = lambda path: SimpleNamespace(free=left.pop(0) if len(left) > 1 else left[0])  # noqa: E731
    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(ResourceError, match="checkpoint step-00000006.safetensors needs"):
        train(tiny_options(tmp_path, max_steps=8, checkpoint_minutes=0.0))
    monkeypatch.undo()
    made = train(tiny_options(tmp_path, max_steps=8))
    whole = train(tiny_options(tmp_path, run="whole", max_steps=8))
    assert curve(made.folder) == curve(whole.folder)
    assert_same_weights(weights(made), weights(whole))


def test_fine_tuning_takes_weights_and_all_that_was_not_said_from_the_model(tmp_path):
    first = train(tiny_options(tmp_path, max_steps=150, movement={"pad": 0.2, "threshold": 0.7}))
    values = tiny_values(tmp_path, run="fine", max_steps=12)
    values["network"] = {"init": str(first.latest), "deltas": [1, 1, 1]}
    options = make_options(values)
    model = load_model(first.latest).description
    assert options.network.fov == model.fov
    assert options.network.deltas == (1, 1, 1)
    assert options.network.arguments == model.arguments
    assert (options.movement.pad, options.movement.threshold) == (0.2, 0.7)
    assert options.volumes[0].image_mean == model.image_mean
    fine = losses(train(options).folder)
    scratch = losses(train(tiny_options(tmp_path, run="scratch")).folder)
    assert np.mean(list(fine.values())) < 0.85 * np.mean(list(scratch.values()))


def test_fine_tuning_goes_on_also_when_its_model_has_gone(tmp_path):
    first = train(tiny_options(tmp_path, max_steps=1))
    values = tiny_values(tmp_path, run="fine")
    values["network"] = {"init": str(first.latest)}
    fine = train(make_options(values))
    first.latest.unlink()
    assert run_command("--run", str(fine.folder), "--max-steps", "15") == 0
    assert len(losses(fine.folder)) == 15


def test_fine_tuning_refuses_a_model_of_another_shape(tmp_path):
    first = train(tiny_options(tmp_path, max_steps=1))
    network = {"init": str(first.latest), "arguments": {"depth": 3, "features": 4}}
    with pytest.raises(ModelError, match="do not fit conv_stack"):
        train(tiny_options(tmp_path, run="fine", network=network))


def test_several_volumes_of_different_contrast_train_together(tmp_path):
    volumes = [write_volume(tmp_path, seed=0), write_volume(tmp_path, seed=1, shape=(20, 30, 28))]
    made = train(tiny_options(tmp_path, volume=volumes))
    assert made.step == 12


def test_the_command_trains_from_flags_and_goes_on_from_the_folder_alone(tmp_path, capsys):
    words = flags(tiny_values(tmp_path))
    assert run_command(*words) == 0
    assert "step 12" in capsys.readouterr().out
    assert run_command("--run", str(tmp_path / "run"), "--max-steps", "15") == 0
    assert list(losses(tmp_path / "run")) == list(range(1, 16))
    assert run_command("--run", str(tmp_path / "run"), "--seed", "4") == 3
    assert "seed was 0, now 4" in capsys.readouterr().err
    assert run_command("--run", str(tmp_path / "run"), "--max-stepz", "15") == 2


def test_the_command_trains_from_a_file_and_equals_flags(tmp_path):
    assert run_command(*flags(tiny_values(tmp_path))) == 0
    config = tmp_path / "run" / "config.toml"
    assert run_command(str(config), "--run", str(tmp_path / "other")) == 0
    assert curve(tmp_path / "run") == curve(tmp_path / "other")


def test_held_out_data_choose_the_best_model(tmp_path):
    values = tiny_values(tmp_path, max_steps=60)
    values["volume"][0]["box"] = "0:24,0:32,0:20"
    values["validation"] = {
        "image": str(tmp_path / "image0.npy"),
        "labels": str(tmp_path / "labels0.npy"),
        "box": "0:24,0:32,20:32",
        "min_segment_size": 1,
        "max_calls": 20,
    }
    told = []
    made = train(make_options(values), notice=told.append)
    lines = (made.folder / "validation.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 60
    if made.best is None:
        assert "failure" in json.loads(lines[-1])
        assert told
    else:
        assert load_model(made.best).description.fov == (5, 7, 7)


def test_pictures_are_drawn_by_time_and_their_lack_does_not_end_a_run(tmp_path, monkeypatch):
    made = train(tiny_options(tmp_path, picture_minutes=0.0, max_steps=3))
    assert len(list((made.folder / "pictures").iterdir())) == 3
    monkeypatch.setitem(sys.modules, "PIL", None)
    told = []
    made = train(tiny_options(tmp_path, run="bare", picture_minutes=0.0), notice=told.append)
    assert made.step == 12
    assert [sentence for sentence in told if "no pictures" in sentence] == told[-1:]


def test_a_short_run_ends_with_a_row_and_a_picture_of_what_it_learned(tmp_path):
    made = train(tiny_options(tmp_path, log_steps=50, max_steps=7))
    table = rows(made.folder)
    assert list(table) == [7]
    assert math.isfinite(table[7]["loss"])
    assert [step for step, _ in saved_pictures(made.folder / "pictures")] == [7]
    go_on = train(tiny_options(tmp_path, log_steps=50, max_steps=9))
    assert list(rows(go_on.folder)) == [7, 9]
    again = train(tiny_options(tmp_path, log_steps=50, max_steps=9))
    assert list(rows(again.folder)) == [7, 9]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
def test_a_compiled_network_learns_the_same(tmp_path):
    plain = train(tiny_options(tmp_path, run="plain"))
    # In a process of its own: checks of shapes cannot be compiled.
    done = subprocess.run(
        command(*flags(tiny_values(tmp_path)), "--compile"),
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    compiled = losses(tmp_path / "run")
    assert list(compiled.values()) == pytest.approx(list(losses(plain.folder).values()), rel=1e-4)


def test_a_machine_that_cannot_compile_is_told_in_a_sentence(tmp_path, monkeypatch):
    def broken(network):
        def forward(inputs):
            raise RuntimeError("no compiler\nand much more")

        return forward

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(DeviceError, match="cannot be compiled here .no compiler.: leave out"):
        train(tiny_options(tmp_path, compile=True))


def test_a_limit_of_hours_ends_the_run_with_everything_saved(tmp_path):
    made = train(tiny_options(tmp_path, max_hours=1e-9, max_steps=1000))
    assert made.end == End.HOURS
    assert made.step == 1
    assert made.latest.exists()


def test_options_of_a_run_are_refused_before_data_are_read(tmp_path):
    with pytest.raises(OptionError, match="nothing to learn from"):
        train(tiny_options(tmp_path, volume=[]))
