"""``run_inference.py``: an image is segmented as an InferenceRequest says.

| old | floodem: ``floodem segment IMAGE DST --model MODEL`` |
|---|---|
| ``--inference_request`` text of the request, or its file | `floodem.legacy.requests` |
| ``--bounding_box`` ``start { x: y: z: } size { x: y: z: }`` | ``--box z:z,y:y,x:x`` |
| ``--inference_options`` text | put into the request's inference_options |
| ``--require_gpu``, ``--log_device_placement`` | no effect |
| | ``--print_request`` and the other flags of `RUN_FLAGS` are floodem's own |

A file of a request holds text, protobuf's binary form, or a result, whose run is repeated.
Results are the old program's: ``X/Y/seg-X_Y_Z.npz``, ``.prob`` and ``counters.txt``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from floodem.counting import counted
from floodem.errors import OptionError
from floodem.legacy.flags import Flag, Flags
from floodem.legacy.programs import Console, Program, Translation

if TYPE_CHECKING:
    from floodem.geometry import Box
    from floodem.legacy.requests.message import Message
    from floodem.legacy.requests.running import InferenceResult

RUN_FLAGS = (
    Flag(
        name="overwrite",
        kind="boolean",
        default=False,
        help="Compute again what is there (floodem's own).",
    ),
    Flag(
        name="resume",
        kind="boolean",
        default=False,
        help="Take what is there for done if it is this request's (floodem's own).",
    ),
    Flag(
        name="device",
        kind="text",
        default="auto",
        help="auto, cpu, cuda or cuda:N (floodem's own).",
    ),
    Flag(
        name="dtype",
        kind="text",
        default="auto",
        help="auto is float32, as the old program computed (floodem's own).",
    ),
    Flag(
        name="print_request",
        kind="boolean",
        default=False,
        help="Print the request as text, and do nothing else (floodem's own).",
    ),
)
"""Flags that the old programs did not have."""


def translate_request(request: Message, *, box: Box | None, flags: Flags) -> Translation:
    """Return what a request over a box means; `flags` hold those of `RUN_FLAGS`.

    Raises
    ------
    FloodemError
        When the request is incomplete, or asks for what is not served, by name.
    """
    from floodem.legacy.requests.explain import equal_commands
    from floodem.legacy.requests.inference import inference_run

    if flags["print_request"]:
        return _printing(request)
    if flags["overwrite"] and flags["resume"]:
        raise OptionError("--overwrite begins anew and --resume goes on: give one of them")
    run = inference_run(request, box=box)
    commands, remarks = equal_commands(run)

    def work(console: Console) -> None:
        from floodem.legacy.requests.running import run_request

        made = run_request(
            run,
            overwrite=flags["overwrite"],
            resume=flags["resume"],
            device=flags["device"],
            dtype=flags["dtype"],
            progress=console.progress,
            notice=console.notice,
            should_stop=console.should_stop,
        )
        _tell(made, console=console)

    return Translation(commands=commands, notes=run.notes, remarks=remarks, work=work)


def _translate(flags: Flags, words: Sequence[str]) -> Translation:
    from floodem.legacy.requests.files import given_request
    from floodem.legacy.requests.masks import box_zyx
    from floodem.legacy.requests.text import parse_text

    given = given_request(flags["inference_request"], source="--inference_request")
    request = given.message
    if flags["inference_options"]:
        options = parse_text(
            flags["inference_options"], message="InferenceOptions", source="--inference_options"
        )
        both = request.get("inference_options").replacing(**options.values)
        request = request.replacing(inference_options=both)
    box = given.box
    if flags["bounding_box"]:
        name = "--bounding_box"
        box = box_zyx(
            parse_text(flags["bounding_box"], message="BoundingBox", source=name), field=name
        )
    return translate_request(request, box=box, flags=flags)


def _printing(request: Message) -> Translation:
    from floodem.legacy.requests.writing import format_text

    def work(console: Console) -> None:
        for line in format_text(request).splitlines():
            console.say(line)

    return Translation(commands=(), work=work)


def _tell(made: InferenceResult, *, console: Console) -> None:
    segmentation = made.segmentation
    if segmentation is None:
        return
    calls = segmentation.summary["counters"]["network_calls"]
    console.say(
        f"{made.path}: {counted(segmentation.segments, 'segment')} in box {segmentation.box}, "
        f"{segmentation.covered:.1%} of the voxels, {counted(calls, 'network call')}"
    )


_OF_DEVICES = "floodem takes a usable card where there is one; --device says which"

PROGRAM = Program(
    name="run_inference",
    summary="Segment an image as an inference request says.",
    flags=(
        Flag(
            name="inference_request",
            kind="text",
            is_required=True,
            help="InferenceRequest message as text, or its file: text, binary, or a result "
            "(seg-X_Y_Z.npz), whose run is repeated.",
        ),
        Flag(
            name="bounding_box",
            kind="text",
            help="BoundingBox message as text, x, y, z; not given: the whole image, "
            "or the box of the result that is given as request.",
        ),
        Flag(
            name="inference_options",
            kind="text",
            help="InferenceOptions message as text; goes before those of the request.",
        ),
        Flag(name="require_gpu", kind="boolean", default=False, no_effect=_OF_DEVICES),
        Flag(name="log_device_placement", kind="boolean", default=False, no_effect=_OF_DEVICES),
        *RUN_FLAGS,
    ),
    translate=_translate,
    resumes=True,
)
