"""``png_mean_std.py``: mean and standard deviation of all PNG images of the working directory.

| old | floodem |
|---|---|
| ``png_mean_std.py`` | ``floodem stats png://.``, which also says what to train and segment with |

Both numbers are rounded to whole ones, as the old program printed them.
"""

from __future__ import annotations

from collections.abc import Sequence

from floodem.legacy.flags import Flag, Flags
from floodem.legacy.programs import Console, Program, Translation
from floodem.legacy.programs.png_to_h5 import IMAGES


def _translate(flags: Flags, words: Sequence[str]) -> Translation:
    channel: int | None = flags["channel"]
    chosen = () if channel is None else ("--channel", str(channel))

    def work(console: Console) -> None:
        from floodem.volumes import open_volume, statistics

        with open_volume(IMAGES, channel=channel) as images:
            found = statistics(images, progress=console.progress)
        console.say(f"Mean:  {round(found.mean)}")
        console.say(f"Std :  {round(found.stddev)}")

    return Translation(commands=(("floodem", "stats", IMAGES, *chosen),), work=work)


PROGRAM = Program(
    name="png_mean_std",
    summary="Print the mean and the standard deviation of all PNG images of the working directory.",
    flags=(
        Flag(
            name="channel",
            kind="integer",
            help="Which channel of colour images, from 0 (floodem's own).",
        ),
    ),
    translate=_translate,
)
