"""Which fields the old programs' messages have: names, numbers and types; nothing comes in.

A request is a message written as text or, inside a result, in binary. What text and
binary say is held against the tables here, so that no description has to be compiled.
``_xyz`` does not appear in the names, which are the old ones: vectors, boxes, fields of
view and deltas of these messages are ordered x, y, z.

References
----------
google/ffn, ``ffn/inference/*.proto`` and ``ffn/utils/*.proto``: field names and numbers.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class Kind(enum.StrEnum):
    """What a field holds; the numbers are as wide as their names say."""

    FLOAT = "float"
    DOUBLE = "double"
    INT32 = "int32"
    INT64 = "int64"
    UINT64 = "uint64"
    BOOL = "bool"
    STRING = "string"
    ENUM = "enum"
    MESSAGE = "message"


INTEGER_RANGES: Mapping[Kind, tuple[int, int]] = {
    Kind.INT32: (-(2**31), 2**31 - 1),
    Kind.INT64: (-(2**63), 2**63 - 1),
    Kind.UINT64: (0, 2**64 - 1),
}

_ZEROS: Mapping[Kind, Any] = {
    Kind.FLOAT: 0.0,
    Kind.DOUBLE: 0.0,
    Kind.INT32: 0,
    Kind.INT64: 0,
    Kind.UINT64: 0,
    Kind.BOOL: False,
    Kind.STRING: "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a message.

    Attributes
    ----------
    name, number
        In text and in binary.
    kind
        What it holds.
    message
        Name of the message it holds, where it holds one.
    choices
        Names and numbers of an enumeration; of two names of a number the first is written.
    is_repeated
        Whether it may be there more than once.
    group
        Fields of one group exclude each other; empty: it is in none.
    default
        What it means when it is not there.
    """

    name: str
    number: int
    kind: Kind
    message: str = ""
    choices: Mapping[str, int] | None = None
    is_repeated: bool = False
    group: str = ""
    default: Any = None


@dataclass(frozen=True, slots=True)
class Schema:
    """The fields of one message, by name and by number."""

    name: str
    by_name: Mapping[str, Field]
    by_number: Mapping[int, Field]


def _field(
    name: str,
    number: int,
    kind: Kind | str,
    *,
    repeated: bool = False,
    group: str = "",
    default: Any = None,
    choices: Mapping[str, int] | None = None,
) -> Field:
    message = "" if isinstance(kind, Kind) else kind
    kind = kind if isinstance(kind, Kind) else Kind.MESSAGE
    return Field(
        name=name,
        number=number,
        kind=kind,
        message=message,
        choices=choices,
        is_repeated=repeated,
        group=group,
        default=_ZEROS.get(kind) if default is None else default,
    )


def _vector(axes: str, kind: Kind) -> tuple[Field, ...]:
    return tuple(_field(axis, number, kind) for number, axis in enumerate(axes, start=1))


ALIGN_TYPES: Mapping[str, int] = {"UNKNOWN_ALIGNMENT": 0, "NO_ALIGNMENT": 1}
CONSENSUS_TYPES: Mapping[str, int] = {"CONSENSUS_SPLIT": 2, "SPLIT": 2}

_F, _I32, _I64, _U64 = Kind.FLOAT, Kind.INT32, Kind.INT64, Kind.UINT64
_B, _S = Kind.BOOL, Kind.STRING

_MESSAGES: Mapping[str, tuple[Field, ...]] = {
    "Vector2d": _vector("xy", Kind.DOUBLE),
    "Vector2i": _vector("xy", _I32),
    "Vector3d": _vector("xyz", Kind.DOUBLE),
    "Vector3f": _vector("xyz", _F),
    "Vector3j": _vector("xyz", _I64),
    "Vector2dList": (_field("vectors", 1, "Vector2d", repeated=True),),
    "Vector2iList": (_field("vectors", 1, "Vector2i", repeated=True),),
    "Vector3dList": (_field("vectors", 1, "Vector3d", repeated=True),),
    "Vector3fList": (_field("vectors", 1, "Vector3f", repeated=True),),
    "Vector3jList": (_field("vectors", 1, "Vector3j", repeated=True),),
    "BoundingBox": (
        _field("start", 1, "Vector3j"),
        _field("size", 2, "Vector3j"),
        _field("description", 3, _S),
        _field("object_label", 4, _U64),
    ),
    "BoundingBoxes": (_field("box", 1, "BoundingBox", repeated=True),),
    "DecoratedVolume": (
        _field("volinfo", 1, _S, group="volume_path"),
        _field("decorator_specs", 2, _S),
        _field("hdf5", 3, _S, group="volume_path"),
        _field("tensorstore", 4, _S, group="volume_path"),
    ),
    "MaskChannelConfig": (
        _field("channel", 1, _I32),
        _field("min_value", 2, _F),
        _field("max_value", 3, _F),
        _field("invert", 4, _B),
        _field("values", 5, _U64, repeated=True),
    ),
    "ImageMaskOptions": (_field("channels", 1, "MaskChannelConfig", repeated=True),),
    "VolumeMaskOptions": (
        _field("mask", 1, "DecoratedVolume"),
        _field("channels", 2, "MaskChannelConfig", repeated=True),
    ),
    "CoordinateExpressionOptions": (_field("expression", 1, _S),),
    "MaskConfig": (
        _field("volume", 1, "VolumeMaskOptions", group="source"),
        _field("image", 2, "ImageMaskOptions", group="source"),
        _field("coordinate_expression", 3, "CoordinateExpressionOptions", group="source"),
        _field("invert", 4, _B),
    ),
    "MaskConfigs": (_field("masks", 1, "MaskConfig", repeated=True),),
    "SegmentationSource": (
        _field("directory", 1, _S),
        _field("threshold", 2, _F),
        _field("split_cc", 3, _B),
        _field("min_size", 4, _I32),
        _field("mask", 5, "MaskConfigs"),
    ),
    "InferenceOptions": (
        _field("init_activation", 1, _F),
        _field("pad_value", 2, _F),
        _field("move_threshold", 3, _F),
        _field("consistency_threshold", 4, _F),
        _field("disco_seed_threshold", 5, _F),
        _field("min_boundary_dist", 6, "Vector3j"),
        _field("segment_threshold", 7, _F),
        _field("min_segment_size", 8, _I32),
    ),
    "SelfPredictionOptions": (
        _field("threshold", 1, _F),
        _field("orig_threshold", 2, _F, default=1.0),
    ),
    "AlignmentOptions": (
        _field("type", 1, Kind.ENUM, choices=ALIGN_TYPES, default=1),
        _field("save_raw", 6, _B),
    ),
    "InferenceRequest": (
        _field("image_mean", 2, _F),
        _field("image_stddev", 3, _F),
        _field("reference_histogram", 4, _S),
        _field("masks", 5, "MaskConfig", repeated=True),
        _field("shift_mask", 6, "DecoratedVolume"),
        _field("shift_mask_scale", 7, _I32),
        _field("shift_mask_threshold", 8, _I32),
        _field("movement_policy_name", 9, _S),
        _field("movement_policy_args", 10, _S),
        _field("model_name", 11, _S),
        _field("model_args", 12, _S),
        _field("model_checkpoint_path", 13, _S),
        _field("inference_options", 14, "InferenceOptions"),
        _field("segmentation_output_dir", 15, _S),
        _field("checkpoint_interval", 16, _I32),
        _field("seed_policy", 17, _S),
        _field("self_prediction", 18, "SelfPredictionOptions"),
        _field("seed_policy_args", 19, _S),
        _field("alignment_options", 20, "AlignmentOptions"),
        _field("shift_mask_fov", 22, "BoundingBox"),
        _field("image", 24, "DecoratedVolume"),
        _field("init_segmentation", 25, "DecoratedVolume"),
        _field("histogram_masks", 26, "MaskConfig", repeated=True),
        _field("batch_size", 27, _I32, default=1),
        _field("concurrent_requests", 28, _I32, default=1),
        _field("seed_masks", 30, "MaskConfig", repeated=True),
    ),
    "ResegmentationPoint": (
        _field("id_a", 1, _U64),
        _field("id_b", 2, _U64),
        _field("point", 3, "Vector3j"),
    ),
    "ResegmentationRequest": (
        _field("inference", 1, "InferenceRequest"),
        _field("points", 2, "ResegmentationPoint", repeated=True),
        _field("radius", 5, "Vector3j"),
        _field("output_directory", 6, _S),
        _field("subdir_digits", 7, _I32),
        _field("max_retry_iters", 8, _I32, default=1),
        _field("exclusion_radius", 9, "Vector3j"),
        _field("segment_recovery_fraction", 10, _F),
        _field("init_exclusion_radius", 11, "Vector3j"),
        _field("terminate_early", 12, _B),
        _field("analysis_radius", 13, "Vector3j"),
    ),
    "ConsensusRequest": (
        _field("segmentation1", 1, "SegmentationSource"),
        _field("segmentation2", 2, "SegmentationSource"),
        _field("segmentation_output_dir", 3, _S),
        _field("type", 4, Kind.ENUM, choices=CONSENSUS_TYPES, default=2),
        _field("split_min_size", 7, _I32),
    ),
    "CounterValue": (_field("name", 1, _S), _field("value", 2, _I64)),
    "TaskCounters": (
        _field("counters", 1, "CounterValue", repeated=True),
        _field("point", 2, "Vector3j"),
        _field("filename", 3, _S),
    ),
    "OverlapInfo": (_field("num_overlapping", 1, _I32), _field("num_original", 2, _I32)),
    "OverlapsEntry": (_field("key", 1, _U64), _field("value", 2, "OverlapInfo")),
    "EndpointResegmentationResult": (
        _field("id", 1, _U64),
        _field("start", 2, "Vector3j"),
        _field("num_voxels", 3, _I32),
        _field("overlaps", 4, "OverlapsEntry", repeated=True),
        _field("source", 5, "OverlapInfo"),
        _field("segmentation_radius", 6, "Vector3j"),
        _field("tag", 7, _S),
    ),
    "SegmentResult": (
        _field("origin", 1, "Vector3j"),
        _field("num_voxels", 2, _I32),
        _field("deleted_voxels", 3, _I32),
        _field("segment_a_consistency", 4, _F),
        _field("segment_b_consistency", 5, _F),
        _field("max_edt", 6, _F),
    ),
    "EvalResult": (
        _field("radius", 1, "Vector3j"),
        _field("iou", 2, _F),
        _field("from_a", 3, "SegmentResult"),
        _field("from_b", 4, "SegmentResult"),
        _field("max_edt_a", 5, _F),
        _field("max_edt_b", 6, _F),
        _field("num_voxels_a", 7, _I32),
        _field("num_voxels_b", 8, _I32),
    ),
    "PairResegmentationResult": (
        _field("point", 1, "Vector3j"),
        _field("id_a", 2, _U64),
        _field("id_b", 3, _U64),
        _field("segmentation_radius", 4, "Vector3j"),
        _field("tag", 5, _S),
        _field("eval", 6, "EvalResult"),
    ),
}

SCHEMAS: Mapping[str, Schema] = {
    name: Schema(
        name,
        {field.name: field for field in fields},
        {field.number: field for field in fields},
    )
    for name, fields in _MESSAGES.items()
}
"""Every message by name."""
