"""A running viewer: layers in, an address on this machine out.

Neuroglancer's own server and built client run in this process, bound to
127.0.0.1, with a random token in the address; nothing is fetched from elsewhere.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from floodem.errors import DependencyError, OptionError, UsageError
from floodem.geometry import VoxelSize
from floodem.viewer.layers import MESH_VOXELS, Kind, Layer
from floodem.viewer.scene import Frame, fill

LOCAL_ONLY = "127.0.0.1"
USUAL_WINDOW_WH = (1400, 900)


class Viewer:
    """Layers shown in Neuroglancer until `close`.

    Parameters
    ----------
    layers
        What to show, at least one; names differ. The volumes stay open as long
        as the viewer runs.
    voxel_size
        In nanometres, for all layers; None for what the volumes state.
    port
        0 for any that is free.
    view_size_wh
        Width and height in pixels of the window to zoom for.

    Attributes
    ----------
    address
        What to open in a browser of this machine.
    notes
        Sentences on what is shown otherwise than one may think.
    when_closed
        What else to close with the viewer.

    Raises
    ------
    OptionError
        When there is no layer.
    UsageError
        When the port cannot be had.
    DependencyError
        When Neuroglancer is not installed.
    LabelError
        When a segmentation holds no labels.
    """

    address: str
    notes: tuple[str, ...]
    when_closed: ExitStack

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        voxel_size: VoxelSize | None = None,
        port: int = 0,
        view_size_wh: tuple[int, int] = USUAL_WINDOW_WH,
    ) -> None:
        if not layers:
            raise OptionError("there is nothing to show: give at least one volume")
        neuroglancer = _neuroglancer()
        self.when_closed = ExitStack()
        self._owns_server = not neuroglancer.is_server_running()
        if self._owns_server:
            _require_free(port)
            neuroglancer.set_server_bind_address(LOCAL_ONLY, bind_port=port)
        self.client: Any = neuroglancer.Viewer(allow_credentials=False)
        try:
            with self.client.txn() as state:
                fill(state, layers, voxel_size=voxel_size, view_size_wh=view_size_wh)
        except BaseException:
            self.close()
            raise
        self.address = self.client.get_viewer_url()
        self.notes = tuple(_notes(layers, voxel_size=voxel_size))

    def close(self) -> None:
        """Stop the server, unless another viewer of this process started it; close the data."""
        if self._owns_server:
            _neuroglancer().stop()
        self.when_closed.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _neuroglancer() -> Any:
    try:
        import neuroglancer
    except ImportError as error:
        raise DependencyError(
            'the viewer needs the package neuroglancer: pip install "floodem[view]"'
        ) from error
    return neuroglancer


def _require_free(port: int) -> None:
    # Neuroglancer's server, when it fails to start, leaves its socket and event loop open.
    try:
        socket.create_server((LOCAL_ONLY, port)).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"port {port} cannot be opened ({reason}): choose another, or 0 for any"
        ) from error


def _notes(layers: Sequence[Layer], *, voxel_size: VoxelSize | None) -> list[str]:
    frame = Frame.of(layers, voxel_size=voxel_size)
    notes = [
        f"{layer.name} ({layer.volume.dtype}) looks like labels and is shown as a segmentation; "
        f"image={layer.volume.uri} shows it in grey"
        for layer in layers
        if layer.may_be_otherwise
    ]
    if not frame.is_known:
        notes.append(
            "no volume states its voxel size: shown in voxels of 1,1,1; "
            "--voxel-size z,y,x gives nanometres"
        )
    elif voxel_size is None:
        notes.extend(
            f"{layer.name} does not state its voxel size: shown with {frame.size} nm, "
            "as another layer has"
            for layer in layers
            if layer.volume.voxel_size is None
        )
    notes.extend(
        f"{layer.name} has {layer.volume.box.size / 1e6:.0f} million voxels, more than the "
        f"{MESH_VOXELS / 1e6:.0f} million that are meshed on demand: no 3-D objects; "
        "a smaller box of it (floodem convert --box) has them"
        for layer in layers
        if layer.kind is Kind.SEGMENTATION and not layer.has_meshes
    )
    return notes
