"""What tests of stopped conversions share: formats that go on, and all that a copy consists of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from floodem.geometry import Zyx
from volume_cases import CASES, Case

CHUNKED = tuple(
    case
    for case in CASES
    if case.name
    in {
        "zarr",
        "zarr-inside",
        "zarr3",
        "ome-zarr-0.4",
        "ome-zarr-0.5",
        "zarr3-sharded",
        "n5",
        "precomputed",
        "precomputed-sharded",
    }
)
RESUMABLE = (*CHUNKED, *(case for case in CASES if case.name in {"png", "tiff"}))
WHOLE = tuple(
    case
    for case in CASES
    if case.name in {"hdf5", "npz", "npy", "tiff-pages", "nifti", "nifti-gz", "mrc"}
)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but for the records of conversions."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".floodem/" not in path.as_posix()
    }


def options_for(case: Case, chunks: Zyx = (2, 3, 4)) -> dict:
    """Chunks for chunked formats."""
    return {"chunks": chunks, **case.extra} if case in CHUNKED else {}


class After:
    """Says stop after so many questions."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def uris(folder: Path, case: Case) -> tuple[str, Path]:
    """Return the address of a case in a folder of its own, and where its record goes."""
    uri = case.uri(folder)
    path = uri.removeprefix(case.prefix)
    return uri, Path(f"{path}.floodem")


Stop = Callable[[], bool]
