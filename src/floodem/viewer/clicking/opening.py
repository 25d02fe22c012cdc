"""From a running viewer to one that floods: its layers and a network in, `ClickToFlood` out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from floodem.errors import FloodemError, OptionError
from floodem.flooding.kept import default_destination
from floodem.flooding.request import SegmentRequest
from floodem.geometry import VoxelSize
from floodem.viewer.addresses import parse_address
from floodem.viewer.clicking.click_to_flood import ClickToFlood
from floodem.viewer.clicking.flood_line import Obstacle
from floodem.viewer.layers import Kind, Layer, RemoteLayer
from floodem.volumes import open_volume
from floodem.volumes.volume import Volume

if TYPE_CHECKING:
    from floodem.network.model_file import Model
    from floodem.viewer.running import Viewer


def flood_on_click(
    viewer: Viewer,
    *,
    model: str | Path | Model,
    keep: str | Path | None = None,
    request: SegmentRequest | None = None,
    voxel_size: VoxelSize | None = None,
) -> ClickToFlood:
    """Let the first image of a viewer be flooded where the user clicks, until the viewer closes.

    Parameters
    ----------
    viewer
        Running. Its segmentations are not entered by floods.
    model
        Model file, name, or loaded model.
    keep
        Where floods are kept; by default a zarr in this folder, named after the image.
    request
        Options, device and number format of the floods.
    voxel_size
        In nanometres, instead of what the image states.

    Returns
    -------
    clicking
        It closes with the viewer. What is worth knowing is added to the viewer's notes.

    Raises
    ------
    OptionError
        When there is no image.
    FloodemError
        See `ClickToFlood`.
    """
    with ExitStack() as opened:
        image = _image(viewer.layers, opened)
        obstacles, unseen = _obstacles(viewer.layers, opened)
        destination = default_destination(image.uri) if keep is None else keep
        clicking = ClickToFlood(
            viewer.client,
            image,
            model=model,
            keep=destination,
            obstacles=obstacles,
            request=request,
            voxel_size=voxel_size,
        )
        opened.callback(clicking.close)
        viewer.when_closed.push(opened.pop_all())
    viewer.notes += (f"floods that you keep go to {destination}", *unseen, *clicking.notes)
    return clicking


def _image(layers: Sequence[object], opened: ExitStack) -> Volume:
    """Return the first image of the layers."""
    for layer in layers:
        if isinstance(layer, Layer | RemoteLayer) and layer.kind is Kind.IMAGE:
            volume = _volume(layer, opened)
            if volume is not None:
                return volume
    raise OptionError(
        "there is no image that could be flooded: give one that floodem opens, for example "
        "floodem view image=em.h5 --model fib25"
    )


def _obstacles(
    layers: Sequence[object], opened: ExitStack
) -> tuple[list[Obstacle], tuple[str, ...]]:
    """Return the segmentations that floods can see, and sentences about the others."""
    found, unseen = [], []
    for layer in layers:
        if isinstance(layer, Layer | RemoteLayer) and layer.kind is Kind.SEGMENTATION:
            volume = _volume(layer, opened)
            if volume is not None:
                found.append(Obstacle(name=layer.name, volume=volume))
            else:
                unseen.append(f"only the browser can read {layer.name}: floods do not see it")
    return found, tuple(unseen)


def _volume(layer: Layer | RemoteLayer, opened: ExitStack) -> Volume | None:
    """Return the volume of a layer, opened here where the browser reads it by itself."""
    if isinstance(layer, Layer):
        return layer.volume
    if not isinstance(layer.source, str) or layer.is_mesh:
        return None
    try:
        address = parse_address(layer.source).volume
        return None if address is None else opened.enter_context(open_volume(address))
    except FloodemError:
        return None  # whoever called says that it cannot be seen
