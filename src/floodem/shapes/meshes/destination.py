"""Where meshes go: an address and what they are made of come in, a place to work in goes out.

Everything grows in ``DST.floodem/meshing`` and takes its place when it is complete; then
that folder is removed. Beside the meshes stays ``floodem.json``, which says what they
were made of::

    DST.floodem/meshing/   job.json   what is made, from what
                           blocks/    one pack and one receipt for each block
                           objects/   one pack (or files) and one receipt for some objects
                           result/    what will be DST
    DST/                   info, ID and ID.index, or *.shard; floodem.json
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from floodem.cluster import ALONE, Crew
from floodem.cluster.holding import holding
from floodem.errors import (
    DestinationExistsError,
    LabelError,
    OptionError,
    RunConflictError,
    ShardDoneError,
    UsageError,
    VolumeFormatError,
)
from floodem.files import storage_error, sync_folder, write_new, write_text
from floodem.shapes.precomputed import MeshInfo, link_to_segmentation
from floodem.shapes.precomputed.folders import INFO, MAX_INFO_BYTES, read_json, write_bytes
from floodem.volumes.servers.addresses import is_remote, without_secrets
from floodem.volumes.servers.transport import open_store
from floodem.volumes.staging import Staged, require_no_destination

RECORD = "floodem.json"
RECORD_VERSION = 1
_WORK, _MESHING, _JOB, _BLOCKS = ".floodem", "meshing", "job.json", "blocks"
_PREFIX = "precomputed://"
_MAX_RECORD_BYTES = 2**24
_BEGIN_AGAIN = "begin again with --overwrite (overwrite=True), or choose another destination"


class MeshDestination:
    """One destination: a folder, a single file, or a folder on a server.

    Parameters
    ----------
    address
        A path, or an s3:// or gs:// address; ``precomputed://`` in front is passed over.
    is_file
        Whether it is to be one file.
    overwrite
        Whether meshes that are there may be replaced, and unfinished work is forgotten.
    work
        Folder for working files, for destinations on servers; others have theirs beside them.

    Raises
    ------
    UsageError
        When the address names nothing that could be made.
    """

    def __init__(
        self,
        address: str | Path,
        *,
        is_file: bool = False,
        overwrite: bool = False,
        work: Path | None = None,
    ) -> None:
        text = str(address).removeprefix(_PREFIX)
        self.is_remote = is_remote(text)
        self.uri = without_secrets(text) if self.is_remote else text
        self._address = text
        self._is_file = is_file
        self._overwrite = overwrite
        self._may_replace = overwrite
        if self.is_remote:
            if work is None or is_file:
                raise UsageError(
                    f"{self.uri} is on a server: give a local folder for working files with "
                    "--work, and no file format"
                )
            self.folder = work.absolute()  # workers may be elsewhere
        else:
            self.path = Path(os.path.abspath(text))
            if not self.path.name or not text.strip():
                raise UsageError(f"{text!r} names no folder that could be made: give another")
            if work is not None:
                raise OptionError(
                    "--work is for destinations on servers: local ones have their working files "
                    "beside them"
                )
            self.folder = self.path.with_name(self.path.name + _WORK) / _MESHING

    @property
    def result(self) -> Path:
        """The folder in which the result grows."""
        return self.folder / "result"

    def finished(self, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what an earlier run of the same work has said at its end, or None.

        Raises
        ------
        DestinationExistsError
            When something else is there, and may not be replaced.
        VolumeFormatError
            When the record is damaged.
        """
        if self._is_replacing(identity):
            self._may_replace = True
            self._require_replaceable()
            return None
        self._require_free_link()
        record = None if self._is_file else self._record()
        if record is not None and record.get("identity") == identity:
            if not self.is_remote:
                self._link()
            self._clean_up()  # what a process killed at its very end has left
            result: dict[str, Any] = record["result"]
            return result
        if record is not None:
            raise DestinationExistsError(
                f"{self.uri} holds meshes of other data or with other options, and was left as "
                f"it is: {_BEGIN_AGAIN}"
            )
        if self.is_remote:
            if open_store(self._address).read(INFO) is not None:
                raise DestinationExistsError(
                    f"{self.uri} exists already and was left as it is: {_BEGIN_AGAIN}"
                )
        elif self._is_file or not _is_empty_folder(self.path):
            require_no_destination(self.path, uri=self.uri)
        return None

    @contextlib.contextmanager
    def hold(self, identity: Mapping[str, Any], *, crew: Crew = ALONE) -> Iterator[Path]:
        """Keep other processes off while the body works in the folder that this gives.

        Shards of one run work there together; what one has not finished stays for the others.

        Raises
        ------
        RunConflictError
            When another process works here, or unfinished work is of something else.
        ShardDoneError
            When another shard has just ended the work.
        StorageError
            When the folder cannot be made.
        """
        is_shared = crew.shard is not None
        is_wanted = True
        try:
            with holding(self.folder, crew=crew, what=self.uri):
                try:
                    self._begin(identity, is_shared=is_shared)
                    if is_shared and self.finished(identity) is not None:
                        (self.folder / _JOB).unlink(missing_ok=True)
                        self.require_unfinished(crew)
                    yield self.folder
                    is_wanted = False
                except LabelError:  # the same command would end in the same way
                    is_wanted = is_shared
                    raise
                finally:
                    is_wanted &= is_shared or any((self.folder / _BLOCKS).glob("*.pack"))
        finally:
            if not is_wanted:
                self._clean_up()

    def require_unfinished(self, crew: Crew, cause: Exception | None = None) -> None:
        """Let a shard end where another one has ended the work, and nothing else is wrong.

        Raises
        ------
        ShardDoneError
            When it has.
        """
        if crew.shard is not None and not (self.folder / _JOB).exists():
            self._clean_up()
            raise ShardDoneError(
                f"shard {crew.shard} is done, and another one has finished {self.uri}: nothing is "
                "left to do here"
            ) from cause

    def _clean_up(self) -> None:
        """Remove the working files, and the folder beside DST unless others use it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if not self.is_remote:
            with contextlib.suppress(OSError):
                self.folder.parent.rmdir()

    def commit(self, identity: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Put the result into place, say so in the segmentation around it, and clean up.

        Raises
        ------
        DestinationExistsError
            When something has appeared there meanwhile.
        StorageError
            When a file system or a server refuses.
        """
        if self._is_file:
            self._commit_file()
        else:
            record = {"version": RECORD_VERSION, "identity": identity, "result": result}
            write_text(self.result / RECORD, json.dumps(record, indent=1) + "\n")
            if self.is_remote:
                self._upload()
            else:
                self._commit_folder()
        # From here on it is clear to shards that are about to do the same.
        (self.folder / _JOB).unlink()

    def _commit_folder(self) -> None:
        if _is_empty_folder(self.path):
            self.path.rmdir()
        Staged(
            self.path,
            uri=self.uri,
            overwrite=self._may_replace,
            folder=True,
            work=self.result,
            objection=_objection,
        ).commit()
        self._link()

    def _link(self) -> None:
        if (self.path / INFO).exists() and _segmentation_around(self.path) is not None:
            link_to_segmentation(self.path.parent, mesh=self.path.name)

    def _commit_file(self) -> None:
        (made,) = self.result.iterdir()
        if not self._may_replace:
            require_no_destination(self.path, uri=self.uri)
        try:
            os.replace(made, self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise storage_error("write", self.path, error) from error

    def _upload(self) -> None:
        store = open_store(self._address)
        last = [INFO, RECORD]
        names = sorted(path.name for path in self.result.iterdir() if path.name not in last)
        if self._may_replace:
            for name in store.names():
                if _is_ours(name) and name not in names:
                    store.delete(name)
        for name in [*names, *last]:
            store.write(name, (self.result / name).read_bytes())

    def _begin(self, identity: Mapping[str, Any], *, is_shared: bool) -> None:
        job = self.folder / _JOB
        values = {"version": RECORD_VERSION, "identity": identity, "replaces": self._overwrite}
        data = json.dumps(values).encode()
        if is_shared:
            write_new(job, data)  # by the first shard
        if job.exists() and not self._overwrite:
            if _read(job).get("identity") != identity:
                raise RunConflictError(
                    f"{self.folder} holds unfinished meshes of other data or with other options: "
                    f"repeat that command to go on, or {_BEGIN_AGAIN}"
                )
            return
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
        write_bytes(job, data)

    def _is_replacing(self, identity: Mapping[str, Any]) -> bool:
        """Tell whether this run, or the unfinished one that it goes on with, may replace DST."""
        job = self.folder / _JOB
        if self._overwrite or not job.is_file():
            return self._overwrite
        values = _read(job)
        return bool(values.get("replaces")) and values.get("identity") == identity

    def _record(self) -> dict[str, Any] | None:
        if self.is_remote:
            data = open_store(self._address).read(RECORD)
            return None if data is None else _parsed(data, uri=f"{self.uri}/{RECORD}")
        path = self.path / RECORD
        return _read(path) if path.is_file() else None

    def _require_replaceable(self) -> None:
        if self.is_remote:
            if open_store(self._address).read(INFO) is not None and self._record() is None:
                raise DestinationExistsError(
                    f"{self.uri} was left as it is, because it holds something that floodem has "
                    "not made: choose another destination"
                )
        elif self.path.is_dir():
            why = "is a folder" if self._is_file else _objection(self.path)
            if why is not None:
                raise DestinationExistsError(
                    f"{self.uri} was left as it is, because it {why}: choose another destination"
                )
        elif self.path.exists() and not self._is_file:
            raise DestinationExistsError(
                f"{self.uri} is a file and was left as it is: choose another destination"
            )

    def _require_free_link(self) -> None:
        """Refuse to turn a segmentation away from the meshes that it names already."""
        if self.is_remote or self._is_file:
            return
        around = _segmentation_around(self.path)
        named = None if around is None else around.get("mesh")
        if named not in {None, self.path.name}:
            raise DestinationExistsError(
                f"{self.path.parent / INFO} names other meshes, {str(named)[:80]!r}: write to that "
                "folder, or replace the name with --overwrite (overwrite=True)"
            )


def _segmentation_around(path: Path) -> dict[str, Any] | None:
    """Return the info of the precomputed segmentation that a folder lies in, or None."""
    info = path.parent / INFO
    if not info.is_file():
        return None
    try:
        values = read_json(info, max_bytes=MAX_INFO_BYTES)
    except VolumeFormatError:
        return None  # not ours to judge: it is no segmentation
    is_one = isinstance(values, dict) and values.get("type") == "segmentation"
    return values if is_one and "scales" in values else None


def _objection(folder: Path) -> str | None:
    """Say why a folder may not be replaced: it is not one of meshes."""
    if not any(folder.iterdir()) or (folder / RECORD).is_file():
        return None
    info = folder / INFO
    if not info.is_file():
        return "holds no meshes"
    values = read_json(info, max_bytes=MAX_INFO_BYTES)
    is_one = isinstance(values, dict) and values.get("@type") == MeshInfo.TYPE
    return None if is_one else "holds something else than meshes"


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _is_ours(name: str) -> bool:
    return name.removesuffix(".index").isdecimal() or name.endswith(".shard")


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_RECORD_BYTES:
            raise VolumeFormatError(f"{path} is too large to be a record: {_BEGIN_AGAIN}")
        return _parsed(path.read_bytes(), uri=path)
    except OSError as error:
        raise storage_error("read", path, error) from error


def _parsed(data: bytes, *, uri: object) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        values = None
    is_one = isinstance(values, dict) and values.get("version") == RECORD_VERSION
    if not is_one:
        raise VolumeFormatError(f"{uri} is no record of version {RECORD_VERSION}: {_BEGIN_AGAIN}")
    record: dict[str, Any] = values
    return record
