"""``run_inference_win.py``: `run_inference` with the request in a file and the box in flags.

| old | floodem: ``floodem segment IMAGE DST --model MODEL`` |
|---|---|
| ``--parameter_file`` | the request, see `floodem.legacy.requests` |
| ``--image_size_x``, ``_y``, ``_z``; ``--image_start_x``, ``_y``, ``_z`` | ``--box z:z,y:y,x:x`` |
| | ``--print_request`` and the other flags of `RUN_FLAGS` are floodem's own |
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from floodem.errors import OptionError
from floodem.geometry import FARTHEST_POSITION, Box, Zyx
from floodem.legacy.flags import Flag, Flags
from floodem.legacy.programs import Program, Translation
from floodem.legacy.programs.run_inference import RUN_FLAGS, translate_request

_AXES = ("z", "y", "x")


def _translate(flags: Flags, words: Sequence[str]) -> Translation:
    from floodem.legacy.requests.files import read_request_file

    request = read_request_file(Path(flags["parameter_file"])).message
    size = _triple(flags, "image_size", least=1)
    box = Box.from_shape(size, start=_triple(flags, "image_start", least=-FARTHEST_POSITION))
    return translate_request(request, box=box, flags=flags)


def _triple(flags: Flags, name: str, *, least: int) -> Zyx:
    values = [flags[f"{name}_{axis}"] for axis in _AXES]
    for axis, value in zip(_AXES, values, strict=True):
        if not least <= value <= FARTHEST_POSITION:
            raise OptionError(f"--{name}_{axis} is {value}: give voxels of the image")
    z, y, x = values
    return (z, y, x)


PROGRAM = Program(
    name="run_inference_win",
    summary="Segment an image as a parameter file says.",
    flags=(
        *(
            Flag(
                name=f"image_size_{axis}",
                kind="integer",
                is_required=True,
                help=f"Voxels along {axis} to segment.",
            )
            for axis in reversed(_AXES)
        ),
        *(
            Flag(
                name=f"image_start_{axis}",
                kind="integer",
                default=0,
                help=f"First voxel along {axis}.",
            )
            for axis in reversed(_AXES)
        ),
        Flag(
            name="parameter_file",
            kind="text",
            is_required=True,
            help="File with an InferenceRequest message: text, binary, or a result.",
        ),
        *RUN_FLAGS,
    ),
    translate=_translate,
    resumes=True,
)
