"""Triangle meshes of objects: labels of any size come in, folders of meshes go out."""

from floodem.shapes.meshes.mesh import Mesh

__all__ = ["Mesh"]
