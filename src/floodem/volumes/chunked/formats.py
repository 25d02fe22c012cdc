"""The chunked formats, through tensorstore: zarr 2, zarr 3, n5 and Neuroglancer's precomputed.

A location comes in, a volume that reads and writes boxes (z, y, x) goes out. What
each format keeps is in `layouts`; opening, creating and the volume itself are in
`opening`, `creation` and `volume`.
"""

from __future__ import annotations

from floodem.volumes.chunked.access import folder_of
from floodem.volumes.chunked.creation import create_chunked
from floodem.volumes.chunked.layouts import LAYOUTS
from floodem.volumes.chunked.layouts.folder import Folder, local_folder
from floodem.volumes.chunked.opening import open_chunked
from floodem.volumes.registry import VolumeFormat


def _format(
    name: str, summary: str, *, extensions: tuple[str, ...], options: frozenset[str]
) -> VolumeFormat:
    layout = LAYOUTS[name]

    def is_volume(folder: Folder) -> bool:
        return layout.is_array(folder) or layout.is_group(folder)

    return VolumeFormat(
        name=name,
        summary=summary,
        extensions=extensions,
        holds_datasets=bool(extensions),
        options=options,
        reads_axes=True,
        reads_levels=True,
        remote="write",
        recognises=lambda path: is_volume(local_folder(path)),
        recognises_remote=lambda location: is_volume(folder_of(location)),
        open=lambda request: open_chunked(request, layout),
        create=lambda request: create_chunked(request, layout),
    )


ZARR = _format(
    "zarr",
    "zarr 2 array or OME-Zarr 0.4",
    extensions=(".zarr",),
    options=frozenset({"work", "is_shared", "levels", "channels"}),
)
ZARR3 = _format(
    "zarr3",
    "zarr 3 array or OME-Zarr 0.5",
    extensions=(".zarr3",),
    options=frozenset({"work", "is_shared", "levels", "channels", "shards"}),
)
N5 = _format(
    "n5",
    "n5 dataset or levels",
    extensions=(".n5",),
    options=frozenset({"work", "is_shared", "levels"}),
)
PRECOMPUTED = _format(
    "precomputed",
    "Neuroglancer precomputed",
    extensions=(),
    options=frozenset({"work", "is_shared", "levels", "channels", "shards", "encoding"}),
)
