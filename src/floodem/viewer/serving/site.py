"""One web server for all that a viewer shows: volumes and folders in, addresses out.

It listens on this machine alone unless told otherwise. Every address of data begins with a
random token that was made for this run; what may ask at all is said in
floodem.viewer.serving.gate. Neuroglancer's viewers of this process use the same server.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from floodem.errors import OptionError, UsageError
from floodem.geometry import VoxelSize
from floodem.memory import available_memory
from floodem.viewer.layers import Kind
from floodem.viewer.serving.answers import Source
from floodem.viewer.serving.blocks import CACHE_BYTES, Cache
from floodem.viewer.serving.folders import ServedFolder
from floodem.viewer.serving.pages import ServedPage, client_folder
from floodem.viewer.serving.volumes import MeshOf, ServedVolume
from floodem.viewer.serving.wire import bind, require_packages, server_class
from floodem.volumes.volume import Volume

LOCAL_ONLY = "127.0.0.1"
LARGEST_PORT = 65535

_TOKEN_BYTES = 24
"""192 random bits: nobody finds them by trying."""

_CACHE_SHARE = 4
"""Of the memory that is free when the server starts, a quarter at most is for what was read."""

_MOST_IN_A_NAME = 64
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")

_lock = threading.Lock()


@dataclass(slots=True, kw_only=True, eq=False)
class _Shared:
    """The one server of this process, and how many sites use it."""

    server: Any
    host: str
    cache: Cache
    users: int = 0


_shared: list[_Shared] = []
"""At most one."""


class Site:
    """Addresses for volumes and folders, until `close`.

    Sites of one process share one server, that of `neuroglancer.server`; it ends with the last
    of them. Made by `start`.

    Attributes
    ----------
    address
        Of the server, ``http://127.0.0.1:PORT``, without a slash at the end.
    """

    address: str

    def __init__(self, shared: _Shared) -> None:
        self.address = shared.server.server_url
        self._shared = shared
        self._server = shared.server
        self._token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._served: dict[tuple[str, ...], Source] = {}
        self._is_closed = False

    @classmethod
    def start(cls, *, host: str = LOCAL_ONLY, port: int = 0) -> Site:
        """Start the server, or join the one that runs in this process.

        Parameters
        ----------
        host
            Address to bind to: of this machine alone, unless another is given.
        port
            0 for any that is free.

        Raises
        ------
        UsageError
            When the port cannot be had, or a server runs in this process at another.
        OptionError
            When the port is no port.
        DependencyError
            When Neuroglancer is not installed.
        """
        if not 0 <= port <= LARGEST_PORT:
            raise OptionError(f"port {port} is not within 0 to {LARGEST_PORT}")
        require_packages()
        with _lock:
            shared = _join(host, port) or _start(host, port)
            shared.users += 1
            return cls(shared)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.port)

    def serve_volume(
        self,
        volume: Volume,
        *,
        kind: Kind,
        name: str,
        voxel_size: VoxelSize | None = None,
        mesh_of: MeshOf | None = None,
    ) -> str:
        """Serve a volume as a precomputed one, made chunk by chunk when it is asked for.

        Parameters
        ----------
        volume
            It stays open as long as the site. Others who read it meanwhile do so by
            `floodem.viewer.serving.blocks.read_safely`.
        kind
            Image, or segmentation, whose labels become uint32 or uint64.
        name
            Last part of the address, for people; changed where it would not fit.
        voxel_size
            In nanometres, instead of what the volume states; 1, 1, 1 where neither does.
        mesh_of
            Gives the mesh of an id as a fragment of the legacy format, None where
            there is none. It is called in other threads, once at a time.

        Returns
        -------
        str
            ``precomputed://http://127.0.0.1:PORT/d/TOKEN/NAME``.

        Raises
        ------
        LabelError
            When a segmentation holds no integers.
        """
        source = ServedVolume(
            volume, kind=kind, voxel_size=voxel_size, cache=self._shared.cache, mesh_of=mesh_of
        )
        return "precomputed://" + self._add(source, "d", name)

    def serve_folder(
        self,
        folder: Path,
        *,
        is_public: bool = False,
        absent: Callable[[str], bytes | None] | None = None,
        only: Collection[str] | None = None,
    ) -> str:
        """Serve the files below a folder, hidden ones and links out of it left out.

        Parameters
        ----------
        folder
            Read when it is asked for, so that changes are seen.
        is_public
            Whether pages of any origin may read it: for clients that are not ours.
        absent
            Gives what a file that is not there would hold, by its path below the folder;
            None where there is none.
        only
            Names in the folder that may be seen; None: all.

        Returns
        -------
        str
            ``http://127.0.0.1:PORT/f/TOKEN``.

        Raises
        ------
        OptionError
            When there is no such folder.
        """
        served = ServedFolder(folder, is_public=is_public, absent=absent, only=only)
        return self._add(served, "f", None)

    def close(self) -> None:
        """Take everything away that this site served; the last one gives the port back."""
        with _lock:
            if self._is_closed:
                return
            self._is_closed = True
            for key in self._served:
                self._server.sources.pop(key, None)
            self._shared.users -= 1
            is_last = self._shared.users == 0
            if is_last and self._shared in _shared:
                _shared.remove(self._shared)
        for source in self._served.values():
            source.close()
        if is_last:
            _end(self._server)

    def _add(self, source: Source, kind: str, name: str | None) -> str:
        with _lock:
            if self._is_closed:
                source.close()
                raise UsageError("this site is closed: start another")
            if name is None:
                key: tuple[str, ...] = (kind, secrets.token_urlsafe(_TOKEN_BYTES))
            else:
                key = (kind, self._token, self._free_name(kind, name))
            self._served[key] = self._server.sources[key] = source
        return "/".join((self.address, *key))

    def _free_name(self, kind: str, name: str) -> str:
        plain = _NOT_IN_A_NAME.sub("_", name).strip("._")[:_MOST_IN_A_NAME] or "volume"
        found, count = plain, 1
        while (kind, self._token, found) in self._served:
            count += 1
            found = f"{plain}-{count}"
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _join(host: str, port: int) -> _Shared | None:
    """Return the server of this process, or None where there is none yet."""
    from neuroglancer import server as theirs

    if _shared and theirs.global_server is not _shared[0].server:
        _shared.clear()  # somebody called neuroglancer.stop()
    if not _shared:
        if theirs.global_server is not None:
            raise UsageError(
                "Neuroglancer's own server runs in this process already: call neuroglancer.stop() "
                "first, so that its viewers and floodem's can share one"
            )
        return None
    running = _shared[0]
    if host != running.host or port not in {0, running.server.port}:
        raise UsageError(
            f"a viewer of this process listens at {running.server.server_url} already: leave out "
            "host and port, or close it first"
        )
    return running


def _start(host: str, port: int) -> _Shared:
    from neuroglancer import server as theirs

    sockets = bind(host, port)
    try:
        page = ServedPage(client_folder())
        server = server_class()(sockets, host=host, page=page)
    except BaseException:
        for one in sockets:
            one.close()
        raise
    theirs.global_server = server
    running = _Shared(server=server, host=host, cache=Cache(most_bytes=_cache_bytes()))
    _shared.append(running)
    return running


def _cache_bytes() -> int:
    available = available_memory()
    return CACHE_BYTES if available is None else min(CACHE_BYTES, available // _CACHE_SHARE)


def _end(server: Any) -> None:
    from neuroglancer import server as theirs

    if theirs.global_server is server:
        theirs.global_server = None
    server.page.close()
    if server._thread is threading.current_thread():  # noqa: SLF001 - theirs, checked by a test
        server.request_stop()
    else:
        server.stop()
