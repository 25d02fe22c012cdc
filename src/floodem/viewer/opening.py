"""From what a user names to a running viewer: addresses or volumes in, a `Viewer` out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from floodem.geometry import VoxelSize
from floodem.viewer.layers import Kind, Layer, guess_kind, unique_names
from floodem.viewer.server import USUAL_WINDOW_WH, Viewer
from floodem.volumes import open_volume
from floodem.volumes.volume import Volume


def view(
    *sources: str | Path | Volume,
    voxel_size: VoxelSize | None = None,
    port: int = 0,
    view_size_wh: tuple[int, int] = USUAL_WINDOW_WH,
) -> Viewer:
    """Show images and segmentations in Neuroglancer until the viewer is closed.

    Parameters
    ----------
    sources
        Addresses or open volumes. An address may begin with ``image=`` or
        ``segmentation=``; otherwise type and voxels tell how to show it.
    voxel_size
        In nanometres, for all; None for what the volumes state.
    port
        0 for any that is free.
    view_size_wh
        Width and height in pixels of the window to zoom for.

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
    """
    with ExitStack() as opened:
        layers = open_layers(sources, opened)
        viewer = Viewer(layers, voxel_size=voxel_size, port=port, view_size_wh=view_size_wh)
        viewer.when_closed.push(opened.pop_all())
    return viewer


def open_layers(sources: Sequence[str | Path | Volume], opened: ExitStack) -> list[Layer]:
    """Open what is given by address, to be closed by `opened`, and decide how to show each."""
    kinds: list[Kind | None] = []
    volumes: list[Volume] = []
    for source in sources:
        if isinstance(source, Volume):
            kind, volume = None, source
        else:
            kind, address = split_kind(str(source))
            volume = opened.enter_context(open_volume(address))
        kinds.append(kind)
        volumes.append(volume)
    names = unique_names([volume.uri for volume in volumes])
    return [
        Layer(volume, kind or guess_kind(volume), name, is_guess=kind is None)
        for volume, kind, name in zip(volumes, kinds, names, strict=True)
    ]


def split_kind(text: str) -> tuple[Kind | None, str]:
    """Split ``segmentation=ADDRESS`` or ``image=ADDRESS``; without either the kind is None."""
    for kind in Kind:
        if text.startswith(f"{kind}="):
            return kind, text.removeprefix(f"{kind}=")
    return None, text
