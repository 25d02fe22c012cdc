"""Requests that are understood and not run: consensus and resegmentation.

In: their messages. Out: nothing where they are complete; running one is refused with the
command that does such work on volumes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from floodem.errors import OptionError, UsageError
from floodem.legacy.requests.inference import flood_options
from floodem.legacy.requests.masks import mask_rules, vector_zyx
from floodem.legacy.requests.message import Message
from floodem.legacy.requests.seeding import seed_policy
from floodem.legacy.requests.support import require_served
from floodem.legacy.requests.text import parse_text
from floodem.legacy.requests.volumes import volume_address

_COMMANDS: Mapping[str, str] = {
    "ConsensusRequest": "`floodem consensus`, once `floodem open-results` has made a volume of "
    "each directory",
    "ResegmentationRequest": "`floodem agglomerate`, which finds such points itself",
}


def require_consensus(request: Message) -> None:
    """Check a ConsensusRequest.

    Raises
    ------
    OptionError, UsageError
        Naming what is missing or impossible.
    """
    for name in ("segmentation1", "segmentation2"):
        source = request.get(name)
        if not source.get("directory"):
            raise OptionError(f"{name} names no directory: say where its results are")
        if source.has("threshold") and not 0 <= source.get("threshold") <= 1:
            raise OptionError(
                f"{name} has the threshold {source.get('threshold'):g}: give a probability"
            )
        if source.get("min_size") < 0:
            raise OptionError(f"{name} has min_size {source.get('min_size')}: give voxels from 0")
        mask_rules(source.get("mask").get("masks"), field=f"{name}.mask")
    _require_folder(request, "segmentation_output_dir")
    if request.get("split_min_size") < 0:
        raise OptionError(
            f"split_min_size {request.get('split_min_size')} is negative: give voxels from 0"
        )


def require_resegmentation(request: Message) -> None:
    """Check a ResegmentationRequest.

    Raises
    ------
    OptionError, UsageError
        Naming what is missing or impossible.
    """
    inference = request.get("inference")
    require_served(inference)
    volume_address(inference.get("image"), field="inference.image")
    volume_address(inference.get("init_segmentation"), field="inference.init_segmentation")
    flood_options(inference.get("inference_options"), seeds=seed_policy(inference, corner=None))
    if not request.get("points"):
        raise OptionError("the request has no points: name pairs of segments and where they meet")
    for number, point in enumerate(request.get("points"), start=1):
        if not point.get("id_a"):
            raise OptionError(f"point {number} names no id_a: give the id of a segment")
    for name in ("radius", "analysis_radius", "exclusion_radius", "init_exclusion_radius"):
        is_needed = name == "radius"
        if request.has(name) or is_needed:
            least = 1 if is_needed else 0
            if min(vector_zyx(request.get(name))) < least:
                raise OptionError(
                    f"{name} is below {least} on an axis: give voxels, {name} {{ x: y: z: }}"
                )
    if not 0 <= request.get("segment_recovery_fraction") <= 1:
        raise OptionError(
            f"segment_recovery_fraction {request.get('segment_recovery_fraction'):g} is no "
            "fraction: give a number from 0 to 1"
        )
    _require_folder(request, "output_directory")


_CHECKS: Mapping[str, Callable[[Message], None]] = {
    "ConsensusRequest": require_consensus,
    "ResegmentationRequest": require_resegmentation,
}


def parse_inference_request(text: str, *, source: str) -> Message:
    """Read an InferenceRequest; of the other requests say which command is for them.

    Raises
    ------
    UsageError
        When the text is no InferenceRequest.
    OptionError
        When it is another request that is incomplete.
    """
    try:
        return parse_text(text, message="InferenceRequest", source=source)
    except UsageError as error:
        for name, require in _CHECKS.items():
            try:
                request = parse_text(text, message=name, source=source)
            except UsageError:
                continue
            require(request)
            raise UsageError(
                f"{source} is a whole {name}, which no inference runs: that is for "
                f"{_COMMANDS[name]}"
            ) from error
        raise


def _require_folder(request: Message, field: str) -> None:
    if not request.get(field).strip():
        raise OptionError(f"the request names no {field}: say in which folder the results go")
