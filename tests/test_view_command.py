"""``floodem view``: an address that answers until Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from floodem.cli.view import has_screen, view
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
