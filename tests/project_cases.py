"""A small project of bright tubes, for tests of whole runs of projects."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from bright import bright_tubes
from cut_runs import OFFSET, write_inputs
from floodem.assembly.agglomeration.graph.graph import SegmentGraph
from floodem.geometry import VoxelSize
from floodem.project.pipeline import run_project
from floodem.project.pipeline.contents import content_digest
from floodem.volumes import create_volume

SHAPE = (26, 30, 36)
BOX = "100:126,200:230,300:336"

ALL_TABLES: dict[str, dict[str, Any]] = {
    "image": {"source": "em.zarr", "box": BOX},
    "labels": {"source": "truth.zarr"},
    "model": {"file": "m.safetensors"},
    "segment": {"min_segment_size": 20, "device": "cpu"},
    "agglomerate": {"radius": [9, 10, 10], "analysis_radius": [7, 8, 8]},
    "evaluate": {"report": False},
    "mesh": {},
    "scene": {"title": "tubes", "skeletons": False, "client": False},
    "cluster": {"workers": 1},
}
STAGES = ("prepare", "truth", "segment", "agglomerate", "merge", "evaluate", "mesh", "scene")
"""Those that the tables above ask for."""


def write_data(folder: Path, *, shape=SHAPE) -> None:
    """Write image, truth and network beside where the project file will be."""
    write_inputs(folder, shape=shape)
    _, truth = bright_tubes(shape)
    with create_volume(
        str(folder / "truth.zarr"),
        shape=shape,
        dtype=np.uint32,
        voxel_size=VoxelSize(30, 6, 6),
        offset=OFFSET,
    ) as volume:
        volume.write(volume.box, truth)


def toml(tables: dict[str, Any]) -> str:
    """Write tables of plain values."""
    lines = ["version = 1"]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    text = "\n".join(lines) + "\n"
    tomllib.loads(text)
    return text


def write_project(folder: Path, name: str = "p.toml", /, **changes: Any) -> Path:
    """Write a project file: all tables, with some keys changed; a table of None is left out."""
    tables: dict[str, Any] = {}
    for table, values in {**ALL_TABLES, **changes}.items():
        if values is None or changes.get(table, {}) is None:
            continue
        merged = {**ALL_TABLES.get(table, {}), **values}
        tables[table] = {key: value for key, value in merged.items() if value is not None}
    path = folder / name
    path.write_text(toml(tables), encoding="utf-8")
    return path


def states(project: Path, **options: Any) -> dict[str, str]:
    """Run a project and return what became of each stage that is not skipped."""
    made = run_project(project, **options)
    return {one.name: one.state for one in made.stages if one.state != "skipped"}


def command(project: Path, *words: str) -> list[str]:
    """Return the command line of a run."""
    return [sys.executable, "-m", "floodem", "run", str(project), *words]


def results(folder: Path) -> dict[str, str]:
    """Return a digest of the contents of every result in a project's folder."""
    kinds = {
        **dict.fromkeys(("image.zarr", "truth.zarr", "labels.zarr", "merged.zarr"), "volume"),
        "model.safetensors": "model",
        "merges.sqlite": "graph",
        **dict.fromkeys(("meshes", "scene"), "folder"),
    }
    found = {
        name: content_digest(folder / name, kind)
        for name, kind in kinds.items()
        if (folder / name).exists()
    }
    scores = {path.name: content_digest(path, "scores") for path in folder.glob("scores*.json")}
    return found | scores


def merge_in_graph(path: Path, a: int, b: int) -> None:
    """Say in a graph that two segments are one, as `floodem merges` does."""
    with SegmentGraph.open(path, writable=True) as graph:
        graph.decide(a, b, "merge")
