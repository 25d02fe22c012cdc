"""What becomes of every field of an inference request: nothing comes in, a table goes out.

Each field is served, accepted because it changes nothing here, or refused by name when it
is set; none is passed over in silence. Documentation prints `FIELDS`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from floodem.errors import OptionError
from floodem.legacy.requests.message import Message


class Support(enum.StrEnum):
    """What becomes of a field that is set."""

    SERVED = "served"
    ACCEPTED = "accepted"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class FieldSupport:
    """What becomes of one field of InferenceRequest or of a message in it.

    Attributes
    ----------
    field
        Its name; with the message's in front where it is in one.
    support
        What becomes of it.
    how
        A few words about that.
    """

    field: str
    support: Support
    how: str


_S, _A, _R = Support.SERVED, Support.ACCEPTED, Support.REFUSED

FIELDS: tuple[FieldSupport, ...] = (
    FieldSupport("image.hdf5", _S, "FILE:DATASET or FILE@DATASET; of several channels the first"),
    FieldSupport(
        "image.tensorstore", _S, "JSON with driver and kvstore; transforms are refused by name"
    ),
    FieldSupport(
        "image.volinfo", _R, "Google's internal storage; an ordinary volume's address is served"
    ),
    FieldSupport("image.decorator_specs", _R, "changed Google's internal volumes"),
    FieldSupport("image_mean", _S, "goes before what a model file says"),
    FieldSupport("image_stddev", _S, "goes before what a model file says"),
    FieldSupport("reference_histogram", _S, "npz with lut, as the old program applied it"),
    FieldSupport("histogram_masks", _S, "voxels that do not count for reference_histogram"),
    FieldSupport("masks", _S, "where no field of view may be centred"),
    FieldSupport("seed_masks", _S, "where no seed may lie"),
    FieldSupport("shift_mask", _S, "two channels; where shifts are large, no centre"),
    FieldSupport("shift_mask_fov", _S, "x, y, z; not set: the network's field of view"),
    FieldSupport("shift_mask_scale", _S, "in x and y; not set: 1"),
    FieldSupport("shift_mask_threshold", _S, "voxels, at least 1"),
    FieldSupport("movement_policy_name", _S, "FaceMaxMovementPolicy, the only one there was"),
    FieldSupport("movement_policy_args", _S, "deltas z, y, x; score_threshold as move_threshold"),
    FieldSupport("model_name", _S, "the residual conv stack, by its two names"),
    FieldSupport("model_args", _S, "depth, fov_size and deltas x, y, z, features, batch_size"),
    FieldSupport("model_checkpoint_path", _S, "TensorFlow's prefix, or a model file's"),
    FieldSupport("batch_size", _A, "changes no result"),
    FieldSupport("concurrent_requests", _A, "changes no result"),
    FieldSupport("inference_options.init_activation", _S, "probability; not set: 0.95"),
    FieldSupport("inference_options.pad_value", _S, "probability; not set: 0.05"),
    FieldSupport("inference_options.move_threshold", _S, "probability; not set: 0.9"),
    FieldSupport("inference_options.consistency_threshold", _R, "when above 0"),
    FieldSupport("inference_options.disco_seed_threshold", _S, "not set it is 0, which is on"),
    FieldSupport("inference_options.min_boundary_dist", _S, "x, y, z; not set: 0"),
    FieldSupport("inference_options.segment_threshold", _S, "probability; not set: 0.6"),
    FieldSupport("inference_options.min_segment_size", _S, "voxels; 0 means 1"),
    FieldSupport("segmentation_output_dir", _S, "results go to X/Y/seg-X_Y_Z in it"),
    FieldSupport("checkpoint_interval", _S, "seconds; not set: every minute"),
    FieldSupport("seed_policy", _S, "all of the old ones; not set: PolicyPeaks"),
    FieldSupport("seed_policy_args", _S, "JSON"),
    FieldSupport("self_prediction", _R, "a way to end floods that was never published"),
    FieldSupport("alignment_options.type", _R, "other than NO_ALIGNMENT"),
    FieldSupport("alignment_options.save_raw", _R, "when true"),
    FieldSupport("init_segmentation", _S, "labels that are there already and keep their ids"),
)
"""Every field of an inference request and what becomes of it."""

_NO_ALIGNMENT = 1


def require_served(request: Message) -> None:
    """Refuse an InferenceRequest that asks for what floodem does not do.

    Raises
    ------
    OptionError
        Naming the field.
    """
    if request.get("self_prediction").values:
        raise OptionError(
            "self_prediction is not served, and ignoring it would give other segments: take it "
            "out of the request"
        )
    alignment = request.get("alignment_options")
    if alignment.get("type") != _NO_ALIGNMENT:
        raise OptionError(
            "alignment_options asks for an alignment during the flood, which is not served: align "
            "the image beforehand, and write type: NO_ALIGNMENT"
        )
    if alignment.get("save_raw"):
        raise OptionError(
            "alignment_options.save_raw is not served: take it out, and copy the image with "
            "`floodem convert --box` where a crop of it is needed"
        )
    if request.get("inference_options").get("consistency_threshold") > 0:
        raise OptionError(
            "inference_options.consistency_threshold is not served above 0, and ignoring it would "
            "give other segments: take it out of the request"
        )
    if request.has("histogram_masks") and not request.get("reference_histogram"):
        raise OptionError(
            "histogram_masks do nothing without reference_histogram: add it, or take them out"
        )
    if request.unknown:
        raise OptionError(
            f"the request has {len(request.unknown)} fields of another version, whose meaning is "
            "not known here: write it as text with the fields that are to count"
        )
