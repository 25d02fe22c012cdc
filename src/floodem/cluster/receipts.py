"""One small file per finished task: what a task returned goes in, and comes out after a restart.

A receipt is written after the task's data, in one piece and only where there is none
yet, on a disk or on a server. It says by a digest what the work was made from, so
that work of other options is never taken for this one's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from floodem.errors import OptionError, OtherWorkError, ResourceError, VolumeFormatError
from floodem.files import remove_partial_files, storage_error
from floodem.volumes.servers.addresses import is_remote, without_secrets
from floodem.volumes.servers.transport import Store, open_store

RECEIPT_VERSION = 1
_SUFFIX = ".json"
_MOST_BYTES = 64 * 2**20
"""Larger receipts are damaged or not ours: a result is a few numbers for each object."""

_READERS = 16
"""Receipts read at once: what takes the time is a server's or a common disk's answer."""

_BATCH = 64
"""Receipts read by one call, so that a hundred thousand are no burden to the readers' queue."""


def identity_digest(identity: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what work is made from, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Receipts:
    """The receipts of one kind of work; they can be sent to other processes.

    Attributes
    ----------
    place
        The folder where they lie, on a disk or at an s3:// or gs:// address; made by
        whoever writes them.
    digest
        Of what the work is made from (see `identity_digest`).
    """

    place: str
    digest: str

    def write(self, key: str, result: Mapping[str, Any]) -> dict[str, Any]:
        """Say that a task is done, after its data.

        Signed queries and passwords are cut out of addresses in the result.

        Returns
        -------
        dict
            What the receipt says: where a task was done twice, as after a lost host,
            what was written first.

        Raises
        ------
        OtherWorkError
            When there is a receipt of other work.
        StorageError
            When the disk or the server refuses.
        """
        receipt = {"version": RECEIPT_VERSION, "digest": self.digest, "result": dict(result)}
        text = without_secrets(json.dumps(receipt))
        data = text.encode()
        if len(data) > _MOST_BYTES:
            raise ResourceError(
                f"task {key} returned {len(data) / 1e6:.0f} MB, too much for a receipt: "
                "make smaller blocks"
            )
        if not self._store.write(_name(key), data, only_new=True):
            there = self.read(key)
            if there is not None:
                return there
        written: dict[str, Any] = json.loads(text)["result"]
        return written

    def read(self, key: str) -> dict[str, Any] | None:
        """Return what a task returned, or None when it is not done.

        Raises
        ------
        OtherWorkError
            When it was done from something else.
        VolumeFormatError
            When the file is damaged.
        StorageError
            When the disk or the server refuses.
        """
        self._require_small(key)
        data = self._store.read(_name(key))
        return None if data is None else self._parse(key, data)

    def read_all(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return what the tasks returned that are done, by their keys.

        The folder is listed once, and only what is there is read.

        Raises
        ------
        OtherWorkError, VolumeFormatError, StorageError
            As `read`.
        """
        keys = list(keys)
        missing = self.missing(keys)
        done = [key for key in keys if key not in missing]
        batches = [done[start : start + _BATCH] for start in range(0, len(done), _BATCH)]
        if len(batches) < 2:
            return dict(chain.from_iterable(map(self._read_batch, batches)))
        with ThreadPoolExecutor(_READERS) as pool:
            return dict(chain.from_iterable(pool.map(self._read_batch, batches)))

    def missing(self, keys: Iterable[str]) -> set[str]:
        """Return the keys that have no receipt, from one listing of the folder.

        Raises
        ------
        StorageError
            When the disk or the server refuses.
        """
        names = {_name(key): key for key in keys}
        there = set(self._store.names()) if names else set()
        return {key for name, key in names.items() if name not in there}

    def remove_partial(self) -> None:
        """Remove what killed processes left half written; only for who is alone here."""
        if not is_remote(self.place):  # servers show no half objects
            remove_partial_files(Path(self.place))

    @cached_property
    def _store(self) -> Store:
        return open_store(self.place)

    def __getstate__(self) -> tuple[str, str]:
        """Leave the open store behind."""
        return (self.place, self.digest)

    def __setstate__(self, state: tuple[str, str]) -> None:
        self.__dict__.update(zip(("place", "digest"), state, strict=True))

    def _read_batch(self, keys: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
        found = ((key, self.read(key)) for key in keys)
        return [(key, result) for key, result in found if result is not None]

    def _require_small(self, key: str) -> None:
        """Refuse a large file before it is read; servers hold what was written here."""
        path = Path(self.place, _name(key))
        if is_remote(self.place):
            return
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return
        except OSError as error:
            raise storage_error("read", path, error) from error
        if size > _MOST_BYTES:
            raise VolumeFormatError(f"receipt {path} is too large to be one: remove it")

    def _parse(self, key: str, data: bytes) -> dict[str, Any]:
        where = without_secrets(self.place).rstrip("/")
        try:
            receipt = json.loads(data)
            version, digest, result = receipt["version"], receipt["digest"], receipt["result"]
            is_one = version == RECEIPT_VERSION and isinstance(result, dict)
        except (ValueError, KeyError, TypeError, RecursionError):
            is_one = False
        if not is_one:
            raise VolumeFormatError(
                f"{where}/{_name(key)} is no receipt of version {RECEIPT_VERSION}: remove it, "
                "and its task is done again"
            )
        if digest != self.digest:
            raise OtherWorkError(
                f"{where} holds work that was made from other data or with other options: "
                "repeat the earlier command to go on with it, or choose another destination"
            )
        found: dict[str, Any] = result
        return found


def _name(key: str) -> str:
    if not key or not all(sign.isalnum() or sign in "-_" for sign in key):
        raise OptionError(f"task key {key!r} is no file name: use letters, digits, - and _")
    return f"{key}{_SUFFIX}"
