"""Flood-filling networks: from electron-microscope images to 3-D neurons.

The public names below are loaded when they are first used, so that importing
floodem costs nothing: no torch, no numpy. docs/architecture.md is the map.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from floodem.assembly.agglomeration.agglomerate import agglomerate
    from floodem.assembly.agglomeration.graph.applying import apply_merges
    from floodem.assembly.consensus import make_consensus
    from floodem.assembly.segment import segment
    from floodem.errors import FloodemError
    from floodem.evaluation import evaluate
    from floodem.flooding.flood_at import flood_at
    from floodem.flooding.options import FloodOptions
    from floodem.flooding.request import SegmentRequest
    from floodem.geometry import Box, VoxelSize
    from floodem.network.model_file import load_model
    from floodem.training.configuration.options import TrainOptions
    from floodem.training.runs.trainer import train
    from floodem.viewer import view
    from floodem.volumes import create_volume, open_volume

__version__ = "0.1.0"

__all__ = [
    "Box",
    "FloodOptions",
    "FloodemError",
    "SegmentRequest",
    "TrainOptions",
    "VoxelSize",
    "__version__",
    "agglomerate",
    "apply_merges",
    "create_volume",
    "evaluate",
    "flood_at",
    "load_model",
    "make_consensus",
    "open_volume",
    "segment",
    "train",
    "view",
]

_HOMES = {
    "Box": "floodem.geometry",
    "FloodOptions": "floodem.flooding.options",
    "FloodemError": "floodem.errors",
    "SegmentRequest": "floodem.flooding.request",
    "TrainOptions": "floodem.training.configuration.options",
    "VoxelSize": "floodem.geometry",
    "agglomerate": "floodem.assembly.agglomeration.agglomerate",
    "apply_merges": "floodem.assembly.agglomeration.graph.applying",
    "create_volume": "floodem.volumes",
    "evaluate": "floodem.evaluation",
    "flood_at": "floodem.flooding.flood_at",
    "load_model": "floodem.network.model_file",
    "make_consensus": "floodem.assembly.consensus",
    "open_volume": "floodem.volumes",
    "segment": "floodem.assembly.segment",
    "train": "floodem.training.runs.trainer",
    "view": "floodem.viewer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'floodem' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
