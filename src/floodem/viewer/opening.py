"""From what a user names to a running viewer: addresses or volumes in, a `Viewer` out."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from floodem.errors import OptionError
from floodem.geometry import VoxelSize
from floodem.viewer.addresses import Address, is_mesh_file, parse_address, with_format
from floodem.viewer.first_look import AnyLayer, Look
from floodem.viewer.layers import (
    MESHES_AT_FIRST,
    Kind,
    Layer,
    RemoteLayer,
    guess_kind,
    unique_names,
)
from floodem.viewer.notebook import HEIGHT_PX
from floodem.viewer.object_folders import ShapeFolder, find_shapes, shapes_of_volume, share_out
from floodem.viewer.probing import Probe, probe, probe_format
from floodem.viewer.running import LOCAL_ONLY, USUAL_WINDOW_WH, Viewer
from floodem.viewer.scenes.scene import Scene, is_scene, open_scene
from floodem.viewer.shape_extent import extent_of
from floodem.volumes import open_volume
from floodem.volumes.in_memory import ArrayVolume
from floodem.volumes.location import parse_location
from floodem.volumes.volume import Array, Volume

if TYPE_CHECKING:
    from floodem.network.model_file import Model

Source = str | Path | Volume | Array


def view(
    *sources: Source,
    image: Source | Sequence[Source] = (),
    segmentation: Source | Sequence[Source] = (),
    meshes: Sequence[str | Path] = (),
    skeletons: Sequence[str | Path] = (),
    voxel_size: VoxelSize | Sequence[float] | None = None,
    port: int = 0,
    host: str = LOCAL_ONLY,
    view_size_wh: tuple[int, int] = USUAL_WINDOW_WH,
    look: Look | None = None,
    height_px: int = HEIGHT_PX,
    open_browser: bool = False,
    model: str | Path | Model | None = None,
    keep: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> Viewer:
    """Show images, segmentations and scenes in Neuroglancer until the viewer is closed.

    In a notebook the result shows itself below the cell; a script opens its `address`.

    Parameters
    ----------
    sources
        Addresses, open volumes or arrays (z, y, x). An address may begin with ``image=``
        or ``segmentation=``; otherwise type and voxels tell how to show it. It may be a
        scene's folder, and on servers whatever the client reads: precomputed, zarr, n5,
        NIfTI over http, DVID (``dvid://``), BossDB (``boss://``), Render (``render://``).
    image, segmentation
        The same, shown as such.
    meshes, skeletons
        Folders in Neuroglancer's format as ``floodem mesh`` and ``floodem skeletonize``
        write them, or their addresses: of the one segmentation, or one for each in the
        same order.
    voxel_size
        In nanometres (z, y, x), for all; None for what the volumes state.
    port
        0 for any that is free.
    host
        Address to listen at. Beyond 127.0.0.1 everyone who has the viewer's address can
        read what it shows.
    view_size_wh
        Width and height in pixels of the window to zoom for.
    look
        What to show first, where it is not what would be chosen.
    height_px
        Of the frame in a notebook.
    open_browser
        Open the address in this machine's browser.
    model
        A network (file, name, or loaded), which then floods the first image where the user
        clicks, see `floodem.viewer.clicking.ClickToFlood`.
    keep
        Where such floods are kept; by default a zarr in this folder, named after the image.
    device, dtype
        What the network computes on and in, see `floodem.network.device`.

    Returns
    -------
    viewer
        Its `address` is to be opened in a browser of this machine. Closing it
        also closes the volumes that were given by address.

    Raises
    ------
    VolumeNotFoundError, VolumeFormatError, StorageError
        When an address cannot be opened.
    DependencyError, LabelError, OptionError, UsageError
        See `Viewer`.

    Examples
    --------
    >>> import floodem
    >>> viewer = floodem.view("em.h5@raw", "seg.npz", voxel_size=(30, 6, 6))  # doctest: +SKIP
    """
    if keep is not None and model is None:
        raise OptionError(f"keep {str(keep)!r} is for floods: give the network as well, model=...")
    for option, value in (("device", device), ("dtype", dtype)):
        if model is None and value != "auto":
            raise OptionError(f"{option} {value!r} is for a network: give one as well, model=...")
    asked: list[tuple[Kind | None, Source]] = [(None, source) for source in sources]
    asked += [(Kind.IMAGE, source) for source in _several(image)]
    asked += [(Kind.SEGMENTATION, source) for source in _several(segmentation)]
    edges = _voxel_size(voxel_size)
    with ExitStack() as opened:
        layers = open_layers(asked, opened, shapes=(meshes, skeletons))
        viewer = Viewer(
            layers,
            voxel_size=edges,
            port=port,
            host=host,
            view_size_wh=view_size_wh,
            look=look,
            height_px=height_px,
        )
        viewer.when_closed.push(opened.pop_all())
    if model is not None:
        try:
            _flood_on_click(
                viewer, model=model, keep=keep, device=device, dtype=dtype, voxel_size=edges
            )
        except BaseException:
            viewer.close()
            raise
    if open_browser:
        webbrowser.open(viewer.address)
    return viewer


def _flood_on_click(
    viewer: Viewer,
    *,
    model: str | Path | Model,
    keep: str | Path | None,
    device: str,
    dtype: str,
    voxel_size: VoxelSize | None,
) -> None:
    from floodem.flooding.request import SegmentRequest
    from floodem.viewer.clicking import flood_on_click

    request = SegmentRequest(device=device, dtype=dtype)
    flood_on_click(viewer, model=model, keep=keep, request=request, voxel_size=voxel_size)


def open_layers(
    asked: Sequence[tuple[Kind | None, Source]],
    opened: ExitStack,
    *,
    shapes: Sequence[Sequence[str | Path]] = (),
) -> list[AnyLayer]:
    """Open what is given by address, to be closed by `opened`, and decide how to show each.

    Parameters
    ----------
    asked
        How to show each, None where that is to be told, and what it is.
    shapes
        Groups of folders or addresses; of each group every segmentation has one.
    """
    layers = [_open(kind, source, opened) for kind, source in asked]
    scenes = [layer for layer in layers if isinstance(layer, Scene)]
    volumes = [layer for layer in layers if not isinstance(layer, Scene)]
    for group in shapes:
        volumes = _with_shapes(volumes, [_shape_sources(one) for one in group])
    taken = [name for scene in scenes for name in scene.layers]
    names = unique_names([*taken, *(layer.name for layer in volumes)])[len(taken) :]
    named = [replace(layer, name=name) for layer, name in zip(volumes, names, strict=True)]
    return [*scenes, *named]


def split_kind(text: str) -> tuple[Kind | None, str]:
    """Split ``segmentation=ADDRESS`` or ``image=ADDRESS``; without either the kind is None."""
    for kind in Kind:
        if text.startswith(f"{kind}="):
            return kind, text.removeprefix(f"{kind}=")
    return None, text


def _several(sources: Source | Sequence[Source]) -> list[Source]:
    if isinstance(sources, str | Path | Volume | np.ndarray):
        return [sources]
    return list(sources)


def _voxel_size(given: VoxelSize | Sequence[float] | None) -> VoxelSize | None:
    if given is None or isinstance(given, VoxelSize):
        return given
    if len(given) != 3:
        raise OptionError(
            f"voxel size {tuple(given)} is no z,y,x: give three numbers in nanometres"
        )
    z, y, x = given
    return VoxelSize(z, y, x)


def _open(kind: Kind | None, source: Source, opened: ExitStack) -> AnyLayer:
    if isinstance(source, np.ndarray):
        layer = _layer(kind, ArrayVolume(source), "")
        return replace(layer, name=layer.kind.value)
    if isinstance(source, Volume):
        return _layer(kind, source, unique_names([source.uri])[0])
    said, text = split_kind(str(source))
    kind = kind or said
    if "://" not in text and is_scene(text):
        return open_scene(text)
    address = parse_address(text)
    if address.is_open:
        found = probe_format(address.volume or "")
        address = address if found is None else with_format(address, found)
    if address.client is None:
        return _served(kind, address, opened)
    if is_mesh_file(address):
        return RemoteLayer(source=address.client, name=address.name, is_mesh=True)
    probed = Probe(kind=kind) if address.volume is None else probe(address.volume, kind=kind)
    if probed.better is not None:
        return _served(kind, replace(address, volume=probed.better), opened)
    return RemoteLayer(
        source=address.client,
        name=address.name,
        kind=probed.kind,
        box=probed.box,
        voxel_size=probed.voxel_size,
        shown_range=probed.shown_range,
    )


def _served(kind: Kind | None, address: Address, opened: ExitStack) -> Layer:
    assert address.volume is not None
    volume = opened.enter_context(open_volume(address.volume))
    layer = _layer(kind, volume, address.name)
    own = _own_shapes(address) if layer.kind is Kind.SEGMENTATION else ()
    return replace(layer, public=address.public, shapes=own)


def _layer(kind: Kind | None, volume: Volume, name: str) -> Layer:
    return Layer(volume, kind or guess_kind(volume), name, is_guess=kind is None)


def _own_shapes(address: Address) -> tuple[ShapeFolder, ...]:
    """Return the meshes and skeletons that a local precomputed segmentation names."""
    location = parse_location(address.volume or "")
    if location.is_remote or location.format != "precomputed":
        return ()
    return tuple(shapes_of_volume(location.local))


def _shape_sources(given: str | Path) -> tuple[ShapeFolder | str, ...]:
    """Return what the client reads of a folder, or of an address, of shapes."""
    text = str(given)
    if "://" not in text:
        return tuple(find_shapes(Path(text)))
    address = parse_address(text)
    if address.client is None:
        raise OptionError(
            f"{address.text} is no address of shapes that a browser can read: give a folder, or "
            "an address like precomputed://https://HOST/PATH"
        )
    return (address.client,)


def _with_shapes(
    layers: Sequence[Layer | RemoteLayer], groups: Sequence[tuple[ShapeFolder | str, ...]]
) -> list[Layer | RemoteLayer]:
    """Give the segmentations their shapes; without any these are a layer by themselves."""
    if not groups:
        return list(layers)
    owners = [layer for layer in layers if layer.kind is Kind.SEGMENTATION]
    if not owners:
        return [*layers, _shapes_alone([one for group in groups for one in group])]
    shared = dict(zip(owners, share_out(groups, among=len(owners)), strict=True))
    return [replace(layer, shapes=(*layer.shapes, *shared.get(layer, ()))) for layer in layers]


def _shapes_alone(shapes: Sequence[ShapeFolder | str]) -> RemoteLayer:
    """Make a layer of shapes that belong to no volume, with a few of them to begin with."""
    folders = [one for one in shapes if isinstance(one, ShapeFolder)]
    extents = (extent_of(folder, count=MESHES_AT_FIRST) for folder in folders)
    found = next((extent for extent in extents if extent is not None), None)
    return RemoteLayer(
        source=shapes[0],
        name=_shape_name(shapes[0]),
        kind=Kind.SEGMENTATION,
        shapes=tuple(shapes[1:]),
        box=None if found is None else found.box_nm,
        voxel_size=None if found is None else VoxelSize(1, 1, 1),
        selected=() if found is None else found.ids,
    )


def _shape_name(source: ShapeFolder | str) -> str:
    return source.path.name if isinstance(source, ShapeFolder) else parse_address(source).name
