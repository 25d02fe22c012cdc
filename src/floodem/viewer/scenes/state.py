"""What a scene shows at first: its volumes in, the viewer's state with relative sources out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt64

from floodem.geometry import VoxelSize

# As a module: it knows scenes, and may be half imported yet.
from floodem.viewer import first_look
from floodem.viewer.focus import find_focus
from floodem.viewer.layers import MESH_VOXELS, Kind, Layer, grey_range, objects_at_first
from floodem.viewer.scenes.checking import PRECOMPUTED
from floodem.viewer.scenes.properties import VOXELS
from floodem.viewer.scenes.scores import ObjectScores, Point
from floodem.volumes.kinds import middle

WINDOW_WH = (1400, 900)
_LIST_WIDTH = 300  # of the panel with the list of objects, as the client opens it
_NM = 1e-9
_LARGEST_FIRST = f">{VOXELS}"  # how the list of objects is sorted, in the client's words
_SPLIT_COLOUR, _MERGER_COLOUR = "#ffd166", "#ff5c8a"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Placed:
    """A volume in its place in the scene.

    Attributes
    ----------
    layer
        The finished volume, open.
    ids
        Its objects in the list, where there is one.
    has_shapes
        Whether meshes or skeletons are there.
    scores
        Of a segmentation that was scored.
    """

    layer: Layer
    ids: UInt64[np.ndarray, "objects"] | None = None
    has_shapes: bool = False
    scores: ObjectScores | None = None

    @property
    def size(self) -> VoxelSize:
        """Voxel size, which every volume of a scene states."""
        assert self.layer.volume.voxel_size is not None
        return self.layer.volume.voxel_size


def first_state(placed: Sequence[Placed], *, title: str) -> dict[str, Any]:
    """Return the state with which a scene opens.

    Parameters
    ----------
    placed
        At least one.
    title
        What stands on the page.
    """
    layers = [one.layer for one in placed]
    sizes = {one.layer.name: one.size for one in placed}
    focus = find_focus(layers, size_of=lambda layer: sizes[layer.name])
    assert focus is not None  # as all volumes are open
    shared = placed[0].size
    segmentations = [one for one in placed if one.layer.kind is Kind.SEGMENTATION]
    width, height = WINDOW_WH
    window = (width - _LIST_WIDTH if segmentations else width, height)
    scale, projection = first_look.zoom_to(focus.region, focus.size, view_size_wh=window)
    to_shared = [own / unit for own, unit in zip(focus.size.zyx_nm, shared.zyx_nm, strict=True)]
    state: dict[str, Any] = {
        "title": title,
        "dimensions": _dimensions(shared),
        "position": [at * by for at, by in zip(focus.position_zyx, to_shared, strict=True)][::-1],
        "crossSectionScale": scale,
        "projectionScale": projection,
        "projectionOrientation": list(first_look.TURNED_XYZW),
        "layers": [
            # What comes later lies above: an image would hide the segments.
            *(_image(one) for one in placed if one.layer.kind is Kind.IMAGE),
            *(_segmentation(one) for one in segmentations),
            *(layer for one in segmentations for layer in _mistakes(one)),
        ],
        "layout": first_look.USUAL_LAYOUT,
        # Slices in the 3-D panel would hide in the meshes; without meshes they are all it has.
        "showSlices": not any(one.has_shapes for one in segmentations),
        "hideCrossSectionBackground3D": True,
    }
    if segmentations:
        shown = segmentations[0].layer.name
        state["selectedLayer"] = {"layer": shown, "visible": True, "size": _LIST_WIDTH}
    return state


def _dimensions(size: VoxelSize) -> dict[str, Any]:
    z, y, x = (edge * _NM for edge in size.zyx_nm)
    return {"x": [x, "m"], "y": [y, "m"], "z": [z, "m"]}


def _image(one: Placed) -> dict[str, Any]:
    layer: dict[str, Any] = {
        "type": "image",
        "name": one.layer.name,
        "source": f"{PRECOMPUTED}{one.layer.name}",
        "tab": "rendering",
        "opacity": 1.0,
    }
    shown = grey_range(one.layer.volume)
    if shown is not None:
        layer["shaderControls"] = {"normalized": {"range": list(shown)}}
    return layer


def _segmentation(one: Placed) -> dict[str, Any]:
    return {
        "type": "segmentation",
        "name": one.layer.name,
        "source": f"{PRECOMPUTED}{one.layer.name}",
        "tab": "segments",
        "segmentQuery": _LARGEST_FIRST,
        "segments": [str(label) for label in _at_first(one)],
        "meshRenderScale": first_look.MESH_PIXELS,
        "selectedAlpha": first_look.SELECTED_ALPHA,
        "notSelectedAlpha": first_look.OTHERS_ALPHA,
    }


def _at_first(one: Placed) -> list[int]:
    """Choose the objects that 3-D shows at first, from the finest level that is cheap to read.

    Where there is none, as no coarser levels were asked for, a look at the middle must do.
    """
    levels = one.layer.volume.levels
    level = next((level for level in levels if level.box.size <= MESH_VOXELS), None)
    labels = levels[-1].read(middle(levels[-1].box)) if level is None else level.read()
    if one.ids is not None:
        labels = np.where(np.isin(labels, one.ids), labels, np.zeros_like(labels))
    return objects_at_first(labels)


def _mistakes(one: Placed) -> list[dict[str, Any]]:
    if one.scores is None:
        return []
    kinds = (
        ("splits", one.scores.splits, _SPLIT_COLOUR),
        ("mergers", one.scores.mergers, _MERGER_COLOUR),
    )
    return [
        _points(one, points, name=name, colour=colour) for name, points, colour in kinds if points
    ]


def _points(one: Placed, points: Sequence[Point], *, name: str, colour: str) -> dict[str, Any]:
    """Return a layer of points at voxels' middles, each connected with its segments."""
    source: Mapping[str, Any] = {
        "url": "local://annotations",
        "transform": {"outputDimensions": _dimensions(one.size)},
    }
    return {
        "type": "annotation",
        "name": name,
        "source": source,
        "tab": "annotations",
        "annotationColor": colour,
        "annotations": [
            {
                "type": "point",
                "id": f"{name}-{number}",
                "point": [at + 0.5 for at in reversed(point.position_zyx)],
                "description": point.text,
                "segments": [[str(label) for label in point.segments]],
            }
            for number, point in enumerate(points, start=1)
        ],
        "annotationRelationships": ["segments"],
        "linkedSegmentationLayer": {"segments": one.layer.name},
    }
