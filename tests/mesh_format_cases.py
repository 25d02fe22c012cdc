"""Meshes for tests of mesh files: simple solids, and tangles that no object would have."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import strategies as st

from floodem.shapes.meshes import Mesh

OCTAHEDRON = np.array(
    [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], np.float64
)
EIGHT_FACES = np.array(
    [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]
)


def sphere(radius_nm: float, *, centre_zyx_nm: tuple[float, float, float], splits: int = 3) -> Mesh:
    """An octahedron whose triangles are split in four `splits` times and blown up."""
    vertices, faces = [tuple(one) for one in OCTAHEDRON], EIGHT_FACES.tolist()
    for _ in range(splits):
        numbers = {one: number for number, one in enumerate(vertices)}

        def middle(a: int, b: int, numbers: dict = numbers) -> int:
            point = tuple((np.array(vertices[a]) + vertices[b]) / 2)
            if point not in numbers:
                numbers[point] = len(vertices)
                vertices.append(point)
            return numbers[point]

        split = []
        for a, b, c in faces:
            ab, bc, ca = middle(a, b), middle(b, c), middle(c, a)
            split += [[a, ab, ca], [ab, b, bc], [ca, bc, c], [ab, bc, ca]]
        faces = split
    points = np.array(vertices)
    points *= radius_nm / np.linalg.norm(points, axis=1, keepdims=True)
    return Mesh((points + centre_zyx_nm).astype(np.float32), np.array(faces, np.uint32))


def spheres(radius_nm: float, *, centre_zyx_nm: tuple[float, float, float]) -> list[Mesh]:
    """One sphere at three levels of detail."""
    return [sphere(radius_nm, centre_zyx_nm=centre_zyx_nm, splits=splits) for splits in (4, 3, 2)]


def soup(corners: np.ndarray) -> Mesh:
    """Triangles (n, corner, zyx) that share no vertices."""
    faces = np.arange(3 * len(corners), dtype=np.uint32).reshape(-1, 3)
    return Mesh(corners.reshape(-1, 3).astype(np.float32), faces)


def open_edges(mesh: Mesh) -> int:
    """How many directed edges have no edge the other way to go with them."""
    edges = Counter()
    for a, b, c in mesh.faces.tolist():
        edges.update([(a, b), (b, c), (c, a)])
    return sum(max(count - edges[b, a], 0) for (a, b), count in edges.items())


def perimeter_nm(mesh: Mesh) -> float:
    """The edges of all triangles together."""
    corners = mesh.vertices_zyx_nm[mesh.faces].astype(np.float64)
    return float(np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).sum())


def points(low: float, high: float) -> st.SearchStrategy:
    """Positions; often whole numbers, so that some lie on planes and on each other."""
    values = st.one_of(st.integers(int(low), int(high)).map(float), st.floats(low, high, width=32))
    return st.tuples(values, values, values)


def tetrahedra(low: float, high: float) -> st.SearchStrategy[Mesh]:
    """Closed meshes: tetrahedra through one another, some flat."""

    def build(corners: list) -> Mesh:
        vertices = np.array(corners, np.float32).reshape(-1, 3)
        one = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]], np.uint32)
        faces = [one + np.uint32(4 * number) for number in range(len(corners))]
        return Mesh(vertices, np.concatenate(faces))

    four = st.tuples(*[points(low, high)] * 4)
    return st.lists(four, min_size=1, max_size=6).map(build)
