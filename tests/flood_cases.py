"""One volume cut into blocks, and the tasks that flood it: for tests of what happens to them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bright import bright_model, bright_tubes
from floodem.assembly.block_store import BlockStore
from floodem.assembly.blocks import BlockPlan
from floodem.assembly.floods import FloodTask
from floodem.flooding.options import FloodOptions
from floodem.flooding.request import SegmentRequest
from floodem.geometry import Box, VoxelSize
from floodem.network.model_file import Model, load_model, save_model
from floodem.volumes import create_volume
from floodem.volumes.source import VolumeSource

OFFSET = (100, 200, 300)
VOXEL_SIZE = VoxelSize(30, 6, 6)
SHAPE = (24, 40, 128)
SMALL = FloodOptions(min_segment_size=100)


def write_volume(uri: str | Path, array: np.ndarray, *, offset=OFFSET, voxel_size=VOXEL_SIZE):
    """Keep an array as a volume."""
    with create_volume(
        str(uri), shape=array.shape, dtype=array.dtype, offset=offset, voxel_size=voxel_size
    ) as volume:
        volume.write(volume.box, array)
    return str(uri)


def flood_tasks(
    folder: Path,
    *,
    model: Model | None = None,
    image: np.ndarray | None = None,
    core=(24, 40, 64),
    margin=(7, 9, 9),
    work: str | None = None,
    request: SegmentRequest | None = None,
    **changes,
) -> list[FloodTask]:
    """Write image and model to a folder, and return the tasks of all blocks."""
    array = bright_tubes(SHAPE)[0] if image is None else image
    uri, model_path = folder / "em.zarr", folder / "model.safetensors"
    if not uri.exists():
        write_volume(uri, array)
    if not model_path.exists():
        save_model(model or bright_model(), model_path)
    plan = BlockPlan(box=Box.from_shape(array.shape, start=OFFSET), core=core, margin=margin)
    store = BlockStore(address=work or str(folder / "seg.zarr.floodem"), plan=plan)
    return [
        FloodTask(
            **{
                "image": VolumeSource(uri=str(uri)),
                "voxel_size": VOXEL_SIZE,
                "model": str(model_path),
                "model_digest": load_model(model_path).digest(),
                "request": request or SegmentRequest(options=SMALL, device="cpu"),
                "store": store,
                "block": block,
                **changes,
            }
        )
        for block in plan
    ]


def read_labels(task: FloodTask) -> np.ndarray:
    """Return the labels that a block has left."""
    with task.store.open_labels(task.block) as volume:
        return volume.read()


def record(task: FloodTask, ending: str):
    """Return a file of a block's record."""
    text = (Path(task.store.address) / "blocks" / f"{task.block.key}.{ending}").read_text()
    return json.loads(text) if ending.endswith("json") else text
