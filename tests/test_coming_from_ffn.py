"""The documented runs of the older packages, line by line as docs/coming-from-ffn.md prints them.

In a folder that ``floodem legacy --layout`` has made; with few steps of training, smaller
volumes, and a crop for inference.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from floodem.legacy.layout import lay_out
from floodem.legacy.requests.support import FIELDS
from floodem.network.model_file import load_model

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "coming-from-ffn.md"
TIMEOUT_S = 300
SHARDS = 3


def documented_runs():
    """Return the command lines of the page, by block."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return [block.splitlines() for block in blocks]


def run(line, folder, **instead):
    """Run a printed line with other words in place of those that would take weeks."""
    words = [_pasted(instead.get(word, word), folder) for word in shlex.split(line)]
    assert words[0] == "python"
    done = subprocess.run(
        [sys.executable, *words[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
        check=False,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    return done


def _pasted(word, folder):
    """Do what a shell does with $(cat FILE)."""
    return re.sub(r"\$\(cat (\S+)\)", lambda found: (folder / found[1]).read_text("utf-8"), word)


def crop_images(source, destination, *, sections, height, width):
    for path in sorted(source.glob("*.png"))[:sections]:
        with Image.open(path) as image:
            image.crop((0, 0, width, height)).save(destination / path.name)


@pytest.fixture
def work(tmp_path):
    """A folder as ``floodem legacy --layout`` makes it; it holds the documented directories."""
    lay_out(tmp_path)
    return tmp_path


def in_png_folder(work, name, *lines):
    """Run lines in a folder of images, where the documentation has the scripts as well."""
    folder = work / name
    for script in ("png_to_h5.py", "png_mean_std.py"):
        shutil.copy(work / script, folder)
    return [run(line, folder).stdout for line in lines]


def test_the_runs_of_ffn_windows(work, shared_data):
    images, windows, _ = documented_runs()
    snemi3d = shared_data / "snemi3d"
    for source, name in (("images", "images"), ("segment", "ground_truth")):
        crop_images(snemi3d / source, work / name, sections=100, height=112, width=160)
    crop_images(
        snemi3d / "images_for_inference",
        work / "images_for_inference",
        sections=24,
        height=72,
        width=80,
    )
    made, printed = in_png_folder(work, "images", *images[:2])
    assert "images.h5" in made
    assert re.fullmatch(r"Mean:  \d+\nStd :  \d+\n", printed)
    in_png_folder(work, "ground_truth", images[2])
    in_png_folder(work, "images_for_inference", "python png_to_h5.py images_for_inference.h5")
    for folder, name in (
        ("images", "images.h5"),
        ("ground_truth", "ground_truth.h5"),
        ("images_for_inference", "images_for_inference.h5"),
    ):
        shutil.move(work / folder / name, work / "preprocessed_files" / name)

    partitions, coordinates, train, infer, to_png = windows
    run(partitions, work)
    with h5py.File(work / "preprocessed_files" / "af.h5") as file:
        assert file["af"].shape == (100, 112, 160)
        assert len(np.unique(file["af"])) > 5
    run(coordinates, work)
    run(train, work, **{"1000000": "2"})
    trained = load_model(work / "training_results" / "model.ckpt-2.safetensors").description
    assert (trained.fov, trained.deltas, trained.image_mean) == ((17, 33, 33), (4, 8, 8), 131)

    for path in snemi3d.glob("model.ckpt-7000000.*"):
        shutil.copy(path, work / "training_results")
    crop = {"256": "72", "100": "24"}
    run(infer, work, **crop)
    with np.load(work / "inference_results" / "0" / "0" / "seg-0_0_0.npz") as result:
        segmentation = result["segmentation"]
    assert segmentation.shape == (24, 72, 72)
    assert np.mean(segmentation > 0) > 0.2
    run(to_png, work)
    for z in (0, 23):
        with Image.open(work / f"{z:04}.png") as image:
            assert np.array_equal(np.asarray(image), segmentation[z])

    request = work / "configs" / "inference.pbtxt"
    ours = request.read_text("utf-8").replace("model.ckpt-7000000", "model.ckpt-2")
    request.write_text(ours.replace('"inference_results"', '"ours"'), "utf-8")
    run(infer, work, **crop)
    assert (work / "ours" / "0" / "0" / "seg-0_0_0.npz").exists(), "what train.py wrote runs"


@contextlib.contextmanager
def served(folder):
    """The files of a folder at an address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    handler.log_message = lambda *arguments: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
def test_the_runs_of_google_ffn(work, shared_data):
    _, _, (infer, partitions, coordinates, train) = documented_runs()
    fib25 = shared_data / "fib25"
    samples = work / "third_party" / "neuroproof_examples"
    shutil.copy(fib25 / "grayscale_maps.h5", samples / "training_sample2")
    for path in fib25.glob("model.ckpt-27465036.*"):
        shutil.copy(path, work / "models" / "fib25")
    box = "start { x:0 y:0 z:0 } size { x:250 y:250 z:250 }"
    run(infer, work, **{box: box.replace("250", "56")})
    look = (
        "from ffn.inference import storage; "
        "labels, origins = storage.load_segmentation('results/fib25/training2', (0, 0, 0)); "
        "print(labels.shape, sorted(origins) == sorted(set(labels.flat) - {0}))"
    )
    assert run(f'python -c "{look}"', work).stdout == "(56, 56, 56) True\n"

    # The validation sample is not among the shared data; a part of the other one stands for it.
    part = np.s_[:90, :90, :100]
    with h5py.File(fib25 / "groundtruth.h5") as truth:
        bodies = truth["bodies"][part]
    with h5py.File(fib25 / "grayscale_maps.h5") as raw:
        grey = raw["raw"][part]
    with h5py.File(samples / "validation_sample" / "groundtruth.h5", "w") as file:
        file["stack"] = bodies.astype(np.int64)
    with h5py.File(samples / "validation_sample" / "grayscale_maps.h5", "w") as file:
        file["raw"] = grey
    run(partitions, work)
    run(coordinates, work)
    published = next(word for word in shlex.split(train) if word.startswith("gs://"))
    name = published.rpartition("/")[2].replace("-of-00025", f"-of-{SHARDS:05}")
    cloud = work / "cloud"
    cloud.mkdir()
    made = samples / "validation_sample" / "tf_record_file"
    for shard in range(SHARDS):
        shutil.copy(made, cloud / name.replace("*", f"{shard:05}"))
    with served(cloud) as address:
        few = f"{train} --max_steps 1 --train_dir training_results"
        run(few, work, **{published: f"{address}/{name}"})
    trained = load_model(work / "training_results" / "model.ckpt-1.safetensors").description
    assert (trained.fov, trained.arguments["depth"]) == ((33, 33, 33), 12)


def test_the_page_says_of_every_field_of_a_request_what_becomes_of_it():
    rows = [f"| `{one.field}` | {one.support.value} | {one.how} |" for one in FIELDS]
    text = PAGE.read_text("utf-8")
    assert [row for row in rows if row not in text] == []


def test_the_page_prints_the_runs_of_every_program():
    programs = {shlex.split(line)[1] for block in documented_runs() for line in block}
    assert programs == {
        "png_to_h5.py",
        "png_mean_std.py",
        "compute_partitions.py",
        "build_coordinates.py",
        "train.py",
        "run_inference.py",
        "run_inference_win.py",
        "npz_png.py",
    }
