"""The description that ImageJ (and so Fiji) reads in a TIFF file: our own in, text and tags out.

Below ImageJ's lines stands one of ours, ``floodem={...}``, which keeps what ImageJ has no
word for: offset and kind. ImageJ and tifffile pass over it. Reference: ImageJ,
``ij.io.FileInfo`` and ``ij.io.FileOpener.decodeDescriptionString``.
"""

from __future__ import annotations

import json
from typing import Any

from floodem.geometry import VoxelSize
from floodem.volumes.declared import BLOCK_KEY
from floodem.volumes.description import Description, read_text

DTYPES = ("uint8", "uint16", "float32")
"""What ImageJ shows with the values that are stored."""

IMAGEJ = "ImageJ="
"""How a description of ImageJ begins."""

_VERSION = "1.11a"
"""The oldest ImageJ whose lines these are; tifffile writes the same."""

_OUR_LINE = f"{BLOCK_KEY}="


def imagej_text(description: Description, *, sections: int) -> str:
    """Write the description of a stack (z, y, x) that ImageJ opens calibrated."""
    lines = [f"{IMAGEJ}{_VERSION}", f"images={sections}", f"slices={sections}", "loop=false"]
    if description.voxel_size is not None:
        lines += ["unit=nm", f"spacing={description.voxel_size.zyx_nm[0]}"]
    lines.append(_OUR_LINE + json.dumps(description.block()))
    return "\n".join(lines) + "\n"


def resolution_per_nm(voxel_size: VoxelSize | None) -> dict[str, Any]:
    """Return what tifffile is to write into the tags of resolution: pixels per unit, here nm."""
    if voxel_size is None:
        return {}
    _, y_nm, x_nm = voxel_size.zyx_nm
    return {"resolution": (1 / x_nm, 1 / y_nm), "resolutionunit": "NONE"}


def read_description(text: str, *, uri: str) -> Description | None:
    """Read our description, alone or below ImageJ's lines; None when there is none of ours.

    Raises
    ------
    VolumeFormatError
        When it is of a newer version or damaged.
    """
    if not text.startswith(IMAGEJ):
        return read_text(text, uri=uri)
    ours = [line for line in text.splitlines() if line.startswith(_OUR_LINE)]
    if not ours:
        return None
    return read_text(f'{{"{BLOCK_KEY}": {ours[0].removeprefix(_OUR_LINE)}}}', uri=uri)
