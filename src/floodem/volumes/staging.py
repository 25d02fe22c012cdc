"""Where a new volume stands while it is written: beside its place, under another name.

A final path comes in, a temporary one goes out; `Staged.commit` puts the
finished file or folder into place and `Staged.discard` leaves everything as it
was before.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from floodem.errors import DestinationExistsError, FloodemError, VolumeNotFoundError
from floodem.files import PARTIAL_SUFFIX, storage_error, sync_folder

_REPLACED_SUFFIX = ".replaced"
_numbers = itertools.count()

_AT_WORKING_FOLDER = -100
_EXCHANGE_CALL: dict[str, tuple[str, tuple[int, ...]]] = {
    "linux": ("renameat2", (_AT_WORKING_FOLDER,)),
    "darwin": ("renamex_np", ()),
}
_EXCHANGE_FLAG = 2
"""RENAME_EXCHANGE in linux/fs.h, RENAME_SWAP in macOS's sys/stdio.h."""


def require_no_destination(path: Path, *, uri: str) -> None:
    """Refuse to write where something is.

    Raises
    ------
    DestinationExistsError
        When the path exists.
    """
    if path.exists() or path.is_symlink():
        raise DestinationExistsError(
            f"{uri} exists already and was left as it is: "
            "choose another destination or --overwrite (overwrite=True)"
        )


def exchange(first: Path, second: Path) -> bool:
    """Let two paths change places in one step, so that there is always something at both.

    Returns
    -------
    bool
        False where the system or the file system cannot (Windows, many network
        file systems); nothing has happened then.
    """
    if sys.platform not in _EXCHANGE_CALL:
        return False
    name, before_each_path = _EXCHANGE_CALL[sys.platform]
    call = getattr(ctypes.CDLL(None), name, None)
    if call is None:
        return False
    arguments = []
    for path in (first, second):
        arguments += [*before_each_path, ctypes.c_char_p(os.fsencode(path))]
    return bool(call(*arguments, ctypes.c_uint(_EXCHANGE_FLAG)) == 0)


class Staged:
    """A file or folder in the making: empty at first, and so a test whether one may write here.

    Parameters
    ----------
    final
        Where it goes. Missing folders above it are made. A symbolic link is followed.
    uri
        What messages call it.
    overwrite
        Whether an existing file or folder may be replaced.
    folder
        Whether it is a folder.
    work
        Another place beside `final` for it to grow. What grows there stays when it is
        discarded, and a later `Staged` of the same place takes it up (`is_resumed`).
    objection
        Looks at an existing folder and says why it may not be replaced, or
        returns None. A folder may hold more than the volume of that name.
    """

    def __init__(
        self,
        final: Path,
        *,
        uri: str,
        overwrite: bool,
        folder: bool,
        work: Path | None = None,
        objection: Callable[[Path], str | None] | None = None,
    ) -> None:
        self.final = Path(os.path.realpath(final))
        self.uri = uri
        self._overwrite = overwrite
        self._folder = folder
        self._require_replaceable(objection)
        name = f".{self.final.name}.{os.getpid()}-{next(_numbers)}{PARTIAL_SUFFIX}"
        self.path = work or self.final.with_name(name)
        self._is_kept = work is not None
        self.is_resumed = work is not None and self.path.exists()
        self._made_folders = self._make_parents()
        try:
            if folder:
                self.path.mkdir(exist_ok=self._is_kept)
            else:
                self.path.touch(exist_ok=self._is_kept)
        except OSError as error:
            self._remove_made_folders()
            raise storage_error("write", self.final, error) from error

    def commit(self) -> None:
        """Put the finished volume into place.

        Raises
        ------
        DestinationExistsError
            When something appeared there meanwhile and may not be replaced.
        StorageError
            When the file system refuses; what was there before is still there.
        """
        try:
            if not self._overwrite:
                require_no_destination(self.final, uri=self.uri)
            if self._folder:
                self._swap_folder()
            else:
                with open(self.path, "rb+") as written:
                    os.fsync(written.fileno())
                os.replace(self.path, self.final)
            sync_folder(self.final.parent)
        except BaseException as error:
            self.discard()
            if isinstance(error, OSError) and not isinstance(error, FloodemError):
                raise storage_error("write", self.final, error) from error
            raise
        # After an exchange the replaced folder stands at the temporary place.
        self._remove()

    def discard(self) -> None:
        """Remove what is not finished, unless it grows in a place of its own."""
        if not self._is_kept:
            self._remove()

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            if self._folder:
                shutil.rmtree(self.path, ignore_errors=True)
            else:
                self.path.unlink(missing_ok=True)
        self._remove_made_folders()

    def _require_replaceable(self, objection: Callable[[Path], str | None] | None) -> None:
        final = self.final
        if not self._overwrite:
            require_no_destination(final, uri=self.uri)
        if not final.exists():
            return
        if final.is_dir() != self._folder:
            kind = "folder" if final.is_dir() else "file"
            raise DestinationExistsError(
                f"{self.uri} is a {kind} and was left as it is: choose another destination"
            )
        reason = objection(final) if objection and any(final.iterdir()) else None
        if reason:
            raise DestinationExistsError(
                f"{self.uri} was left as it is, because it {reason}: choose another destination"
            )

    def _make_parents(self) -> list[Path]:
        missing: list[Path] = []
        folder = self.final.parent
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        if not folder.is_dir():
            raise VolumeNotFoundError(
                f"{self.uri} cannot be made, because {folder} is a file, not a folder: "
                "check the address"
            )
        try:
            self.final.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error("write", self.final, error) from error
        return missing

    def _remove_made_folders(self) -> None:
        # Those with something in them stay: rmdir refuses.
        for folder in self._made_folders:
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _swap_folder(self) -> None:
        if not self.final.exists():
            self.path.rename(self.final)
            return
        if exchange(self.path, self.final):
            return
        old = self.path.with_suffix(_REPLACED_SUFFIX)
        self.final.rename(old)
        try:
            self.path.rename(self.final)
        except OSError:
            old.rename(self.final)
            raise
        shutil.rmtree(old, ignore_errors=True)
