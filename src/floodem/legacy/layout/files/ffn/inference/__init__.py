"""What old notebooks use of the inference: `ffn.inference.storage`."""

from typing import NoReturn

_NOT_HERE = (
    "align",
    "executor",
    "inference",
    "inference_pb2",
    "inference_utils",
    "movement",
    "resegmentation",
    "resegmentation_analysis",
    "resegmentation_pb2",
    "seed",
    "segmentation",
)


def __getattr__(name: str) -> NoReturn:
    if name in _NOT_HERE:
        raise ImportError(
            f"ffn.inference.{name} is not part of floodem: floodem.flood_at floods from one seed, "
            "see ffn_inference_demo.ipynb"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
