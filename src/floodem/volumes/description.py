"""What floodem notes about a volume where a format has room: a block of attributes, out and in.

The block is ``{"version": 1, "offset_zyx": [...], "voxel_size_nm_zyx": [...],
"kind": "labels"}``; the last two are left out when they are not known. Formats
with attributes hold it under the name ``floodem``, formats with text as JSON.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from floodem.errors import VolumeFormatError
from floodem.geometry import VoxelSize, Zyx
from floodem.volumes.declared import (
    BLOCK_KEY,
    BLOCK_VERSION,
    KIND_KEY,
    OFFSET_KEY,
    VOXEL_SIZE_KEY,
    kind_from,
    offset_from,
    voxel_size_from,
)
from floodem.volumes.volume import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Voxel size (nm), offset (voxels; z, y, x) and kind of a volume."""

    voxel_size: VoxelSize | None = None
    offset: Zyx = (0, 0, 0)
    kind: Kind | None = None

    def block(self) -> dict[str, Any]:
        """Return the block of attributes."""
        block: dict[str, Any] = {"version": BLOCK_VERSION, OFFSET_KEY: list(self.offset)}
        if self.voxel_size is not None:
            block[VOXEL_SIZE_KEY] = list(self.voxel_size.zyx_nm)
        if self.kind is not None:
            block[KIND_KEY] = self.kind.value
        return block

    def text(self) -> str:
        """Return the block as JSON text, under its name."""
        return json.dumps({BLOCK_KEY: self.block()})


def read_block(block: Any, *, uri: str) -> Description:
    """Read what `Description.block` made; None gives an empty description.

    Raises
    ------
    VolumeFormatError
        When the block is of a newer version or damaged.
    """
    if block is None:
        return Description()
    version = block.get("version") if isinstance(block, dict) else None
    if version != BLOCK_VERSION:
        raise VolumeFormatError(
            f"{uri} has a {BLOCK_KEY!r} attribute of version {version!r}: this floodem reads "
            f"version {BLOCK_VERSION}; install a newer floodem"
        )
    return Description(
        voxel_size=voxel_size_from(block.get(VOXEL_SIZE_KEY), uri=uri),
        offset=offset_from(block.get(OFFSET_KEY), uri=uri),
        kind=kind_from(block.get(KIND_KEY), uri=uri),
    )


def read_text(text: str, *, uri: str) -> Description | None:
    """Read what `Description.text` made, or None when the text is something else.

    Raises
    ------
    VolumeFormatError
        As `read_block`.
    """
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(parsed, dict) or BLOCK_KEY not in parsed:
        return None
    return read_block(parsed[BLOCK_KEY], uri=uri)
