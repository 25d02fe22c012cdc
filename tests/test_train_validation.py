"""Training and what its validations say: stubs answer in the place of floods."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from floodem.cli.main import main
from floodem.network.model_file import load_model
from floodem.training.configuration.making import make_options, to_toml
from floodem.training.runs import trainer
from floodem.training.runs.loop import End
from floodem.training.validation.background import Validator
from train_runs import rows, tiny_options, tiny_values, train
from validation_cases import answered

FALLING = {step: 1 / (step + 1) for step in range(1000)}
FLAT = dict.fromkeys(range(1000), 0.3)
AT_EVERY_STEP = 1e-9


@pytest.fixture
def scores(monkeypatch):
    """Scores by step that validations answer at once; None: no score."""
    costs = dict(FALLING)
    monkeypatch.setattr(Validator, "_launch", lambda self, path: answered(path, costs))
    return costs


def validated(folder, *, run="run", max_steps=12, **validation):
    """A run that is validated at every step. Rows of metrics are rare: no loss is seen falling."""
    values = tiny_values(folder, run=run, max_steps=max_steps, log_steps=1000)
    values["volume"][0]["box"] = "0:24,0:32,0:20"
    values["validation"] = {
        "image": str(folder / "image0.npy"),
        "labels": str(folder / "labels0.npy"),
        "box": "0:24,0:32,20:32",
        "every_minutes": AT_EVERY_STEP,
        **validation,
    }
    return make_options(values)


@pytest.fixture
def threads(monkeypatch):
    """What training asks of torch on a machine of 8 cores, each with a thread."""
    asked = []
    monkeypatch.setattr(trainer, "usable_threads", lambda: 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    return asked


@pytest.mark.parametrize(
    ("given", "validating", "expected"),
    [(None, 1, 7), (None, 6, 2), (None, 7, 8), (None, 8, 8), (3, 1, 3), (8, 1, 8)],
)
def test_training_leaves_validation_its_cores_where_there_are_enough(
    tmp_path, scores, threads, given, validating, expected
):
    options = validated(tmp_path, max_steps=1, threads=validating)
    train(dataclasses.replace(options, threads=given))
    assert threads == [expected, 8]  # and afterwards the caller has what it had


def test_training_has_all_cores_where_nothing_is_validated_beside_it(tmp_path, threads):
    train(dataclasses.replace(tiny_options(tmp_path, max_steps=1), threads=None))
    assert threads == [8, 8]


def test_threads_that_were_limited_from_outside_stay_so(tmp_path, scores, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    train(dataclasses.replace(validated(tmp_path, max_steps=1), threads=None))
    assert set(threads) == {2}


def log_of(made):
    return (made.folder / "log.txt").read_text(encoding="utf-8")


def test_a_run_ends_once_the_score_has_stopped_improving(tmp_path, scores):
    scores |= FLAT
    made = train(validated(tmp_path, max_steps=200, stop_when_flat=True))
    assert made.end == End.FLAT
    assert 10 <= made.step < 20
    assert load_model(made.latest).description.training["step"] == made.step
    assert f"ends at step {made.step}: the validation score has stopped improving" in log_of(made)
    assert json.loads((made.folder / "run.json").read_text())["status"] == "done"


@pytest.mark.parametrize(
    ("costs", "stop_when_flat"), [(FLAT, False), (FALLING, True)], ids=["not-wanted", "improving"]
)
def test_a_run_goes_on_while_the_score_improves_or_nobody_wants_it_to_end(
    tmp_path, scores, costs, stop_when_flat
):
    scores |= costs
    made = train(validated(tmp_path, max_steps=30, stop_when_flat=stop_when_flat))
    assert (made.end, made.step) == (End.STEPS, 30)


def test_the_judgement_is_logged_at_each_validation_and_told_at_the_end(tmp_path, scores):
    told = []
    made = train(validated(tmp_path), notice=told.append)
    log = log_of(made)
    assert log.count("Cannot tell yet whether it has converged") == 4
    assert "Still improving: adapted Rand error" in log
    assert told[-1].startswith("Still improving: adapted Rand error")
    assert f"({made.best}" not in told[-1]
    assert made.best_score.step == 12
    assert log.count(told[-1]) == 1


def test_a_validation_without_a_score_is_told_and_logged(tmp_path, scores):
    scores[3] = None
    told = []
    made = train(validated(tmp_path), notice=told.append)
    (sentence,) = [one for one in told if "step 3 has no score" in one]
    assert sentence in log_of(made)


def test_notices_are_logged_whenever_they_are_given(tmp_path):
    train(tiny_options(tmp_path, checkpoint_minutes=0.0))
    newest = tmp_path / "run" / "checkpoints" / "step-00000012.safetensors"
    newest.write_bytes(newest.read_bytes()[:100])
    told = []
    train(tiny_options(tmp_path, checkpoint_minutes=0.0), notice=told.append)
    made = train(tiny_options(tmp_path, checkpoint_minutes=0.0), notice=told.append)
    assert any("is damaged" in sentence for sentence in told)
    assert any("has all its 12 steps" in sentence for sentence in told)
    assert not [sentence for sentence in told if sentence not in log_of(made)]
    assert list(rows(made.folder)) == list(range(1, 13))


def printed(options, path, capsys):
    path.write_text(to_toml(options), encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["train", str(path)])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_command_says_where_the_best_weights_are_and_what_to_do_next(tmp_path, scores, capsys):
    scores |= {step: 0.2 + abs(step - 5) / 10 for step in scores}
    options = validated(tmp_path)
    out = printed(options, tmp_path / "c.toml", capsys)
    best = options.folder / "best.safetensors"
    assert f"best weights: {best}, adapted Rand error 0.200 at step 5" in out
    assert f"floodem segment IMAGE SEGMENTATION.zarr --model {best}" in out
    again = printed(options, tmp_path / "c.toml", capsys)  # also where there is nothing left to do
    assert f"best weights: {best}, adapted Rand error 0.200 at step 5" in again


def test_without_validation_the_command_names_the_newest_weights(tmp_path, capsys):
    options = tiny_options(tmp_path)
    out = printed(options, tmp_path / "c.toml", capsys)
    assert "best weights" not in out
    assert f"--model {options.folder / 'latest.safetensors'}" in out


def test_the_next_command_names_a_network_of_another_package(tmp_path, capsys):
    network = {"name": "train_plugins:OneLayer", "arguments": {}}
    out = printed(tiny_options(tmp_path, network=network), tmp_path / "c.toml", capsys)
    assert "--network train_plugins:OneLayer" in out


def test_fine_tuning_scores_the_weights_it_begins_with(tmp_path, scores):
    first = train(tiny_options(tmp_path, run="first", max_steps=2))
    scores[0] = 0.01  # the best one's files are kept
    options = validated(tmp_path, run="second", max_steps=3, every_minutes=1000.0)
    options = dataclasses.replace(
        options, network=dataclasses.replace(options.network, init=str(first.latest))
    )
    made = train(options)
    lines = (made.folder / "validation.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 3]
    untouched = load_model(made.folder / "validation" / "step-00000000.safetensors")
    begun_with = load_model(first.latest)
    for name, weights in begun_with.network.state_dict().items():
        assert torch.equal(weights, untouched.network.state_dict()[name])


def test_the_wait_for_the_last_validation_is_told(tmp_path, scores):
    told = []
    train(validated(tmp_path, every_minutes=1000.0), notice=told.append)
    assert any("what is left is the validation of the last weights" in one for one in told)
