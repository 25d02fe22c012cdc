"""What a request means in floodem's own words: a run in, command lines out.

    floodem import-model CKPT MODEL ...     where the network is a TensorFlow checkpoint
    floodem segment IMAGE DST ...           the same labels

What no option of `floodem segment` can say is named instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from floodem.errors import VolumeNotFoundError
from floodem.flooding.options import FloodOptions
from floodem.geometry import UNKNOWN_VOXEL_SIZE, Zyx
from floodem.legacy.requests.inference import InferenceRun
from floodem.legacy.requests.masks import mask_texts, unwritten
from floodem.legacy.results.paths import subvolume_path

Command = tuple[str, ...]

IMPORTED_MODEL = "model.safetensors"
_UNKNOWN = str(UNKNOWN_VOXEL_SIZE)


def equal_commands(run: InferenceRun) -> tuple[tuple[Command, ...], tuple[str, ...]]:
    """Return the commands that make the same labels, and what a reader should know about them.

    Returns
    -------
    commands
        Empty where the request says what no option of `floodem segment` does.
    notes
        Why there is none, or what the commands do otherwise; a sentence each.
    """
    reasons = list(_inexpressible(run))
    if reasons:
        named = ", ".join(reasons)
        return (), (f"no option of `floodem segment` says {named}: only this program does",)
    notes = ["labels come as a volume; seg-*.npz, .prob and counters.txt are this program's own"]
    importing, model = _model(run)
    if importing:
        notes.append(
            f"a request does not say the voxel size: write that of the image for --voxel-size "
            f"{_UNKNOWN}, on which no label depends"
        )
    else:
        notes.append(
            f"{model} says itself with which field of view, steps, mean and standard deviation it "
            "is used; what the request says of them counts in this program only"
        )
    return (*importing, _segment(run, model=model)), tuple(notes)


def _inexpressible(run: InferenceRun) -> Iterator[str]:
    if run.image.reference_histogram is not None:
        yield "reference_histogram"
    if run.message.has("shift_mask"):
        yield "shift_mask"
    if run.image.address.level:
        yield "scale_index"
    if unwritten([*run.segment.masks, *run.segment.seed_masks]):
        yield "a mask that inverts several ranges at once"


def _model(run: InferenceRun) -> tuple[tuple[Command, ...], str]:
    """Return the import of a TensorFlow checkpoint, and the address of the model to use."""
    model = run.model
    try:
        path, is_bundle = model.path()
    except VolumeNotFoundError:  # it may be there by the time the command is typed
        path, is_bundle = None, True
    if path is not None and not is_bundle:
        return (), str(path)
    imported = str(run.output / IMPORTED_MODEL)
    words = ["floodem", "import-model", str(path or model.checkpoint), imported]
    for option, value in (("--fov", model.fov), ("--deltas", model.deltas)):
        words += [option, _triple(value) if value else "Z,Y,X"]
    for option, number in (
        ("--image-mean", model.image_mean),
        ("--image-stddev", model.image_stddev),
    ):
        words += [option, "NUMBER" if number is None else f"{number:g}"]
    words += ["--voxel-size", _UNKNOWN]
    words += ["--pad", f"{model.pad_value:g}", "--move-threshold", f"{model.move_threshold:g}"]
    return (tuple(words),), imported


def _segment(run: InferenceRun, *, model: str) -> Command:
    request = run.segment
    corner = (0, 0, 0) if request.box is None else request.box.start
    destination = subvolume_path(run.output, corner, suffix=".zarr")
    words = ["floodem", "segment", run.image.address.uri, str(destination), "--model", model]
    if request.box is not None:
        words += ["--box", str(request.box)]
    words += _options(request.options)
    for option, rules in (("--mask", request.masks), ("--seed-mask", request.seed_masks)):
        for text in mask_texts(rules):
            words += [option, text]
    if request.init_segmentation is not None:
        words += ["--init-segmentation", str(request.init_segmentation)]
    return tuple(words)


def _options(options: FloodOptions) -> list[str]:
    seeds = options.seeds
    args = f" {json.dumps(dict(seeds.args))}" if seeds.args else ""
    return [
        *("--seeds", f"{seeds.name}{args}"),
        *("--init-activation", _number(options.init_activation)),
        *("--pad", _number(options.pad_value)),
        *("--move-threshold", _number(options.move_threshold)),
        *("--segment-threshold", _number(options.segment_threshold)),
        *("--min-segment-size", str(options.min_segment_size)),
        *("--min-boundary-dist", _triple(options.min_boundary_dist)),
        *("--disco-seed-threshold", _number(options.disco_seed_threshold)),
    ]


def _number(value: float | None) -> str:
    assert value is not None
    return repr(float(value)).removesuffix(".0")


def _triple(zyx: Zyx) -> str:
    return ",".join(str(one) for one in zyx)
