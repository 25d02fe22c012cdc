"""Floods beside training: what comes back, what is kept, and that nothing stops training."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bright import bright_model
from floodem.evaluation import evaluate
from floodem.network.model_file import load_model
from floodem.training.configuration.options import NetworkOptions
from floodem.training.validation import background, job, worker
from floodem.training.validation.choice import ValidationFailure
from floodem.training.validation.job import ValidationJob
from floodem.volumes import open_volume
from validation_cases import (
    DELTAS,
    FOV,
    answered,
    finished,
    options_of,
    tubes_on_disk,
    validator_of,
)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def held_out(tmp_path):
    return tubes_on_disk(tmp_path)


def blind_model():
    """A network that says nothing about any voxel."""
    model = bright_model()
    for weights in model.network.parameters():
        weights.data.zero_()
    return model


def files(folder):
    return sorted(path.name for path in folder.iterdir() if path.name not in {"begun", "log.txt"})


def test_a_validation_scores_what_segment_and_evaluate_say(tmp_path, held_out):
    failures = []
    options = options_of(tmp_path, *held_out)
    validator = validator_of(options, on_failure=failures.append)
    validator.start(bright_model(), step=12, hours=0.5)
    assert validator.is_running
    assert not validator.is_due()
    made = finished(validator)
    assert failures == []
    assert (made.step, made.hours, made.segments) == (12, 0.5, 6)
    assert made.network_calls > 0
    with (
        open_volume(f"{tmp_path / 'run/validation/step-00000012.h5'}@labels") as labels,
        open_volume(held_out[1]) as truth,
    ):
        found = evaluate(labels, truth, border=(3, 4, 4))
    assert made.adapted_rand_error == found.all_truth.adapted_rand_error < 0.1
    assert made.voi_merge_bits == found.all_truth.voi_merge_bits
    assert made.fill == found.coverage > 0.9
    assert load_model(tmp_path / "run/best.safetensors").digest() == bright_model().digest()
    assert validator.poll() is None


def test_the_border_that_is_not_scored_can_be_chosen(tmp_path, held_out):
    validator = validator_of(options_of(tmp_path, *held_out, border=(0, 0, 0)))
    validator.start(bright_model(), step=1, hours=0.1)
    made = finished(validator)
    with (
        open_volume(f"{tmp_path / 'run/validation/step-00000001.h5'}@labels") as labels,
        open_volume(held_out[1]) as truth,
    ):
        assert made.fill == evaluate(labels, truth).coverage
        assert made.fill != evaluate(labels, truth, border=(3, 4, 4)).coverage


def test_validations_without_a_score_are_told_and_training_goes_on(tmp_path, held_out):
    failures = []
    validator = validator_of(options_of(tmp_path, *held_out), on_failure=failures.append)
    validator.start(blind_model(), step=3, hours=0.1)
    assert finished(validator) is None
    (failure,) = failures
    assert failure.step == 3
    assert "made no segment of at least 100 voxels" in failure.reason
    assert not (tmp_path / "run/best.safetensors").exists()
    assert files(tmp_path / "run/validation") == []


def test_an_untrained_network_gets_a_score_or_a_reason(tmp_path, held_out):
    failures = []
    torch.manual_seed(0)
    model = bright_model()
    for weights in model.network.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    validator = validator_of(options_of(tmp_path, *held_out), on_failure=failures.append)
    validator.start(model, step=0, hours=0.0)
    assert (finished(validator) is None) == bool(failures)


def out_of_memory(job):
    raise MemoryError


def out_of_card_memory(job):
    raise torch.OutOfMemoryError


def mistaken(job):
    raise ZeroDivisionError("by zero")


@pytest.mark.parametrize(
    ("flood", "reason"),
    [
        (None, "held-out-raw.h5"),
        (out_of_memory, "the memory of this machine is not enough"),
        (out_of_card_memory, "the memory of cpu is not enough beside training"),
        (mistaken, "this is a bug in floodem: ZeroDivisionError: by zero"),
    ],
)
def test_whatever_goes_wrong_in_the_process_is_its_answer(
    tmp_path, held_out, monkeypatch, flood, reason
):
    validator = validator_of(options_of(tmp_path, *held_out, threads=torch.get_num_threads()))
    jobs = []
    monkeypatch.setattr(validator, "_launch", jobs.append)
    validator.start(bright_model(), step=4, hours=0.2)
    Path(held_out[0].partition("@")[0]).unlink()
    if flood is not None:
        monkeypatch.setattr(job, "flood_and_score", flood)
    worker.work(jobs[0])
    outcome = job.read_outcome(Path(ValidationJob.load(jobs[0]).outcome))
    assert isinstance(outcome, ValidationFailure)
    assert (outcome.step, outcome.hours) == (4, 0.2)
    assert reason in outcome.reason


def test_a_bug_in_the_process_becomes_a_reason(tmp_path, held_out):
    failures = []
    validator = validator_of(options_of(tmp_path, *held_out), on_failure=failures.append)
    launch = validator._launch

    def damaged(path):
        path.write_text(path.read_text().replace('"threads"', '"thread"'))
        return launch(path)

    validator._launch = damaged
    validator.start(bright_model(), step=1, hours=0.0)
    assert finished(validator) is None
    assert "ended with code 1 and no score" in failures[0].reason
    assert "TypeError" in failures[0].reason


def test_a_process_that_cannot_be_started_becomes_a_reason(tmp_path, held_out, monkeypatch):
    failures = []
    validator = validator_of(options_of(tmp_path, *held_out), on_failure=failures.append)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    validator.start(bright_model(), step=1, hours=0.0)
    assert validator.is_running
    assert validator.poll() is None
    assert not validator.is_running
    assert "could not be started" in failures[0].reason


def test_a_process_killed_by_the_system_becomes_a_reason(tmp_path, held_out):
    failures = []
    validator = validator_of(options_of(tmp_path, *held_out), on_failure=failures.append)
    validator.start(bright_model(), step=1, hours=0.0)
    validator._process.kill()
    assert finished(validator) is None
    assert "its process ended with code" in failures[0].reason
    assert "no score" in failures[0].reason


def test_a_stopped_validation_leaves_no_process_and_no_files_for_long(tmp_path, held_out):
    options = options_of(tmp_path, *held_out)
    validator = validator_of(options)
    validator.start(bright_model(depth=12, features=64), step=5, hours=0.1)
    process = validator._process
    wait_for(tmp_path / "run/validation/step-00000005.h5@labels.floodem/run.json")
    validator.stop()
    assert process.returncode is not None
    assert not validator.is_running
    assert validator.poll() is None
    assert files(tmp_path / "run/validation") != []
    validator_of(options)
    assert files(tmp_path / "run/validation") == []


def test_a_validation_ends_when_training_is_killed(tmp_path, held_out):
    script = (
        "import sys, time; sys.path.insert(0, sys.argv[3])\n"
        "from pathlib import Path\n"
        "from bright import bright_model\n"
        "from validation_cases import options_of, validator_of\n"
        "if __name__ == '__main__':\n"
        "    v = validator_of(options_of(Path(sys.argv[4]), sys.argv[1], sys.argv[2]))\n"
        "    v.start(bright_model(depth=12, features=64), step=5, hours=0.1)\n"
        "    print(v._process.pid, flush=True)\n"
        "    time.sleep(100)\n"
    )
    (tmp_path / "training.py").write_text(script)
    command = [sys.executable, tmp_path / "training.py", *held_out, Path(__file__).parent, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as training:
        number = int(training.stdout.readline())
        wait_for(tmp_path / "run/validation/step-00000005.h5@labels.floodem/run.json")
        assert is_alive(number)
        training.kill()
    deadline = time.monotonic() + 20
    while is_alive(number) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(number)


def test_of_many_results_the_best_and_the_latest_are_kept(tmp_path, held_out, monkeypatch):
    validator = validator_of(options_of(tmp_path, *held_out))
    costs = {1: 0.5, 2: 0.2, 3: 0.4, 4: 0.2, 5: 0.3}
    monkeypatch.setattr(validator, "_launch", lambda path: answered(path, costs))
    best = tmp_path / "run/best.safetensors"
    kept = []
    for step in costs:
        validator.start(bright_model(depth=step), step=step, hours=step)
        assert validator.poll().step == step
        kept.append((validator.best.step, load_model(best).description.arguments["depth"]))
    # Of equal scores the older one stays.
    assert kept == [(1, 1), (2, 2), (2, 2), (2, 2), (2, 2)]
    stems = {name.partition(".")[0] for name in files(tmp_path / "run/validation")}
    assert stems == {"step-00000002", "step-00000005"}
    assert validator_of(options_of(tmp_path, *held_out)).best.step == 2


def test_an_answer_nobody_took_note_of_does_not_count(tmp_path, held_out, monkeypatch):
    options = options_of(tmp_path, *held_out)
    validator = validator_of(options)
    monkeypatch.setattr(validator, "_launch", lambda path: answered(path, {1: 0.2}))
    validator.start(bright_model(), step=1, hours=1)
    again = validator_of(options)
    assert again.best is None
    assert files(tmp_path / "run/validation") == []


def test_time_between_validations_counts_over_interruptions(tmp_path, held_out):
    options = options_of(tmp_path, *held_out, every_minutes=10)
    assert not validator_of(options).is_due()
    begun = tmp_path / "run/validation/begun"
    os.utime(begun, (time.time() - 590, time.time() - 590))
    assert not validator_of(options).is_due()
    os.utime(begun, (time.time() - 610, time.time() - 610))
    assert validator_of(options).is_due()


def test_a_fine_tuning_is_scored_before_it_begins(tmp_path, held_out):
    network = NetworkOptions(fov=FOV, deltas=DELTAS, init="model.safetensors")
    options = options_of(tmp_path, *held_out, network=network, every_minutes=30)
    assert validator_of(options).is_due()


def test_without_held_out_data_nothing_is_due(tmp_path):
    validator = validator_of(options_of(tmp_path, None, None))
    assert not validator.is_due()
    assert validator.poll() is None
    assert finished(validator) is None
    validator.stop()
    assert not (tmp_path / "run").exists()


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def is_alive(number):
    if sys.platform == "win32":
        listed = subprocess.run(
            ["tasklist", "/FI", f"PID eq {number}"], capture_output=True, text=True, check=True
        )
        return str(number) in listed.stdout
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{number}/stat")
    # A process whose parent has died may wait as a zombie for someone to take note.
    return not (state.exists() and state.read_text("utf-8").rpartition(")")[2].split()[0] == "Z")


def test_the_module_runs_where_only_the_core_is_installed():
    code = (
        "import sys\n"
        "for name in ('tensorstore', 'tifffile', 'PIL', 'tensorboard', 'rich', 'typer'):\n"
        "    sys.modules[name] = None\n"
        "import floodem.training.validation.worker, floodem.training.validation.background\n"
        "import floodem.training.record.record, floodem.training.runs.comparison\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_names_of_files_fit_what_the_report_says():
    assert background._STEM.format(7) + background._RESULT == "step-00000007.h5"
