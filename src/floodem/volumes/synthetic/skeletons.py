"""The exact skeletons of a synthetic volume: options and a box in, trees in nanometres out.

Nodes are the points that the neurites were made from, so that each lies inside its
own label. A neurite is one tree in the whole volume; in a smaller box it may be
several. Glia, which is sheets, has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import DestinationExistsError
from floodem.files import write_text
from floodem.geometry import Box
from floodem.volumes.synthetic.noise import Floats, Integers
from floodem.volumes.synthetic.options import SyntheticOptions
from floodem.volumes.synthetic.synthesis import require_part, tissue_of
from floodem.volumes.synthetic.tubes import SAMPLES, Points

_SWC_CUSTOM = 5
"""What kind of node it is, in SWC's list: not said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skeleton:
    """The midline of one neurite.

    Attributes
    ----------
    label
        Of the neurite, in the label volume.
    nodes_zyx_nm
        Centres of voxels, in nanometres from the volume's first corner, one row each.
    edges
        Pairs of rows; the second is the one nearer to the root. Each row is the
        first of at most one pair.
    radius_nm
        Distance from each node to the surface of the neurite, glia and membranes
        not taken off.
    """

    label: int
    nodes_zyx_nm: Floats
    edges: Integers
    radius_nm: Floats


def skeletons(options: SyntheticOptions, box: Box | None = None) -> list[Skeleton]:
    """Return the skeletons of all neurites in a volume or a box of it, ordered by label.

    Parameters
    ----------
    box
        In voxels; by default the whole volume. Nodes outside are left out, with
        their edges.

    Raises
    ------
    GeometryError
        When the box is empty or not inside the volume.
    """
    box = require_part(options, box)
    tubes = tissue_of(options).tubes
    points = tubes.points_near(box, reach_nm=2 * options.spacing_nm)
    inside = ((points.voxels >= box.start) & (points.voxels < box.stop)).all(axis=1)
    points = points.select(np.asarray(inside))
    edges = _edges(points, tubes.forest.successors(points.nodes))
    centres = (points.voxels + 0.5) * np.array(options.voxel_size.zyx_nm)
    made = []
    order = np.argsort(points.labels, kind="stable")
    labels, starts = np.unique(points.labels[order], return_index=True)
    new = np.empty(len(points), np.int64)
    child_labels = points.labels[edges[:, 0]]
    by_child = np.argsort(child_labels, kind="stable")
    edge_starts = np.searchsorted(child_labels[by_child], labels, side="left")
    parts = np.split(by_child, edge_starts[1:])
    for label, rows, own in zip(labels, np.split(order, starts[1:]), parts, strict=True):
        new[rows] = np.arange(len(rows))
        made.append(
            Skeleton(
                label=int(label),
                nodes_zyx_nm=centres[rows],
                edges=new[edges[own]],
                radius_nm=points.room_nm[rows],
            )
        )
    return made


def _edges(points: Points, onward: Integers) -> Integers:
    """Return pairs of rows: each point and the next one on the way to the root, if it is here."""
    is_last = points.steps == SAMPLES - 1
    next_nodes = np.where(is_last[:, None], onward, points.nodes)
    next_steps = np.where(is_last, 0, points.steps + 1)
    here = np.concatenate([points.nodes, points.steps[:, None]], axis=1)
    there = np.concatenate([next_nodes, next_steps[:, None]], axis=1)
    _, numbers = np.unique(np.concatenate([here, there]), axis=0, return_inverse=True)
    numbers = numbers.reshape(-1)
    row_of = np.full(int(numbers.max(initial=-1)) + 1, -1)
    row_of[numbers[: len(points)]] = np.arange(len(points))
    to = row_of[numbers[len(points) :]]
    pairs = np.stack([np.arange(len(points)), to], axis=1)
    # Beyond the faces of the volume a path may go on as another neurite.
    same = (to >= 0) & (points.labels == points.labels[to])
    joined: Integers = pairs[same]
    return joined


def write_swc(path: Path, found: list[Skeleton], *, overwrite: bool = False) -> None:
    """Write skeletons as one SWC file: x, y, z and radius in nanometres, as a comment says.

    The label of each neurite is in a comment before its nodes; roots have parent -1.

    Raises
    ------
    DestinationExistsError
        When the file exists and `overwrite` is not set.
    StorageError
        When the file system refuses.

    References
    ----------
    Cannon et al. 1998, Journal of Neuroscience Methods 84:49 (the format).
    """
    if path.exists() and not overwrite:
        raise DestinationExistsError(f"{path} exists already: choose another name, or overwrite it")
    lines = ["# synthetic neurites; id type x y z radius parent", "# unit: nm"]
    first = 1
    for skeleton in found:
        lines.append(f"# label {skeleton.label}")
        parents = np.full(len(skeleton.nodes_zyx_nm), -1)
        parents[skeleton.edges[:, 0]] = skeleton.edges[:, 1] + first
        rows: Any = zip(skeleton.nodes_zyx_nm, skeleton.radius_nm, parents, strict=True)
        lines += [
            f"{number} {_SWC_CUSTOM} {x:g} {y:g} {z:g} {radius:.1f} {parent}"
            for number, ((z, y, x), radius, parent) in enumerate(rows, start=first)
        ]
        first += len(skeleton.nodes_zyx_nm)
    write_text(path, "\n".join(lines) + "\n")
