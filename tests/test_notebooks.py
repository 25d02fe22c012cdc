"""The notebooks are what their sources say, and run."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from floodem.volumes import create_volume

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPT = REPOSITORY / "docs" / "make_notebooks.py"
SOURCES = sorted((REPOSITORY / "docs" / "notebooks").glob("*.py"))
NAMES = ("ffn_inference_demo.ipynb", "load.ipynb")
PLACES = (REPOSITORY / "legacy", REPOSITORY / "src/floodem/legacy/layout/files")

WATCHER = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("make_notebooks", sys.argv[1])
make_notebooks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_notebooks)
import nbclient
updates = 0
class Counting(nbclient.NotebookClient):
    def process_message(self, message, cell, number):
        global updates
        updates += message["msg_type"] == "update_display_data"
        return super().process_message(message, cell, number)
nbclient.NotebookClient = Counting
name, folder, old, new = sys.argv[2:]
from pathlib import Path
notebook = dict(make_notebooks.notebooks())[name]
for cell in notebook.cells:
    cell.source = cell.source.replace(old, new) if old else cell.source
make_notebooks.execute(notebook, Path(folder), name=name)
print("updates", updates)
"""
"""Runs one notebook and counts how often a picture was drawn anew while its cell ran."""


@pytest.fixture(scope="module")
def extra():
    """What makes and runs notebooks; without it the tests of that skip."""
    for name in ("jupytext", "nbclient", "ipykernel", "matplotlib"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install floodem[notebooks]")


def read(place, name):
    return json.loads((place / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_the_first_cell_says_what_to_install(name):
    first = read(PLACES[0], name)["cells"][0]
    assert first["cell_type"] == "markdown"
    assert 'pip install ".[notebooks]" -c constraints.txt' in "".join(first["source"])


def run(name, folder, *, old="", new=""):
    """Run a notebook in a process of its own; return its outputs and the number of updates."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHER, SCRIPT, name, folder, old, new],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=300,
        env={**os.environ, "IPYTHONDIR": str(folder / "ipython"), "MPLBACKEND": ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cells = read(folder, name)["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return outputs, int(done.stdout.split()[-1])


def printed(outputs):
    return "".join("".join(one["text"]) for one in outputs if one.get("name") == "stdout")


def pictures(outputs):
    return sum("image/png" in one.get("data", {}) for one in outputs)


def test_notebooks_have_the_names_that_people_know():
    assert [source.with_suffix(".ipynb").name for source in SOURCES] == list(NAMES)


@pytest.mark.parametrize("place", PLACES, ids=["repository", "package"])
def test_notebooks_are_their_sources(extra, place):
    spec = importlib.util.spec_from_file_location("make_notebooks", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    made = {name: json.loads(script.text_of(notebook)) for name, notebook in script.notebooks()}
    assert sorted(made) == list(NAMES)
    for name, notebook in made.items():
        assert read(place, name) == notebook, "make them anew: python docs/make_notebooks.py"


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_kept_without_outputs(name):
    for cell in read(PLACES[0], name)["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_notebooks_use_only_the_public_face(source):
    tree = ast.parse(source.read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    ours = {name for name in modules if name.startswith("floodem")}
    assert ours <= {"floodem", "floodem.volumes.synthetic"}
    assert "fib25" in source.read_text(encoding="utf-8")


def test_an_object_is_drawn_again_and_again_while_it_grows(extra, tmp_path):
    outputs, updates = run("ffn_inference_demo.ipynb", tmp_path)
    assert updates >= 10
    assert pictures(outputs) == 2
    assert "network calls" in printed(outputs)
    assert "exhausted" in printed(outputs)


def test_a_segmentation_is_loaded_and_shown(extra, tmp_path):
    outputs, _ = run("load.ipynb", tmp_path)
    assert pictures(outputs) == 1
    assert "segments" in printed(outputs)
    assert "(40, 64, 64) (z,y,x), uint64" in printed(outputs)


def test_a_segmentation_of_ones_own_is_shown_without_an_image(extra, tmp_path):
    address = f"{tmp_path / 'mine.h5'}@labels"
    with create_volume(address, shape=(6, 8, 10), dtype=np.uint64) as volume:
        labels = np.zeros(volume.shape, np.uint64)
        labels[2:] = 2**40
        volume.write(volume.box, labels)
    outputs, _ = run("load.ipynb", tmp_path, old="SEGMENTATION = None", new=instead(address))
    assert f"{2**40}" in printed(outputs)
    assert pictures(outputs) == 1


def test_a_result_of_the_old_programs_is_shown(extra, tmp_path, shared_data):
    address = str(shared_data / "fib25" / "sample-training2.npz")
    outputs, _ = run("load.ipynb", tmp_path, old="SEGMENTATION = None", new=instead(address))
    assert "(250, 250, 250) (z,y,x), uint8" in printed(outputs)
    assert pictures(outputs) == 1


def instead(address):
    return f"SEGMENTATION = {address!r}"
