"""Single mesh files for other programs: a mesh in, an OBJ, PLY, STL or GLB file out."""

from floodem.shapes.files.writing import FORMATS, UNITS, Unit, mesh_file_name, write_mesh_file

__all__ = ["FORMATS", "UNITS", "Unit", "mesh_file_name", "write_mesh_file"]
