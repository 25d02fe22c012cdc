"""What `convert` and `clahe` share: how a copy is stopped, and what is said of it at the end."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from floodem.cli.stopping import interrupted, interrupting_on_sigterm, stopping_on_signals
from floodem.counting import counted
from floodem.errors import OptionError

if TYPE_CHECKING:
    from floodem.volumes import Volume
    from floodem.volumes.conversion.convert import Conversion


@contextlib.contextmanager
def copying_to(destination: str, *, overwrite: bool) -> Iterator[dict[str, Any]]:
    """Let Ctrl-C stop the copy made in the body; gives what the library call wants for that.

    Raises
    ------
    StoppedError
        When it was interrupted and the same command goes on.
    """
    from floodem.cli.progress import progress_bar
    from floodem.volumes.conversion.destination import is_resumable
    from floodem.volumes.location import parse_location

    goes_on = is_resumable(parse_location(destination))
    stopping: contextlib.AbstractContextManager[Callable[[], bool]] = (
        stopping_on_signals("finishing the blocks in work")
        if goes_on
        else interrupting_on_sigterm()
    )
    try:
        with stopping as should_stop, progress_bar() as progress:
            yield {"progress": progress, "should_stop": should_stop}
    except KeyboardInterrupt:
        if not goes_on:
            raise
        raise interrupted("what is written", overwrite=overwrite) from None


def parse_pyramid(text: str | None) -> int | Literal["auto"] | None:
    """Read what stands behind ``--pyramid``.

    Raises
    ------
    OptionError
        When it is neither a whole number nor ``auto``.
    """
    if text is None or text == "auto":
        return "auto" if text else None
    try:
        return int(text)
    except ValueError:
        raise OptionError(
            f"--pyramid: {text!r} is no number of levels: write one, or auto"
        ) from None


def report(made: Conversion, destination: str) -> None:
    """Print what was made, and notes about it."""
    from floodem.volumes import open_volume

    if made.was_finished:
        print(f"{made.uri} was finished by an earlier run of this command; --overwrite repeats it")
    with open_volume(destination) as copy:
        print(describe(copy))
    notes = list(made.notices)
    if made.labels is not None:
        notes.append(f"{counted(made.labels, 'object')}; old and new ids are in {made.record}")
    if made.is_lossy:
        notes.append("jpeg changes values; receipts are of what it gives back")
    for sentence in notes:
        print(f"note: {sentence}", file=sys.stderr)


def describe(volume: Volume) -> str:
    """Return one line about a volume: size, type, place and voxel size as its file tells them."""
    z, y, x = volume.shape
    size = "unknown voxel size" if volume.voxel_size is None else f"{volume.voxel_size} nm a voxel"
    corner = ",".join(str(position) for position in volume.offset)
    levels = f", {len(volume.levels)} levels" if len(volume.levels) > 1 else ""
    return f"{volume.uri}: {z} x {y} x {x} {volume.dtype} at {corner} (z,y,x), {size}{levels}"
