"""``png_to_h5.py OUT.h5``: all PNG images of the working directory become one dataset.

| old | floodem |
|---|---|
| all ``*.png`` here, in natural order | ``floodem convert png://.`` |
| ``OUT.h5`` | ``OUT.h5@raw``: gzip, (z, y, x), of the type of the images; no record beside it |

Colour images, whose values have no place in a volume, need ``--channel``, which the old
program did not have.
"""

from __future__ import annotations

from collections.abc import Sequence

from floodem.legacy.addresses import file_and_dataset
from floodem.legacy.flags import Flag, Flags
from floodem.legacy.programs import Console, Program, Translation
from floodem.legacy.values import replacement_note

DATASET = "raw"
IMAGES = "png://."
"""The working directory, whatever else is in it."""


def _translate(flags: Flags, words: Sequence[str]) -> Translation:
    destination = file_and_dataset(f"{words[0]}@{DATASET}")
    channel: int | None = flags["channel"]
    chosen = () if channel is None else ("--channel", str(channel))

    def work(console: Console) -> None:
        from floodem.volumes import convert, open_volume
        from floodem.volumes.conversion.record import remove_record
        from floodem.volumes.location import parse_location

        made = convert(
            IMAGES,
            destination,
            channel=channel,
            overwrite=True,
            progress=console.progress,
        )
        # The folder is that of the images, in which the old program left nothing else.
        remove_record(parse_location(destination))
        for notice in made.notices:
            console.notice(notice)
        with open_volume(destination) as volume:
            z, y, x = volume.shape
            console.say(f"{destination}: {z} sections of {y} x {x} (y,x), {volume.dtype}")

    return Translation(
        commands=(("floodem", "convert", IMAGES, destination, *chosen, "--overwrite"),),
        notes=replacement_note(destination),
        work=work,
    )


PROGRAM = Program(
    name="png_to_h5",
    summary="Write all PNG images of the working directory, in natural order, as dataset raw.",
    flags=(
        Flag(
            name="channel",
            kind="integer",
            help="Which channel of colour images, from 0 (floodem's own).",
        ),
    ),
    positional=("OUT.h5",),
    translate=_translate,
)
