"""An inference request becomes a run of floodem: a message in, everything `segment` needs out.

    InferenceRequest, box --> image, network, SegmentRequest, folder of results

Nothing but earlier results whose origins are seeds is opened here, so that a request can
be explained where its image is not. What becomes of every field is in
`floodem.legacy.requests.support`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import OptionError
from floodem.flooding.masks import ShiftMask
from floodem.flooding.options import FloodOptions
from floodem.flooding.request import DEFAULT_CHECKPOINT_SECONDS, SegmentRequest
from floodem.flooding.seeds import SeedPolicySpec
from floodem.geometry import Box, Zyx
from floodem.legacy.requests.image import RequestedImage
from floodem.legacy.requests.masks import mask_rules, shift_rule, vector_zyx
from floodem.legacy.requests.message import Message
from floodem.legacy.requests.model import RequestedModel, requested_model
from floodem.legacy.requests.seeding import seed_policy
from floodem.legacy.requests.support import require_served
from floodem.legacy.requests.volumes import VolumeAddress, volume_address

_UNSET_PROBABILITIES = {
    "init_activation": 0.95,
    "pad_value": 0.05,
    "move_threshold": 0.9,
    "segment_threshold": 0.6,
}
"""What stands for a probability that a request leaves out, and that the old programs took as 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceRun:
    """What a request asks for.

    Attributes
    ----------
    image, model
        Which image and network, not opened yet.
    segment
        Options, masks and box of the flood. The shift mask is not among them, since
        where it looks may depend on the network.
    output
        Folder of the results.
    message
        The request itself, as results carry it.
    notes
        Traps of old defaults, a sentence each.
    """

    image: RequestedImage
    model: RequestedModel
    segment: SegmentRequest
    output: Path
    message: Message
    notes: tuple[str, ...]


def inference_run(request: Message, *, box: Box | None) -> InferenceRun:
    """Return what an InferenceRequest asks for.

    Parameters
    ----------
    request
        An InferenceRequest.
    box
        Part of the image (z, y, x) to segment; None: all of it, from 0, 0, 0 on.

    Raises
    ------
    OptionError, UsageError
        When the request is incomplete, or asks for what floodem does not do, by name.
    FloodemError
        When an earlier result whose origins are seeds cannot be read.
    """
    require_served(request)
    output = request.get("segmentation_output_dir")
    if not output.strip() or "\0" in output:
        raise OptionError(
            "the request names no segmentation_output_dir: say in which folder the results go"
        )
    address = volume_address(request.get("image"), field="image")
    # The reference looked at raw intensities, also where the flood sees matched ones.
    raw = address if request.get("reference_histogram") else None
    seeds = seed_policy(request, corner=(0, 0, 0) if box is None else box.start)
    options, notes = flood_options(request.get("inference_options"), seeds=seeds)
    assert options.pad_value is not None
    assert options.move_threshold is not None
    model = requested_model(
        request, pad_value=options.pad_value, move_threshold=options.move_threshold
    )
    interval = request.get("checkpoint_interval")
    run = InferenceRun(
        image=_image(request, address),
        model=model,
        segment=SegmentRequest(
            options=options,
            box=box,
            masks=mask_rules(request.get("masks"), image=raw),
            seed_masks=mask_rules(request.get("seed_masks"), field="seed_masks", image=raw),
            init_segmentation=_initial(request),
            checkpoint_seconds=float(interval) if interval > 0 else DEFAULT_CHECKPOINT_SECONDS,
        ),
        output=Path(output),
        message=request,
        notes=notes,
    )
    barriers(run, fov=model.fov or (1, 1, 1))  # complains before anything is opened
    return run


def barriers(run: InferenceRun, *, fov: Zyx) -> tuple[ShiftMask, ...]:
    """Return the request's shift mask, if it has one.

    Parameters
    ----------
    fov
        Of the network (z, y, x).

    Raises
    ------
    OptionError, UsageError
        When it is incomplete.
    """
    rule = shift_rule(run.message, fov=fov)
    return () if rule is None else (rule,)


def flood_options(
    options: Message, *, seeds: SeedPolicySpec
) -> tuple[FloodOptions, tuple[str, ...]]:
    """Return InferenceOptions as floodem takes them, and sentences about what they leave out.

    Raises
    ------
    OptionError
        When a value is impossible.
    """
    values: dict[str, Any] = {
        name: options.get(name) if options.has(name) else default
        for name, default in _UNSET_PROBABILITIES.items()
    }
    least = options.get("min_segment_size")
    made = FloodOptions(
        **values,
        min_segment_size=least or 1,
        min_boundary_dist=vector_zyx(options.get("min_boundary_dist")),
        # Compared with shares of the field of view, where float32's nearest may differ.
        disco_seed_threshold=float(np.float32(options.get("disco_seed_threshold"))),
        seeds=seeds,
    )
    return made, tuple(_traps(options))


def _traps(options: Message) -> list[str]:
    traps = []
    unset = [name for name in _UNSET_PROBABILITIES if not options.has(name)]
    if unset:
        named = ", ".join(f"{name} {_UNSET_PROBABILITIES[name]:g}" for name in unset)
        traps.append(
            f"inference_options leaves out {', '.join(unset)}, which the old program took as 0 "
            f"and found nothing: used here are {named}"
        )
    if not options.has("disco_seed_threshold"):
        traps.append(
            "disco_seed_threshold is not set, which is 0 and turns the rule against mergers on, "
            "as in the old program: write disco_seed_threshold: -1 to turn it off"
        )
    if not options.get("min_segment_size"):
        traps.append(
            "min_segment_size is 0 or not set, so that even segments of one voxel are kept: "
            "write for example min_segment_size: 1000"
        )
    return traps


def _image(request: Message, address: VolumeAddress) -> RequestedImage:
    lut = request.get("reference_histogram")
    return RequestedImage(
        address=address,
        reference_histogram=Path(lut) if lut else None,
        histogram_masks=mask_rules(request.get("histogram_masks"), field="histogram_masks"),
    )


def _initial(request: Message) -> str | None:
    if not request.has("init_segmentation"):
        return None
    address = volume_address(request.get("init_segmentation"), field="init_segmentation")
    if address.level:
        raise OptionError(
            f"init_segmentation asks for scale_index {address.level}: give labels of the image's "
            "own voxel size, at level 0"
        )
    return address.uri
