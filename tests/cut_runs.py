"""A small volume of bright tubes that is cut into many blocks, for tests of whole runs."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from bright import bright_model, bright_tubes
from floodem.assembly.request import CutOptions
from floodem.assembly.segment import segment
from floodem.flooding.options import FloodOptions
from floodem.flooding.request import Segmentation, SegmentRequest
from floodem.geometry import VoxelSize
from floodem.network.model_file import save_model
from floodem.volumes import create_volume, open_volume

SHAPE = (37, 40, 64)
BLOCK, HALO = (20, 20, 32), (10, 10, 12)
BLOCKS = 2 * 2 * 2
OFFSET = (100, 200, 300)
CUT = CutOptions(block=BLOCK, halo=HALO, min_shared=1)
OPTIONS = FloodOptions(min_segment_size=20)


def write_inputs(folder: Path, *, shape=SHAPE) -> dict[str, Any]:
    """Write image and model; return the arguments of `segment` for them."""
    image, _ = bright_tubes(shape)
    with create_volume(
        str(folder / "em.zarr"),
        shape=shape,
        dtype=np.uint8,
        voxel_size=VoxelSize(30, 6, 6),
        offset=OFFSET,
    ) as volume:
        volume.write(volume.box, image)
    save_model(bright_model(), folder / "m.safetensors")
    return {
        "image": str(folder / "em.zarr"),
        "model": folder / "m.safetensors",
        "request": SegmentRequest(options=OPTIONS, device="cpu"),
    }


def run(inputs: dict[str, Any], destination: str | Path, **changes: Any) -> Segmentation:
    """Segment in blocks."""
    arguments = {**inputs, "cut": CUT, **changes}
    return segment(arguments.pop("image"), destination, **arguments)


def command(folder: Path, destination: str | Path, *more: str) -> list[str]:
    """Return the command line of the same run."""
    return [
        *(sys.executable, "-m", "floodem", "segment"),
        *(str(folder / "em.zarr"), str(destination)),
        *("--model", str(folder / "m.safetensors"), "--device", "cpu"),
        *("--min-segment-size", "20", "--min-shared", "1"),
        *("--block", ",".join(map(str, BLOCK)), "--halo", ",".join(map(str, HALO))),
        *more,
    ]


def labels_of(uri: str | Path) -> np.ndarray:
    """Return all labels of a volume."""
    with open_volume(str(uri)) as volume:
        return volume.read()


def times_begun(folder: Path) -> Counter[str]:
    """Tell from the blocks' logs how often each was begun."""
    return Counter(
        {
            path.name.removesuffix(".log"): sum(
                " begun on " in line for line in path.read_text().splitlines()
            )
            for path in (folder / "blocks").glob("*.log")
        }
    )


def require_same_objects(found: np.ndarray, expected: np.ndarray, *, lost: float = 0.05) -> None:
    """Check that two labelings hold the same objects, but for some voxels at their rims.

    Where fields of view lie depends on the seed, and so do the last voxels that are seen.
    """
    inside = (found > 0) & (expected > 0)
    pairs = np.unique(np.stack([found[inside], expected[inside]]), axis=1)
    assert len(np.unique(found)) == len(np.unique(expected))
    assert len(set(pairs[0].tolist())) == len(set(pairs[1].tolist())) == pairs.shape[1]
    assert np.count_nonzero((found > 0) != (expected > 0)) <= lost * np.count_nonzero(expected)
