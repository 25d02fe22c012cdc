"""The folder that the old documentation describes: a place comes in, the folder goes out.

`files/` is what is laid out: the scripts with the old names, the two request files,
requirements.txt, and a package ``ffn`` that old notebooks import. The repository's own
folder ``legacy/`` is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

from floodem.errors import StorageError
from floodem.files import replacing, storage_error

FOLDERS = (
    "images",
    "ground_truth",
    "images_for_inference",
    "preprocessed_files",
    "training_results",
    "inference_results",
    "models/fib25",
    "results/fib25",
    "third_party/neuroproof_examples/training_sample2",
    "third_party/neuroproof_examples/validation_sample",
)
"""Where the documented command lines read and write; empty at first."""

_COMPILED = "__pycache__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What became of the files.

    Attributes
    ----------
    written
        Those that are new.
    kept
        Those that were there with other contents, and still are.
    folders
        All documented folders.
    """

    written: tuple[Path, ...]
    kept: tuple[Path, ...]
    folders: tuple[Path, ...]


def lay_out(folder: Path) -> Layout:
    """Make the folder that the old documentation describes; nothing that is there changes.

    Raises
    ------
    StorageError
        When the file system refuses, or a file is where a folder should be.
    """
    contents = dict(laid_out_files())
    folders = tuple(folder / name for name in FOLDERS)
    written, kept = [], []
    for one in (folder, *folders, *(folder.joinpath(name).parent for name in contents)):
        _make(one)
    for name, data in contents.items():
        path = folder / name
        if not path.exists() and not path.is_symlink():
            with replacing(path) as partial:
                partial.write_bytes(data)
            written.append(path)
        elif not _holds(path, data):
            kept.append(path)
    return Layout(written=tuple(written), kept=tuple(kept), folders=folders)


def laid_out_files() -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield the files by their path in the folder, in order."""
    yield from _files(files(__package__) / "files", PurePosixPath())


def _files(folder: Traversable, place: PurePosixPath) -> Iterator[tuple[PurePosixPath, bytes]]:
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        if entry.is_dir() and entry.name != _COMPILED:
            yield from _files(entry, place / entry.name)
        elif entry.is_file():
            yield place / entry.name, entry.read_bytes()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise StorageError(
            f"{folder} cannot be made, because a file is in the way: give another folder"
        ) from error
    except OSError as error:
        raise storage_error("make", folder, error) from error


def _holds(path: Path, data: bytes) -> bool:
    """Tell whether a file has these contents; lines may end as Windows ends them."""
    try:
        return path.is_file() and path.read_bytes().replace(b"\r\n", b"\n") == data
    except OSError as error:
        raise storage_error("read", path, error) from error
