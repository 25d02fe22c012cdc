"""Marching cubes of all labels of an array at once: labels come in, one mesh an object goes out.

The surface between two voxels lies half-way between their centres, that is on
the face that they share. zmesh does the work (LGPL, loaded where it is used).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped, UInt32

from floodem.geometry import VoxelSize, Zyx
from floodem.labels import require_labels
from floodem.shapes.meshes.mesh import Mesh
from floodem.shapes.meshes.simplification import coarser, simplified
from floodem.volumes.packages import require_package

SHAPES_EXTRA = "floodem[shapes]"

Surface = tuple[int, Float32[np.ndarray, "vertices 3"], UInt32[np.ndarray, "faces 3"]]


def object_meshes(
    labels: Shaped[np.ndarray, "z y x"],
    *,
    voxel_size: VoxelSize,
    start: Zyx = (0, 0, 0),
    ids: Collection[int] | None = None,
    max_error_nm: float | None = None,
    is_closed: bool = True,
) -> Iterator[tuple[int, Mesh]]:
    """Yield the mesh of each object in an array, in the order of the ids.

    Parameters
    ----------
    labels
        Integers; 0 is background.
    voxel_size
        Edges of a voxel, in nanometres.
    start
        Position of the first voxel in the frame of the volume, in voxels.
    ids
        Only these objects; None: all. Ids that are not there have no mesh.
    max_error_nm
        How far simplification may go (see `floodem.shapes.meshes.simplification`);
        None: every triangle of marching cubes.
    is_closed
        Close objects that the array's border cuts. Where it is False they are open
        there and lack the outer half of the voxels at the border.

    Raises
    ------
    LabelError
        When the values are no labels.
    DependencyError
        When zmesh, or pyfqmr for simplification, is not installed.
    """
    require_labels(labels, what="the array")
    if is_closed:
        labels = np.pad(labels, 1)
    edges = np.array(voxel_size.zyx_nm)
    # zmesh counts from the centre of the first voxel, which is a voxel of padding where closed.
    shift = np.array(start) + (-0.5 if is_closed else 0.5)
    for label, vertices, faces in marching_cubes(labels, ids=ids):
        places_nm = ((vertices.astype(np.float64) + shift) * edges).astype(np.float32)
        mesh = Mesh(places_nm, faces)
        if max_error_nm is not None:
            simplify = coarser if is_closed else simplified
            mesh = simplify(mesh, max_error_nm=max_error_nm)
        if not mesh.is_empty:
            yield label, mesh


def marching_cubes(
    labels: Shaped[np.ndarray, "z y x"], *, ids: Collection[int] | None = None
) -> Iterator[Surface]:
    """Yield id, vertices and faces of each object, in the order of the ids.

    Vertices are z, y, x in voxels, counted from the centre of the first voxel:
    whole numbers and halves. Objects are open at the array's border. Faces are
    ordered as `Mesh` has them.

    Raises
    ------
    DependencyError
        When zmesh is not installed.
    """
    if min(labels.shape) < 2:  # no cell between voxels
        return
    zmesh = require_package("zmesh", purpose="making meshes", install=SHAPES_EXTRA)
    wanted = None if ids is None else {int(label) for label in ids}
    if wanted is not None:
        labels = _only(labels, wanted)
    mesher = zmesh.Mesher((1, 1, 1))
    mesher.mesh(np.ascontiguousarray(labels).view(_unsigned(labels.dtype)))
    for label in sorted(mesher.ids()):
        if label and (wanted is None or label in wanted):
            found = mesher.get(label)
            yield int(label), found.vertices, found.faces


def _only(labels: Shaped[np.ndarray, "z y x"], wanted: set[int]) -> Any:
    """Set all other labels to background, so that they cost nothing."""
    limits = np.iinfo(_unsigned(labels.dtype))
    known = np.array(
        sorted(label for label in wanted if 0 < label <= limits.max), _unsigned(labels.dtype)
    )
    unsigned = np.ascontiguousarray(labels).view(_unsigned(labels.dtype))
    if len(known) == 1:
        return np.where(unsigned == known[0], unsigned, unsigned.dtype.type(0))
    return np.where(np.isin(unsigned, known), unsigned, unsigned.dtype.type(0))


def _unsigned(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type of the same bytes that zmesh takes; labels are never negative."""
    return np.dtype(f"u{dtype.itemsize}")
