"""One process per place on a server: a small object says who works there, and that it lives.

Servers know no locks that end with a process. Whoever works at a place writes a lease
there and renews it; all writes are conditional, so that of several only one succeeds.
A lease that has not changed for `EXPIRES_AFTER_S` *while somebody watched* may be
taken over. So nobody's clock is compared with another's: who finds a lease watches it
until it changes, which shows that its holder is alive, or until it has expired.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from floodem.cluster.lease_holder import Holder
from floodem.errors import RunConflictError, StoppedError, StorageError
from floodem.volumes.servers.addresses import REMOTE_DEADLINE_S, without_secrets
from floodem.volumes.servers.transport import RemoteStore

EXPIRES_AFTER_S = 3 * REMOTE_DEADLINE_S
"""Three renewals may each take as long as a request ever takes before the lease is lost."""

RENEWED_EVERY_S = 20.0
"""Nine times before it expires; it is also how long another run waits to be refused."""

LOOKED_EVERY_S = 3.0
"""How often who waits looks whether a lease has changed."""

_RELEASE_WAITS_S = 5.0
"""A renewal that hangs longer is not waited for at the end: the lease expires by itself."""

_READERS = 16


class Lease:
    """The right to work at a place on a server, renewed by a thread until it is released.

    Parameters
    ----------
    store
        The place.
    name
        Of the lease's object in it.
    waiting
        For holders of other leases.
    """

    def __init__(self, store: RemoteStore, name: str, *, waiting: Waiting) -> None:
        self._store = store
        self._name = name
        self._waiting = waiting
        self._what = without_secrets(waiting.what)
        self._holder = Holder.ours()
        self._stamp = b""
        self._renewed = time.monotonic()
        self._is_taken = False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_end, daemon=True)

    def take(self) -> None:
        """Take the lease, from a holder that is gone where it must be.

        Raises
        ------
        RunConflictError
            When its holder is alive.
        StoppedError
            When it was told to stop while it watched.
        StorageError
            When the server refuses.
        """
        watch = _Watch(self._waiting)
        while True:
            began = time.monotonic()
            data, before = self._store.read_stamped(self._name)
            if watch.is_free(self._name, data):
                taken = self._store.write_if(self._name, self._holder.encoded(), stamp=before)
                stamp = self._stamp_of_ours() if taken is None else taken
                if stamp is not None:
                    self._stamp, self._renewed = stamp, began
                    self._thread.start()
                    return
            watch.pause()

    def require_alone(self, conflicts: Callable[[str], bool], prefix: str) -> None:
        """Refuse to work beside holders of leases that do not go with this one.

        Parameters
        ----------
        conflicts
            Tells of a lease's name whether it does not.
        prefix
            What names of leases begin with.

        Raises
        ------
        RunConflictError, StoppedError, StorageError
            As `take`.
        """
        names = [name for name in self._store.names(prefix) if conflicts(name)]
        watch = _Watch(self._waiting)
        with ThreadPoolExecutor(_READERS) as pool:
            while True:
                found = list(pool.map(self._store.read, names))
                names = [
                    name
                    for name, data in zip(names, found, strict=True)
                    if not watch.is_free(name, data)
                ]
                if not names:
                    return
                watch.pause()

    def is_lost(self) -> bool:
        """Tell whether another process may work here by now."""
        return self._is_taken or time.monotonic() - self._renewed > EXPIRES_AFTER_S

    def require(self) -> None:
        """Refuse to go on with a lease that is lost.

        Raises
        ------
        RunConflictError
            When it is.
        """
        if self._is_taken:
            raise RunConflictError(
                f"another process took over {self._what}, as this one gave no sign of life for "
                f"{EXPIRES_AFTER_S:.0f} s: let it work, or stop it and run this command again"
            )
        if self.is_lost():
            raise RunConflictError(
                f"the right to work on {self._what} could not be renewed for "
                f"{EXPIRES_AFTER_S:.0f} s: check the network and run the same command again"
            )

    def release(self) -> None:
        """Let others work here at once.

        A server that does not answer is no reason for an error, as the lease expires.
        """
        self._ending.set()
        if self._thread.ident is None:  # never taken
            return
        self._thread.join(_RELEASE_WAITS_S)
        if self._thread.is_alive() or self.is_lost():
            return
        # First marked, as servers compare what they write over, but not all what they remove.
        left = replace(self._holder, is_released=True)
        with contextlib.suppress(StorageError):
            stamp = self._store.write_if(self._name, left.encoded(), stamp=self._stamp)
            if stamp is not None:
                self._store.write_if(self._name, None, stamp=stamp)

    def _renew_until_end(self) -> None:
        while not self._ending.wait(RENEWED_EVERY_S) and not self._is_taken:
            # What a server refuses now it may take the next time; `is_lost` counts the seconds.
            with contextlib.suppress(StorageError):
                self._renew()

    def _renew(self) -> None:
        began = time.monotonic()
        holder = replace(self._holder, beats=self._holder.beats + 1)
        stamp = self._store.write_if(self._name, holder.encoded(), stamp=self._stamp)
        if stamp is None:
            stamp = self._stamp_of_ours()
        if stamp is None:
            self._is_taken = True
            return
        self._holder, self._stamp, self._renewed = holder, stamp, began

    def _stamp_of_ours(self) -> bytes | None:
        """Return the stamp of our lease after a write that failed, or None when it is not ours.

        The answer to the write may have been lost. Where there is no lease at all, though
        ours has not expired, nobody had a right to remove it, and it is written again.
        """
        data, stamp = self._store.read_stamped(self._name)
        if data is None:
            is_ours = self._thread.ident is not None and not self.is_lost()
            encoded = self._holder.encoded()
            return self._store.write_if(self._name, encoded, stamp=stamp) if is_ours else None
        there = Holder.parse(data)
        return stamp if there is not None and there.token == self._holder.token else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How to go about waiting for others.

    Attributes
    ----------
    what
        What messages call the place.
    should_stop
        Asked now and then.
    notice
        Told once for whom it waits.
    """

    what: str
    should_stop: Callable[[], bool] = lambda: False
    notice: Callable[[str], None] | None = None


class _Watch:
    """What was seen of leases, and for how long by our own clock."""

    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting
        self._what = without_secrets(waiting.what)
        self._seen: dict[str, tuple[bytes, float]] = {}

    def is_free(self, name: str, data: bytes | None) -> bool:
        """Tell whether nobody holds a lease; False as long as that is not known.

        Raises
        ------
        RunConflictError
            When it changed, so that somebody is alive.
        """
        holder = None if data is None else Holder.parse(data)
        if data is None or (holder is not None and holder.is_gone()):
            return True
        if not self._seen and self._waiting.notice is not None:
            self._waiting.notice(
                f"{self._what} was worked on by {holder or 'an unknown process'}: looking for up "
                f"to {EXPIRES_AFTER_S:.0f} s whether it is alive"
            )
        now = time.monotonic()
        before, since = self._seen.setdefault(name, (data, now))
        if data != before:
            raise RunConflictError(
                f"another process ({holder or 'unknown'}) is working on {self._what} (lease "
                f"{name}): wait for it, stop it, or choose another destination"
            )
        return now - since > EXPIRES_AFTER_S

    def pause(self) -> None:
        """Wait a little before the next look."""
        time.sleep(LOOKED_EVERY_S)
        if self._waiting.should_stop():
            raise StoppedError(
                f"stopped while waiting for the last process that worked on {self._what}: run the "
                "same command again"
            )


@contextlib.contextmanager
def leasing(
    store: RemoteStore,
    name: str,
    *,
    waiting: Waiting,
    conflicts: Callable[[str], bool],
    prefix: str,
) -> Iterator[Lease]:
    """Hold a lease while the body runs; see `Lease.take` and `Lease.require_alone`."""
    lease = Lease(store, name, waiting=waiting)
    try:
        lease.take()
        lease.require_alone(conflicts, prefix)
        yield lease
    finally:
        lease.release()
