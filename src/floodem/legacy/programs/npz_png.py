"""``npz_png.py``: a result of the old inference becomes images in the working directory.

The images are ``0000.png``, ``0001.png`` and so on; all else is as with `npz_to_png`. A
floodem command writes images to a folder of their own, so that no others are among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from floodem.legacy.flags import Flags
from floodem.legacy.programs import Program, Translation
from floodem.legacy.programs.npz_to_png import (
    FLAGS,
    SAID_ONCE,
    converting,
    find_result,
    write_images,
)

_FOLDER = "sections"
"""What the folder is called in the command that is shown."""

_OF_THE_COMMAND = (
    "the images go into the working directory, while floodem convert makes a folder of them, "
    f"{_FOLDER}/z0000.png and so on"
)


def _translate(flags: Flags, words: Sequence[str]) -> Translation:
    source = find_result(words)
    return Translation(
        commands=converting(source, _FOLDER, flags=flags),
        notes=(SAID_ONCE,),
        remarks=(_OF_THE_COMMAND,),
        work=lambda console: write_images(source, Path(), prefix="", flags=flags, console=console),
    )


PROGRAM = Program(
    name="npz_png",
    summary="Write ./seg-0_0_0.npz as PNG images 0000.png and so on in the working directory.",
    flags=FLAGS,
    positional=("[SEG.npz]",),
    translate=_translate,
)
