"""The viewer below a notebook's cell."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys

import pytest

SCRIPT = """
import sys
import nbformat
from nbclient import NotebookClient
cells = [nbformat.v4.new_code_cell(text) for text in sys.argv[2:]]
notebook = nbformat.v4.new_notebook(cells=cells)
notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
NotebookClient(notebook, timeout=120).execute()
nbformat.write(notebook, sys.argv[1])
"""

FIRST = """
import floodem, numpy as np, urllib.request
image = np.random.default_rng(0).integers(0, 255, (8, 16, 16)).astype("u1")
first = floodem.view(image=image, voxel_size=(8, 8, 8))
first
"""
CELLS = [
    FIRST,
    "floodem.view(image=image, segmentation=(image > 100).astype('u4'), height_px=350)",
    "[urllib.request.urlopen(viewer.address).status for viewer in (first, _)]",
    "first.close(), _2.client.token in str(_2)",
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    for name in ("nbclient", "nbformat", "ipykernel", "neuroglancer"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install floodem[notebooks,view]")
    path = tmp_path_factory.mktemp("notebook") / "view.ipynb"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, path, *CELLS],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell["outputs"] for cell in notebook["cells"]]


def test_each_cell_shows_a_viewer_of_its_own(outputs):
    frames = ["".join(outputs[number][0]["data"]["text/html"]) for number in (0, 1)]
    found = [re.search(r'<iframe src="(http://127\.0\.0\.1:\d+/v/\w+/)"', html) for html in frames]
    assert all(found)
    assert found[0][1] != found[1][1]
    assert 'height="350"' in frames[1]


def test_both_answer_while_the_kernel_runs(outputs):
    assert outputs[2][0]["data"]["text/plain"] == ["[200, 200]"]


def test_the_plain_text_holds_no_token(outputs):
    text = "".join(outputs[0][0]["data"]["text/plain"])
    assert text == "<Viewer of image; .address is to be opened in a browser>"
    assert outputs[3][0]["data"]["text/plain"] == ["(None, False)"]
