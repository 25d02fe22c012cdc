"""What the viewer shows at first: layers in, a Neuroglancer state out.

Four panels (three slices and 3-D) with the middle of the segmentation, or else of
the image, in their middle, zoomed so that it fills them. Neuroglancer counts axes
x, y, z; this module is where zyx turns into that order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from floodem.errors import OptionError
from floodem.geometry import Box, VoxelSize
from floodem.viewer.absent_shapes import empty_shapes, ids_with_mesh
from floodem.viewer.focus import Focus, Position, find_focus
from floodem.viewer.layers import (
    MESH_VOXELS,
    Kind,
    Layer,
    RemoteLayer,
    grey_range,
    labels_in_memory,
    objects_at_first,
)
from floodem.viewer.object_folders import Shape, ShapeFolder
from floodem.viewer.objects import ObjectMeshes
from floodem.viewer.scenes.scene import Scene
from floodem.viewer.serving import Site
from floodem.volumes.kinds import middle
from floodem.volumes.volume import Array

_NAMES_XYZ = ("x", "y", "z")
_NM = 1e-9

_FILL = 0.9  # share of a panel that the data take
_COARSEST = 4.0  # voxels per pixel: coarser than that, a page waits for what it shows first
_SIZE_IN_3D = 2.2  # viewport height over the longest edge that shows a turned box whole
TURNED_XYZW = (0.32, 0.40, 0.13, 0.85)  # a corner of the data points at the viewer

# In slices all objects are coloured, those that 3-D shows a little stronger.
OTHERS_ALPHA = 0.3
SELECTED_ALPHA = 0.45

MESH_PIXELS = 2.0
"""The coarsest level of a mesh whose detail is finer is drawn: the client's own 10 show facets."""

USUAL_LAYOUT = "4panel"
LAYOUTS = (USUAL_LAYOUT, "4panel-alt", "3d", "xy", "xz", "yz", "xy-3d", "xz-3d", "yz-3d")
"""The client's arrangements of panels."""

_LARGEST_ID = 2**64 - 1

AnyLayer = Layer | RemoteLayer | Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the user wants to see first, where it is not what would be chosen.

    Attributes
    ----------
    position_zyx
        Where the slices cross, in voxels of the picture.
    selected
        Ids of the objects to show in 3-D.
    layout
        One of `LAYOUTS`.

    Raises
    ------
    OptionError
        When there is no such layout, an id is none, or the position is not finite.
    """

    position_zyx: Position | None = None
    selected: tuple[int, ...] = ()
    layout: str | None = None

    def __post_init__(self) -> None:
        if self.layout is not None and self.layout not in LAYOUTS:
            raise OptionError(f"layout {self.layout!r} is unknown: known are {', '.join(LAYOUTS)}")
        wrong = [label for label in self.selected if not 0 < label <= _LARGEST_ID]
        if wrong:
            raise OptionError(f"{wrong[0]} is no id of an object: give numbers from 1 to 2^64 - 1")
        if self.position_zyx is not None and not all(map(math.isfinite, self.position_zyx)):
            raise OptionError(f"position {self.position_zyx} is no place: give z,y,x in voxels")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Units of the picture.

    Attributes
    ----------
    size
        Size of a voxel, in nanometres where `is_known`.
    is_known
        Whether somebody states it.
    is_assumed
        Whether 1 nm is taken where nobody states it, beside what a server may.
    """

    size: VoxelSize
    is_known: bool = True
    is_assumed: bool = False

    @classmethod
    def of(cls, layers: Sequence[Layer | RemoteLayer], *, voxel_size: VoxelSize | None) -> Frame:
        """Take the given voxel size, else the first that a layer states, else 1, 1, 1."""
        stated = [layer.voxel_size for layer in layers]
        size = next((size for size in (voxel_size, *stated) if size is not None), None)
        if size is not None:
            return cls(size=size)
        # A server's volume has a unit, beside which others cannot be without one.
        is_assumed = any(isinstance(layer, RemoteLayer) for layer in layers)
        return cls(size=VoxelSize(1, 1, 1), is_known=False, is_assumed=is_assumed)

    @property
    def has_unit(self) -> bool:
        """Whether the picture is in nanometres, be they assumed."""
        return self.is_known or self.is_assumed

    def size_of(self, layer: Layer | RemoteLayer, *, voxel_size: VoxelSize | None) -> VoxelSize:
        """Return the voxel size of one layer: the given one, its own, or the frame's."""
        return voxel_size or layer.voxel_size or self.size


def fill(
    state: Any,
    layers: Sequence[Layer | RemoteLayer],
    *,
    site: Site,
    voxel_size: VoxelSize | None,
    view_size_wh: tuple[int, int],
    look: Look | None = None,
) -> None:
    """Put layers, layout, position and zoom into a ``neuroglancer.ViewerState``.

    Parameters
    ----------
    state
        Changed in place. Where it has layers already (of a scene), these stay below,
        and so do units, layout and position.
    site
        Serves the volumes and folders.
    voxel_size
        Overrides what the volumes state.
    view_size_wh
        Width and height of the window in pixels.

    Raises
    ------
    LabelError
        When a segmentation has negative labels or is not of integers.
    """
    look = look or Look()
    frame = Frame.of(layers, voxel_size=voxel_size)
    has_scene = len(state.layers) > 0
    # What the client shall learn from servers alone is left out.
    is_left = all(isinstance(layer, RemoteLayer) for layer in layers) and not frame.is_known
    if not has_scene and not is_left:
        # Dimensions come first: a state takes scales to be in their units.
        state.dimensions = _dimensions(frame.size, has_unit=frame.has_unit)
    place = _Place(site=site, frame=frame, voxel_size=voxel_size, selected=look.selected)
    # What comes later lies above: an image would hide the segments.
    for layer in sorted(layers, key=lambda layer: layer.kind is Kind.SEGMENTATION):
        state.layers[layer.name] = place.layer(layer)
    if not has_scene:
        _arrange(state, has_objects=any(layer.has_objects for layer in layers))
        focus = find_focus(layers, size_of=place.size_of)
        if focus is not None:
            _point(state, focus, size=frame.size, view_size_wh=view_size_wh)
    _obey(state, look)


def zoom_to(
    box: Box,
    size: VoxelSize,
    *,
    view_size_wh: tuple[int, int],
    frame: VoxelSize | None = None,
) -> tuple[float, float]:
    """Return the zoom of slices and of 3-D that shows a box whole.

    Both are in the viewer's unit, the shortest edge of a voxel of the picture (`frame`,
    by default the same as `size`): units per pixel, and units over the height of the
    3-D panel. Slices of very large volumes stay at `_COARSEST` and show the middle.
    """
    unit = min((frame or size).zyx_nm)
    z, y, x = (edge * nm / unit for edge, nm in zip(box.shape, size.zyx_nm, strict=True))
    width, height = (edge / 2 * _FILL for edge in view_size_wh)
    # The panels show x over y, x over z, and z over y.
    whole = max(max(x, z) / width, max(y, z) / height)
    return min(whole, _COARSEST), _SIZE_IN_3D * max(z, y, x)


def _arrange(state: Any, *, has_objects: bool) -> None:
    state.layout = USUAL_LAYOUT
    state.projection_orientation = list(TURNED_XYZW)
    # Slices in the 3-D panel would hide in the meshes; without meshes they are all it has.
    state.show_slices = not has_objects
    state.hide_cross_section_background_3d = True


def _point(state: Any, focus: Focus, *, size: VoxelSize, view_size_wh: tuple[int, int]) -> None:
    triples = zip(focus.position_zyx, focus.size.zyx_nm, size.zyx_nm, strict=True)
    at_zyx = [at * own / shared for at, own, shared in triples]
    state.position = [_off_the_border(at) for at in at_zyx[::-1]]
    zoom = zoom_to(focus.region, focus.size, view_size_wh=view_size_wh, frame=size)
    state.cross_section_scale, state.projection_scale = zoom


def _off_the_border(at: float) -> float:
    """Move a place that lies between two voxels into the one that begins there.

    There the client draws the later voxel, and its mouse may be in the one before.
    """
    return at + 0.5 if at == math.floor(at) else at


def _obey(state: Any, look: Look) -> None:
    if look.layout is not None:
        state.layout = look.layout
    if look.position_zyx is not None:
        state.position = [_off_the_border(at) for at in look.position_zyx[::-1]]
    if look.selected:
        for managed in state.layers:
            if managed.layer.type == Kind.SEGMENTATION.value:
                managed.layer.segments = list(look.selected)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """What every layer of a picture is made with."""

    site: Site
    frame: Frame
    voxel_size: VoxelSize | None
    selected: tuple[int, ...]

    def size_of(self, layer: Layer | RemoteLayer) -> VoxelSize:
        return self.frame.size_of(layer, voxel_size=self.voxel_size)

    def layer(self, layer: Layer | RemoteLayer) -> Any:
        if isinstance(layer, RemoteLayer):
            return self._remote(layer)
        return self._image(layer) if layer.kind is Kind.IMAGE else self._segmentation(layer)

    def _image(self, layer: Layer) -> Any:
        url = self.site.serve_volume(
            layer.volume, kind=layer.kind, name=layer.name, voxel_size=self.size_of(layer)
        )
        return _image_layer(self._source(url), shown_range=grey_range(layer.volume))

    def _segmentation(self, layer: Layer) -> Any:
        labels = labels_in_memory(layer) if layer.is_meshed_here else None
        meshes = None
        if labels is not None:
            meshes = ObjectMeshes(labels, start=layer.volume.offset, voxel_size=self.size_of(layer))
        url = self.site.serve_volume(
            layer.volume,
            kind=layer.kind,
            name=layer.name,
            voxel_size=self.size_of(layer),
            mesh_of=None if meshes is None else meshes.fragment,
        )
        return _segmentation_layer(
            [self._source(url), *self._shapes(layer)],
            selected=_at_first(layer, labels, is_chosen=bool(self.selected)),
        )

    def _remote(self, layer: RemoteLayer) -> Any:
        own = layer.voxel_size if isinstance(layer.source, str) else None
        source = self._source(self._url(layer.source), own=own)
        if layer.is_mesh:
            return _layer_of("mesh", source)
        if layer.kind is Kind.SEGMENTATION:
            sources = [source, *self._shapes(layer)]
            return _segmentation_layer(sources, selected=layer.selected)
        if layer.kind is Kind.IMAGE:
            return _image_layer(source, shown_range=layer.shown_range)
        return _layer_of("auto", source)

    def _shapes(self, layer: Layer | RemoteLayer) -> list[Any]:
        return [self._source(self._url(one)) for one in layer.shapes]

    def _url(self, source: str | ShapeFolder) -> str:
        if isinstance(source, str):
            return source
        is_of_objects = source.shape is not Shape.PROPERTIES
        absent = empty_shapes(source.path) if is_of_objects else None
        return f"precomputed://{self.site.serve_folder(source.path, absent=absent)}"

    def _source(self, url: str, *, own: VoxelSize | None = None) -> Any:
        """Name a source, in other units than its own where the user or nobody gives any.

        `own` is the voxel size that a source of others states. What is served here has the
        one that was given, or 1 nm for each voxel where nobody knows any.
        """
        import neuroglancer

        source = neuroglancer.LayerDataSource(url)
        if not self.frame.has_unit:
            scales_xyz = [1 / _NM] * 3
        elif self.voxel_size is not None and own is not None:
            given = self.voxel_size.zyx_nm[::-1]
            scales_xyz = [new / old for new, old in zip(given, own.zyx_nm[::-1], strict=True)]
        else:
            return source
        source.transform = neuroglancer.CoordinateSpaceTransform(
            output_dimensions=_dimensions(self.frame.size, has_unit=self.frame.has_unit),
            matrix=np.hstack([np.diag(scales_xyz), np.zeros((3, 1))]),
        )
        return source


def _at_first(layer: Layer, labels: Array | None, *, is_chosen: bool) -> list[int]:
    """Choose the objects that 3-D shows at first, from voxels that are cheap to read."""
    if is_chosen or not layer.has_objects:
        return []
    meshed = [
        one.path for one in layer.shapes if isinstance(one, ShapeFolder) and one.shape is Shape.MESH
    ]
    among = ids_with_mesh(meshed[0]) if meshed else None
    if labels is not None:
        return objects_at_first(labels, among=among)
    coarsest = layer.volume.levels[-1]
    box = None if coarsest.box.size <= MESH_VOXELS else middle(coarsest.box)
    return objects_at_first(coarsest.read(box), among=among)


def _dimensions(size: VoxelSize, *, has_unit: bool) -> Any:
    import neuroglancer

    scale, unit = (_NM, "m") if has_unit else (1.0, "")
    return neuroglancer.CoordinateSpace(
        names=list(_NAMES_XYZ), units=unit, scales=[edge * scale for edge in size.zyx_nm[::-1]]
    )


def _image_layer(source: Any, *, shown_range: tuple[float, float] | None) -> Any:
    import neuroglancer

    controls = {} if shown_range is None else {"normalized": {"range": list(shown_range)}}
    return neuroglancer.ImageLayer(source=source, opacity=1.0, shader_controls=controls)


def _segmentation_layer(sources: list[Any], *, selected: Sequence[int]) -> Any:
    import neuroglancer

    return neuroglancer.SegmentationLayer(
        source=sources,
        segments=list(selected),
        mesh_render_scale=MESH_PIXELS,
        selected_alpha=SELECTED_ALPHA,
        not_selected_alpha=OTHERS_ALPHA,
    )


def _layer_of(type_: str, source: Any) -> Any:
    from neuroglancer import viewer_state

    return viewer_state.Layer({"type": type_, "source": source.to_json()})
