"""Triangle meshes of objects: labels of any size come in, folders of meshes go out."""

from floodem.shapes.meshes.marching import object_meshes
from floodem.shapes.meshes.mesh import Lattice, Mesh
from floodem.shapes.meshes.simplification import coarser, default_error_nm, simplified

__all__ = ["Lattice", "Mesh", "coarser", "default_error_nm", "object_meshes", "simplified"]
