"""A running viewer: layers in, an address on this machine out.

Neuroglancer's built client and the volumes come from one server in this process
(floodem.viewer.serving), with random tokens in the addresses; nothing is fetched from
elsewhere but what the user named there.
"""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from floodem.errors import DependencyError, OptionError
from floodem.geometry import VoxelSize
from floodem.viewer.absent_shapes import empty_shapes_below
from floodem.viewer.first_look import AnyLayer, Frame, Look, fill
from floodem.viewer.layers import MESH_VOXELS, Kind, Layer, RemoteLayer
from floodem.viewer.notebook import HEIGHT_PX, iframe
from floodem.viewer.scenes.scene import Scene
from floodem.viewer.serving import Site
from floodem.viewer.sharing import Shared, shareable

LOCAL_ONLY = "127.0.0.1"
USUAL_WINDOW_WH = (1400, 900)

_LAYERS_OF_THE_PAGE = ("auto", "new")
"""Layers whose type the page has yet to tell, or its user to choose: Neuroglancer's Python side
would refuse a state with one of them."""

_open: set[Viewer] = set()
"""Viewers that nobody closed yet: a notebook's picture lives on without a name for its viewer."""


class Viewer:
    """Layers shown in Neuroglancer until `close`.

    Parameters
    ----------
    layers
        What to show, at least one; names differ. The volumes stay open as long
        as the viewer runs.
    voxel_size
        In nanometres, for all layers; None for what the volumes state.
    site
        A running server, which stays open; None starts one.
    port, host
        Of the server to start; port 0 for any that is free.
    view_size_wh
        Width and height in pixels of the window to zoom for.
    look
        What to show first, where it is not what would be chosen.
    height_px
        Of the frame in a notebook.

    Attributes
    ----------
    address
        What to open in a browser of this machine.
    client
        The ``neuroglancer.Viewer`` behind it.
    site
        The server.
    layers
        What is shown, as it was given.
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
    client: Any
    site: Site
    layers: tuple[AnyLayer, ...]
    notes: tuple[str, ...]
    when_closed: ExitStack

    def __init__(
        self,
        layers: Sequence[AnyLayer],
        *,
        voxel_size: VoxelSize | None = None,
        site: Site | None = None,
        port: int = 0,
        host: str = LOCAL_ONLY,
        view_size_wh: tuple[int, int] = USUAL_WINDOW_WH,
        look: Look | None = None,
        height_px: int = HEIGHT_PX,
    ) -> None:
        if not layers:
            raise OptionError("there is nothing to show: give at least one volume")
        neuroglancer = _neuroglancer()
        self.layers = tuple(layers)
        self._height_px = height_px
        self.when_closed = ExitStack()
        self._owns_site = site is None
        self.site = Site.start(host=host, port=port) if site is None else site
        try:
            self.client = neuroglancer.Viewer(allow_credentials=False)
            self._show(voxel_size=voxel_size, view_size_wh=view_size_wh, look=look)
        except BaseException:
            self.close()
            raise
        self.address = self.client.get_viewer_url()
        self.notes = tuple(_notes(self._volumes(), voxel_size=voxel_size))
        _open.add(self)

    def close(self) -> None:
        """Stop the server, unless it was given; close the data."""
        _open.discard(self)
        self._forget()
        if self._owns_site:
            self.site.close()
        self.when_closed.close()

    def share(self) -> dict[str, Any]:
        """Return what is shown now as Neuroglancer's JSON, for other people's viewers.

        Nothing in it leads to this machine: layers that only it can read are left out,
        and so are passwords and signed queries (see `floodem.viewer.sharing.shareable`).
        """
        return self.shared().state

    def shared(self) -> Shared:
        """Return the same with sentences on what was left out."""
        public = {layer.name: layer.public for layer in self.layers if isinstance(layer, Layer)}
        token = str(self.client.token)
        return shareable(
            self.client.shared_state.raw_state, public=public, secrets=(token, self.site.address)
        )

    def screenshot(self, path: str | Path, *, size_wh: tuple[int, int] = USUAL_WINDOW_WH) -> Path:
        """Draw the panels as they are now into a PNG file and return its path.

        Raises
        ------
        FloodemError
            See `floodem.viewer.save_screenshot`.
        """
        from floodem.viewer.screenshot import save_screenshot

        save_screenshot(self, Path(path), size_wh=size_wh)
        return Path(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        names = ", ".join(one.title if isinstance(one, Scene) else one.name for one in self.layers)
        # The address has the token in it, and what a notebook prints is saved with it.
        return f"<Viewer of {names}; .address is to be opened in a browser>"

    def _repr_html_(self) -> str:
        return iframe(self.address, height_px=self._height_px)

    def _forget(self) -> None:
        """Let the address lead nowhere from now on, also where the server goes on for others."""
        from neuroglancer import server

        if server.global_server is not None and hasattr(self, "client"):
            server.global_server.viewers.pop(self.client.token, None)

    def _volumes(self) -> list[Layer | RemoteLayer]:
        return [layer for layer in self.layers if not isinstance(layer, Scene)]

    def _show(
        self,
        *,
        voxel_size: VoxelSize | None,
        view_size_wh: tuple[int, int],
        look: Look | None,
    ) -> None:
        state = _joined(
            scene.state_at(
                self.site.serve_folder(scene.folder, absent=empty_shapes_below(scene.folder))
            )
            for scene in self.layers
            if isinstance(scene, Scene)
        )
        if state:
            self.client.set_state(state)
        with self.client.txn() as shown:
            fill(
                shown,
                self._volumes(),
                site=self.site,
                voxel_size=voxel_size,
                view_size_wh=view_size_wh,
                look=look,
            )


@atexit.register
def _close_all() -> None:
    for viewer in list(_open):
        with contextlib.suppress(Exception):  # the process ends in any case
            viewer.close()


def _joined(states: Any) -> dict[str, Any]:
    """Put the layers of several states into the first, with names that differ."""
    joined: dict[str, Any] = {}
    for state in states:
        if not joined:
            joined = state
            continue
        for layer in state["layers"]:
            names = [other["name"] for other in joined["layers"]]
            count, name = 1, layer["name"]
            while name in names:
                count += 1
                name = f"{layer['name']} ({count})"
            joined["layers"].append(layer | {"name": name})
    return joined


def _neuroglancer() -> Any:
    try:
        import neuroglancer
    except ImportError as error:
        raise DependencyError(
            'the viewer needs the package neuroglancer: pip install "floodem[view]"'
        ) from error
    for type_ in _LAYERS_OF_THE_PAGE:
        neuroglancer.viewer_state.layer_types.setdefault(type_, neuroglancer.viewer_state.Layer)
    return neuroglancer


def _notes(layers: Sequence[Layer | RemoteLayer], *, voxel_size: VoxelSize | None) -> list[str]:
    own = [layer for layer in layers if isinstance(layer, Layer)]
    notes = [
        f"{layer.name} ({layer.volume.dtype}) looks like labels and is shown as a segmentation; "
        f"image={layer.volume.uri} shows it in grey"
        for layer in own
        if layer.may_be_otherwise
    ]
    if own:
        notes += _size_notes(
            own, Frame.of(layers, voxel_size=voxel_size), is_given=bool(voxel_size)
        )
    notes.extend(
        f"{layer.name} has {layer.volume.box.size / 1e6:.0f} million voxels, more than the "
        f"{MESH_VOXELS / 1e6:.0f} million that are meshed on demand: no 3-D objects; "
        f"floodem mesh {layer.volume.uri} DST makes them, and --meshes DST shows them"
        for layer in own
        if layer.kind is Kind.SEGMENTATION and not layer.has_objects
    )
    return notes


def _size_notes(layers: Sequence[Layer], frame: Frame, *, is_given: bool) -> list[str]:
    if not frame.is_known:
        unit = "1,1,1 nm" if frame.is_assumed else "1,1,1"
        note = f"no volume states its voxel size: shown in voxels of {unit}; "
        return [note + "--voxel-size z,y,x gives nanometres"]
    if is_given:
        return []
    return [
        f"{layer.name} does not state its voxel size: shown with {frame.size} nm, "
        "as another layer has"
        for layer in layers
        if layer.volume.voxel_size is None
    ]
