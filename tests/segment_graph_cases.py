"""What tests of segment graphs share: graphs made by hand, over segmentations made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from floodem.assembly.agglomeration.graph.base import describe_base
from floodem.assembly.agglomeration.graph.format import SCORE_COLUMNS
from floodem.assembly.agglomeration.graph.graph import SegmentGraph
from floodem.assembly.agglomeration.graph.records import GraphHeader
from floodem.assembly.agglomeration.graph.rule import MergeRule
from floodem.assembly.agglomeration.points.points import DecisionPoints
from floodem.geometry import Box, VoxelSize
from floodem.shapes.source import LabelSource
from floodem.volumes import create_volume

LARGEST = 2**64 - 1
SIZE = VoxelSize(30, 6, 6)
OFFSET = (3, -5, 10)
HEADER = GraphHeader(
    segmentation=LabelSource(uri="/nowhere/base.zarr"),
    identity={"box": "0:4,0:4,0:4"},
    sample=17,
    box=Box((0, 0, 0), (4, 4, 4)),
    voxel_size=SIZE,
    about={"model": "a.safetensors", "options": {"radius": [5, 5, 5]}},
)


def points_of(pairs, *, distances=None) -> DecisionPoints:
    """Decision points of pairs, ordered as they are in a graph."""
    pairs = np.array(sorted(pairs), np.uint64).reshape(-1, 2)
    count = len(pairs)
    return DecisionPoints(
        ids_a=pairs[:, 0].copy(),
        ids_b=pairs[:, 1].copy(),
        positions=np.arange(3 * count, dtype=np.int64).reshape(count, 3) - 4,
        distances_nm=np.arange(count, dtype=np.float64) if distances is None else distances,
    )


def scores_of(ious, *, coverage=0.9, deleted=0.0) -> dict[str, np.ndarray]:
    """Columns of scores that differ by iou (and by what else is given), all else perfect."""
    ious = np.asarray(ious, np.float64)
    found = {
        name: np.ones(len(ious)).astype(kind)
        for name, kind in SCORE_COLUMNS.items()
        if name != "distance_nm"
    }
    found["iou"] = ious
    for one in "ab":
        for other in "ab":
            found[f"{one}_covers_{other}"] = np.broadcast_to(coverage, len(ious)).astype(float)
        found[f"size_{one}"] = np.full(len(ious), 10_000)
        found[f"deleted_{one}"] = np.round(np.broadcast_to(deleted, len(ious)) * 10_000).astype(
            np.int64
        )
    return found


def write_graph(path: Path, edges: dict, *, header=HEADER, rule=None, **options) -> Path:
    """Write a graph whose edges are pairs and their iou."""
    pairs = sorted(edges)
    SegmentGraph.create(
        path,
        header=header,
        points=points_of(pairs),
        scores=scores_of([edges[pair] for pair in pairs]),
        rule=MergeRule() if rule is None else rule,
        **options,
    )
    return path


def write_labels(path: Path | str, labels: np.ndarray, *, offset=OFFSET, size=SIZE, **options):
    """Write a label volume, and return its address."""
    with create_volume(
        str(path), shape=labels.shape, dtype=labels.dtype, voxel_size=size, offset=offset, **options
    ) as volume:
        volume.write(volume.box, labels)
    return str(path)


def graph_over(folder: Path, labels: np.ndarray, edges: dict, *, rule=None) -> Path:
    """Write a base segmentation ``base.zarr`` and a graph over it, ``graph.sqlite``."""
    base = write_labels(folder / "base.zarr", labels)
    header = describe_base(LabelSource(uri=base), about={"model": "none"})
    return write_graph(folder / "graph.sqlite", edges, header=header, rule=rule)


def mapping_of(path: Path) -> dict[int, int]:
    """The mapping of a graph's file, as a dictionary."""
    with SegmentGraph.open(path) as graph:
        old, new = graph.mapping()
    return dict(zip(old.tolist(), new.tolist(), strict=True))
