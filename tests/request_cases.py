"""What tests of old requests share: requests as people wrote them, and messages drawn at random."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from floodem.legacy.requests import Message, make_message
from floodem.legacy.requests.message import nearest_float32
from floodem.legacy.requests.schema import INTEGER_RANGES, SCHEMAS, Kind

FIB25 = r"""
image {
  hdf5: "third_party/neuroproof_examples/training_sample2/grayscale_maps.h5:raw"
}
image_mean: 128
image_stddev: 33
checkpoint_interval: 1800
seed_policy: "PolicyPeaks"
model_checkpoint_path: "models/fib25/model.ckpt-27465036"
model_name: "convstack_3d.ConvStack3DFFNModel"
model_args: "{\"depth\": 12, \"fov_size\": [33, 33, 33], \"deltas\": [8, 8, 8]}"
segmentation_output_dir: "results/fib25/training2"
inference_options {
  init_activation: 0.95
  pad_value: 0.05
  move_threshold: 0.9
  min_boundary_dist { x: 1 y: 1 z: 1}
  segment_threshold: 0.6
  min_segment_size: 1000
}
"""

MASKED = r"""
# a request with everything that masks
image < tensorstore: '{"driver": "zarr", "kvstore": {"driver": "file", "path": "em.zarr"}}' >
image_mean: 1.31e2; image_stddev: 62.f,
reference_histogram: "lut" ".npz"
histogram_masks { image { channels { min_value: 0 max_value: 5 } } }
masks [
  { volume: { mask { hdf5: "tissue.h5@labels" } channels { channel: 0 values: [1, 0x2, 03] } } },
  { coordinate_expression { expression: "(z < 10) & (x > y // 2)" } invert: true }
]
masks { image { channels { max_value: 20 invert: t } } }
seed_masks: { image: { channels: [ { values: 255 } ] } }
shift_mask { hdf5: 'shift.h5:field' } shift_mask_scale: 4 shift_mask_threshold: 4
shift_mask_fov { start { x: -8 y: -8 z: 0 } size { x: 17 y: 17 z: 1 } }
movement_policy_name: "FaceMaxMovementPolicy"
movement_policy_args: "{}"
alignment_options { type: NO_ALIGNMENT save_raw: false }
inference_options { disco_seed_threshold: -1 min_boundary_dist <x: 1, y: 1, z: 1> }
batch_size: 4 concurrent_requests: 16
model_checkpoint_path: "model" segmentation_output_dir: "out"
seed_policy: "SequentialPolicies"
seed_policy_args: '{"policies": [["PolicyPeaks", {}], ["PolicyGrid3d", {"step": 8}]]}'
"""

CONSENSUS = """
segmentation1 { directory: "forward" threshold: 0.6 split_cc: true min_size: 1000 }
segmentation2 {
  directory: "reverse" mask { masks { coordinate_expression { expression: "z<1" } } }
}
segmentation_output_dir: "consensus" type: CONSENSUS_SPLIT split_min_size: 1000
"""

RESEGMENTATION = f"""
inference {{ {FIB25} init_segmentation {{ hdf5: "seg.h5:labels" }} }}
points {{ id_a: 18446744073709551615 id_b: 7 point {{ x: 100 y: 200 z: 300 }} }}
points [ {{ id_a: 1 point < x: -1 y: 0 z: 0 > }} ]
radius {{ x: 50 y: 50 z: 25 }} output_directory: "resegmentation" subdir_digits: 2
max_retry_iters: 8 exclusion_radius {{ x: 8 y: 8 z: 4 }} segment_recovery_fraction: 0.6
terminate_early: True analysis_radius {{ x: 34 y: 34 z: 17 }}
"""

REQUESTS = {
    "fib25": ("InferenceRequest", FIB25),
    "masked": ("InferenceRequest", MASKED),
    "consensus": ("ConsensusRequest", CONSENSUS),
    "resegmentation": ("ResegmentationRequest", RESEGMENTATION),
}

_DEPTH = 3


def _scalars(field):
    if field.choices:
        return st.sampled_from(sorted(set(field.choices.values())))
    if field.kind in INTEGER_RANGES:
        low, high = INTEGER_RANGES[field.kind]
        return st.one_of(st.integers(low, high), st.integers(max(low, -3), 3))
    return {
        Kind.BOOL: st.booleans(),
        Kind.STRING: st.text(max_size=12),
        Kind.FLOAT: st.floats(width=32, allow_nan=False).map(nearest_float32),
        Kind.DOUBLE: st.floats(allow_nan=False),
    }[field.kind]


@st.composite
def messages(draw, name: str | None = None, *, depth: int = _DEPTH) -> Message:
    """Messages of any kind; in the deepest ones further messages are left out."""
    name = name or draw(st.sampled_from(sorted(SCHEMAS)))
    schema = SCHEMAS[name]
    possible = [
        field for field in schema.by_name.values() if depth or field.kind is not Kind.MESSAGE
    ]
    values, groups = {}, set()
    chosen = draw(st.lists(st.sampled_from(possible), unique_by=id, max_size=5)) if possible else []
    for field in chosen:
        if field.group and field.group in groups:
            continue
        groups.add(field.group)
        one = (
            messages(field.message, depth=depth - 1)
            if field.kind is Kind.MESSAGE
            else _scalars(field)
        )
        values[field.name] = draw(st.lists(one, max_size=3) if field.is_repeated else one)
    return make_message(name, values)


def is_same_float(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))
