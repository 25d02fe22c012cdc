"""Surfaces parted where simplification has let them touch: a closed mesh in and out.

Collapsing edges never opens a closed mesh, but may lay two of its edges onto
each other (four faces at one edge), or two faces back to back. Programs that ask
whether a mesh is watertight want two faces at every edge.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt32, UInt64

from floodem.shapes.meshes.mesh import Mesh

_VERTEX_BITS = np.uint64(32)
_SHIFT = 0.05
"""Edges are parted by this fraction of what surrounds them."""
_SHIFT_MORE = 0.125
"""Each further one at a place goes so much farther, as two may be sent the same way."""

_Corners = dict[int, Any]


def without_pinches(mesh: Mesh, *, max_shift_nm: float) -> Mesh:
    """Part edges with more than two faces, and drop faces that lie back to back.

    Around such an edge solid and empty wedges alternate. Each solid wedge gets an edge
    of its own, whose middle moves a little into it.

    Parameters
    ----------
    mesh
        Closed; edges at open borders are left as they are.
    max_shift_nm
        How far the middle of an edge may move.
    """
    faces = _without_back_to_back(mesh.faces)
    pinched = _pinched_edges(faces)
    if len(pinched) == 0:
        return mesh if len(faces) == len(mesh.faces) else _made(mesh.vertices_zyx_nm, faces)
    surgery = _Surgery(mesh.vertices_zyx_nm, faces, max_shift_nm=max_shift_nm)
    surgery.part(pinched)
    return surgery.result()


def _made(vertices: Any, faces: Any) -> Mesh:
    return Mesh(vertices, faces).without_loose_vertices()


def _without_back_to_back(faces: UInt32[np.ndarray, "faces 3"]) -> UInt32[np.ndarray, "left 3"]:
    """Drop pairs of faces with the same corners and opposite turns."""
    # Equal for faces with equal corners, whatever their order; others rarely share it.
    mixed = faces.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> _VERTEX_BITS
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    keys = mixed.sum(axis=1, dtype=np.uint64)
    ordered = np.sort(keys)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if len(repeated) == 0:
        return faces
    waiting: dict[tuple[tuple[int, ...], bool], list[int]] = defaultdict(list)
    dropped = []
    for row in np.flatnonzero(np.isin(keys, repeated)).tolist():
        a, b, c = faces[row].tolist()
        corners, is_turned = tuple(sorted((a, b, c))), (a < b) + (b < c) + (c < a) == 1
        opposite = waiting[corners, not is_turned]
        if opposite:
            dropped += [row, opposite.pop()]
        else:
            waiting[corners, is_turned].append(row)
    return np.delete(faces, dropped, axis=0)


def _edge_keys(faces: UInt32[np.ndarray, "faces 3"]) -> UInt64[np.ndarray, "faces 3"]:
    """Return a number for each of a face's edges (01, 12, 20), the same in either direction."""
    one, other = faces.astype(np.uint64), np.roll(faces, -1, axis=1).astype(np.uint64)
    return np.minimum(one, other) << _VERTEX_BITS | np.maximum(one, other)


def _pinched_edges(faces: UInt32[np.ndarray, "faces 3"]) -> UInt64[np.ndarray, "edges"]:
    keys = np.sort(_edge_keys(faces), axis=None)
    return np.unique(keys[2:][keys[2:] == keys[:-2]])


class _Surgery:
    """Few edges of a mesh, parted one after the other."""

    def __init__(self, vertices: Any, faces: Any, *, max_shift_nm: float) -> None:
        self._vertices = vertices
        self._faces = faces
        self._max_shift_nm = max_shift_nm
        self._new_vertices: list[Any] = []
        self._touched: dict[int, tuple[int, int, int]] = {}
        """Faces at pinched edges by number; those that are split make room for new numbers."""
        self._gone: list[int] = []

    def part(self, pinched: UInt64[np.ndarray, "edges"]) -> None:
        """Part all edges with these keys."""
        rows = np.flatnonzero(np.isin(_edge_keys(self._faces), pinched).any(axis=1))
        self._touched = {row: tuple(self._faces[row].tolist()) for row in rows.tolist()}
        self._gone = rows.tolist()
        at_edge: dict[tuple[int, int], set[int]] = {
            (key >> 32, key & 0xFFFFFFFF): set() for key in pinched.tolist()
        }
        for row, face in self._touched.items():
            self._note(at_edge, row, face)
        number = len(self._faces)
        for edge, around in at_edge.items():
            for rank, pair in enumerate(self._solid_wedges(edge, sorted(around))):
                middle = self._middle(edge, pair, rank)
                for row in pair[:2]:
                    face = self._touched.pop(row)
                    for half in _halves(face, edge, middle):
                        self._touched[number] = half
                        self._note(at_edge, number, half)
                        number += 1
                    self._forget(at_edge, row, face)

    def result(self) -> Mesh:
        """Return the mesh with what was parted."""
        vertices = np.concatenate(
            [self._vertices, np.array(self._new_vertices, np.float32).reshape(-1, 3)]
        )
        changed = np.array(list(self._touched.values()), np.uint32).reshape(-1, 3)
        return _made(
            vertices, np.concatenate([np.delete(self._faces, self._gone, axis=0), changed])
        )

    @staticmethod
    def _note(at_edge: dict[tuple[int, int], set[int]], row: int, face: Iterable[int]) -> None:
        for edge in _edges(face):
            if edge in at_edge:
                at_edge[edge].add(row)

    @staticmethod
    def _forget(at_edge: dict[tuple[int, int], set[int]], row: int, face: Iterable[int]) -> None:
        for edge in _edges(face):
            if edge in at_edge:
                at_edge[edge].discard(row)

    def _place(self, vertex: int) -> Float64[np.ndarray, "3"]:
        known = len(self._vertices)
        place = self._vertices[vertex] if vertex < known else self._new_vertices[vertex - known]
        return np.asarray(place, np.float64)

    def _solid_wedges(
        self, edge: tuple[int, int], around: list[int]
    ) -> list[tuple[int, int, Float64[np.ndarray, "3"]]]:
        """Pair the faces around an edge that bound one solid wedge.

        Returns
        -------
        list of (face, face, way)
            `way` leads from the edge into the wedge; its length is a fraction of what is near.
        """
        a, b = (self._place(vertex) for vertex in edge)
        axis = b - a
        length = float(np.linalg.norm(axis))
        along = axis / length if length else np.array([1.0, 0.0, 0.0])
        first = np.cross(along, np.eye(3)[int(np.argmin(np.abs(along)))])
        first /= np.linalg.norm(first)
        second = np.cross(along, first)
        seen = []
        for row in around:
            face = self._touched[row]
            opposite = next(vertex for vertex in face if vertex not in edge)
            away = self._place(opposite) - a
            flat = (float(away @ first), float(away @ second))
            # Turning on around the axis one leaves the solid at a face that runs from a to b.
            leaves = face.index(edge[1]) == (face.index(edge[0]) + 1) % 3
            seen.append((math.atan2(flat[1], flat[0]), not leaves, row, math.hypot(*flat)))
        if 2 * sum(one[1] for one in seen) != len(seen):
            return []  # at an open border
        seen.sort()
        wedges = []
        for enter, leave in _matched(seen):
            angle = enter[0] + (leave[0] - enter[0]) % (2 * math.pi) / 2
            reach = _SHIFT * min(enter[3], leave[3], length)
            way = (math.cos(angle) * first + math.sin(angle) * second) * reach
            wedges.append((enter[2], leave[2], way))
        return wedges

    def _middle(
        self, edge: tuple[int, int], pair: tuple[int, int, Float64[np.ndarray, "3"]], rank: int
    ) -> int:
        """Add the new middle of an edge for one of its pairs of faces; return its number."""
        way = pair[2] * (1 + rank * _SHIFT_MORE)
        reach = float(np.linalg.norm(way))
        if reach > self._max_shift_nm:
            way *= self._max_shift_nm / reach
        self._new_vertices.append((self._place(edge[0]) + self._place(edge[1])) / 2 + way)
        return len(self._vertices) + len(self._new_vertices) - 1


def _edges(face: Iterable[int]) -> list[tuple[int, int]]:
    a, b, c = face
    return [(min(one, other), max(one, other)) for one, other in ((a, b), (b, c), (c, a))]


def _halves(
    face: tuple[int, int, int], edge: tuple[int, int], middle: int
) -> list[tuple[int, int, int]]:
    """Split a face from the middle of one of its edges to the opposite corner."""
    halves = []
    for end in edge:
        a, b, c = (middle if vertex == end else vertex for vertex in face)
        halves.append((a, b, c))
    return halves


def _matched(seen: list[Any]) -> list[tuple[Any, Any]]:
    """Match each entry into the solid with the exit that follows, as brackets are matched."""
    depth, lowest, begin = 0, 0, 0
    for position, one in enumerate(seen):
        depth += 1 if one[1] else -1
        if depth < lowest:
            lowest, begin = depth, position + 1
    pairs, waiting = [], []
    for one in seen[begin:] + seen[:begin]:
        if one[1]:
            waiting.append(one)
        else:
            pairs.append((waiting.pop(), one))
    return pairs
