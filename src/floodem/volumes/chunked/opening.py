"""Opening chunked stores: a request in, a volume with its levels out.

Which folder holds which arrays is asked of `layouts`; here they are opened, their
axes brought into the order z, y, x, and what they declare is held against memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from floodem.errors import (
    FloodemError,
    OptionError,
    UnsafeFileError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.geometry import FARTHEST_POSITION, Zyx
from floodem.memory import available_memory
from floodem.volumes.axes import SPATIAL, Arrangement, arrange, turned
from floodem.volumes.chunked.access import folder_of, is_absence, open_array, sentence
from floodem.volumes.chunked.layouts import (
    LAYOUTS,
    Folder,
    Layout,
    Level,
    Meaning,
    Pyramid,
    arrays_inside,
)
from floodem.volumes.chunked.volume import ChunkedVolume
from floodem.volumes.declared import native_dtype, size_in_bytes
from floodem.volumes.description import Description
from floodem.volumes.registry import OpenRequest
from floodem.volumes.servers.addresses import without_secrets
from floodem.volumes.staging import Staged
from floodem.volumes.volume import Volume

if TYPE_CHECKING:
    import tensorstore

# An array of an OME-Zarr lies one or two folders below its group.
_MAX_FOLDERS_UP = 2
_MAX_NAMES_LISTED = 12
# Of numbers with hundreds of digits the first ones say enough.
_LONGEST_NUMBERS = 60


def open_chunked(request: OpenRequest, layout: Layout) -> Volume:
    """Open the volume of a format at a location.

    Raises
    ------
    FloodemError
        As `floodem.volumes.open_volume`.
    """
    location = request.location
    pyramid = _find(request, layout)
    if request.level >= len(pyramid.levels):
        raise OptionError(
            f"{location.uri} has no level {request.level}: it has {len(pyramid.levels)}, counted "
            "from 0, the finest"
        )
    return open_pyramid(pyramid, request, layout)


def open_pyramid(
    pyramid: Pyramid, request: OpenRequest, layout: Layout, *, staged: Staged | None = None
) -> ChunkedVolume:
    """Open one level of a pyramid; the others when they are asked for."""

    def open_all(opened: Volume) -> tuple[Volume, ...]:
        around: list[Volume] = []
        for at, level in enumerate(pyramid.levels):
            if at == request.level:
                around.append(opened)
                continue
            around.append(
                _open_level(
                    level,
                    request,
                    layout,
                    uri=f"{request.location.uri} (level {at})",
                    missing=_missing_level(at, level, request=request, layout=layout),
                    open_levels=lambda _: opened.levels,
                    owns_levels=False,
                )
            )
        return tuple(around)

    level = pyramid.levels[request.level]
    has_others = len(pyramid.levels) > 1
    uri = request.location.uri
    return _open_level(
        level,
        request,
        layout,
        uri=uri,
        missing=f"{uri} is not there: this address has no {layout.name} volume; check it"
        if level.describe is None and not has_others
        else _missing_level(request.level, level, request=request, layout=layout),
        open_levels=open_all if has_others else None,
        staged=staged,
    )


def _missing_level(at: int, level: Level, *, request: OpenRequest, layout: Layout) -> str:
    return (
        f"level {at} of {request.location.uri} is missing: {without_secrets(level.folder.path)} "
        f"is no {layout.name} array; copy the volume again, or open another level (--level, in "
        "Python level=)"
    )


def _find(request: OpenRequest, layout: Layout) -> Pyramid:
    """Find the array or pyramid at a location, which may lie in a group."""
    location = request.location
    folder = folder_of(location)
    found = pyramid_at(folder, layout, uri=location.uri)
    if found is not None:
        return found
    _refuse_other_layout(request, folder, layout)
    if location.is_remote:
        # Nothing can be listed; tensorstore says why nothing can be opened.
        return Pyramid((Level(folder=folder),))
    inside = arrays_inside(Path(location.path), layout)
    if location.dataset is None and len(inside) == 1:
        only = pyramid_at(folder.child(inside[0]), layout, uri=location.uri)
        assert only is not None
        return only
    listed = ", ".join(inside[:_MAX_NAMES_LISTED]) or "no arrays"
    if len(inside) > _MAX_NAMES_LISTED:
        listed += f" and {len(inside) - _MAX_NAMES_LISTED} more"
    if location.dataset is not None or not inside:
        raise VolumeNotFoundError(
            f"{location.uri} is no {layout.name} array; {location.path} holds {listed}"
        )
    raise VolumeFormatError(
        f"{location.uri} holds {listed}: name one, as in {location.uri}@{inside[0]}"
    )


def pyramid_at(folder: Folder, layout: Layout, *, uri: str) -> Pyramid | None:
    """Return the levels of what a folder itself is: an array has one.

    Raises
    ------
    VolumeFormatError
        When a group's metadata are damaged.
    """
    is_array = layout.is_array(folder)
    found = layout.pyramid(folder, uri=uri)
    if found is not None or not is_array:
        return found
    return Pyramid((Level(folder=folder),))


def _refuse_other_layout(request: OpenRequest, folder: Folder, layout: Layout) -> None:
    uri = request.location.uri
    for other in LAYOUTS.values():
        if other is not layout and (other.is_array(folder) or other.is_pyramid(folder)):
            raise VolumeFormatError(
                f"{uri} is a {other.name} volume, not {layout.name}: "
                f"open it as {other.name}://{without_secrets(folder.path)}"
            )


def _open_level(
    level: Level,
    request: OpenRequest,
    layout: Layout,
    *,
    uri: str,
    missing: str,
    **facts: Any,
) -> ChunkedVolume:
    """Open one array of a pyramid; `missing` is the sentence for its absence."""
    location = request.location
    if level.folder.is_damaged(layout.metadata):
        # Deep nesting, for one, would end the process in tensorstore.
        raise VolumeFormatError(
            f"cannot open {uri}: its {layout.metadata} is no readable JSON object; the volume is "
            "damaged or of another format"
        )
    spec = {"driver": layout.driver, **layout.spec(level)}
    try:
        if request.stores_background:
            spec["store_data_equal_to_fill_value"] = True
        store = open_array(level.folder.path, spec, location=location, writable=request.writable)
        own = layout.meaning(store, level.folder, uri=uri)
    except FloodemError:
        raise
    except (ValueError, OSError) as error:
        if is_absence(error):
            raise VolumeNotFoundError(missing) from error
        raise sentence("open", uri, error) from error
    if own.description is None and level.describe is None:
        level = _enclosing(level, layout, uri=uri)
    return _volume(store, level, own, request=request, layout=layout, uri=uri, **facts)


def _enclosing(level: Level, layout: Layout, *, uri: str) -> Level:
    """Find the group around an array that says where it lies."""
    above = level.folder
    for _ in range(_MAX_FOLDERS_UP):
        if above.parent is None:
            break
        above = above.parent
        pyramid = layout.pyramid(above, uri=uri)
        for known in pyramid.levels if pyramid else ():
            if known.folder.is_same(level.folder):
                return known
    return level


def _volume(
    store: tensorstore.TensorStore,
    level: Level,
    own: Meaning,
    *,
    request: OpenRequest,
    layout: Layout,
    uri: str,
    **facts: Any,
) -> ChunkedVolume:
    declared = level.axes or own.axes
    arrangement = _arrange(store.shape, declared, request=request, layout=layout, uri=uri)
    description, notices = own.description, [*own.notices]
    if description is None and level.describe is not None:
        notices += level.notices
        description = level.describe(notices)
    description = description or Description()
    names = declared or layout.usual_axes.get(len(store.shape), SPATIAL)
    believed = "".join(letter for letter in names if letter in SPATIAL)
    if len(believed) == len(SPATIAL):
        description = turned(description, arrangement, believed=believed)
    _require_near(description.offset, arrangement.shape, uri=uri)
    every = slice(None)
    view = store[arrangement.index((every, every, every))].transpose(list(arrangement.order))
    dtype = native_dtype(np.dtype(view.dtype.numpy_dtype), uri=uri)
    chunks = _chunks(view, dtype, writable=request.writable, uri=uri)
    return ChunkedVolume(
        view.translate_to[description.offset],
        uri=uri,
        shape=arrangement.shape,
        dtype=dtype,
        chunks=chunks,
        description=description,
        notices=tuple(notices),
        writable=request.writable,
        is_remote=request.location.is_remote,
        **facts,
    )


def _arrange(
    shape: Sequence[int], declared: str | None, *, request: OpenRequest, layout: Layout, uri: str
) -> Arrangement:
    asked = request.axes
    if asked is not None and declared is not None and len(shape) == len(asked) + 1:
        # Precomputed volumes have a channel axis even where there is one channel.
        asked += "c" if declared.endswith("c") and "c" not in asked else ""
    if asked is None and declared is not None and not set(SPATIAL) <= set(declared):
        raise VolumeFormatError(
            f"{uri} has the axes {', '.join(declared)}, and a volume needs z, y and x: name them "
            "as they are to be taken (--axes, in Python axes=)"
        )
    return arrange(
        shape,
        uri=uri,
        channel=request.channel,
        asked=asked,
        declared=declared or layout.usual_axes.get(len(shape)),
    )


def _require_near(offset: Zyx, shape: Zyx, *, uri: str) -> None:
    if any(abs(at) + size > FARTHEST_POSITION for at, size in zip(offset, shape, strict=True)):
        raise VolumeFormatError(
            f"{uri} declares the offset {str(offset)[:_LONGEST_NUMBERS]} and the shape {shape} "
            f"(z,y,x), which reach beyond {FARTHEST_POSITION} voxels: correct its metadata"
        )


def _chunks(
    view: tensorstore.TensorStore, dtype: np.dtype[Any], *, writable: bool, uri: str
) -> Zyx:
    """Return what may be written alone, or for a volume only to be read what is cheap to read.

    The two differ in sharded stores, whose shards are written whole.
    """
    layout = view.chunk_layout
    z, y, x = view.shape
    declared = (layout.write_chunk if writable else layout.read_chunk).shape or (z, y, x)
    chunks = (declared[0] or z, declared[1] or y, declared[2] or x)
    available = available_memory()
    size = size_in_bytes(chunks, dtype)
    if available is not None and size > available:
        raise UnsafeFileError(
            f"{uri} declares chunks of {chunks} voxels (z,y,x), {size / 1e9:.3g} GB each, "
            f"where {available / 1e9:.3g} GB of memory are free: the file is damaged, made to "
            "exhaust memory, or for a larger machine"
        )
    return chunks
