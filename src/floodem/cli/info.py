"""``floodem info URI...``: addresses in, what is there as a short table or JSON out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from floodem.cli import options
from floodem.counting import counted

if TYPE_CHECKING:
    from floodem.geometry import Zyx
    from floodem.volumes.inspection.ids import IdCounts
    from floodem.volumes.inspection.info import Info, VolumeInfo

_MAX_ARRAYS_LISTED = 100
_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def info(
    uris: Annotated[
        list[str], typer.Argument(metavar="URI...", help="Volumes: paths or addresses.")
    ],
    *,
    ids: Annotated[
        bool | None,
        typer.Option(
            "--ids/--no-ids",
            help="Count ids, reading all voxels; by default of small local label volumes.",
            show_default=False,
        ),
    ] = None,
    channel: options.Channel = None,
    level: options.Level = 0,
    axes: options.Axes = None,
    threads: options.Threads = None,
    allow_external: options.AllowExternal = False,
    as_json: options.Json = False,
) -> None:
    """Say what a volume is: shape, voxel size, type, chunks, levels, size on disk.

    Files and folders with several volumes are listed. Several addresses are
    held against the first, as an image and its labels, or as volumes of one kind: the
    first thing that does not match is named.
    """
    from floodem.cli.progress import progress_bar
    from floodem.volumes.inspection.info import inspect, require_together

    wanted: dict[str, Any] = {
        "channel": channel,
        "level": level,
        "axes": axes,
        "allow_external": allow_external,
    }
    with progress_bar() as progress:
        found = [
            inspect(
                uri,
                **wanted,
                # The first of several is an image, perhaps, in which ids are not counted unasked.
                ids=None if ids and index == 0 and len(uris) > 1 else ids,
                threads=threads,
                progress=progress,
            )
            for index, uri in enumerate(uris)
        ]
    if as_json:
        plain = [one.to_dict() for one in found]
        print(json.dumps(plain[0] if len(plain) == 1 else plain, indent=2, allow_nan=False))
    else:
        for index, one in enumerate(found):
            print("\n" * bool(index), end="")
            print_info(one)
    if len(uris) > 1:
        sys.stdout.flush()  # what there is comes before what is wrong with it
        require_together(uris, **wanted)
        if not as_json:
            print("\nnumber, size, order and place of the sections match")


def print_info(found: Info) -> None:
    """Print one volume, or the arrays of a file that holds several."""
    print(found.uri)
    if found.volume is not None:
        for name, value in _rows(found, found.volume):
            print(f"  {name:11} {value}")
    _print_arrays(found)
    for notice in found.notices:
        print(f"note: {notice}")


def _rows(found: Info, volume: VolumeInfo) -> Iterator[tuple[str, str]]:
    storage = volume.storage
    encoding = f", {storage.encoding}" if storage.encoding else ""
    yield "format", f"{found.format}{encoding}"
    if volume.dataset:
        yield "dataset", volume.dataset
    yield "shape", f"{times(volume.box.shape)} (z,y,x)"
    kind = "" if volume.kind is None else f", {volume.kind}"
    yield "type", f"{volume.dtype}{kind}"
    yield (
        "voxel size",
        "unknown" if volume.voxel_size is None else f"{volume.voxel_size} nm (z,y,x)",
    )
    yield "offset", f"{','.join(str(at) for at in volume.box.start)} (z,y,x)"
    if storage.axes not in {None, "zyx"} and storage.stored_shape:
        yield "stored as", f"{times(storage.stored_shape)} ({','.join(storage.axes or '')})"
    yield "chunks", times(storage.chunks or volume.chunks)
    if storage.shards:
        yield "shards", times(storage.shards)
    if len(volume.levels) > 1:
        for number, level in enumerate(volume.levels):
            size = "" if level.voxel_size is None else f" at {level.voxel_size} nm"
            yield f"level {number}", f"{times(level.shape)}{size}"
    yield "size", _size(volume)
    if volume.ids is not None:
        yield "ids", _ids(volume.ids)


def _size(volume: VolumeInfo) -> str:
    unpacked, on_disk = volume.bytes_unpacked, volume.storage.bytes_on_disk
    if on_disk is None:
        return f"{bytes_text(unpacked)} unpacked, unknown on disk"
    share = f" ({on_disk / unpacked:.0%})"
    return f"{bytes_text(unpacked)} unpacked, {bytes_text(on_disk)} on disk{share}"


def _ids(ids: IdCounts) -> str:
    background = f"background {ids.background_fraction:.1%}"
    if not ids.number:
        return f"none, {background}"
    share = ids.largest_object_voxels / ids.voxels
    return (
        f"{ids.number:,} from {ids.smallest} to {ids.largest}, {background}; most voxels: "
        f"{ids.largest_object} with {ids.largest_object_voxels:,} ({share:.1%})"
    )


def _print_arrays(found: Info) -> None:
    others = found.arrays if found.volume is None or len(found.arrays) > 1 else ()
    if not others:
        return
    name = max(len(array.name) for array in others)
    shape = max(len(times(array.shape)) for array in others)
    heading = "holds" if found.volume is None else "holds, in all,"
    print(f"  {heading} {counted(len(others), 'array')} ({found.format})")
    for array in others[:_MAX_ARRAYS_LISTED]:
        print(f"    {array.name:{name}}  {times(array.shape):{shape}}  {array.dtype}")
    if len(others) > _MAX_ARRAYS_LISTED:
        print(f"    and {len(others) - _MAX_ARRAYS_LISTED} more")
    if found.volume is None:
        print(f"  name one to see more of it: floodem info {found.uri}@{others[0].name}")


def times(lengths: Zyx | tuple[int, ...]) -> str:
    """Write lengths as a product: 100 x 384 x 512."""
    return " x ".join(str(length) for length in lengths) or "one value"


def bytes_text(count: int) -> str:
    """Write a number of bytes with three digits and a unit."""
    for scale, unit in _UNITS:
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return counted(count, "byte")
