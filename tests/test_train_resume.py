"""A run that was stopped, killed or damaged goes on to the same curve."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time

import pytest

from floodem.errors import EXIT_STOPPED, RunConflictError, StoppedError
from floodem.training.configuration.making import to_toml
from floodem.training.runs.checkpoints import (
    DAMAGED_SUFFIX,
    Checkpoint,
    checkpoint_paths,
    load_newest,
    save_checkpoint,
)
from train_runs import (
    assert_same_weights,
    command,
    curve,
    environment,
    stop_after,
    tiny_options,
    train,
    weights,
)

TIMEOUT_S = 120
STEPS = 40


def stopped(options, *, after):
    """Train until a stop is asked for."""
    with pytest.raises(StoppedError, match="run the same command again"):
        train(options, should_stop=stop_after(after))


@pytest.mark.parametrize(
    "over",
    [
        {},
        {"movement": {"policy": "max_pred_moves", "moves": 2, "threshold": 0.6}, "log_steps": 3},
        {"optimiser": {"name": "adam", "average": 0.9, "schedule": "cosine", "warmup_steps": 3}},
        {"optimiser": {"name": "momentum"}, "accumulate": 2, "dtype": "bfloat16"},
        {"optimiser": {"name": "rmsprop"}, "dtype": "float16"},
        {"optimiser": {"name": "adagrad", "clip": "norm"}, "movement": {"shuffle": "distance"}},
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, over):
    whole = train(tiny_options(tmp_path, run="whole", **over))
    options = tiny_options(tmp_path, **over)
    stopped(options, after=8)  # two questions are asked before the first step
    assert json.loads((options.folder / "run.json").read_text())["status"] == "stopped"
    assert 2 < checkpoint_step(options) < 12
    made = train(options)
    assert curve(made.folder) == curve(whole.folder)
    assert_same_weights(weights(made), weights(whole))


def checkpoint_step(options):
    return int(checkpoint_paths(options.folder / "checkpoints")[0].stem.removeprefix("step-"))


def test_a_stop_before_the_first_step_leaves_nothing(tmp_path):
    options = tiny_options(tmp_path)
    with pytest.raises(StoppedError):
        train(options, should_stop=lambda: True)
    assert not options.folder.exists()


def test_checkpoints_are_written_by_time_and_only_the_newest_stay(tmp_path):
    made = train(tiny_options(tmp_path, checkpoint_minutes=0.0, keep_checkpoints=2))
    names = [path.name for path in checkpoint_paths(made.folder / "checkpoints")]
    assert names == ["step-00000012.safetensors", "step-00000011.safetensors"]
    rare = train(tiny_options(tmp_path, run="rare"))
    assert len(checkpoint_paths(rare.folder / "checkpoints")) == 1


def cut_short(data):
    return data[: len(data) // 2]


def flip_a_bit_of_a_tensor(data):
    place = len(data) - 20
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def flip_a_bit_of_the_facts(data):
    place = data.index(b'\\"skipped\\": 0') + len(b'\\"skipped\\": ')
    return data[:place] + b"x" + data[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        flip_a_bit_of_a_tensor,
        flip_a_bit_of_the_facts,
        lambda data: b"",
        lambda data: b"?" * 99,
    ],
)
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path, damage):
    whole = train(tiny_options(tmp_path, run="whole"))
    options = tiny_options(tmp_path, checkpoint_minutes=0.0)
    stopped(options, after=8)
    newest, before, *_ = checkpoint_paths(options.folder / "checkpoints")
    newest.write_bytes(damage(newest.read_bytes()))
    told = []
    made = train(options, notice=told.append)
    assert any(newest.name in sentence and "is damaged" in sentence for sentence in told)
    assert newest.with_name(newest.name + DAMAGED_SUFFIX).exists()
    step = int(before.stem.removeprefix("step-"))
    assert f"goes on from step {step}" in (options.folder / "log.txt").read_text()
    assert curve(made.folder) == curve(whole.folder)
    assert_same_weights(weights(made), weights(whole))


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(tmp_path):
    options = tiny_options(tmp_path, checkpoint_minutes=0.0)
    stopped(options, after=8)
    for path in checkpoint_paths(options.folder / "checkpoints"):
        path.write_bytes(b"")
    with pytest.raises(RunConflictError, match="all checkpoints .* are damaged: .*--overwrite"):
        train(options)


def test_a_run_killed_before_its_first_checkpoint_begins_again(tmp_path):
    whole = train(tiny_options(tmp_path, run="whole"))
    options = tiny_options(tmp_path)
    stopped(options, after=8)
    for path in checkpoint_paths(options.folder / "checkpoints"):
        path.unlink()
    assert curve(train(options).folder) == curve(whole.folder)


def test_a_checkpoint_of_a_newer_version_is_not_read(tmp_path):
    save_checkpoint(tmp_path, Checkpoint(tensors={}, facts={"step": 3}), keep=3)
    path = checkpoint_paths(tmp_path)[0]
    path.write_bytes(path.read_bytes().replace(b'\\"version\\": 1', b'\\"version\\": 2'))
    with pytest.raises(RunConflictError):
        load_newest(tmp_path, notice=lambda sentence: None)


def config_of(options, path):
    path.write_text(to_toml(options), encoding="utf-8")
    return str(path)


def start(words, **more):
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(**more)
    )


def wait_for_step(options, step, process):
    """Wait until a row of metrics is there."""
    deadline = time.monotonic() + TIMEOUT_S
    path = options.folder / "metrics.jsonl"
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and path.read_text().count("\n") >= step:
            return
        time.sleep(0.002)
    output = process.communicate()[1].decode() if process.poll() is not None else "too slow"
    pytest.fail(output)


def slow_options(tmp_path, **over):
    """A run that takes a few seconds; its network is the same but waits at each step."""
    network = {
        "name": "slow_network:SlowStack",
        "arguments": {"depth": 2, "features": 4, "wait": 0.02},
    }
    return tiny_options(tmp_path, max_steps=STEPS, network=network, checkpoint_minutes=0.0, **over)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that can be caught")
@pytest.mark.parametrize(
    "sent", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_saves_the_state_and_the_same_command_goes_on(tmp_path, sent):
    options = slow_options(tmp_path)
    words = command(config_of(options, tmp_path / "config.toml"), "--checkpoint-minutes", "60")
    process = start(words)
    wait_for_step(options, 3, process)
    began = time.monotonic()
    process.send_signal(sent)
    _, said = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == EXIT_STOPPED, said.decode()
    assert time.monotonic() - began < 10
    assert "run the same command again to go on" in said.decode()
    saved = checkpoint_step(options)
    assert 3 <= saved < STEPS
    made = train(options)
    assert list(curve(made.folder)) == list(range(1, STEPS + 1))


def kill_and_go_on(tmp_path, *, kills):
    """Kill a run at random moments, and compare what it becomes with an uninterrupted run."""
    options = slow_options(tmp_path)
    words = command(config_of(options, tmp_path / "config.toml"))
    moments = random.Random(kills)
    for _ in range(kills):
        process = start(words)
        metrics = options.folder / "metrics.jsonl"
        rows = metrics.read_text().count("\n") if metrics.exists() else 0
        wait_for_step(options, min(rows + 1, STEPS), process)
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        process.communicate()
    assert not (options.folder / "run.json").read_text().count('"done"'), "make the run longer"
    made = train(options)
    whole = train(slow_options(tmp_path, run="whole"))
    assert curve(made.folder) == curve(whole.folder)
    assert_same_weights(weights(made), weights(whole))


def test_a_killed_run_goes_on_to_the_same_curve(tmp_path):
    kill_and_go_on(tmp_path, kills=1)


@pytest.mark.slow
def test_a_run_killed_ten_times_goes_on_to_the_same_curve(tmp_path):
    kill_and_go_on(tmp_path, kills=10)
