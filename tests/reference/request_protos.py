"""The old programs' messages for Google's own protobuf: what bytes and text must be equal to.

Numbers and names are those of the messages' published definition, written down a second
time here, so that a slip in the package's tables shows.
"""

from __future__ import annotations

import functools

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "ffn"

MESSAGES = {
    "Vector2d": "x 1 double, y 2 double",
    "Vector2i": "x 1 int32, y 2 int32",
    "Vector3d": "x 1 double, y 2 double, z 3 double",
    "Vector3f": "x 1 float, y 2 float, z 3 float",
    "Vector3j": "x 1 int64, y 2 int64, z 3 int64",
    "Vector2dList": "vectors 1 Vector2d*",
    "Vector2iList": "vectors 1 Vector2i*",
    "Vector3dList": "vectors 1 Vector3d*",
    "Vector3fList": "vectors 1 Vector3f*",
    "Vector3jList": "vectors 1 Vector3j*",
    "BoundingBox": "start 1 Vector3j, size 2 Vector3j, description 3 string, object_label 4 uint64",
    "BoundingBoxes": "box 1 BoundingBox*",
    "DecoratedVolume": "volinfo 1 string, decorator_specs 2 string, hdf5 3 string,"
    "tensorstore 4 string",
    "MaskChannelConfig": "channel 1 int32, min_value 2 float, max_value 3 float, invert 4 bool,"
    "values 5 uint64*",
    "ImageMaskOptions": "channels 1 MaskChannelConfig*",
    "VolumeMaskOptions": "mask 1 DecoratedVolume, channels 2 MaskChannelConfig*",
    "CoordinateExpressionOptions": "expression 1 string",
    "MaskConfig": "volume 1 VolumeMaskOptions, image 2 ImageMaskOptions,"
    "coordinate_expression 3 CoordinateExpressionOptions, invert 4 bool",
    "MaskConfigs": "masks 1 MaskConfig*",
    "SegmentationSource": "directory 1 string, threshold 2 float, split_cc 3 bool,"
    "min_size 4 int32, mask 5 MaskConfigs",
    "InferenceOptions": "init_activation 1 float, pad_value 2 float, move_threshold 3 float,"
    "consistency_threshold 4 float, disco_seed_threshold 5 float, min_boundary_dist 6 Vector3j,"
    "segment_threshold 7 float, min_segment_size 8 int32",
    "SelfPredictionOptions": "threshold 1 float, orig_threshold 2 float",
    "AlignmentOptions": "type 1 AlignType, save_raw 6 bool",
    "InferenceRequest": "image_mean 2 float, image_stddev 3 float, reference_histogram 4 string,"
    "masks 5 MaskConfig*, shift_mask 6 DecoratedVolume, shift_mask_scale 7 int32,"
    "shift_mask_threshold 8 int32, movement_policy_name 9 string, movement_policy_args 10 string,"
    "model_name 11 string, model_args 12 string, model_checkpoint_path 13 string,"
    "inference_options 14 InferenceOptions, segmentation_output_dir 15 string,"
    "checkpoint_interval 16 int32, seed_policy 17 string,"
    "self_prediction 18 SelfPredictionOptions, seed_policy_args 19 string,"
    "alignment_options 20 AlignmentOptions, shift_mask_fov 22 BoundingBox,"
    "image 24 DecoratedVolume, init_segmentation 25 DecoratedVolume,"
    "histogram_masks 26 MaskConfig*, batch_size 27 int32, concurrent_requests 28 int32,"
    "seed_masks 30 MaskConfig*",
    "ResegmentationPoint": "id_a 1 uint64, id_b 2 uint64, point 3 Vector3j",
    "ResegmentationRequest": "inference 1 InferenceRequest, points 2 ResegmentationPoint*,"
    "radius 5 Vector3j, output_directory 6 string, subdir_digits 7 int32, max_retry_iters 8 int32,"
    "exclusion_radius 9 Vector3j, segment_recovery_fraction 10 float,"
    "init_exclusion_radius 11 Vector3j, terminate_early 12 bool, analysis_radius 13 Vector3j",
    "ConsensusRequest": "segmentation1 1 SegmentationSource, segmentation2 2 SegmentationSource,"
    "segmentation_output_dir 3 string, type 4 ConsensusType, split_min_size 7 int32",
    "CounterValue": "name 1 string, value 2 int64",
    "TaskCounters": "counters 1 CounterValue*, point 2 Vector3j, filename 3 string",
    "OverlapInfo": "num_overlapping 1 int32, num_original 2 int32",
    "OverlapsEntry": "key 1 uint64, value 2 OverlapInfo",
    "EndpointResegmentationResult": "id 1 uint64, start 2 Vector3j, num_voxels 3 int32,"
    "overlaps 4 OverlapsEntry*, source 5 OverlapInfo, segmentation_radius 6 Vector3j,"
    "tag 7 string",
    "SegmentResult": "origin 1 Vector3j, num_voxels 2 int32, deleted_voxels 3 int32,"
    "segment_a_consistency 4 float, segment_b_consistency 5 float, max_edt 6 float",
    "EvalResult": "radius 1 Vector3j, iou 2 float, from_a 3 SegmentResult,"
    "from_b 4 SegmentResult, max_edt_a 5 float, max_edt_b 6 float, num_voxels_a 7 int32,"
    "num_voxels_b 8 int32",
    "PairResegmentationResult": "point 1 Vector3j, id_a 2 uint64, id_b 3 uint64,"
    "segmentation_radius 4 Vector3j, tag 5 string, eval 6 EvalResult",
}
GROUPS = {
    "DecoratedVolume": ("volume_path", ("volinfo", "hdf5", "tensorstore")),
    "MaskConfig": ("source", ("volume", "image", "coordinate_expression")),
}
ENUMS = {
    "AlignType": {"UNKNOWN_ALIGNMENT": 0, "NO_ALIGNMENT": 1},
    "ConsensusType": {"CONSENSUS_SPLIT": 2},
}


@functools.cache
def message_class(name: str):
    """Return Google's class for a message."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{PACKAGE}.{name}"))


@functools.cache
def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="old.proto", package=PACKAGE, syntax="proto2")
    for name, numbers in ENUMS.items():
        kind = file.enum_type.add(name=name)
        for value, number in numbers.items():
            kind.value.add(name=value, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        group, members = GROUPS.get(name, ("", ()))
        if group:
            message.oneof_decl.add(name=group)
        for words in fields.split(","):
            _add_field(message, *words.split(), members=members)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _add_field(message, name: str, number: str, kind: str, *, members: tuple[str, ...]) -> None:
    label = "LABEL_REPEATED" if kind.endswith("*") else "LABEL_OPTIONAL"
    kind = kind.removesuffix("*")
    field = message.field.add(
        name=name,
        number=int(number),
        label=descriptor_pb2.FieldDescriptorProto.Label.Value(label),
    )
    if name in members:
        field.oneof_index = 0
    if kind in ENUMS or kind in MESSAGES:
        field.type_name = f".{PACKAGE}.{kind}"
        kind = "enum" if kind in ENUMS else "message"
    field.type = descriptor_pb2.FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
