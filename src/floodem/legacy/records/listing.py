"""Centres for training out of TFRecord files: names come in, a list of centres goes out.

The old programs balanced and shuffled their coordinates when they wrote them, so that
training took one record after the other. A list (floodem.training.coordinates.centre_list)
keeps that order, 16 bytes for each record, and is made once.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from floodem.errors import (
    DestinationExistsError,
    GeometryError,
    UsageError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.legacy.records.names import record_files
from floodem.legacy.records.reading import RecordReader
from floodem.progress import Progress, ProgressListener
from floodem.training.coordinates.centre_list import CentreList, CentreListWriter
from floodem.volumes.servers.addresses import is_remote, without_secrets
from floodem.volumes.staging import require_no_destination

STAGE = "read coordinates"


def list_centres(
    pattern: str,
    destination: str | Path,
    *,
    volumes: Collection[str] | None = None,
    overwrite: bool = False,
    progress: ProgressListener | None = None,
) -> CentreList:
    """Make a list of centres from TFRecord files, in the order of their records.

    Parameters
    ----------
    pattern
        As `floodem.legacy.records.names.record_files` takes it.
    destination
        The list (.npz). It names the files with their sizes, so that `list_of` knows them
        again.
    volumes
        Those that may be named by records; None: any.
    overwrite
        Replace what is there.
    progress
        Called after each batch, in records.

    Raises
    ------
    DestinationExistsError
        When something is there and `overwrite` is not set.
    UsageError
        When the files hold no record, or one that names another volume than `volumes`.
    FloodemError
        As `record_files` and `read_records`; the destination is then as it was.
    """
    path = Path(destination)
    if not overwrite:
        require_no_destination(path, uri=str(path))
    elif path.is_dir():
        raise DestinationExistsError(f"{path} is a folder: name the file to write in it")
    files = record_files(pattern)
    reader, done = RecordReader(), 0
    with CentreListWriter(path, origin=_origin(files)) as writer:
        for number, file in enumerate(files):
            for batch in reader.read(file):
                _require_known(batch.names, volumes, file=file)
                try:
                    writer.add(batch.names, batch.volumes, centres=batch.centres_xyz[:, ::-1])
                except GeometryError as error:
                    raise GeometryError(f"{without_secrets(file)}: {error}") from error
                done += len(batch)
                if progress is not None:
                    note = f"file {number + 1} of {len(files)}" if len(files) > 1 else ""
                    progress(
                        Progress(stage=STAGE, done=done, total=None, unit="records", note=note)
                    )
        if not done:
            raise UsageError(
                f"{without_secrets(pattern)} holds no record: check the files, or make them again"
            )
    return CentreList.load(path)


def _require_known(names: Sequence[str], volumes: Collection[str] | None, *, file: str) -> None:
    if volumes is None:
        return
    for name in names:
        if name not in volumes:
            raise UsageError(
                f"{without_secrets(file)} holds centres in volume {name!r}, which is not among the "
                f"volumes of this run ({', '.join(volumes)}): name it alike in both"
            )


def list_of(pattern: str, path: Path) -> CentreList | None:
    """Return the list at a path if it was made of the very files that a name means now.

    Files on a disk are known by size and time, those on servers by their names.

    Raises
    ------
    FloodemError
        As `record_files`.
    """
    if not path.is_file():
        return None
    try:
        found = CentreList.load(path)
    except VolumeFormatError:  # it is made anew
        return None
    return found if dict(found.origin) == _origin(record_files(pattern)) else None


def _origin(files: Sequence[str]) -> dict[str, Any]:
    """Return what is known of files before they are read."""
    return {"tfrecord": [_known(file) for file in files]}


def _known(file: str) -> list[Any]:
    if is_remote(file):
        return [without_secrets(file)]
    try:
        about = os.stat(file)
    except OSError as error:
        raise VolumeNotFoundError(f"there is no file {file}: check the address") from error
    return [str(Path(file).absolute()), about.st_size, about.st_mtime_ns]
