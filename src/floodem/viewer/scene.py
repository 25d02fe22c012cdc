"""What the viewer shows at first: layers in, a Neuroglancer state out.

Four panels (three slices and 3-D) with the middle of the segmentation, or else of
the image, in their middle, zoomed so that it fills them. Neuroglancer counts axes
x, y, z; this module and floodem.viewer.layers are where zyx turns into that order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from floodem.geometry import Box, VoxelSize, Zyx
from floodem.viewer.focus import find_focus
from floodem.viewer.layers import (
    ArrayXyz,
    Kind,
    Layer,
    grey_range,
    labels_in_memory,
    objects_at_first,
)
from floodem.volumes.volume import Array

_NAMES_XYZ = ("x", "y", "z")
_NM = 1e-9

_FILL = 0.9  # share of a panel that the data take
_COARSEST = 4.0  # voxels per pixel: the coarsest that slices are made on demand for
_SIZE_IN_3D = 2.2  # viewport height over the longest edge that shows a turned box whole
_TURNED_XYZW = (0.32, 0.40, 0.13, 0.85)  # a corner of the data points at the viewer

# In slices all objects are coloured, those that 3-D shows a little stronger.
_OTHERS_ALPHA = 0.3
_SELECTED_ALPHA = 0.45


@dataclass(frozen=True, slots=True)
class Frame:
    """Units of the picture: the size of a voxel, in nanometres where that is known."""

    size: VoxelSize
    is_known: bool

    @classmethod
    def of(cls, layers: Sequence[Layer], *, voxel_size: VoxelSize | None) -> Frame:
        """Take the given voxel size, else the first that a layer states, else 1, 1, 1."""
        stated = [layer.volume.voxel_size for layer in layers]
        size = next((size for size in (voxel_size, *stated) if size is not None), None)
        return cls(VoxelSize(1, 1, 1), is_known=False) if size is None else cls(size, is_known=True)

    def size_of(self, layer: Layer, *, voxel_size: VoxelSize | None) -> VoxelSize:
        """Return the voxel size of one layer: the given one, its own, or the frame's."""
        return voxel_size or layer.volume.voxel_size or self.size


def fill(
    state: Any,
    layers: Sequence[Layer],
    *,
    voxel_size: VoxelSize | None,
    view_size_wh: tuple[int, int],
) -> None:
    """Put layers, layout, position and zoom into a ``neuroglancer.ViewerState``.

    Parameters
    ----------
    state
        A new state, changed in place.
    voxel_size
        Overrides what the volumes state.
    view_size_wh
        Width and height of the window in pixels.

    Raises
    ------
    LabelError
        When a segmentation has negative labels or is not of integers.
    """
    frame = Frame.of(layers, voxel_size=voxel_size)
    # Dimensions come first: a state takes scales to be in their units.
    state.dimensions = _dimensions(frame.size, is_known=frame.is_known)
    # What comes later lies above: an image would hide the segments.
    for layer in sorted(layers, key=lambda layer: layer.kind is Kind.SEGMENTATION):
        size = frame.size_of(layer, voxel_size=voxel_size)
        dimensions = _dimensions(size, is_known=frame.is_known)
        make = _image if layer.kind is Kind.IMAGE else _segmentation
        state.layers[layer.name] = make(layer, dimensions)
    focus = find_focus(layers, size_of=lambda layer: frame.size_of(layer, voxel_size=voxel_size))
    state.layout = "4panel"
    state.position = [
        at * own / shared
        for at, own, shared in zip(
            focus.position_zyx, focus.size.zyx_nm, frame.size.zyx_nm, strict=True
        )
    ][::-1]
    zoom = zoom_to(focus.region, focus.size, view_size_wh=view_size_wh)
    state.cross_section_scale, state.projection_scale = zoom
    state.projection_orientation = list(_TURNED_XYZW)
    # Slices in the 3-D panel would hide in the meshes; without meshes they are all it has.
    state.show_slices = not any(layer.has_meshes for layer in layers)
    state.hide_cross_section_background_3d = True


def zoom_to(box: Box, size: VoxelSize, *, view_size_wh: tuple[int, int]) -> tuple[float, float]:
    """Return the zoom of slices and of 3-D that shows a box whole.

    Both are in the viewer's unit, the shortest edge of a voxel: units per pixel,
    and units over the height of the 3-D panel. Slices of very large volumes stay
    at `_COARSEST` and show the middle.
    """
    unit = min(size.zyx_nm)
    z, y, x = (edge * nm / unit for edge, nm in zip(box.shape, size.zyx_nm, strict=True))
    width, height = (edge / 2 * _FILL for edge in view_size_wh)
    # The panels show x over y, x over z, and z over y.
    whole = max(max(x, z) / width, max(y, z) / height)
    return min(whole, _COARSEST), _SIZE_IN_3D * max(z, y, x)


def _dimensions(size: VoxelSize, *, is_known: bool) -> Any:
    import neuroglancer

    scale, unit = (_NM, "m") if is_known else (1.0, "")
    return neuroglancer.CoordinateSpace(
        names=list(_NAMES_XYZ), units=unit, scales=[edge * scale for edge in size.zyx_nm[::-1]]
    )


def _image(layer: Layer, dimensions: Any) -> Any:
    import neuroglancer

    shown = grey_range(layer.volume)
    source = neuroglancer.LocalVolume(
        ArrayXyz(layer),
        dimensions=dimensions,
        voxel_offset=layer.volume.offset[::-1],
        volume_type="image",
    )
    controls = {} if shown is None else {"normalized": {"range": list(shown)}}
    return neuroglancer.ImageLayer(source=source, opacity=1.0, shader_controls=controls)


def _segmentation(layer: Layer, dimensions: Any) -> Any:
    import neuroglancer

    labels = labels_in_memory(layer) if layer.has_meshes else None
    slices = neuroglancer.LayerDataSource(
        _local_labels(ArrayXyz(layer, labels=labels), layer.volume.offset, dimensions)
    )
    slices.enable_default_subsources = False
    slices.subsources = {"default": True, "bounds": True}
    sources, selected = [slices], []
    if labels is not None:
        sources.append(_meshes(labels, layer.volume.offset, dimensions))
        selected = objects_at_first(labels)
    return neuroglancer.SegmentationLayer(
        source=sources,
        segments=selected,
        selected_alpha=_SELECTED_ALPHA,
        not_selected_alpha=_OTHERS_ALPHA,
    )


def _meshes(labels: Array, offset: Zyx, dimensions: Any) -> Any:
    """Serve meshes of labels with a voxel of background around, so that they are closed."""
    import neuroglancer

    padded = np.pad(labels, 1)
    z, y, x = offset
    local = _local_labels(padded.T, (z - 1, y - 1, x - 1), dimensions)
    source = neuroglancer.LayerDataSource(local)
    source.enable_default_subsources = False
    source.subsources = {"meshes": True}
    # The mesher takes a voxel's index for its centre, slices for its lower corner.
    to_centres = np.hstack([np.eye(3), np.full((3, 1), 0.5)])
    source.transform = neuroglancer.CoordinateSpaceTransform(
        output_dimensions=dimensions, matrix=to_centres
    )
    return source


def _local_labels(array_xyz: Any, offset: Zyx, dimensions: Any) -> Any:
    import neuroglancer

    return neuroglancer.LocalVolume(
        array_xyz,
        dimensions=dimensions,
        voxel_offset=offset[::-1],
        volume_type="segmentation",
    )
