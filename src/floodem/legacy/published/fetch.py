"""Everything that is published under a name: a name comes in, files and a model go out.

Files are brought several at a time, each resumed and verified by itself
(`download`). ``NAME.fetched.json`` in the folder says what came from where, with
digests; what is there and right is not brought again. Afterwards supervoxels are added
up to neurons (`bodies`) and the checkpoint becomes a model file in the data folder
(`import_network`), so that ``--model NAME`` works.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from floodem.counting import counted
from floodem.errors import DestinationExistsError, OptionError
from floodem.files import exclusive, making_folders, require_free_disk
from floodem.legacy.published.catalogue import Part, Published, PublishedFile, find_published
from floodem.legacy.published.download import sha256_of
from floodem.legacy.published.record import FetchedFile, Record
from floodem.legacy.published.transfer import Transfer
from floodem.progress import ProgressListener
from floodem.volumes.servers.addresses import HTTP_SCHEMES, split_address

_LOCK = ".floodem-fetch.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a call of `fetch` has left behind.

    Attributes
    ----------
    model
        The model file, where the network was among the parts.
    bodies
        Addresses of volumes of neurons that were made from supervoxels.
    record
        What came from where.
    notices
        Sentences a user may want to read.
    """

    name: str
    folder: Path
    parts: tuple[Part, ...]
    files: tuple[FetchedFile, ...]
    model: Path | None
    bodies: tuple[str, ...]
    record: Path
    notices: tuple[str, ...]


def fetch(
    name: str,
    folder: Path | str,
    *,
    parts: Sequence[str] = (),
    mirror: str | None = None,
    overwrite: bool = False,
    progress: ProgressListener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Fetched:
    """Bring a published network and its sample volumes, and make them ready to use.

    Parameters
    ----------
    name
        As in the catalogue: fib25 or snemi3d.
    folder
        Where the files go, laid out as the old programs expect them.
    parts
        Names of parts; by default all that are not extra.
    mirror
        Http(s) address of copies, each under its host's name and path, as
        ``wget --force-directories`` makes them.
    overwrite
        Replace files that are in the way and are not the published ones.
    progress
        Told of bytes.
    should_stop
        Asked now and then.

    Raises
    ------
    UsageError, OptionError
        When there is no such name, part or mirror.
    StoppedError
        When `should_stop` said so; the same call goes on.
    DestinationExistsError
        When another file is where one should go; nothing was brought then.
    RunConflictError
        When another process fetches into the folder.
    VolumeNotFoundError, VolumeFormatError, StorageError, ResourceError
        When a file cannot be brought (see `download`); those that are here stay.
    """
    published = find_published(name)
    chosen = published.chosen(tuple(parts))
    if mirror is not None:
        _require_mirror(mirror)
    folder = Path(folder)
    with making_folders(folder), _alone(folder, name=name):
        record = Record(folder / f"{name}.fetched.json", name=name)
        files = [file for part in chosen for file in part.files]
        here = {} if overwrite else _files_here(files, folder=folder, record=record)
        wanted = [file for file in files if file.path not in here]
        known = sum(file.size or 0 for file in wanted)
        require_free_disk(folder, needed_bytes=known, purpose=f"fetching {name}")
        transfer = Transfer(folder, record, mirror=mirror, total=len(files))
        brought = transfer.run(wanted, stage=f"fetching {name}", listeners=(progress, should_stop))
        found = tuple((here | brought)[file.path] for file in files)
        bodies, notices = _make_bodies(published, chosen, folder=folder, fresh=set(brought))
        model = _import(published, folder, chosen=chosen)
        return Fetched(
            name=name,
            folder=folder,
            parts=chosen,
            files=found,
            model=model,
            bodies=bodies,
            record=record.path,
            notices=(*_notices(found, record.path), *record.changes, *notices),
        )


def _require_mirror(mirror: str) -> None:
    scheme, place, _, query = split_address(mirror)
    if "://" not in mirror or scheme not in HTTP_SCHEMES or not place or query:
        raise OptionError(
            f"mirror {mirror!r} is no address of a folder: give http(s)://HOST/FOLDER, below which "
            "files lie under their public host's name and path"
        )


@contextlib.contextmanager
def _alone(folder: Path, *, name: str) -> Iterator[None]:
    lock = folder / _LOCK
    with exclusive(lock, what=f"the fetch of {name} to {folder}"):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows keeps an open file
                lock.unlink()


def _files_here(
    files: Sequence[PublishedFile], *, folder: Path, record: Record
) -> dict[str, FetchedFile]:
    """Return those that need not be brought; refuse what is there and is something else."""
    here = {}
    for file in files:
        path = folder / file.path
        if not path.exists():
            continue
        expected = file.sha256 or record.sha256(file.path)
        found = sha256_of(path) if path.is_file() else None
        if expected is None or found != expected:
            raise DestinationExistsError(
                f"{path} is there already and is not known to be the published file: move it "
                "away, choose another folder, or replace it with --overwrite"
            )
        here[file.path] = FetchedFile(
            path=path,
            address=file.address,
            size=path.stat().st_size,
            sha256=expected,
            is_pinned=file.sha256 is not None,
            was_here=True,
        )
    return here


def _make_bodies(
    published: Published, chosen: Sequence[Part], *, folder: Path, fresh: set[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Add up supervoxels to neurons where that was not done; return addresses and notices."""
    from floodem.legacy.published.bodies import make_bodies

    made, notices = [], []
    for file in (file for part in chosen for file in part.files):
        if file.bodies is None:
            continue
        destination = folder / file.bodies
        address = f"{destination}@bodies"
        if file.path in fresh or not destination.exists():
            missing = make_bodies(
                folder / file.path, destination, voxel_size=published.network.voxel_size
            )
            if missing:
                notices.append(
                    f"{counted(missing, 'voxel')} of {file.path} belong to no neuron and are 0 in "
                    f"{address}"
                )
        made.append(address)
    return tuple(made), tuple(notices)


def _import(published: Published, folder: Path, *, chosen: Sequence[Part]) -> Path | None:
    if all(part.name != "network" for part in chosen):
        return None
    from floodem.legacy.published.networks import import_network

    return import_network(published, folder)


def _notices(files: Sequence[FetchedFile], record: Path) -> Iterator[str]:
    unknown = [file for file in files if not file.is_pinned and not file.was_here]
    if unknown:
        first = unknown[0]
        rest = f" and {counted(len(unknown) - 1, 'more file')}" if len(unknown) > 1 else ""
        yield (
            f"no digest is published for {first.path.name}{rest}: size and kind were checked, and "
            f"the SHA-256 of what came is kept in {record}"
        )
