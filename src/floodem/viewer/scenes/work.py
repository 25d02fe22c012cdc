"""The making of a scene in parts: each is computed beside the folder, once, and then put into it.

OUT.floodem/parts/KEY.json   receipt of a finished part: what it was made from, and its numbers
OUT.floodem/work/KEY/        a part that grows, with the records of the job that makes it
OUT.floodem/measures/NAME/   sizes of the objects of a segmentation
OUT.floodem/lock             one process at a time

A part is moved into OUT after its receipt is written: whoever finds the receipt and
not the part moves it, or makes it again. OUT itself holds finished parts only, and
no name of this machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from floodem.cluster.receipts import Receipts, identity_digest
from floodem.errors import DestinationExistsError, FloodemError, RunConflictError
from floodem.files import exclusive, making_folders, remove_partial_files, storage_error
from floodem.viewer.scenes.client import START
from floodem.viewer.scenes.scene import SCENE_FILE, is_scene, open_scene

RECORD_SUFFIX = ".floodem"
README = "README.txt"

_PARTS, _WORK, _MEASURES, _LOCK = "parts", "work", "measures", "lock"
_VOLUME = "volume-"
_OURS = (SCENE_FILE, START, README, "v")
"""What every scene may hold beside its volumes."""


class Workshop:
    """The folder of a scene and the record beside it.

    Parameters
    ----------
    folder
        Of the scene; made when its first part is finished.

    Attributes
    ----------
    folder, record
        Both absolute.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.abspath(folder))
        self.record = self.folder.with_name(f"{self.folder.name}{RECORD_SUFFIX}")

    @contextlib.contextmanager
    def hold(self, *, overwrite: bool) -> Iterator[None]:
        """Keep every other process off this scene; refuse what is in the way.

        Raises
        ------
        DestinationExistsError
            When the folder holds something else.
        RunConflictError
            When another process works on it.
        StorageError
            When the file system refuses.
        """
        for path in (self.folder, self.record):
            if path.exists() and not path.is_dir():
                raise DestinationExistsError(
                    f"{path} is a file, and the scene needs a folder of that name: move it away or "
                    "choose another destination"
                )
        self._require_ours(overwrite=overwrite)
        with making_folders(self.record), exclusive(self.record / _LOCK, what=str(self.folder)):
            with contextlib.suppress(OSError):
                remove_partial_files(self.folder)
            if overwrite:
                self._clear()
            yield

    def measures_place(self, name: str) -> Path:
        """Return the folder of what was measured in a segmentation."""
        return self.record / _MEASURES / name

    def volume_key(self, name: str) -> str:
        """Return the key of the part that is a volume."""
        return f"{_VOLUME}{name}"

    def part(
        self,
        key: str,
        *,
        identity: Mapping[str, Any],
        place: Path,
        make: Callable[[Path], Mapping[str, Any]],
        remedy: str = "",
    ) -> dict[str, Any]:
        """Make a part unless it is there, and put it into the scene.

        Parameters
        ----------
        key
            Its name among the parts.
        identity
            What it is made from, as plain values.
        place
            The folder it becomes.
        make
            Makes the part at a path, going on with what it finds there; returns numbers.
        remedy
            What else helps where the part was made from something else.

        Returns
        -------
        dict
            What `make` returned, now or earlier.

        Raises
        ------
        RunConflictError
            When the part was made from something else.
        DestinationExistsError
            When something that is no part of this scene is in its place.
        """
        found = self.require_part(key, identity=identity, place=place, remedy=remedy)
        if place.exists() and found is not None:
            return found
        receipts = Receipts(str(self.record / _PARTS), identity_digest(identity))
        work = self.record / _WORK / key
        try:
            work.parent.mkdir(parents=True, exist_ok=True)
            (self.record / _PARTS).mkdir(exist_ok=True)
            if found is None or not work.exists():
                found = dict(make(work))
                receipts.write(key, found)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(work, place)
        except FloodemError:
            raise
        except OSError as error:
            raise storage_error("write", place, error) from error
        return found

    def require_part(
        self, key: str, *, identity: Mapping[str, Any], place: Path, remedy: str = ""
    ) -> dict[str, Any] | None:
        """Refuse a part that cannot be made as `part` would; return what its making returned.

        Raises
        ------
        RunConflictError, DestinationExistsError
            As `part`.
        """
        receipts = Receipts(str(self.record / _PARTS), identity_digest(identity))
        try:
            found = receipts.read(key)
        except RunConflictError as error:
            raise RunConflictError(
                f"{self.folder}: its part {key} was made from other data or with other options: "
                f"repeat the earlier command to go on, {remedy}choose another folder, or begin "
                "again with --overwrite"
            ) from error
        if place.exists() and found is None:
            raise DestinationExistsError(
                f"{place} is there already, and was not made by this command: move it away, "
                "choose another folder, or begin again with --overwrite"
            )
        return found

    def remove_part(self, key: str, *, place: Path) -> None:
        """Take a part out of the scene that is no longer wanted.

        Raises
        ------
        StorageError
            When the file system refuses.
        """
        try:
            (self.record / _PARTS / f"{key}.json").unlink(missing_ok=True)
            if place.exists():
                shutil.rmtree(place)
        except OSError as error:
            raise storage_error("remove", place, error) from error

    def tidy(self) -> None:
        """Remove what only an unfinished scene needs; receipts stay."""
        shutil.rmtree(self.record / _WORK, ignore_errors=True)

    def _names(self) -> Sequence[str]:
        """Return the volumes that are known to be in the folder, by receipts or by its list."""
        parts = self.record / _PARTS
        names = [path.stem.removeprefix(_VOLUME) for path in parts.glob(f"{_VOLUME}*.json")]
        if is_scene(self.folder):
            with contextlib.suppress(FloodemError):
                names += list(open_scene(self.folder).layers)
        return sorted(set(names))

    def _require_ours(self, *, overwrite: bool) -> None:
        has_record = (self.record / _PARTS).is_dir()
        if has_record or not self.folder.exists():
            return
        try:
            first = next(self.folder.iterdir(), None)
        except OSError as error:
            raise storage_error("look at", self.folder, error) from error
        if first is None:
            return
        if not is_scene(self.folder):
            raise DestinationExistsError(
                f"{self.folder} holds something else ({first.name}): choose a new folder for the "
                "scene"
            )
        if not overwrite:
            raise DestinationExistsError(
                f"{self.folder} is a scene already, and its record {self.record} is gone: make it "
                "again with --overwrite, or choose another folder"
            )

    def _clear(self) -> None:
        """Remove what is known to be ours, the list first, so that no half scene opens."""
        names = self._names()
        try:
            for name in (*_OURS, *names):
                path = self.folder / name
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            for name in (_PARTS, _MEASURES, _WORK):
                if (self.record / name).exists():
                    shutil.rmtree(self.record / name)
        except OSError as error:
            raise storage_error("remove", self.folder, error) from error
