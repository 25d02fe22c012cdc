"""Click on a cell and watch a network fill it: a running viewer, an image and a network in.

The parts: `FloodLine` floods in a thread of its own; `PageScreen` shows it; two layers of
live labels hold the flood that is pending and those that were kept (`KeptFloods`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from floodem.errors import OptionError
from floodem.flooding.flooder import Flooder
from floodem.flooding.kept import KeptFloods
from floodem.flooding.request import SegmentRequest
from floodem.geometry import UNKNOWN_VOXEL_SIZE, VoxelSize
from floodem.viewer.clicking import page_screen, sentences
from floodem.viewer.clicking.drawing import PENDING, Growing, KeptObjects
from floodem.viewer.clicking.flood_line import FloodLine, Obstacle, Wish
from floodem.viewer.clicking.live_labels import LiveFrame, live_labels
from floodem.viewer.clicking.page_screen import PageScreen
from floodem.viewer.clicking.pointing import voxel_under_mouse
from floodem.viewer.clicking.shared_volume import SharedVolume
from floodem.volumes.volume import Volume

if TYPE_CHECKING:
    from floodem.network.model_file import Model

PENDING_LAYER, KEPT_LAYER = "flood", "kept floods"
PENDING_COLOUR = "#ffb000"
"""Of no segment that the client colours by its id: those are paler or darker."""

_PENDING_ALPHA, _KEPT_ALPHA = 0.5, 0.4
_NM = 1e-9


class ClickToFlood:
    """Makes a viewer flood where the user clicks, until `close`.

    ``f`` or shift+click floods from the voxel under the mouse, or puts it in line while
    another flood is pending. Escape stops, Enter keeps, Backspace takes back; these three
    are the client's own again when nothing is pending. ``u`` undoes what was kept last.

    Parameters
    ----------
    client
        A ``neuroglancer.Viewer`` whose state has its dimensions: ``Viewer.client``.
    image
        What is flooded; it stays open. Other threads may read it by `read_safely`.
    model
        Model file, name, or loaded model.
    keep
        Where floods are kept, see `KeptFloods`.
    obstacles
        Segmentations, by name, that are not entered.
    request
        Options, masks, device and number format, as of `floodem.flood_at`.
    voxel_size
        In nanometres, instead of what the image states.

    Attributes
    ----------
    kept
        What was kept.
    notes
        Sentences on what is otherwise than one may think.

    Raises
    ------
    FloodemError
        When the network cannot be used, or floods cannot be kept there.
    """

    kept: KeptFloods
    notes: tuple[str, ...]

    def __init__(
        self,
        client: Any,
        image: Volume,
        *,
        model: str | Path | Model,
        keep: str | Path,
        obstacles: Sequence[Obstacle] = (),
        request: SegmentRequest | None = None,
        voxel_size: VoxelSize | None = None,
    ) -> None:
        self._client = client
        self._frame = frame_of(image, client.state.dimensions, voxel_size=voxel_size)
        size = self._frame.voxel_size
        respected = [one for one in obstacles if _fits(one.volume, size, image)]
        self.notes = tuple(
            f"{one.name} has voxels of {one.volume.voxel_size} nm (z,y,x) and the image has "
            f"{size}: floods do not see it"
            for one in obstacles
            if one not in respected
        )
        edges = voxel_size or image.voxel_size
        with ExitStack() as stack:
            # First, because a place that is taken is known at once, and the network takes seconds.
            self.kept = stack.enter_context(KeptFloods(keep, image=image, voxel_size=voxel_size))
            flooder = _flooder(image, model, request)
            self.notes += _voxel_size_notes(edges, flooder.model, uri=image.uri)
            self._screen = self._show_layers(self._frame.voxel_size)
            stack.callback(self._screen.close)
            self._line = FloodLine(
                flooder,
                kept=self.kept,
                obstacles=[replace(one, volume=SharedVolume(one.volume)) for one in respected],
                screen=self._screen,
                model_digest=flooder.model.digest(),
                options=flooder.request.options.to_json(),
            )
            self._listen()
            stack.callback(self._ignore)
            self._line.start()
            stack.callback(self._line.close)
            self._running = stack.pop_all()

    def close(self) -> None:
        """Stop flooding, let go of the kept floods, and give the keys back."""
        self._running.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _show_layers(self, edges: VoxelSize) -> PageScreen:
        import neuroglancer

        client = self._client
        with client.txn() as state:
            taken = {layer.name for layer in state.layers}
            pending_name, kept_name = (
                _free_name(name, taken) for name in (PENDING_LAYER, KEPT_LAYER)
            )
            growing = Growing(edges, layer=pending_name)
            objects = KeptObjects(self.kept, edges, layer=kept_name)
            kept = [live_labels(objects, self._frame, in_planes=flat) for flat in (False, True)]
            slices, meshes = (live_labels(growing, self._frame, in_planes=True) for _ in range(2))
            state.layers[kept_name] = neuroglancer.SegmentationLayer(
                source=_sources(*kept),
                segments=list(self.kept.labels),
                selected_alpha=_KEPT_ALPHA,
                not_selected_alpha=_KEPT_ALPHA,
            )
            state.layers[pending_name] = neuroglancer.SegmentationLayer(
                source=_sources(slices, meshes),
                segments=[PENDING],
                segment_colors={PENDING: PENDING_COLOUR},
                selected_alpha=_PENDING_ALPHA,
            )
            # Slices in the 3-D panel would hide what grows there.
            state.show_slices = False
        return PageScreen(client, growing, pending=(slices, meshes), kept=tuple(kept))

    def _listen(self) -> None:
        wishes = {
            page_screen.UNDO: Wish.UNDO,
            page_screen.STOP: Wish.STOP,
            page_screen.KEEP: Wish.KEEP,
            page_screen.TAKE_BACK: Wish.TAKE_BACK,
        }
        self._handlers: dict[str, Any] = {
            page_screen.FLOOD: self._flood,
            page_screen.DRAWN: self._screen.hear,
        }
        for action, wish in wishes.items():
            self._handlers[action] = lambda _, wish=wish: self._line.wish(wish)
        for action, handler in self._handlers.items():
            self._client.actions.add(action, handler)

    def _ignore(self) -> None:
        for action, handler in self._handlers.items():
            self._client.actions.remove(action, handler)

    def _flood(self, action_state: Any) -> None:
        """Take a page's action; called by the server's loop, which must not wait."""
        voxel = voxel_under_mouse(
            action_state, self._client.state.dimensions, scales_xyz=self._frame.scales_xyz
        )
        if voxel is None:
            self._screen.say("the mouse points at nothing: point at a cell in a slice")
        elif not self._frame.box.contains_point(voxel):
            place = sentences.place(voxel)
            self._screen.say(f"{place} (z,y,x) is outside of the image, which is {self._frame.box}")
        else:
            self._line.wish(voxel)


def frame_of(image: Volume, dimensions: Any, *, voxel_size: VoxelSize | None) -> LiveFrame:
    """Return where an image lies in a picture.

    Parameters
    ----------
    dimensions
        Of the picture, a ``neuroglancer.CoordinateSpace``.
    voxel_size
        In nanometres, instead of what the image states.

    Raises
    ------
    OptionError
        When the picture has no axes x, y and z.
    """
    names = list(dimensions.names)
    if not {"x", "y", "z"} <= set(names):
        raise OptionError(
            f"this picture has the axes {', '.join(names) or 'none'}, and floods need x, y and z: "
            "show an image that says where it lies"
        )
    at = [names.index(name) for name in "xyz"]
    unit = str(dimensions.units[at[0]])
    edges = voxel_size or image.voxel_size
    if unit and edges is not None:
        x, y, z = (edge * _NM for edge in edges.zyx_nm[::-1])
        return LiveFrame(box=image.box, voxel_size=edges, scales_xyz=(x, y, z), unit=unit)
    x, y, z = (float(dimensions.scales[axis]) for axis in at)
    scale = 1 / _NM if unit else 1.0
    size = VoxelSize(z * scale, y * scale, x * scale)
    return LiveFrame(box=image.box, voxel_size=size, scales_xyz=(x, y, z), unit=unit)


def _flooder(image: Volume, model: str | Path | Model, request: SegmentRequest | None) -> Flooder:
    from floodem.network.model_file import Model, load_model

    loaded = model if isinstance(model, Model) else load_model(model)
    return Flooder(SharedVolume(image), model=loaded, request=request)


def _voxel_size_notes(edges: VoxelSize | None, model: Model, *, uri: str) -> tuple[str, ...]:
    """Say what one should know when the image may not have the voxels that the network knows."""
    from floodem.flooding.job import voxel_size_mismatch

    trained_on = model.description.voxel_size
    if edges is not None:
        mismatch = voxel_size_mismatch(edges, model.description, uri=uri)
        return () if mismatch is None else (mismatch,)
    if trained_on == UNKNOWN_VOXEL_SIZE:
        return ()
    unknown = (
        f"{uri} states no voxel size, and the network was trained on {trained_on} nm (z,y,x): "
        "give the image's, --voxel-size"
    )
    return (unknown,)


def _fits(volume: Volume, edges: VoxelSize, image: Volume) -> bool:
    """Tell whether voxels of a segmentation are voxels of the image."""
    return volume.voxel_size in {None, image.voxel_size, edges} or image.voxel_size is None


def _sources(slices: Any, meshes: Any) -> list[Any]:
    """Return one volume for the slices and one for the meshes, which load apart."""
    import neuroglancer

    found = []
    for volume, parts in ((slices, {"default": True}), (meshes, {"meshes": True})):
        source = neuroglancer.LayerDataSource(volume)
        source.enable_default_subsources = False
        source.subsources = parts
        found.append(source)
    return found


def _free_name(name: str, taken: set[str]) -> str:
    found, count = name, 1
    while found in taken:
        count += 1
        found = f"{name} ({count})"
    return found
