"""Measures, meshes, skeletons and the list of objects of one segmentation in a scene.

The finished copy of the segmentation comes in; folders beside its scales and their
names in its ``info`` go out.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import LabelError, StoppedError
from floodem.files import write_text
from floodem.geometry import tiles
from floodem.labels import sizes
from floodem.progress import Progress, ProgressListener
from floodem.shapes.precomputed import write_segment_properties
from floodem.viewer.scenes.checking import read_json
from floodem.viewer.scenes.options import MAKE, NONE, SceneOptions
from floodem.viewer.scenes.properties import property_arrays
from floodem.viewer.scenes.scores import ObjectScores
from floodem.viewer.scenes.taking import What, shapes_folder, shapes_identity, take_shapes
from floodem.viewer.scenes.work import Workshop
from floodem.volumes.volume import Volume

Ids = np.ndarray[Any, np.dtype[np.uint64]]

_KEYS: Mapping[What, str] = {"meshes": "mesh", "skeletons": "skeletons"}
_PROPERTIES = "segment_properties"
_BLOCK = (256, 256, 256)


class Shaping:
    """What is added to one segmentation.

    Parameters
    ----------
    workshop
        Of the scene.
    volume
        The copy in the scene, open.
    name
        Of its layer.
    identity
        What the copy was made from.
    listen
        Gives a listener for a stage.
    """

    def __init__(
        self,
        workshop: Workshop,
        volume: Volume,
        *,
        name: str,
        identity: Mapping[str, Any],
        options: SceneOptions,
        listen: Callable[[str], ProgressListener | None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._workshop = workshop
        self._volume = volume
        self._name = name
        self._place = workshop.folder / name
        self._options = options
        self._listen = listen
        self._should_stop = should_stop
        only = options.only_ids
        self._identity = {
            "segmentation": dict(identity),
            "only_ids": None if only is None else sorted(only),
        }

    def measure(self) -> tuple[Ids, Ids]:
        """Return the ids of the objects and how many voxels each has."""
        found = self._workshop.part(
            f"measures-{self._name}", identity=self._identity, place=None, make=self._measure
        )
        return np.array(found["ids"], np.uint64), np.array(found["voxels"], np.uint64)

    def add_shapes(self, notice: Callable[[str], None]) -> bool:
        """Put meshes and skeletons beside the scales; tell whether there are any."""
        there = [self._add(what, notice) for what in _KEYS]
        return any(there)

    def write_list(self, ids: Ids, voxels: Ids, *, scores: ObjectScores | None) -> None:
        """Write names and numbers of objects, and name all folders in the info."""
        folder = self._place / _PROPERTIES
        folder.mkdir(exist_ok=True)
        size = self._volume.voxel_size
        assert size is not None
        columns = property_arrays(
            ids,
            voxels=voxels,
            voxel_nm3=math.prod(size.zyx_nm),
            names=self._options.names,
            scores=scores,
        )
        write_segment_properties(folder, ids=ids, **columns)
        path = self._place / "info"
        info = read_json(path)
        links = {key: key for key in _KEYS.values() if (self._place / key).is_dir()}
        bare = {key: value for key, value in info.items() if key not in _KEYS.values()}
        wanted = bare | links | {_PROPERTIES: _PROPERTIES}
        if wanted != info:
            write_text(path, json.dumps(wanted))

    def _add(self, what: What, notice: Callable[[str], None]) -> bool:
        asked = self._options.shapes_of(self._name, what=what)
        key, place = f"{what}-{self._name}", self._place / _KEYS[what]
        if str(asked) == NONE:
            self._workshop.remove_part(key, place=place)
            return False
        if str(asked) == MAKE:
            self._workshop.part(
                key,
                identity=self._identity | {"what": what, "is_sharded": self._options.is_sharded},
                place=place,
                make=lambda work: self._make(what, work),
            )
            return True
        folder = shapes_folder(Path(asked), what)
        self._workshop.part(
            key,
            identity=self._identity | {"what": what, "taken": shapes_identity(folder)},
            place=place,
            make=lambda work: self._take(what, folder, work),
        )
        return True

    def _take(self, what: What, folder: Path, work: Path) -> Mapping[str, Any]:
        return take_shapes(
            folder,
            work,
            only_ids=self._options.only_ids,
            progress=self._listen(f"{what} of {self._name}"),
            should_stop=self._should_stop,
        )

    def _measure(self, work: Path) -> Mapping[str, Any]:
        counts: Counter[int] = Counter()
        done, all_voxels = 0, self._volume.box.size
        listener = self._listen(f"objects of {self._name}")
        for tile in tiles(self._volume.box, core=_BLOCK):
            if self._should_stop():
                raise StoppedError("stopped: run the same command again to go on")
            ids, voxels = sizes(self._volume.read(tile.core))
            counts.update(dict(zip(ids.tolist(), voxels.tolist(), strict=True)))
            done += tile.core.size
            if listener is not None:
                listener(Progress(stage="count", done=done, total=all_voxels, unit="voxels"))
        del counts[0]
        only = self._options.only_ids
        kept = sorted(label for label in counts if only is None or label in only)
        if only is not None and len(kept) < len(only):
            missing = min(only.difference(kept))
            raise LabelError(f"{self._name} has no object {missing}: check the ids asked for")
        return {"ids": kept, "voxels": [counts[label] for label in kept]}

    def _make(self, what: What, work: Path) -> Mapping[str, Any]:
        raise NotImplementedError
