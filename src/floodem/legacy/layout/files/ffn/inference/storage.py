"""Results of the inference, as old notebooks read them."""

from floodem.legacy.storage import (
    OriginInfo,
    checkpoint_path,
    dequantize_probability,
    get_corner_from_path,
    get_existing_corners,
    get_existing_subvolume_path,
    legacy_subvolume_path,
    load_origins,
    load_segmentation,
    object_prob_path,
    quantize_probability,
    segmentation_path,
    subvolume_path,
)

__all__ = [
    "OriginInfo",
    "checkpoint_path",
    "dequantize_probability",
    "get_corner_from_path",
    "get_existing_corners",
    "get_existing_subvolume_path",
    "legacy_subvolume_path",
    "load_origins",
    "load_segmentation",
    "object_prob_path",
    "quantize_probability",
    "segmentation_path",
    "subvolume_path",
]
