"""The chunked formats by name, and how arrays are found in a folder of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from floodem.volumes.chunked.layouts.folder import Folder, local_folder
from floodem.volumes.chunked.layouts.layout import Layout, Level, Meaning, Pyramid
from floodem.volumes.chunked.layouts.n5 import N5
from floodem.volumes.chunked.layouts.precomputed import Precomputed
from floodem.volumes.chunked.layouts.zarr2 import Zarr2
from floodem.volumes.chunked.layouts.zarr3 import Zarr3

__all__ = ["LAYOUTS", "Folder", "Layout", "Level", "Meaning", "Pyramid", "arrays_inside"]

LAYOUTS: dict[str, Layout] = {
    layout.name: layout for layout in (Zarr2(), Zarr3(), N5(), Precomputed())
}

# Groups nested deeper are not looked through to name the arrays there are.
_MAX_GROUP_DEPTH = 8


def arrays_inside(path: Path, layout: Layout) -> list[str]:
    """List the arrays and pyramids of a format below a local folder, by path inside it."""
    if not path.is_dir():
        return []
    return ["/".join(names) for names in _walk(path, layout, names=())]


def _walk(at: Path, layout: Layout, *, names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    folder = local_folder(at)
    if layout.is_array(folder) or (names and layout.is_pyramid(folder)):
        yield names
    elif len(names) < _MAX_GROUP_DEPTH and (not names or layout.may_hold_arrays(folder)):
        for entry in sorted(at.iterdir()):
            if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith("."):
                yield from _walk(entry, layout, names=(*names, entry.name))
