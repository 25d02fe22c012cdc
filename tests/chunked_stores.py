"""Small chunked stores for tests: written by us, or opened as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from floodem.geometry import VoxelSize
from floodem.volumes import create_volume

SHAPE = (5, 6, 7)
ARRAY = np.arange(210, dtype=np.uint32).reshape(SHAPE)
FORMATS = ("zarr", "zarr3", "n5", "precomputed")
METADATA = {
    "zarr": ".zarray",
    "zarr3": "zarr.json",
    "n5": "attributes.json",
    "precomputed": "info",
}


def write(uri: str | Path, array: np.ndarray = ARRAY, **facts: Any) -> None:
    facts.setdefault("voxel_size", VoxelSize(30, 6, 4))
    facts.setdefault("offset", (10, 20, 30))
    facts.setdefault("chunks", (2, 3, 4))
    with create_volume(uri, shape=array.shape, dtype=array.dtype, **facts) as volume:
        volume.write(volume.box, array)


def opened(driver: str, path: Path, **spec: Any) -> Any:
    kvstore = {"driver": "file", "path": f"{path}/"}
    return ts.open({"driver": driver, "kvstore": kvstore, **spec}).result()


def attributes(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found
