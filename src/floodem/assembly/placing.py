"""Complete labels take their place: a volume that tasks have filled in, the destination out.

Local stores are renamed, single files are converted and checked, remote stores are
where they belong already. Whoever is stopped here goes on here.
"""

from __future__ import annotations

import glob
import shutil
from collections.abc import Callable
from pathlib import Path

from floodem.assembly.destination import LabelDestination
from floodem.assembly.place import Place, Whereabouts
from floodem.errors import LabelError, StorageError, VolumeNotFoundError
from floodem.files import PARTIAL_SUFFIX, existing_parent, storage_error
from floodem.progress import ProgressListener
from floodem.volumes import open_volume
from floodem.volumes.chunked.creation import put_into_place
from floodem.volumes.chunked.volume import ChunkedVolume
from floodem.volumes.conversion.destination import final_place
from floodem.volumes.conversion.plan import ConversionOptions, make_plan
from floodem.volumes.conversion.record import ConversionRecord
from floodem.volumes.conversion.run import Run
from floodem.volumes.volume import Kind


def finish(
    destination: LabelDestination,
    *,
    threads: int | None = None,
    progress: ProgressListener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Put labels that are complete to where they belong; a second call does nothing.

    Parameters
    ----------
    threads, progress, should_stop
        For the conversion of single files.

    Raises
    ------
    StorageError
        When a chunk is missing, or the disk or the server refuses; the same call goes on.
    DestinationExistsError
        When something appeared at the destination that is not to be replaced.
    StoppedError
        When `should_stop` said so.
    """
    growing = destination.growing
    if destination.place() is Place.PLACED:
        if growing is not None:
            _remove_left(growing)
        return
    if not _is_renamed(destination):
        require_complete(destination)
        if growing is not None and _can_be_renamed(destination, growing):
            inode = growing.stat().st_ino
            Whereabouts(place=Place.PLACING, inode=inode).write(destination.work)
            put_into_place(growing, destination.location, overwrite=destination.replaces)
        elif growing is not None:
            _convert(destination, threads=threads, progress=progress, should_stop=should_stop)
    _forget_earlier(destination)
    Whereabouts(place=Place.PLACED).write(destination.work)
    if growing is not None:
        _remove_left(growing)


def _forget_earlier(destination: LabelDestination) -> None:
    """Remove the record of a conversion to this place, unless it is our own."""
    if not destination.is_converted:
        ConversionRecord(destination.location).forget_finished()


def _remove_left(growing: Path) -> None:
    killed = growing.parent.glob(f".{glob.escape(growing.name)}.*{PARTIAL_SUFFIX}")
    for left in (growing, growing.with_suffix(".replaced"), *killed):
        shutil.rmtree(left, ignore_errors=True)


def require_complete(destination: LabelDestination) -> None:
    """Refuse labels of which a chunk is missing, on any level.

    Raises
    ------
    StorageError
        Naming the first.
    """
    try:
        volume = open_volume(destination.target, writable=True)
    except VolumeNotFoundError as error:
        raise StorageError(f"the labels of this run are gone ({error}): {_again(0)}") from error
    with volume:
        for number, level in enumerate(volume.levels):
            assert isinstance(level, ChunkedVolume)
            missing = level.missing()
            if missing:
                raise StorageError(
                    f"{destination.growing or destination.location.uri} lacks the chunk "
                    f"{missing[0]} (z,y,x) of level {number}, which was written: check the disk, "
                    f"{_again(number)}"
                )


def _again(level: int) -> str:
    stage = f"level-{level}" if level else "labels"
    return f"remove receipts/{stage} from the run's folder and run the same command again"


def _is_renamed(destination: LabelDestination) -> bool:
    """Tell whether a process was killed between the renaming and the word about it."""
    stated = Whereabouts.read(destination.work)
    if stated.place is not Place.PLACING:
        return False
    final = final_place(destination.location)
    return final.exists() and final.stat().st_ino == stated.inode


def _can_be_renamed(destination: LabelDestination, growing: Path) -> bool:
    """Tell whether the labels are kept as they grow, and on the same disk."""
    if destination.is_converted:
        return False
    final = final_place(destination.location)
    try:
        return existing_parent(final).stat().st_dev == growing.stat().st_dev
    except OSError as error:
        raise storage_error("look at", growing, error) from error


def _convert(
    destination: LabelDestination,
    *,
    threads: int | None,
    progress: ProgressListener | None,
    should_stop: Callable[[], bool],
) -> None:
    record = ConversionRecord(destination.location)
    is_begun = record.running() is not None
    with open_volume(destination.target) as source:
        run = Run(
            make_plan(
                source,
                destination.uri,
                options=ConversionOptions(
                    kind=Kind.LABELS,
                    dtype=destination.final_dtype(),
                    chunks=None if destination.is_converted else destination.chunks,
                    pyramid=len(destination.factors) or None,
                ),
                origin={},
            ),
            threads=threads,
            # What was begun goes on, and remembers that it may replace.
            overwrite=destination.replaces and not is_begun,
            progress=progress,
            should_stop=should_stop,
            let_go=lambda: None,
        )
        try:
            run.make()
        except LabelError as error:
            raise LabelError(
                f"{error}; the labels are complete in {destination.growing}: convert them to "
                "another format with `floodem convert`"
            ) from error
        finally:
            run.record.journal.close()
