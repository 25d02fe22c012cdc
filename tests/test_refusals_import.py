"""What a user can get wrong in `floodem import-model` ends in one sentence and changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reference.tf_bundle import conv_stack_variables, write_bundle
from refusals import USAGE, everything_in, floodem, refused

FLAGS = {
    "--fov": "17,33,33",
    "--deltas": "4,8,8",
    "--image-mean": "131",
    "--image-stddev": "62",
    "--voxel-size": "30,6,6",
}
DATA = ".data-00000-of-00001"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in a folder with checkpoints, whole and damaged."""
    monkeypatch.chdir(tmp_path)
    variables = conv_stack_variables(depth=2, features=2)
    Path("folder").mkdir()
    Path("bare").mkdir()
    for name in ("model.ckpt-7", "folder/model.ckpt-7", "half", "lost", "cut"):
        write_bundle(Path(name), variables)
    Path("half.index").unlink()
    Path(f"lost{DATA}").unlink()
    Path(f"cut{DATA}").write_bytes(Path(f"cut{DATA}").read_bytes()[:100])
    Path("short.index").write_bytes(Path("cut.index").read_bytes()[:100])
    kernel = variables["seed_update/conv0_a/weights"].copy()
    kernel.flat[3] = np.nan
    write_bundle(Path("nan"), {**variables, "seed_update/conv0_a/weights": kernel})
    write_bundle(Path("dense"), {"dense/weights": kernel})
    Path("mine.safetensors").write_bytes(b"mine")


def command(checkpoint="model.ckpt-7", destination="m.safetensors", **flags):
    given = {**FLAGS, **{f"--{name.replace('_', '-')}": value for name, value in flags.items()}}
    words = [word for pair in given.items() if pair[1] is not None for word in pair]
    return ("import-model", checkpoint, destination, *words)


@pytest.mark.parametrize(
    ("checkpoint", "says"),
    [
        ("nope", ("no file nope.index", "side by side", "give the prefix")),
        ("half", ("no file half.index", "side by side")),
        ("lost", (f"no file lost{DATA}", "side by side")),
        ("mine.safetensors", ("mine.safetensors.index", "give the prefix")),
        ("cut", ("seed_update/conv0_a", "cut short", "copy the checkpoint again")),
        ("short", ("short.index", "copy it again")),
        ("nan", ("first.0.weight", "not finite", "take an earlier checkpoint")),
        ("dense", ("dense", "not a flood-filling network")),
        ("folder", ("folder is a folder", "give folder/model.ckpt-7")),
        ("bare", ("bare is a folder", "holds no checkpoint")),
        ("", ("is a folder",)),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_refused(checkpoint, says):
    refused(*command(checkpoint), says=says)


@pytest.mark.parametrize(
    ("flags", "says", "code"),
    [
        ({"fov": "33,33"}, ("--fov", "'33,33'", "write z,y,x"), USAGE),
        ({"fov": "16,33,33"}, ("(16, 33, 33)", "must be odd"), 3),
        ({"fov": "-1,33,33"}, ("(-1, 33, 33)", "must be odd and positive"), 3),
        ({"deltas": "9,8,8"}, ("(9, 8, 8)", "(17, 33, 33)", "half the field of view"), 3),
        ({"deltas": "a"}, ("--deltas", "'a'", "write z,y,x"), USAGE),
        ({"image_mean": "nan"}, ("image mean nan", "give grey levels"), 3),
        ({"image_mean": "1e300"}, ("image mean 1e+300", "give grey levels"), 3),
        ({"image_stddev": "0"}, ("deviation 0.0", "not positive", "give grey levels"), 3),
        ({"image_stddev": "inf"}, ("deviation inf", "give grey levels"), 3),
        ({"image_stddev": "1e-300"}, ("deviation 1e-300", "give grey levels"), 3),
        ({"voxel_size": "0,6,6"}, ("--voxel-size", "0,6,6", "give z,y,x in nanometres"), USAGE),
        ({"voxel_size": "thick"}, ("--voxel-size", "'thick'", "for example 30,6,6"), USAGE),
        ({"pad": "0"}, ("pad_value 0.0", "between 0 and 1"), 3),
        ({"pad": "1e-60"}, ("pad_value 1e-60", "between 0 and 1"), 3),
        ({"move_threshold": "1"}, ("move_threshold 1.0", "between 0 and 1"), 3),
    ],
)
def test_settings_that_no_network_can_have_are_refused(flags, says, code):
    refused(*command(**flags), says=says, code=code)


@pytest.mark.parametrize("flag", FLAGS)
def test_a_setting_that_is_in_no_checkpoint_must_be_given(flag):
    before = everything_in(Path())
    ended = floodem(*command(**{flag.removeprefix("--").replace("-", "_"): None}))
    assert ended.code == USAGE
    assert f"'{flag}'" in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err
    assert everything_in(Path()) == before


@pytest.mark.parametrize(
    ("destination", "overwrite", "says"),
    [
        ("mine.safetensors", False, ("mine.safetensors exists already", "--overwrite")),
        ("folder", True, ("folder is a folder", "name the model file")),
        ("mine.safetensors/m.safetensors", False, ("mine.safetensors is a file", "check")),
        ("model.ckpt-7.index", True, ("belongs to the checkpoint", "choose another")),
        (f"folder/../model.ckpt-7{DATA}", True, ("belongs to the checkpoint",)),
        ("", False, ("is a folder", "name the model file")),
    ],
)
def test_a_destination_that_cannot_be_made_is_refused(destination, overwrite, says):
    words = command(destination=destination)
    refused(*words, *(["--overwrite"] if overwrite else []), says=says)


def test_missing_folders_are_made_as_segment_does():
    assert floodem(*command(destination="new/place/m.safetensors")).code == 0
    assert Path("new/place/m.safetensors").is_file()
    assert floodem(*command(destination="mine.safetensors"), "--overwrite").code == 0
