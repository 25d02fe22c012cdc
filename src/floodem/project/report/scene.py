"""Places that open in the viewer: cut-outs in, a scene folder and a link for each place out.

The folder is a scene as any other (floodem.viewer.scenes): it may be moved, copied and served
from any address together with the page. Volumes of a place lie in it as ``place-N-...``, with
meshes of what is pointed at; the state behind the # of a link shows those of one place.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

import floodem
from floodem.cluster.crew import ALONE
from floodem.errors import DestinationExistsError, FloodemError
from floodem.files import storage_error, write_text
from floodem.geometry import UNKNOWN_VOXEL_SIZE, Box, VoxelSize, Zyx
from floodem.labels import label_dtype
from floodem.project.report.drawing import FIRST, SECOND, WHOLE, Colour, grey_levels
from floodem.project.report.places import CutOut, Place
from floodem.project.report.text import visible
from floodem.shapes.meshes.destination import RECORD
from floodem.shapes.meshes.job import mesh_segmentation
from floodem.shapes.meshes.options import MeshOptions
from floodem.viewer import first_look
from floodem.viewer.scenes import is_scene
from floodem.viewer.scenes.blanks import write_blanks
from floodem.viewer.scenes.checking import PRECOMPUTED, read_json
from floodem.viewer.scenes.client import write_client
from floodem.viewer.scenes.readme import readme
from floodem.viewer.scenes.scene import SCENE_FILE, SCENE_VERSION, VERSION_KEY
from floodem.viewer.scenes.work import README
from floodem.volumes import create_volume
from floodem.volumes.volume import Array, Kind

SCENE_SUFFIX = ".scene"

MARK = "floodem_report"
"""In scene.json of a folder that belongs to a report, with the name of its page."""

_ROOT = "{scene}/"
"""Stands for the folder's address in links (viewer/scenes/page/scene.js)."""

_CHUNK = 64
_NM_PER_M = 1e9
_ZOOM = 0.35
"""Shortest edges of a voxel for a pixel of the slices: a cut-out then fills a panel."""

_ZOOM_3D = 2.2
"""Height of the panel in 3-D over the longest edge of a cut-out."""

_MESH_ERROR_VOXELS = 2.0
"""How far meshes may be off, in the longest edge of a voxel: for a look at a place."""

_WHOLE_ALPHA, _SELECTED_ALPHA, _OTHERS_ALPHA = 0.15, 0.5, 0.2

_Layer = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A place as it is shown.

    Attributes
    ----------
    box
        What is shown of the volumes around it.
    segments
        For each segmentation the segments of the two parts; 0 where there is none.
    position
        Where the slices cross, in the frame of the volumes (z, y, x).
    """

    place: Place
    box: Box
    segments: tuple[tuple[int, int], ...]
    position: Zyx


def scene_folder(page: Path) -> Path:
    """Return the folder beside a page that its links lead to."""
    return page.with_name(f"{page.stem}{SCENE_SUFFIX}")


def require_scene_place(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that no report made.

    Raises
    ------
    DestinationExistsError
        When something else is there, or another scene and `overwrite` is not set.
    """
    if not (folder.exists() or folder.is_symlink()):
        return
    with contextlib.suppress(FloodemError):
        if is_scene(folder) and (overwrite or MARK in read_json(folder / SCENE_FILE)):
            return
    raise DestinationExistsError(
        f"{folder} is there already, and no report made it: move it away, choose another name for "
        "the report, or leave the viewer out (--no-viewer)"
    )


class PlacesScene:
    """The scene of a report while it grows, out of sight.

    Parameters
    ----------
    work
        An empty folder.
    names
        Of the segmentations.
    voxel_size
        Of all volumes; None where nobody states it.
    """

    def __init__(self, work: Path, *, names: Sequence[str], voxel_size: VoxelSize | None) -> None:
        self._work = work
        self._names = names
        self._size = voxel_size or UNKNOWN_VOXEL_SIZE
        self._states: list[dict[str, Any]] = []

    def add(self, seen: Seen, cut: CutOut) -> str:
        """Put a place into the scene; return what a link to it ends in, from the # on."""
        name = f"place-{len(self._states) + 1}"
        layers = []
        if cut.image is not None:
            grey = np.rint(grey_levels(cut.image)).astype(np.uint8)
            self._put(f"{name}-image", grey, box=cut.box, kind=Kind.IMAGE)
            layers.append(_image_layer(f"{name}-image"))
        truth = self._put_labels(f"{name}-truth", cut.truth, seen.place.objects, box=cut.box)
        segments = []
        for number, (labels, pair) in enumerate(
            zip(cut.segmentations, seen.segments, strict=True), start=1
        ):
            source = f"{name}-segmentation-{number}"
            there = self._put_labels(source, labels, pair, box=cut.box)
            segments.append(self._segmentation_layer(source, seen, number=number - 1, there=there))
        # What comes later lies above.
        below = _truth_layer(f"{name}-truth", seen, there=truth)
        layers += [*segments, below] if seen.place.kind == "merger" else [below, *segments]
        state = self._state(seen, layers)
        self._states.append(state)
        return _link_end(state)

    def finish(self, *, title: str) -> None:
        """Write viewer, pages and, last, scene.json, which shows the first place."""
        title = visible(title)
        write_client(self._work, title=title)
        lines = [f"  place-{number}" for number in range(1, len(self._states) + 1)]
        text = readme(title, lines=lines, scores=None, has_client=True, is_sharded=False)
        write_text(self._work / README, text)
        values = {
            VERSION_KEY: SCENE_VERSION,
            "floodem": floodem.__version__,
            "title": title,
            MARK: title,
            "state": self._states[0] | {"title": title},
        }
        write_text(self._work / SCENE_FILE, json.dumps(values, indent=1, allow_nan=False))

    def _put(self, name: str, array: Array, *, box: Box, kind: Kind) -> None:
        folder = self._work / name
        with create_volume(
            f"{PRECOMPUTED}{folder}",
            shape=box.shape,
            dtype=array.dtype,
            voxel_size=self._size,
            offset=box.start,
            chunks=(_CHUNK, _CHUNK, _CHUNK),
            kind=kind,
        ) as volume:
            volume.write(box, array)
        write_blanks(folder, scales=read_json(folder / "info")["scales"], should_stop=_never)

    def _put_labels(
        self, name: str, labels: Array, ids: Sequence[int], *, box: Box
    ) -> frozenset[int]:
        """Put labels into the scene; return which of the ids are there, and so have a mesh."""
        small = labels.astype(label_dtype(int(labels.max())))
        self._put(name, small, box=box, kind=Kind.LABELS)
        there = frozenset(label for label in ids if label and bool((labels == label).any()))
        if not there:
            return there
        folder = self._work / name
        mesh_segmentation(
            f"{PRECOMPUTED}{folder}",
            folder / "mesh",
            options=MeshOptions(
                ids=tuple(sorted(there)), max_error_nm=_MESH_ERROR_VOXELS * max(self._size.zyx_nm)
            ),
            crew=ALONE,
        )
        # It names the folder in which this is made.
        (folder / "mesh" / RECORD).unlink(missing_ok=True)
        write_text(folder / "info", json.dumps(read_json(folder / "info") | {"mesh": "mesh"}))
        return there

    def _segmentation_layer(
        self, source: str, seen: Seen, *, number: int, there: frozenset[int]
    ) -> _Layer:
        """Return a segmentation, with the segments of a split in the colours of the pictures.

        The segment of a merger is pale, and nothing in 3-D: there its objects are shown.
        """
        pair = seen.segments[number]
        is_split = seen.place.kind == "split"
        colours = dict(zip(pair, (FIRST, SECOND), strict=True))
        if pair[0] == pair[1] or not is_split:
            colours = dict.fromkeys(pair, WHOLE)
        alpha = _SELECTED_ALPHA if is_split else _WHOLE_ALPHA
        layer = _labels_layer(source, colours, there=there, alpha=alpha)
        return layer | {
            "name": f"segmentation {visible(self._names[number])}",
            "objectAlpha": 1 if is_split else 0,
            "notSelectedAlpha": _OTHERS_ALPHA,
            "visible": number == seen.place.owner,
        }

    def _state(self, seen: Seen, layers: list[dict[str, Any]]) -> dict[str, Any]:
        z, y, x = (edge / _NM_PER_M for edge in self._size.zyx_nm)
        sizes = self._size.zyx_nm
        longest = max(n * size for n, size in zip(seen.box.shape, sizes, strict=True))
        return {
            "dimensions": {"x": [x, "m"], "y": [y, "m"], "z": [z, "m"]},
            "position": [at + 0.5 for at in reversed(seen.position)],
            "crossSectionScale": _ZOOM,
            "projectionScale": _ZOOM_3D * longest / min(sizes),
            "projectionOrientation": list(first_look.TURNED_XYZW),
            "layers": layers,
            "layout": first_look.USUAL_LAYOUT,
            "showSlices": False,
            "hideCrossSectionBackground3D": True,
        }


@contextlib.contextmanager
def growing_scene(
    folder: Path, *, names: Sequence[str], voxel_size: VoxelSize | None, title: str
) -> Iterator[PlacesScene]:
    """Give a scene to be filled; it takes the place of an earlier one when the body ends well.

    Raises
    ------
    DependencyError
        When the viewer is not installed.
    StorageError
        When the file system refuses.
    """
    try:
        work = Path(tempfile.mkdtemp(prefix=".report-", suffix=".partial", dir=folder.parent))
    except OSError as error:
        raise storage_error("write", folder, error) from error
    try:
        (work / "scene").mkdir()
        scene = PlacesScene(work / "scene", names=names, voxel_size=voxel_size)
        yield scene
        scene.finish(title=title)
        if folder.exists():
            os.replace(folder, work / "earlier")
        os.replace(work / "scene", folder)
    except OSError as error:
        if isinstance(error, FloodemError):
            raise
        raise storage_error("write", folder, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _never() -> bool:
    return False


def _image_layer(source: str) -> _Layer:
    return {"type": "image", "name": "image", "source": f"{PRECOMPUTED}{source}", "opacity": 1.0}


def _truth_layer(source: str, seen: Seen, *, there: frozenset[int]) -> _Layer:
    """Return the truth, with the objects of a merger in the colours of the pictures."""
    is_merger = seen.place.kind == "merger"
    colours = dict(zip(seen.place.objects, (FIRST, SECOND), strict=True))
    if not is_merger:
        colours = {seen.place.mistake.id: WHOLE}
    alpha = _SELECTED_ALPHA if is_merger else _WHOLE_ALPHA
    layer = _labels_layer(source, colours, there=there, alpha=alpha)
    return layer | {"name": "truth", "notSelectedAlpha": 0, "visible": is_merger}


def _labels_layer(
    source: str, colours: Mapping[int, Colour], *, there: frozenset[int], alpha: float
) -> _Layer:
    """Return a layer with objects chosen that have a mesh: for others a client waits for ever."""
    return {
        "type": "segmentation",
        "source": f"{PRECOMPUTED}{source}",
        "segments": [str(label) for label in colours if label in there],
        "segmentColors": {
            str(label): _hexadecimal(colour) for label, colour in colours.items() if label
        },
        "meshRenderScale": first_look.MESH_PIXELS,
        "selectedAlpha": alpha,
    }


def _hexadecimal(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _link_end(state: dict[str, Any]) -> str:
    layers = [
        layer | {"source": layer["source"].replace(PRECOMPUTED, f"{PRECOMPUTED}{_ROOT}", 1)}
        for layer in state["layers"]
    ]
    text = json.dumps(state | {"layers": layers}, separators=(",", ":"), allow_nan=False)
    return "#!" + quote(text, safe="")
