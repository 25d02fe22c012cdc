"""``floodem view``: an address that answers until Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from floodem.cli.main import main
from floodem.cli.staying import has_screen
from floodem.cli.view import parse_look, view
from floodem.errors import OptionError
from floodem.geometry import VoxelSize
from floodem.volumes import create_volume


@pytest.fixture
def labels(tmp_path):
    uri = str(tmp_path / "em.h5@labels")
    with create_volume(
        uri, shape=(6, 8, 10), dtype="uint8", voxel_size=VoxelSize(30, 6, 6)
    ) as volume:
        volume.write(volume.box, np.ones(volume.shape, np.uint8))
    return uri


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C reaches a whole console there")
def test_the_printed_address_answers_until_ctrl_c(labels):
    pytest.importorskip("neuroglancer")
    start = "from floodem.cli.main import main; main()"
    command = [sys.executable, "-c", start, "view", labels, "--no-browser"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("open "):
                with urllib.request.urlopen(line.split()[1], timeout=10) as page:
                    assert page.status == 200
            if line.startswith("Ctrl-C"):
                break
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=30)
    assert said[0].startswith("em.h5@labels (uint8) looks like labels")
    assert (out, errors, process.returncode) == ("closed\n", "", 0)


@pytest.mark.skipif(sys.platform in {"win32", "darwin"}, reason="there is always a screen there")
def test_no_browser_is_started_on_a_bare_terminal(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    assert not has_screen()
    monkeypatch.setenv("DISPLAY", ":0")
    assert has_screen()


@pytest.mark.parametrize("name", ["v.jpg", "picture", "/", ".png"])
def test_a_screenshot_that_is_no_png_is_refused_before_anything_opens(labels, tmp_path, name):
    place = tmp_path / name if name != "/" else Path("/")
    with pytest.raises(OptionError, match=r"screenshot .* ends in \.png"):
        view([labels], screenshot=place)
    assert not (tmp_path / "v.jpg").exists()


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["view", *arguments])
    return ended.value.code


def test_a_view_is_printed_as_json_for_others(labels, tmp_path, capsys):
    pytest.importorskip("neuroglancer")
    code = run(labels, "--share", "--position", "1,2,3", "--layout", "xy", "--select", "1")
    told = capsys.readouterr()
    state = json.loads(told.out)
    assert code == 0
    assert (state["layers"], state["position"], state["layout"]) == ([], [3.5, 2.5, 1.5], "xy")
    assert "em.h5@labels (uint8) looks like labels" in told.err
    assert "em.h5@labels: left out, as only this machine can read it" in told.err
    for private in (str(tmp_path), "127.0.0.1", "/d/"):
        assert private not in told.out


def test_what_lies_on_servers_is_shared_as_it_was_given(capsys):
    pytest.importorskip("neuroglancer")
    source = "dvid://https://dvid.example/3f8c/gray?user=me"
    assert run(f"image={source}", "boss://https://boss.example/c/e/ch?window=0,9", "--share") == 0
    told = capsys.readouterr()
    layers = json.loads(told.out)["layers"]
    urls = [source["url"] for layer in layers for source in _several(layer["source"])]
    assert urls == [
        "dvid://https://dvid.example/3f8c/gray",
        "boss://https://boss.example/c/e/ch?window=0,9",
    ]
    assert [layer["type"] for layer in layers] == ["image", "auto"]
    assert "gray: passwords and signed queries are left out" in told.err


def _several(source):
    sources = source if isinstance(source, list) else [source]
    return [one if isinstance(one, dict) else {"url": one} for one in sources]


def test_listening_beyond_this_machine_is_warned_of(labels, capsys):
    pytest.importorskip("neuroglancer")
    assert run(labels, "--share", "--host", "0.0.0.0") == 0
    told = capsys.readouterr()
    assert "warning: listening at 0.0.0.0: everyone who has the address" in told.err
    assert json.loads(told.out)["layers"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--position", "1,2"], 2, "--position '1,2' is not z,y,x"),
        (["--select", "a"], 2, "--select 'a' is no list of ids"),
        (["--select", "0"], 2, "0 is no id of an object"),
        (["--layout", "cube"], 2, "layout 'cube' is unknown: known are 4panel"),
        (["--host", "no.such.host.invalid"], 2, "cannot be opened"),
        (["--meshes", "gone"], 3, "there is no folder gone"),
        (["python://x"], 2, "only to the program that made it"),
        (["gone.h5"], 3, "there is no gone.h5"),
        (["dvdi://host/x"], 2, "did you mean dvid://?"),
    ],
)
def test_what_is_not_understood_is_said_in_one_sentence(labels, arguments, code, sentence, capsys):
    pytest.importorskip("neuroglancer")
    assert run(labels, *arguments, "--share") == code
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = [line for line in told.err.splitlines() if line.startswith("error:")]
    assert sentence in line


def test_nothing_to_show_is_refused(capsys):
    assert run() == 2
    assert "there is nothing to show" in capsys.readouterr().err


def test_ids_and_places_are_read():
    look = parse_look(position="1,2.5,3", select="7, 200", layout=None)
    assert (look.position_zyx, look.selected) == ((1, 2.5, 3), (7, 200))
    assert parse_look(position=None, select=None, layout=None).selected == ()
