"""``npz_to_png.py``: a result of the old inference becomes images in a folder of their own.

| old | floodem |
|---|---|
| ``./seg-0_0_0.npz`` | ``floodem convert seg-0_0_0.npz@segmentation png://inferred_segmentation`` |
| ``inferred_segmentation/z0000.png`` and so on | the same |

The old program wrote ids modulo 256, with rows and columns exchanged. Here ids that fit
8 or 16 bit are the pixels, larger ones become colours with a table, and rows are y and
columns x, as in the image. `npz_png` is the same program with other names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from floodem.counting import counted
from floodem.errors import VolumeNotFoundError
from floodem.legacy.flags import Flag, Flags
from floodem.legacy.programs import Console, Program, Translation

FOLDER = "inferred_segmentation"
PREFIX = "z"
DATASET = "segmentation"

_RESULT = "seg-0_0_0.npz"
_PLACES = (_RESULT, f"0/0/{_RESULT}", f"inference_results/0/0/{_RESULT}")
"""Where the result may be, seen from the working directory: beside the program, in the folder
of results, or in the folder from which the documented inference runs."""

SAID_ONCE = (
    "images have rows y and columns x, as the image that was segmented, and ids that fit: the old "
    "program exchanged rows and columns, and wrote ids modulo 256"
)


def find_result(words: Sequence[str]) -> Path:
    """Return the file that was named, or the first that is where the old programs had it.

    Raises
    ------
    VolumeNotFoundError
        When there is none.
    """
    found = next((path for path in map(Path, words or _PLACES) if path.is_file()), None)
    if found is not None:
        return found
    missing = words[0] if words else f"./{_RESULT}"
    raise VolumeNotFoundError(
        f"there is no {missing}: run in the folder that holds the result of the inference, or name "
        "the file behind the program"
    )


def write_images(
    source: Path, folder: Path, *, prefix: str, flags: Flags, console: Console
) -> None:
    """Write the images of a result and tell what was chosen."""
    from floodem.legacy.png_stack import COLOUR_TABLE, write_png_stack
    from floodem.volumes import open_volume

    with open_volume(f"{source}@{DATASET}") as labels:
        made = write_png_stack(
            labels,
            folder,
            prefix=prefix,
            colours=flags["colours"],
            overwrite=flags["overwrite"],
            progress=console.progress,
        )
    console.say(
        f"{made.folder / made.names[0]} to {made.names[-1]}: {counted(made.objects, 'object')}, "
        f"{made.pixels} images"
    )
    console.say(made.reason)
    if made.older:
        console.notice(
            f"{counted(len(made.older), 'image')} of an earlier stack, from {made.older[0]} on, "
            f"lie beside the new ones in {made.folder}: remove them if they are not wanted"
        )
    elif made.pixels.value.startswith("8"):
        console.notice(
            "small ids look black in most viewers: stretch the contrast, or add --colours, which "
            f"gives each object a colour and writes {COLOUR_TABLE}"
        )


def converting(source: Path, folder: str, *, flags: Flags) -> tuple[tuple[str, ...], ...]:
    """Return the command that writes the same images to a folder; none makes colours."""
    if flags["colours"]:
        return ()
    over = ("--overwrite",) if flags["overwrite"] else ()
    return (("floodem", "convert", f"{source}@{DATASET}", f"png://{folder}", *over),)


def _translate(flags: Flags, words: Sequence[str]) -> Translation:
    source = find_result(words)
    return Translation(
        commands=converting(source, FOLDER, flags=flags),
        notes=(SAID_ONCE,),
        work=lambda console: write_images(
            source, Path(FOLDER), prefix=PREFIX, flags=flags, console=console
        ),
    )


FLAGS = (
    Flag(
        name="colours",
        kind="boolean",
        default=False,
        help="Give every object a colour, with a table, even where ids fit (floodem's own).",
    ),
    Flag(
        name="overwrite",
        kind="boolean",
        default=False,
        help="Replace images of the same names (floodem's own).",
    ),
)

PROGRAM = Program(
    name="npz_to_png",
    summary=f"Write ./{_RESULT} as PNG images {FOLDER}/{PREFIX}0000.png and so on.",
    flags=FLAGS,
    positional=("[SEG.npz]",),
    translate=_translate,
)
