"""Networks have names: shipped, fetched, to be fetched; a file of the name goes first."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from bright import bright_model, bright_tubes
from floodem.errors import ModelError, OptionError, StorageError, VolumeNotFoundError
from floodem.geometry import VoxelSize
from floodem.network import named
from floodem.network.model_file import load_model, save_model
from floodem.network.named import data_folder, model_path, networks, read_facts
from floodem.network.shipped import SHIPPED, shipped_model
from floodem.volumes import create_volume
from refusals import floodem


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOODEM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def fetched():
    """A network that can be understood, where a fetch would have put it."""
    model = bright_model()
    save_model(model, model_path("fib25"))
    return model


def by_name(printed):
    return {row["name"]: row for row in json.loads(printed)["models"]}


def test_shipped_and_fetchable_networks_are_listed_with_what_matters(home):
    ended = floodem("models", "--json")
    assert ended.code == 0
    assert json.loads(ended.out)["data_folder"] == str(home)
    rows = by_name(ended.out)
    assert list(rows) == ["synthetic", "fib25", "snemi3d"]
    assert rows["synthetic"]["state"] == "shipped"
    assert rows["synthetic"]["how"] is None
    for name, fov, voxel_size in (
        ("fib25", [33, 33, 33], [10, 10, 10]),
        ("snemi3d", [17, 33, 33], [30, 6, 6]),
    ):
        assert rows[name]["state"] == "fetchable"
        assert rows[name]["fov"] == fov
        assert rows[name]["voxel_size_nm"] == voxel_size
        assert rows[name]["how"] == f"floodem fetch {name}"
    assert all(row["licence"] and row["source"] for row in rows.values())


def test_a_fetched_network_is_listed_with_its_file(fetched):
    row = by_name(floodem("models", "--json").out)["fib25"]
    assert (row["state"], row["path"]) == ("fetched", str(model_path("fib25")))
    assert row["fov"] == [7, 9, 9]
    assert "fib25 (fetched)\n  field of view (z,y,x): 7,9,9\n" in floodem("models").out


def test_the_list_is_made_without_loading_torch(monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == "torch"]:
        monkeypatch.setitem(sys.modules, module, None)
    assert floodem("models").code == 0


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff" * 100, b"\x08" + b"\0" * 7 + b"[[[[[[[["])
def test_a_damaged_network_is_listed_as_such(fetched, damage):
    model_path("fib25").write_bytes(damage)
    row = by_name(floodem("models", "--json").out)["fib25"]
    assert "cannot be read" in row["damage"]
    assert row["how"] == "floodem fetch fib25"
    with pytest.raises(ModelError):
        load_model("fib25")


def test_facts_are_those_of_the_description(fetched):
    assert read_facts(model_path("fib25").read_bytes()) == json.loads(
        json.dumps(fetched.description.to_json())
    )
    for name in SHIPPED:
        assert read_facts(shipped_model(name))["voxel_size"] == [8, 8, 8]


def test_a_description_longer_than_any_is_not_read():
    header = b'{"__metadata__": {"floodem": "{}"}' + b" " * 2**20 + b"}"
    with pytest.raises(ModelError, match="cannot be read"):
        read_facts(len(header).to_bytes(8, "little") + header)


def test_a_fetched_network_is_loaded_by_name(fetched):
    assert load_model("fib25").digest() == fetched.digest()


def test_a_file_of_the_name_goes_before_a_fetched_network(fetched):
    other = bright_model(depth=2)
    save_model(other, "fib25")
    assert load_model("fib25").digest() == other.digest() != fetched.digest()


def test_a_folder_of_the_name_is_no_model_and_in_nobodys_way(fetched):
    Path("fib25").mkdir()
    assert load_model("fib25").digest() == fetched.digest()
    shutil.rmtree(data_folder())
    with pytest.raises(VolumeNotFoundError, match="is a folder: .* `floodem fetch fib25`"):
        load_model("fib25")


def test_a_fetched_network_counts_only_by_its_bare_name(fetched):
    with pytest.raises(VolumeNotFoundError):
        load_model("elsewhere/fib25")


def test_an_unknown_name_is_answered_with_the_known_ones(fetched):
    with pytest.raises(VolumeNotFoundError) as refused:
        load_model("fib52")
    for word in ("(synthetic)", "fetched (fib25)", "(snemi3d) with `floodem fetch NAME`"):
        assert word in str(refused.value)
    with pytest.raises(VolumeNotFoundError, match="`floodem fetch snemi3d` brings the published"):
        load_model("snemi3d")


def test_commands_take_a_fetched_network_by_name(fetched):
    image, _ = bright_tubes()
    with create_volume(
        "em.h5@raw", shape=image.shape, dtype=image.dtype, voxel_size=VoxelSize(30, 6, 6)
    ) as volume:
        volume.write(volume.box, image)
    ended = floodem(
        "segment", "em.h5@raw", "out.h5@labels", "--model", "fib25", "--min-segment-size", "100"
    )
    assert ended.code == 0, ended.err
    assert "6 segments" in ended.out


def test_an_unreadable_network_is_quoted_with_its_path(fetched, monkeypatch):
    def refuse(path):
        if path == model_path("fib25"):
            raise PermissionError(13, "Permission denied")
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(StorageError, match="cannot read .*fib25.safetensors: Permission denied"):
        load_model("fib25")


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {}, ".local/share/floodem"),
        ("linux", {"XDG_DATA_HOME": "/data"}, "/data/floodem"),
        ("linux", {"XDG_DATA_HOME": "relative"}, ".local/share/floodem"),
        ("darwin", {"XDG_DATA_HOME": "/data"}, "Library/Application Support/floodem"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/floodem"),
        ("win32", {"LOCALAPPDATA": ""}, "AppData/Local/floodem"),
        ("linux", {"FLOODEM_HOME": "/mine", "XDG_DATA_HOME": "/data"}, "/mine"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="the paths of other systems are compared")
def test_the_data_folder_is_where_each_system_keeps_them(
    tmp_path, monkeypatch, platform, variables, folder
):
    for name in ("FLOODEM_HOME", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(named.sys, "platform", platform)
    assert data_folder() == tmp_path / folder


def test_without_a_home_the_variable_is_named(monkeypatch):
    monkeypatch.delenv("FLOODEM_HOME")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(OptionError, match="set FLOODEM_HOME"):
        networks()
