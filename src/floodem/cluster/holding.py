"""One run per place, and shards that share it: a folder or an address in, the right to work out.

A run without shards holds ``lock``; shard 2 of 8 holds ``lock-2-of-8``. Runs refuse
each other unless both are shards of one count and of other numbers. On a disk these
are lock files, which the system frees when a process dies; on servers leases
(floodem.cluster.leases).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from floodem.cluster.crew import Crew, Shard
from floodem.cluster.leases import Lease, Waiting, leasing
from floodem.errors import RunConflictError, ShardDoneError
from floodem.files import exclusive, is_held, making_folders
from floodem.volumes.servers.addresses import is_remote, without_secrets
from floodem.volumes.servers.transport import RemoteStore

_LOCK = "lock"
_NAME = re.compile(rf"{_LOCK}(?:-(\d+)-of-(\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """The right to work at a place.

    Attributes
    ----------
    crew
        Who works there.
    lease
        On a server, where it may be lost; None on a disk.
    """

    crew: Crew
    lease: Lease | None = None

    def is_lost(self) -> bool:
        """Tell whether another process may work here by now."""
        return self.lease is not None and self.lease.is_lost()

    def require(self) -> None:
        """Refuse to go on where the right is lost.

        Raises
        ------
        RunConflictError
            When it is.
        """
        if self.lease is not None:
            self.lease.require()


@contextlib.contextmanager
def holding(
    place: str | Path,
    *,
    crew: Crew,
    what: str,
    should_stop: Callable[[], bool] = lambda: False,
    notice: Callable[[str], None] | None = None,
) -> Iterator[Hold]:
    """Work at a place alone, or beside other shards, while the body runs.

    Parameters
    ----------
    place
        A folder, which is made, or an s3:// or gs:// address.
    crew
        Says whether this is a shard.
    what
        What messages call the work.
    should_stop
        Asked while another run's lease on a server is watched, which may take
        `floodem.cluster.leases.EXPIRES_AFTER_S` when that run was killed on another machine.
    notice
        Told in a sentence for whom it waits.

    Raises
    ------
    RunConflictError
        When another process works there.
    StoppedError
        When it was told to stop.
    StorageError
        When the disk or the server refuses.
    """
    name = _lock_name(crew.shard)

    def conflicts(other: str) -> bool:
        return _conflict(name, other)

    if is_remote(str(place)):
        store = RemoteStore(str(place))
        waiting = Waiting(what=what, should_stop=should_stop, notice=notice)
        with leasing(store, name, waiting=waiting, conflicts=conflicts, prefix=_LOCK) as lease:
            yield Hold(crew=crew, lease=lease)
        return
    folder = Path(place)
    path = folder / name
    is_shared = crew.shard is not None
    with making_folders(folder, is_shared=is_shared), exclusive(path, what=what):
        try:
            for other in sorted(folder.glob(f"{_LOCK}*")):
                if conflicts(other.name) and is_held(other):
                    raise RunConflictError(
                        f"another process is working on {what} (lock {other}): wait for it, "
                        "stop it, or choose another destination"
                    )
            yield Hold(crew=crew)
        finally:
            # The body may have removed all; Windows keeps what is open.
            with contextlib.suppress(OSError):
                if crew.shard is not None or [one.name for one in folder.iterdir()] == [name]:
                    path.unlink()


@contextlib.contextmanager
def taking_rest(
    place: str | Path,
    *,
    crew: Crew,
    what: str,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Hold]:
    """Let one of several shards do what comes after the work that they shared.

    The crew of what the body gets has no shard, so that it does all tasks. Without a
    shard this is the same as `holding`.

    Raises
    ------
    ShardDoneError
        When another shard does it already.
    RunConflictError, StoppedError, StorageError
        As `holding`.
    """
    alone = replace(crew, shard=None)
    with contextlib.ExitStack() as stack:
        if crew.shard is not None and not is_remote(str(place)):
            stack.enter_context(making_folders(Path(place), is_shared=True))
        try:
            hold = stack.enter_context(
                holding(place, crew=alone, what=what, should_stop=should_stop)
            )
        except RunConflictError as error:
            if crew.shard is None:
                raise
            raise ShardDoneError(
                f"shard {crew.shard} is done, and another one goes on with "
                f"{without_secrets(what)}: nothing is left to do here"
            ) from error
        yield hold


def _lock_name(shard: Shard | None) -> str:
    return _LOCK if shard is None else f"{_LOCK}-{shard.number}-of-{shard.count}"


def _conflict(ours: str, other: str) -> bool:
    """Tell whether two locks of one place may not be held together; the same one never is."""
    mine, theirs = _NAME.fullmatch(ours), _NAME.fullmatch(other)
    if mine is None or theirs is None or ours == other:
        return False
    return mine[2] is None or mine[2] != theirs[2]
