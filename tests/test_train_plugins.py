"""Parts of other packages come in where the user names them, and never by a file."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

import train_plugins
from floodem import plugins
from floodem.cli.main import build_app, main
from floodem.errors import DependencyError, ModelError, OptionError
from floodem.flooding.seeds import parse_seeds
from floodem.network import registry
from floodem.network.model_file import load_model
from floodem.training.configuration.making import make_options, read_configuration
from floodem.training.configuration.options import TrainOptions
from floodem.training.learning.losses import make_loss
from floodem.volumes import open_volume
from train_runs import losses, tiny_options, train, write_volume

REPOSITORY = Path(__file__).resolve().parents[1]
EXAMPLE = REPOSITORY / "examples" / "layer_norm_network"
KNOWN = {"alpha": dict, "beta": list}
TIMEOUT_S = 120


def resolve(spec):
    return plugins.resolve(spec, known=KNOWN, group="floodem.nothing", what="thing")


def test_a_name_is_found_among_those_known_and_a_written_one_is_imported():
    assert resolve("alpha") is dict
    assert resolve("collections:OrderedDict").__name__ == "OrderedDict"
    assert plugins.names(KNOWN, group="floodem.nothing") == ["alpha", "beta"]


@pytest.mark.parametrize(
    ("spec", "error", "sentence"),
    [
        ("alpa", OptionError, "no thing is called 'alpa' .nearest: alpha."),
        ("", OptionError, "no thing is called ''"),
        ("train_plugins:OneLayr", OptionError, "has no 'OneLayr' .nearest: OneLayer."),
        ("train_plugins:not_callable", OptionError, "is int, not something to call"),
        ("no_such_package:Net", DependencyError, "thing 'no_such_package:Net' cannot be imported"),
        ("train_plugins.below:Net", DependencyError, "cannot be imported"),
        ("a b:c", OptionError, "no thing is called"),
        ("os.system('x'):y", OptionError, "no thing is called"),
    ],
)
def test_what_is_not_there_is_refused_in_one_sentence(spec, error, sentence):
    with pytest.raises(error, match=sentence):
        resolve(spec)


def test_entry_points_of_packages_are_found_and_broken_ones_named(monkeypatch):
    class Point:
        def __init__(self, name, loads):
            self.name, self.loads = name, loads

        def load(self):
            if self.loads is None:
                raise ImportError("it is gone")
            return self.loads

    points = [Point("gamma", set), Point("broken", None)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    assert resolve("gamma") is set
    assert plugins.names(KNOWN, group="g") == ["alpha", "beta", "broken", "gamma"]
    with pytest.raises(DependencyError, match="'broken' of entry point group .* .it is gone."):
        resolve("broken")


def test_a_plug_in_beside_the_user_is_found_where_the_command_was_started(tmp_path):
    (tmp_path / "beside_me.py").write_text("def thing(): pass\n")
    script = (
        "from floodem.plugins import resolve\n"
        "print(resolve('beside_me:thing', known={}, group='g', what='thing').__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert done.stdout.strip() == "thing", done.stderr


@pytest.fixture
def forgotten(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_NETWORKS", dict(registry._NETWORKS))


def test_a_network_loss_and_sampler_of_another_package_train_and_segment(
    tmp_path, forgotten, monkeypatch, capsys
):
    name = "train_plugins:OneLayer"
    options = tiny_options(
        tmp_path,
        network={"name": name, "arguments": {"scale": 2.0}},
        optimiser={"loss": "train_plugins:mean_square"},
        sampling={"sampler": "train_plugins:one_place"},
        max_steps=5,
    )
    made = train(options)
    assert len(losses(made.folder)) == 5
    monkeypatch.setattr(registry, "_NETWORKS", {"conv_stack": registry._NETWORKS["conv_stack"]})
    with pytest.raises(ModelError, match=f"pass --network {name}"):
        load_model(made.latest)
    words = ["segment", str(tmp_path / "image0.npy"), str(tmp_path / "seg.zarr")]
    words += ["--model", str(made.latest), "--device", "cpu", "--max-calls", "5"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 3
    assert "--network" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main([*words, "--network", name])
    assert ended.value.code == 0, capsys.readouterr().err


def test_a_model_file_cannot_have_code_imported(tmp_path, forgotten):
    made = train(tiny_options(tmp_path, max_steps=1))
    data = made.latest.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    about = json.loads(header["__metadata__"]["floodem"])
    about["network"] = "never_imported:Net"
    header["__metadata__"]["floodem"] = json.dumps(about)
    text = json.dumps(header).encode()
    made.latest.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    with pytest.raises(ModelError, match="code of another package"):
        load_model(made.latest)
    assert "never_imported" not in sys.modules


def test_a_seed_policy_of_another_package_is_named_on_the_command_line():
    spec = parse_seeds("train_plugins:MiddleSeed")
    assert spec.name == "train_plugins:MiddleSeed"
    with pytest.raises(DependencyError, match="seed policy"):
        parse_seeds("no_such_package:Policy")


def test_losses_are_found_by_name_or_written_out():
    assert make_loss("train_plugins:mean_square") is train_plugins.mean_square


def layer_norm_network():
    spec = importlib.util.spec_from_file_location(
        "layer_norm_network", EXAMPLE / "layer_norm_network.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_is_twenty_modules_in_about_sixty_lines():
    network = layer_norm_network().LayerNormNetwork()
    assert len(network.modules_) == 20
    text = (EXAMPLE / "layer_norm_network.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 75


def test_the_example_trains_and_segments_from_its_own_folder(
    tmp_path, forgotten, monkeypatch, capsys
):
    write_volume(tmp_path)
    here = tmp_path / "example"
    shutil.copytree(EXAMPLE, here)
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = "layer_norm_network:LayerNormNetwork"
    training = [
        *("train", "--run", "run", "--image", "../image0.npy", "--labels", "../labels0.npy"),
        *("--network.name", name, "--network.arguments", "modules=20,features=4"),
        *("--network.fov", "5,7,7", "--network.deltas", "1,2,2", "--sampling.min-size", "10"),
        *("--sampling.lom-radius", "3,3,3", "--optimiser.name", "adamw", "--max-steps", "3"),
        *("--optimiser.clip", "norm", "--device", "cpu", "--log-steps", "1", "--threads", "1"),
    ]
    segmenting = [
        *("segment", "../image0.npy", "seg.zarr", "--model", "run/latest.safetensors"),
        *("--network", name, "--device", "cpu", "--max-calls", "2"),
    ]
    for words in (training, segmenting):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0, capsys.readouterr().err
    assert np.isfinite(list(losses(here / "run").values())).all()
    with open_volume(here / "seg.zarr") as volume:
        assert volume.shape == (24, 32, 32)


TRAININGS = [path for path in EXAMPLE.parent.glob("*/*.toml") if path.name != "project.toml"]


@pytest.mark.parametrize("path", sorted(TRAININGS), ids=lambda path: path.name)
def test_the_configuration_of_an_example_learns_in_cubes_and_is_scored(path):
    options = make_options(read_configuration(path))
    assert len(set(options.sampling.lom_radius)) == 1
    assert options.augmentation.permutable_axes == (0, 1, 2)
    assert options.validation.image is not None
    assert options.max_steps < TrainOptions().max_steps


def commands_of(path):
    """The commands of a page, word by word, those that torchrun starts among them."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = "\n".join(re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL))
    started = r"^(?:\$ )?(?:torchrun --nproc-per-node \d+ -m -- )?floodem (.*)"
    return [shlex.split(line, comments=True) for line in re.findall(started, blocks, re.MULTILINE)]


@pytest.mark.parametrize(
    ("page", "least"),
    [(EXAMPLE / "README.md", 7), (REPOSITORY / "docs" / "training.md", 9)],
    ids=["example", "training"],
)
def test_the_commands_of_a_page_are_complete(page, least):
    found = commands_of(page)
    assert len(found) >= least
    for name, *words in found:
        command = typer.main.get_command(build_app([name])).commands[name]
        command.make_context(name, words)  # raises at what is missing or unknown
