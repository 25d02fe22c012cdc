"""Several processes train one network, and agree with one process on everything."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest

from floodem.errors import OptionError, RunConflictError
from floodem.network.model_file import load_model
from floodem.training.configuration.making import to_toml
from floodem.training.learning.distributed import World, joined
from train_runs import (
    assert_same_weights,
    command,
    curve,
    environment,
    losses,
    rows,
    tiny_options,
    train,
    weights,
)

TIMEOUT_S = 120
WITHIN = 1e-6


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def run_together(options, path, *words, processes=2):
    """Train in several processes as torchrun would start them; returns codes and what was said."""
    path.write_text(to_toml(options), encoding="utf-8")
    port = str(free_port())
    started = [
        subprocess.Popen(
            command(str(path), *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE=str(processes),
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=port,
            ),
        )
        for rank in range(processes)
    ]
    ended = [process.communicate(timeout=TIMEOUT_S) for process in started]
    return [process.returncode for process in started], [said for _, said in ended]


OVER = {"dtype": "float64", "optimiser": {"name": "momentum"}, "log_steps": 2}


def assert_equal_to_one_process(tmp_path, folder):
    """Hold a run of two processes against one process with twice the batch."""
    made = train(tiny_options(tmp_path, run="one", batch_size=4, **OVER))
    assert list(losses(folder).values()) == pytest.approx(
        list(losses(made.folder).values()), abs=WITHIN
    )
    for step, row in curve(made.folder).items():
        assert curve(folder)[step] == pytest.approx(row, abs=WITHIN), step
    together = load_model(folder / "latest.safetensors").network.state_dict()
    assert_same_weights(together, weights(made), tolerance=WITHIN)


def test_two_processes_equal_one_with_twice_the_batch(tmp_path):
    two = tiny_options(tmp_path, run="two", batch_size=2, **OVER)
    codes, said = run_together(two, tmp_path / "c.toml")
    assert codes == [0, 0], said
    assert_equal_to_one_process(tmp_path, two.folder)


@pytest.mark.slow
def test_two_processes_that_were_stopped_go_on_to_the_same_curve(tmp_path):
    two = tiny_options(tmp_path, run="two", batch_size=2, **OVER)
    codes, said = run_together(two, tmp_path / "c.toml", "--max-steps", "5")
    assert codes == [0, 0], said
    assert list(rows(two.folder)) == [2, 4]  # and step 5 waits for its row
    codes, said = run_together(two, tmp_path / "c.toml")
    assert codes == [0, 0], said
    assert_equal_to_one_process(tmp_path, two.folder)
    with pytest.raises(RunConflictError, match="processes = 2, now it is 1"):
        train(two)


def test_what_one_process_refuses_ends_all_of_them_with_a_sentence(tmp_path):
    options = tiny_options(tmp_path)
    train(options)
    codes, said = run_together(options, tmp_path / "c.toml", "--seed", "5")
    assert codes == [3, 4]
    assert "seed was 0, now 5" in said[0]
    assert "another process of this run was refused" in said[1]
    assert all("Traceback" not in text for text in said)


def test_a_process_alone_is_a_world_of_one():
    world = World()
    assert world.writes
    assert world.gather(b"x") == [b"x"]
    assert world.share(b"x") == b"x"
    with joined(device_type="cpu") as alone:
        assert alone == world


def test_an_environment_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "two")
    with pytest.raises(OptionError, match="WORLD_SIZE is 'two'"), joined(device_type="cpu"):
        pass
