"""Many files at once: what is wanted comes in, files in a folder and their record go out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path

from floodem.errors import StoppedError, StorageError
from floodem.files import making_folders
from floodem.legacy.published.catalogue import PublishedFile
from floodem.legacy.published.download import download
from floodem.legacy.published.record import FetchedFile, Record
from floodem.progress import Progress, ProgressListener

AT_ONCE = 4
"""Files that are brought at a time: small ones take longer to ask for than to send."""


class Transfer:
    """Brings files, several at a time, and tells how far they are together."""

    def __init__(self, folder: Path, record: Record, *, mirror: str | None, total: int) -> None:
        self._folder = folder
        self._record = record
        self._mirror = mirror
        self._total = total
        self._lock = threading.Lock()
        self._bytes: dict[str, int] = {}
        self._ended = threading.Event()

    def run(
        self,
        files: Sequence[PublishedFile],
        *,
        stage: str,
        listeners: tuple[ProgressListener | None, Callable[[], bool]],
    ) -> dict[str, FetchedFile]:
        """Bring all files; where one fails, the others end early and its error is raised."""
        progress, should_stop = listeners
        done: dict[str, FetchedFile] = {}
        sizes = [file.size for file in files]
        expected = None if None in sizes else sum(size or 0 for size in sizes)

        def bring(file: PublishedFile) -> None:
            if not stopping():
                found = self._bring(file, received, stopping)
                with self._lock:
                    done[file.path] = found

        def received(file: PublishedFile, count: int) -> None:
            with self._lock:
                self._bytes[file.path] = count
                if progress is not None:
                    note = f"{len(done) + self._total - len(files)} of {self._total} files"
                    here = sum(self._bytes.values())
                    progress(
                        Progress(stage=stage, done=here, total=expected, unit="bytes", note=note)
                    )

        def stopping() -> bool:
            return self._ended.is_set() or should_stop()

        with ExitStack() as stack:
            # Before the threads begin: none removes a folder into which another one writes.
            for folder in sorted({(self._folder / file.path).parent for file in files}):
                stack.enter_context(making_folders(folder))
            pool = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
            futures = [pool.submit(bring, file) for file in files]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                self._ended.set()
        _raise_first([future.exception() for future in futures])
        if len(done) < len(files):
            raise StoppedError(
                "stopped; what has arrived is kept: run the same command again to go on"
            )
        return done

    def _bring(
        self,
        file: PublishedFile,
        received: Callable[[PublishedFile, int], None],
        should_stop: Callable[[], bool],
    ) -> FetchedFile:
        path = self._folder / file.path
        address = mirrored(file.address, mirror=self._mirror)
        sha256 = download(
            file,
            path,
            address=address,
            received=lambda count: received(file, count),
            verified=lambda digest, size: self._record.add(file, sha256=digest, size=size),
            should_stop=should_stop,
        )
        return FetchedFile(
            path=path,
            address=file.address,
            size=path.stat().st_size,
            sha256=sha256,
            is_pinned=file.sha256 is not None,
            was_here=False,
        )


def _raise_first(errors: Sequence[BaseException | None]) -> None:
    """Raise what went wrong first; that others were stopped because of it is no news."""
    found = [error for error in errors if error is not None]
    causes = [error for error in found if not isinstance(error, StoppedError)]
    for error in (*causes, *found):
        if type(error) is StorageError:
            way = (
                ""
                if "--mirror" in str(error)
                else "; --mirror helps where a firewall is in the way"
            )
            raise StorageError(
                f"{error}; the same command goes on from what has arrived{way}"
            ) from error
        raise error


def mirrored(address: str, *, mirror: str | None) -> str:
    """Return where a file is asked for: at its public address, or below a mirror's."""
    if mirror is None:
        return address
    return f"{mirror.rstrip('/')}/{address.partition('://')[2]}"
