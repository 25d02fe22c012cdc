"""Writing whole files so that a reader finds the old one or the new one, never half of one.

Also what stands around that: folders, free space, and one running process per destination.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from floodem.errors import ResourceError, RunConflictError, StorageError

PARTIAL_SUFFIX = ".partial"

_LOCK_IS_HELD = frozenset({errno.EAGAIN, errno.EACCES, errno.EDEADLK})
"""What a refused lock means when another process has it (flock; msvcrt.locking)."""

_HAS_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""What file systems without hard links (FAT, some network shares) say to one."""

_LOOKS, _BETWEEN_LOOKS_S = 20, 0.05
"""How often a lock is looked at that may only be looked at by another just now (Windows)."""

_ONE_DIGIT_OF_GB = 10**8


def storage_error(action: str, path: Path | str, error: OSError) -> StorageError:
    """Turn an operating system's refusal into one sentence that names the file."""
    reason = error.strerror or str(error) or type(error).__name__
    return StorageError(
        f"cannot {action} {path}: {reason}; check the address, the rights and the free space"
    )


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder durable, where the system can (not on Windows)."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _partial_beside(path: Path) -> Path:
    """Name a temporary file; in containers on a common disk process numbers are not enough."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL_SUFFIX}")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success sync it and rename it into place.

    When the body raises, the temporary file is removed and `path` is as before.
    The file must be closed when the body ends (Windows renames no open file).

    Raises
    ------
    StorageError
        When the file system refuses the write or the rename.
    """
    partial = _partial_beside(path)
    try:
        try:
            yield partial
            with open(partial, "rb+") as written:
                os.fsync(written.fileno())
            os.replace(partial, path)
            sync_folder(path.parent)
        except StorageError:
            raise
        except OSError as error:
            raise storage_error("write", path, error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file in one piece (see `replacing`)."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_new(path: Path, data: bytes) -> bool:
    """Write a file in one piece where there is none, also when several try at once.

    Returns
    -------
    bool
        False when there is a file already, which stays as it is. On a file system
        without hard links one of two that write in the very same moment may replace
        the other's.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    partial = _partial_beside(path)
    try:
        with open(partial, "xb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        if not _place_new(partial, path):
            return False
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error("write", path, error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return True


def _place_new(partial: Path, path: Path) -> bool:
    try:
        if sys.platform == "win32":
            os.rename(partial, path)  # which replaces nothing there
        else:
            os.link(partial, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _HAS_NO_LINKS:
            raise
        if path.exists():
            return False
        os.replace(partial, path)
    return True


def remove_partial_files(folder: Path, *, of: str | None = None) -> None:
    """Remove what killed processes left half written; only for who holds the lock of that.

    Parameters
    ----------
    of
        Name of the only file that is one's own there; None: the whole folder is.
    """
    # Beside merges there may be what another process writes to merges.zarr.
    name = "*" if of is None else f"{glob.escape(of)}.[0-9]*-*"
    for left in folder.glob(f".{name}{PARTIAL_SUFFIX}"):
        with contextlib.suppress(OSError):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()


@contextlib.contextmanager
def making_folders(folder: Path, *, is_shared: bool = False) -> Iterator[None]:
    """Make a folder and those above it; remove them again where the body leaves them empty.

    What is shared with other processes stays: they may be about to write to it.

    Raises
    ------
    StorageError
        When the file system refuses, or a file is in the way.
    """
    missing: list[Path] = []
    try:
        try:
            missing += [one for one in (folder, *folder.parents) if not one.exists()]
            in_the_way = next((one for one in (folder, *folder.parents) if one.is_file()), None)
            if in_the_way is not None:
                raise StorageError(
                    f"folder {folder} cannot be made, because {in_the_way} is a file: check the "
                    "address"
                )
            folder.mkdir(parents=True, exist_ok=True)
        except StorageError:
            raise
        except OSError as error:
            raise storage_error("make", folder, error) from error
        yield
    finally:
        with contextlib.suppress(OSError):
            for one in [] if is_shared else missing:
                one.rmdir()  # refuses when something is in it


def existing_parent(path: Path) -> Path:
    """Return the nearest folder above `path` that exists."""
    folder = path.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder


def require_free_disk(path: Path, *, needed_bytes: int, purpose: str) -> None:
    """Refuse work whose result would not fit on the disk that holds `path`.

    Raises
    ------
    ResourceError
        When less than `needed_bytes` are free.
    StorageError
        When the file system does not say.
    """
    folder = existing_parent(path)
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise storage_error("look at", folder, error) from error
    if free < needed_bytes:
        raise ResourceError(
            f"{purpose} needs {_in_words(needed_bytes)} at {path}, where {_in_words(free)} "
            "are free: free some space or choose another destination"
        )


def _in_words(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= _ONE_DIGIT_OF_GB else f"{count / 1e6:.2f} MB"


def _lock(handle: IO[bytes], *, is_shared: bool = False) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)  # Windows shares no locks
    else:
        import fcntl

        kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
        fcntl.flock(handle.fileno(), kind | fcntl.LOCK_NB)


def _open_locked(path: Path, *, what: str) -> IO[bytes] | None:
    """Open and lock a file; None when it was removed between the two, by who held it."""
    try:
        # Network file systems want reading for shared locks and writing for others.
        handle = open(path, "a+b")  # noqa: SIM115 - closed by `exclusive`
    except OSError as error:
        raise storage_error("write", path, error) from error
    try:
        _lock(handle)
        if os.path.samestat(os.stat(path), os.fstat(handle.fileno())):
            return handle
    except FileNotFoundError:
        pass
    except OSError as error:
        handle.close()
        if error.errno not in _LOCK_IS_HELD:
            raise storage_error("lock", path, error) from error
        raise RunConflictError(
            f"another process is working on {what} (lock {path}): "
            "wait for it, stop it, or choose another destination"
        ) from None
    handle.close()
    return None


@contextlib.contextmanager
def exclusive(path: Path, *, what: str) -> Iterator[None]:
    """Hold a lock file while the body runs; the system frees it when the process dies.

    The body may remove the file, so that nothing is left (not on Windows, where
    an open file stays).

    Raises
    ------
    RunConflictError
        When another process holds it.
    StorageError
        When the lock file cannot be made.
    """
    while (handle := _open_locked(path, what=what)) is None:
        pass
    with handle:
        yield


def is_held(path: Path) -> bool:
    """Tell whether a process holds a lock file now (`exclusive`), without keeping others out.

    Raises
    ------
    StorageError
        When the file system does not say.
    """
    looks = _LOOKS if sys.platform == "win32" else 1
    for look in range(looks):
        if look:
            time.sleep(_BETWEEN_LOOKS_S)
        try:
            with open(path, "r+b") as handle:
                _lock(handle, is_shared=True)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in _LOCK_IS_HELD:
                raise storage_error("look at", path, error) from error
        else:
            return False
    return True
