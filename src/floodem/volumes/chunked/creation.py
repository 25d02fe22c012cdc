"""New chunked stores: a request in, metadata files written, a volume of zeros to fill out.

All metadata of a new volume, those of its levels and of the group around them
included, are made before anything is written. A local store grows beside its
place (see `staging`), a remote one in place.
"""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from floodem.errors import FloodemError, StorageError
from floodem.files import storage_error
from floodem.volumes.chunked.access import (
    already_there,
    folder_of,
    inner_path,
    open_kvstore,
    sentence,
    tensorstore_module,
)
from floodem.volumes.chunked.layouts import LAYOUTS, Folder, Layout
from floodem.volumes.chunked.layouts.folder import local_folder
from floodem.volumes.chunked.layouts.layout import Documents
from floodem.volumes.chunked.opening import open_pyramid, pyramid_at
from floodem.volumes.location import Location
from floodem.volumes.registry import CreateRequest, OpenRequest
from floodem.volumes.servers.addresses import HTTP_SCHEMES, split_address
from floodem.volumes.servers.patience import insist, remote_refusals
from floodem.volumes.servers.transport import write_object
from floodem.volumes.staging import Staged
from floodem.volumes.volume import Volume


def create_chunked(request: CreateRequest, layout: Layout) -> Volume:
    """Create a volume of a format at a location.

    Raises
    ------
    FloodemError
        As `floodem.volumes.create_volume`.
    """
    documents = layout.documents(request)
    if request.location.is_remote:
        return _create_remote(request, layout, documents)
    return _create_local(request, layout, documents)


def _create_local(request: CreateRequest, layout: Layout, documents: Documents) -> Volume:
    uri = request.location.uri
    staged = Staged(
        Path(inner_path(request.location)),
        uri=uri,
        overwrite=request.overwrite,
        folder=True,
        work=request.work,
        objection=lambda folder: _objection(folder, layout),
    )
    try:
        folder = local_folder(staged.path)
        if staged.is_resumed and not _is_same(folder, documents):
            _empty(staged.path)
        _write_documents(str(staged.path), documents, is_remote=False)
        return _opened(folder, request, layout, staged=staged)
    except BaseException as error:
        staged.discard()
        if isinstance(error, FloodemError) or not isinstance(error, (ValueError, OSError)):
            raise
        raise sentence("write", uri, error) from error


def put_into_place(work: Path, location: Location, *, overwrite: bool) -> None:
    """Let a complete local store that grew elsewhere on the same disk become a volume's own.

    Raises
    ------
    DestinationExistsError
        When something is there and may not be replaced.
    StorageError
        When the file system refuses; what was there before is still there.
    """
    assert location.format is not None
    layout = LAYOUTS[location.format]
    Staged(
        Path(inner_path(location)),
        uri=location.uri,
        overwrite=overwrite,
        folder=True,
        work=work,
        objection=lambda folder: _objection(folder, layout),
    ).commit()


def empty_remote(location: Location) -> None:
    """Remove the volume at a remote address, of whatever chunked format, and nothing else.

    Raises
    ------
    StorageError
        When the server refuses.
    """
    assert location.format is not None
    folder = folder_of(location)
    store = open_kvstore(folder.path, is_remote=True)
    with remote_refusals("empty", location.uri):
        _delete_remote(folder, LAYOUTS[location.format], uri=location.uri)
        # What a group says of its levels, last, so that they are found until they are gone.
        for name in {each.metadata for each in LAYOUTS.values()} | {".zgroup", ".zattrs"}:
            insist(partial(store.write, name, None), address=location.uri, action="empty")


def _create_remote(request: CreateRequest, layout: Layout, documents: Documents) -> Volume:
    location = request.location
    if split_address(location.path)[0] in HTTP_SCHEMES:
        raise StorageError(
            f"{location.uri} cannot be written, because http addresses are for reading only: "
            "write to a local folder, gs:// or s3://"
        )
    folder = folder_of(location)
    path = inner_path(location)
    try:
        if request.overwrite:
            _delete_remote(folder, layout, uri=location.uri)
        _write_documents(
            path,
            documents,
            is_remote=True,
            uri=None if request.overwrite else location.uri,
            is_shared=request.is_shared,
        )
    except (ValueError, OSError) as error:
        if isinstance(error, FloodemError):
            raise
        raise sentence("write", location.uri, error) from error
    # A new look: what was there before has been replaced.
    return _opened(folder_of(location), request, layout, staged=None)


def _opened(
    folder: Folder, request: CreateRequest, layout: Layout, *, staged: Staged | None
) -> Volume:
    uri = request.location.uri
    pyramid = pyramid_at(folder, layout, uri=uri)
    assert pyramid is not None
    volume = open_pyramid(
        pyramid,
        OpenRequest(
            location=request.location,
            channel=0 if request.channels > 1 else None,
            writable=True,
        ),
        layout,
        staged=staged,
    )
    # What cannot be opened is found out now, not when the first level has been filled.
    assert len(volume.levels) == 1 + len(request.levels)
    return volume


def _write_documents(
    path: str,
    documents: Documents,
    *,
    is_remote: bool,
    uri: str | None = None,
    is_shared: bool = False,
) -> None:
    """Write metadata files; with a `uri` only where there are none, or (shared) the same."""
    store = open_kvstore(path, is_remote=is_remote)
    for name, document in documents.items():
        data = json.dumps(document).encode()
        if not is_remote:
            store.write(name, data).result()
        elif not write_object(store, name, data, only_new=uri is not None, address=path):
            there = insist(partial(store.read, name), address=path, action="read")
            if not (is_shared and there.state == "value" and there.value == data):
                raise already_there(uri or path)


def _delete_remote(folder: Folder, layout: Layout, *, uri: str) -> None:
    """Remove the arrays of the volume that is there, and nothing else."""
    there = next(
        (found for each in LAYOUTS.values() if (found := pyramid_at(folder, each, uri=uri))), None
    )
    ts: Any = tensorstore_module()
    for level in there.levels if there else ():
        store = open_kvstore(level.folder.path, is_remote=True)
        insist(
            partial(store.delete_range, ts.KvStore.KeyRange()),
            address=uri,
            action="empty",
        )


def _is_same(folder: Folder, documents: Documents) -> bool:
    """Tell whether a store was begun with the same metadata; those not yet written do not count."""
    return all(folder.json(name) in ({}, document) for name, document in documents.items())


def _empty(path: Path) -> None:
    try:
        shutil.rmtree(path)
        path.mkdir()
    except OSError as error:
        raise storage_error("empty", path, error) from error


def _objection(path: Path, layout: Layout) -> str | None:
    """Say why a folder may not be replaced by a volume."""
    folder = local_folder(path)
    for known in LAYOUTS.values():
        if known.is_array(folder) or _holds_levels_only(path, known):
            return None
    return f"is not a {layout.name} volume but a folder with other contents"


def _holds_levels_only(path: Path, layout: Layout) -> bool:
    """Tell whether a folder is a pyramid and every folder in it belongs to one of its levels."""
    folder = local_folder(path)
    if not layout.is_group(folder):
        return False
    try:
        pyramid = layout.pyramid(folder, uri=str(path))
    except FloodemError:
        return False
    if pyramid is None:
        return False
    levels = [level.folder for level in pyramid.levels]
    return all(
        any(level.is_same(local_folder(entry)) for level in levels)
        for entry in path.iterdir()
        if entry.is_dir()
    )
