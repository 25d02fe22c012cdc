"""Small scenes for tests: a few objects in noise, in arrays that remember what was read."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from array_volume import ArrayVolume
from floodem.geometry import VoxelSize
from floodem.viewer.scenes import NONE, SceneOptions, make_scene

SIZE = VoxelSize(30, 10, 10)
OFFSET = (4, 20, 100)
SHAPE = (20, 70, 150)
NO_SHAPES = SceneOptions(meshes=NONE, skeletons=NONE)


def grey(*, dtype=np.uint8, shape=SHAPE, offset=OFFSET, voxel_size=SIZE):
    values = np.random.default_rng(0).integers(60, 200, shape).astype(dtype)
    return ArrayVolume(values, offset=offset, voxel_size=voxel_size, chunks=(8, 32, 32))


def labelled(*, dtype=np.uint64, shape=SHAPE, offset=OFFSET, voxel_size=SIZE, large=2**40 + 3):
    """Three objects: 7 and 9 side by side, and one with a large id; the last third is empty."""
    labels = np.zeros(shape, dtype)
    labels[2:-2, 10:40, 5:45] = 7
    labels[2:-2, 42:66, 5:45] = 9
    labels[4:-4, 20:50, 50:90] = large if np.dtype(dtype).itemsize == 8 else 11
    return ArrayVolume(labels, offset=offset, voxel_size=voxel_size, chunks=(8, 32, 32))


def make(folder: Path, *, options=NO_SHAPES, **wanted):
    """Make a scene of one image and one segmentation unless others are given."""
    wanted = {"images": [grey()], "segmentations": [labelled()]} | wanted
    return make_scene(folder, options=options, **wanted)


def files_of(folder: Path) -> dict[str, bytes]:
    """All files below a folder by relative name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def edit_scene(folder: Path, change) -> None:
    """Change scene.json by a function of its values."""
    path = folder / "scene.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


PART = {"voxels": 10, "position_zyx": [5, 30, 120]}
SCORED = {
    "format": "floodem evaluation",
    "version": 1,
    "coverage": 0.9,
    "all_truth": {"adapted_rand_error": 0.1, "voi_split_bits": 0.5, "voi_merge_bits": 0.25},
    "where_both_label": None,
    "worst_splits": [
        {
            "object": 5,
            "voxels": 100,
            "segments": 2,
            "effective_segments": 1.9,
            "voi_bits": 0.25,
            "largest": [PART | {"segment": 7}, PART | {"segment": 9}],
        }
    ],
    "worst_mergers": [
        {
            "segment": 2**40 + 3,
            "voxels": 100,
            "objects": 3,
            "effective_objects": 2.5,
            "voi_bits": 0.5,
            "largest": [PART | {"object": 21}, PART | {"object": 22}],
        }
    ],
}


def scores_file(tmp_path, **changes):
    """Scores of `labelled`, as floodem evaluate --json prints them."""
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(SCORED | changes))
    return path


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """`python -m http.server`, with its log kept."""

    def log_message(self, form: str, *values: object) -> None:
        self.server.lines.append(form % values)  # type: ignore[attr-defined]


@contextmanager
def plain_server(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder as ``python -m http.server`` does; gives address and log."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.lines = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", server.lines  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            thread.join()
