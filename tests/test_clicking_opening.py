"""From Python and the command line to a viewer that floods, and back out of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import floodem
from array_volume import ArrayVolume
from bright import bright_model
from clicking_cases import OFFSET, SIZE, TUBE, tubes, until
from floodem.errors import OptionError, VolumeNotFoundError
from floodem.flooding.kept import KeptFloods
from floodem.network.model_file import save_model
from floodem.volumes import create_volume, open_volume

pytest.importorskip("neuroglancer")


def said(viewer):
    return viewer.client.config_state.state.status_messages.get("floodem", "")


def act(address, action, voxel=None):
    """Post an action as a page does."""
    server, _, token = address.rstrip("/").rpartition("/v/")
    state = {"viewerState": {}, "selectedValues": {}}
    if voxel is not None:
        state["mousePosition"] = [at + 0.5 for at in voxel[::-1]]
    body = json.dumps({"action": action, "state": state}).encode()
    request = urllib.request.Request(f"{server}/action/{token}", data=body)
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


def alone(volume):
    request = floodem.SegmentRequest(device="cpu")
    return floodem.flood_at(volume, TUBE, model=bright_model(), request=request).mask


def test_view_with_a_model_floods_its_first_image(tmp_path):
    volume = tubes()
    other = ArrayVolume(np.zeros((9, 9, 9), np.float32), voxel_size=SIZE)
    keep = tmp_path / "k.zarr"
    with floodem.view(
        image=[volume, other], model=bright_model(), keep=keep, device="cpu"
    ) as viewer:
        assert f"floods that you keep go to {keep}" in viewer.notes
        act(viewer.address, "floodem-flood", TUBE)
        until(lambda: said(viewer).startswith("done"))
        act(viewer.address, "floodem-keep")
        until(lambda: said(viewer).startswith("kept as 1"))
    with open_volume(keep) as labels:
        np.testing.assert_array_equal(labels.read() == 1, alone(volume))
    # It has let go of the place.
    KeptFloods(keep, image=volume).close()


def test_a_segmentation_that_is_shown_along_is_gone_around(tmp_path):
    labels = np.zeros(tubes().shape, np.uint32)
    labels[:, :, 40:] = 17
    segmentation = ArrayVolume(labels, offset=OFFSET, voxel_size=SIZE)
    with floodem.view(
        image=tubes(),
        segmentation=segmentation,
        model=bright_model(),
        keep=tmp_path / "k.zarr",
        device="cpu",
    ) as viewer:
        act(viewer.address, "floodem-flood", (105, 206, 350))
        until(lambda: "is in object 17 of array" in said(viewer))
        act(viewer.address, "floodem-flood", TUBE)
        act(viewer.address, "floodem-keep")
        until(lambda: said(viewer).startswith("kept as 1"))
    with open_volume(tmp_path / "k.zarr") as kept:
        assert not kept.read()[:, :, 40:].any()


def test_an_image_that_the_browser_reads_by_itself_is_flooded_too(web, tmp_path):
    volume = tubes()
    with create_volume(
        f"precomputed://{tmp_path / 'em'}",
        shape=volume.shape,
        dtype=np.uint8,
        voxel_size=SIZE,
        offset=OFFSET,
    ) as written:
        written.write(written.box, volume.read())
    with floodem.view(
        image=f"precomputed://{web.address}/em",
        model=bright_model(),
        keep=tmp_path / "k.zarr",
        device="cpu",
    ) as viewer:
        act(viewer.address, "floodem-flood", TUBE)
        act(viewer.address, "floodem-keep")
        until(lambda: said(viewer).startswith("kept as 1"))


def test_without_a_name_floods_are_kept_beside_where_one_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with create_volume(
        tmp_path / "em.h5", shape=tubes().shape, dtype=np.uint8, voxel_size=SIZE, offset=OFFSET
    ) as written:
        written.write(written.box, tubes().read())
    with floodem.view(image="em.h5", model=bright_model(), device="cpu") as viewer:
        assert "floods that you keep go to em-floods.zarr" in viewer.notes
        act(viewer.address, "floodem-flood", TUBE)
        act(viewer.address, "floodem-keep")
        until(lambda: said(viewer).startswith("kept as 1"))
    assert (tmp_path / "em-floods.zarr").is_dir()


def test_what_is_passed_on_of_a_view_has_no_floods(tmp_path):
    with floodem.view(
        image=tubes(), model=bright_model(), keep=tmp_path / "k.zarr", device="cpu"
    ) as viewer:
        assert "flood" not in json.dumps(viewer.share())
        assert "python://" not in json.dumps(viewer.share())


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"segmentation": True, "model": True}, OptionError, "no image that could be flooded"),
        ({"image": True, "keep": "k.zarr"}, OptionError, "give the network as well"),
        ({"image": True, "model": "nobody"}, VolumeNotFoundError, "no model file nobody"),
        ({"image": True, "model": True, "device": "quick"}, OptionError, "no device is called"),
    ],
)
def test_what_cannot_be_is_refused_and_no_server_is_left(
    tmp_path, monkeypatch, options, error, says
):
    from neuroglancer import server

    monkeypatch.chdir(tmp_path)
    labels = ArrayVolume(np.ones((9, 9, 9), np.uint32), voxel_size=SIZE)
    given = {"image": tubes(), "segmentation": labels, "model": bright_model()}
    asked = {name: given[name] if value is True else value for name, value in options.items()}
    with pytest.raises(error, match=says):
        floodem.view(**asked)
    assert server.global_server is None
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def files(tmp_path):
    with create_volume(
        tmp_path / "em.h5", shape=tubes().shape, dtype=np.uint8, voxel_size=SIZE, offset=OFFSET
    ) as written:
        written.write(written.box, tubes().read())
    save_model(bright_model(), tmp_path / "m.safetensors")
    return tmp_path


def command(files, *more):
    return [
        *(sys.executable, "-m", "floodem", "view", f"image={files / 'em.h5'}", "--no-browser"),
        *map(str, more),
    ]


def test_the_command_floods_keeps_and_goes_on_after_it_was_killed(files):
    flooding = command(
        *(files, "--model", files / "m.safetensors", "--device", "cpu"),
        *("--keep", files / "k.zarr"),
    )
    for number, how in enumerate((signal.SIGKILL, signal.SIGINT)):
        running = subprocess.Popen(flooding, stdout=subprocess.PIPE, text=True, cwd=files)
        lines = iter(running.stdout.readline, "")
        assert next(lines) == f"floods that you keep go to {files / 'k.zarr'}\n"
        address = next(line for line in lines if line.startswith("open ")).split()[1]
        if number == 0:
            act(address, "floodem-flood", TUBE)
            record = files / "k.zarr.floodem" / "kept.json"
            until(lambda: (act(address, "floodem-keep"), record.exists())[1])  # noqa: B023
            until(lambda: json.loads(record.read_text())["floods"])  # noqa: B023
        else:
            act(address, "floodem-undo")
            until(lambda: json.loads(record.read_text())["floods"] == [])  # noqa: B023
        running.send_signal(how)
        assert running.wait(timeout=30) == (-how if how is signal.SIGKILL else 0)
        running.stdout.close()
    with open_volume(files / "k.zarr") as labels:
        assert not labels.read().any()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--keep", "k.zarr"], "--keep k.zarr is for floods: give the network as well"),
        (["--device", "cuda:1"], "--device cuda:1 is for a network: give one as well"),
        (["--dtype", "bfloat16"], "--dtype bfloat16 is for a network: give one as well"),
        (["--model", "synthetic", "--share"], "--model is for clicking"),
        (["--model", "synthetic", "--screenshot", "a.png"], "--model is for clicking"),
    ],
)
def test_options_that_do_not_go_together_are_refused(files, more, says):
    ended = subprocess.run(
        command(files, *more), capture_output=True, text=True, timeout=60, check=False, cwd=files
    )
    assert ended.returncode == 2
    assert says in ended.stderr
    assert not Path(files / "k.zarr").exists()


@pytest.mark.parametrize("option", [{"device": "cuda"}, {"dtype": "bfloat16"}])
def test_options_of_a_network_are_refused_without_one(option):
    with pytest.raises(OptionError, match="is for a network"):
        floodem.view(np.zeros((4, 4, 4), np.uint8), **option)
