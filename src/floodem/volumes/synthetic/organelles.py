"""Mitochondria and vesicles: the points of neurites in, darker structures inside them out.

Both sit on points of the forest that have room for them, chosen by hashes of the
node, and stay inside their neurite.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from floodem.geometry import Box
from floodem.volumes.synthetic.noise import (
    Floats,
    Integers,
    hashed,
    make_key,
    uniform,
)
from floodem.volumes.synthetic.options import SyntheticOptions
from floodem.volumes.synthetic.tubes import Points

_MITOCHONDRIA_SHARE = 0.22
_MITOCHONDRIA_ROOM = 0.34
"""Least half width of a neurite that holds one, in spacings."""

_MITOCHONDRIA_RADIUS = 0.78
"""Of that half width that it fills; at most `_LARGEST_MITOCHONDRION` spacings."""

_LARGEST_MITOCHONDRION = 0.5
_MATRIX_DEPTH = 42.0
_OUTLINE_DEPTH = 80.0
_CRISTAE_DEPTH = 34.0
_OUTLINE_NM = 9.0
_CRISTAE_NM = 46.0
"""Distance of cristae."""

_CLUSTER_SHARE = 0.14
_CLUSTER_ROOM = 0.32
_LARGEST_CLUSTER = 0.8
_VESICLE_RADIUS_NM = 17.0
_VESICLE_WALL_NM = 6.0
_VESICLE_DISTANCE_NM = 44.0
_VESICLE_DEPTH = 72.0

_FAR_NM = np.float32(1e6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What organelles are put into.

    Attributes
    ----------
    box
        The voxels.
    points
        Of all neurites in and around it.
    owners
        Label of each voxel's neurite.
    depth_nm
        How far inside it the voxel is.
    """

    box: Box
    points: Points
    owners: Integers
    depth_nm: Floats


class Organelles:
    """The organelles of one synthetic volume."""

    def __init__(self, options: SyntheticOptions) -> None:
        self._options = options
        self._voxel_nm = np.array(options.voxel_size.zyx_nm)
        self._keys = {
            name: make_key(options.seed, name)
            for name in ("mitochondrion", "cristae", "cluster", "vesicle")
        }

    def darkness(self, scene: Scene) -> Floats:
        """Return by how much organelles darken each voxel of a box."""
        dark = np.zeros(scene.box.shape, np.float32)
        outside = np.full(scene.box.shape, _FAR_NM, np.float32)
        if self._options.mitochondria > 0:
            self._add_mitochondria(scene, dark=dark, outside=outside)
        if self._options.vesicles > 0:
            self._add_vesicles(scene, dark=dark, outside=outside)
        return dark

    def _add_mitochondria(self, scene: Scene, *, dark: Floats, outside: Floats) -> None:
        points = scene.points
        spacing = self._options.spacing_nm
        wanted = _MITOCHONDRIA_SHARE * self._options.mitochondria
        chosen = uniform(hashed(self._keys["mitochondrion"], *points.nodes.T)) < wanted
        for edge in _edges(points, chosen):
            room = points.room_nm[edge].min()
            if room < _MITOCHONDRIA_ROOM * spacing:
                continue
            radius = min(_MITOCHONDRIA_RADIUS * room, _LARGEST_MITOCHONDRION * spacing)
            line = (points.voxels[edge] + 0.5) * self._voxel_nm
            where, axes = self._around(scene.box, line, reach_nm=radius)
            if where is None:
                continue
            distance = _distance_to_line(axes, line) - np.float32(radius)
            # It gives way to the membrane rather than touching it.
            wall = np.float32(self._options.membrane_nm / 2 + 6) - scene.depth_nm[where]
            distance = np.maximum(distance, wall)
            mine = (scene.owners[where] == points.labels[edge[0]]) & (distance < outside[where])
            outside[where] = np.where(mine, distance, outside[where])
            inside = self._inside_mitochondrion(axes, points.nodes[edge[0]], distance)
            dark[where] = np.where(mine & (distance < 0), inside, dark[where])

    def _inside_mitochondrion(self, axes: list[Floats], node: Integers, distance: Floats) -> Floats:
        """Return the darkness: an outline, and cristae as bent parallel planes in the matrix."""
        direction = uniform(hashed(self._keys["cristae"], *node, np.arange(3))) - 0.5
        direction /= math.sqrt(float(direction[0] ** 2 + direction[1] ** 2 + direction[2] ** 2))
        along = sum(
            (axis * np.float32(part) for axis, part in zip(axes, direction, strict=True)),
            start=np.float32(0),
        )
        phase = (along + np.float32(0.35) * distance) / np.float32(_CRISTAE_NM)
        wave = np.abs(phase - np.floor(phase) - np.float32(0.5)) * 4 - 1
        matrix = np.float32(_MATRIX_DEPTH) + np.float32(_CRISTAE_DEPTH) * wave
        edge = np.clip(1 - np.abs(distance / np.float32(_OUTLINE_NM) + 1), 0, 1)
        dark: Floats = np.maximum(matrix, edge * np.float32(_OUTLINE_DEPTH)).astype(np.float32)
        return dark

    def _add_vesicles(self, scene: Scene, *, dark: Floats, outside: Floats) -> None:
        points = scene.points
        spacing = self._options.spacing_nm
        wanted = _CLUSTER_SHARE * self._options.vesicles
        chosen = uniform(hashed(self._keys["cluster"], *points.nodes.T)) < wanted
        chosen &= (points.steps == 0) & (points.room_nm >= _CLUSTER_ROOM * spacing)
        reach_nm = _VESICLE_RADIUS_NM + _VESICLE_WALL_NM
        thickness = self._voxel_nm[0] / 2
        for row in np.flatnonzero(chosen):
            centre = (points.voxels[row] + 0.5) * self._voxel_nm
            size = min(points.room_nm[row], _LARGEST_CLUSTER * spacing)
            for at in self._vesicles(points.nodes[row], centre, radius_nm=size):
                where, axes = self._around(scene.box, at[None], reach_nm=reach_nm)
                if where is None:
                    continue
                z, y, x = (axis - np.float32(a) for axis, a in zip(axes, at, strict=True))
                z = np.maximum(np.abs(z) - np.float32(thickness), 0)
                distance = np.sqrt(z * z + y * y + x * x) - np.float32(_VESICLE_RADIUS_NM)
                ring = np.clip(1 - np.abs(distance) / np.float32(_VESICLE_WALL_NM), 0, 1)
                mine = (scene.owners[where] == points.labels[row]) & (outside[where] > 0)
                mine &= scene.depth_nm[where] > self._options.membrane_nm / 2
                ring = np.where(mine, ring * np.float32(_VESICLE_DEPTH), 0)
                dark[where] = np.maximum(dark[where], ring)

    def _vesicles(self, node: Integers, centre: Floats, *, radius_nm: float) -> Iterator[Floats]:
        """Yield the centres of a cluster's vesicles, on a shaken grid in a ball."""
        steps = math.floor(radius_nm / _VESICLE_DISTANCE_NM)
        for place in np.ndindex(*(2 * steps + 1,) * 3):
            grid = np.array(place) - steps
            shake = uniform(hashed(self._keys["vesicle"], *node, *grid, np.arange(4)))
            at = (grid + 0.4 * (shake[:3] - 0.5)) * _VESICLE_DISTANCE_NM
            if shake[3] < 0.8 and float((at**2).sum()) <= radius_nm**2:
                yield centre + at

    def _around(
        self, box: Box, line: Floats, *, reach_nm: float
    ) -> tuple[tuple[slice, ...] | None, list[Floats]]:
        """Return the part of a box near points, and its voxels' positions on each axis."""
        inside, axes = [], []
        for axis, nm in enumerate(self._voxel_nm):
            a, b = box.start[axis], box.stop[axis]
            start = max(a, math.floor((line[:, axis].min() - reach_nm) / nm))
            stop = min(b, math.ceil((line[:, axis].max() + reach_nm) / nm) + 1)
            if start >= stop:
                return None, []
            along = [1, 1, 1]
            along[axis] = -1
            inside.append(slice(start - a, stop - a))
            axes.append(((np.arange(start, stop) + 0.5) * nm).astype(np.float32).reshape(along))
        return tuple(inside), axes


def _edges(points: Points, chosen: Any) -> Iterator[Integers]:
    """Yield the rows of the points of each chosen edge."""
    rows = np.flatnonzero(chosen)
    if not len(rows):
        return
    nodes = points.nodes[rows]
    starts = np.flatnonzero((nodes[1:] != nodes[:-1]).any(axis=1)) + 1
    yield from np.split(rows, starts)


def _distance_to_line(axes: list[Floats], line: Floats) -> Floats:
    """Return the distance of each voxel to a chain of points."""
    least: Any = None
    for a, b in zip(line, line[1:] if len(line) > 1 else line, strict=False):
        away = [axis - np.float32(start) for axis, start in zip(axes, a, strict=True)]
        way = (b - a).astype(np.float32)
        length = float((way.astype(np.float64) ** 2).sum())
        share: Any = np.float32(0)
        if length > 0:
            dot = away[0] * way[0] + away[1] * way[1] + away[2] * way[2]
            share = np.clip(dot / np.float32(length), 0, 1)
        z, y, x = (rest - share * part for rest, part in zip(away, way, strict=True))
        squared = z * z + y * y + x * x
        least = squared if least is None else np.minimum(least, squared)
    distance: Floats = np.sqrt(least)
    return distance
