"""Tubes whose labels are cut across, for tests of whole agglomerations."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bright import bright_model, bright_tubes
from floodem.assembly.agglomeration.agglomerate import Agglomeration, agglomerate
from floodem.assembly.agglomeration.graph.graph import SegmentGraph
from floodem.assembly.agglomeration.preparation import AgglomerationOptions
from floodem.geometry import VoxelSize
from floodem.network.model_file import save_model
from floodem.volumes import create_volume, open_volume

SHAPE = (11, 40, 48)
OFFSET = (100, 200, 300)
VOXEL_SIZE = VoxelSize(30, 6, 6)
CUT_AT, FAR = 24, 100
RADII = {"radius": (8, 10, 20), "analysis_radius": (5, 6, 16), "exclusion_radius": (1, 2, 2)}
OPTIONS = AgglomerationOptions(resegmentation=RADII, device="cpu")
BESIDE = np.s_[:, :, CUT_AT:]


def write(uri: Path, voxels: np.ndarray, *, offset=OFFSET, voxel_size=VOXEL_SIZE) -> None:
    with create_volume(
        str(uri), shape=voxels.shape, dtype=voxels.dtype, voxel_size=voxel_size, offset=offset
    ) as volume:
        volume.write(volume.box, voxels)


def write_inputs(folder: Path) -> dict[str, Any]:
    """Write image, labels and model; return the arguments of `agglomerate` for them."""
    image, truth = bright_tubes(SHAPE)
    labels = truth.astype(np.uint64)
    beyond = labels[BESIDE]
    beyond[beyond > 0] += np.uint64(FAR)
    write(folder / "em.zarr", image)
    write(folder / "seg.zarr", labels)
    write(folder / "truth.zarr", truth.astype(np.uint64))
    save_model(bright_model(), folder / "m.safetensors")
    return {
        "segmentation": str(folder / "seg.zarr"),
        "image": str(folder / "em.zarr"),
        "model": folder / "m.safetensors",
        "options": OPTIONS,
    }


def run(inputs: dict[str, Any], graph: Path, **changes: Any) -> Agglomeration:
    arguments = {**inputs, **changes}
    return agglomerate(arguments.pop("segmentation"), arguments.pop("image"), graph, **arguments)


def edges_of(graph: Path) -> dict[str, list[Any]]:
    """Return every edge with its scores and whether it is a merge."""
    with SegmentGraph.open(graph) as opened:
        table = opened.edges()
    columns = {name: column.tolist() for name, column in table.columns.items()}
    rest = {name: getattr(table, name).tolist() for name in ("ids_a", "ids_b", "positions")}
    return columns | rest | {"accepted": table.accepted.tolist()}


def labels_of(uri: Path) -> np.ndarray:
    with open_volume(str(uri)) as volume:
        return volume.read()


def values_of(made: Agglomeration) -> dict[str, Any]:
    """Return what does not depend on clocks and places."""
    return {k: v for k, v in asdict(made).items() if k not in {"graph", "seconds", "was_finished"}}
