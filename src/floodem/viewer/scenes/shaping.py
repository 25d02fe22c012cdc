"""Measures, meshes, skeletons and the list of objects of one segmentation in a scene.

The finished copy of the segmentation comes in; folders beside its scales and their
names in its ``info`` go out.
"""

from __future__ import annotations

import functools
import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from floodem.cluster import Crew
from floodem.errors import LabelError, VolumeFormatError
from floodem.files import replacing, write_text
from floodem.progress import ProgressListener
from floodem.shapes.measures.measure import measure
from floodem.shapes.meshes.destination import RECORD
from floodem.shapes.meshes.job import mesh_segmentation
from floodem.shapes.meshes.options import MeshOptions
from floodem.shapes.precomputed import write_segment_properties
from floodem.shapes.skeletons.job import skeletonize
from floodem.shapes.skeletons.request import SkeletonRequest
from floodem.shapes.source import LabelSource
from floodem.viewer.scenes.checking import read_json
from floodem.viewer.scenes.options import MAKE, NONE, SceneOptions
from floodem.viewer.scenes.properties import Sizes, property_columns
from floodem.viewer.scenes.scores import ObjectScores
from floodem.viewer.scenes.taking import What, shapes_folder, shapes_identity, take_shapes
from floodem.viewer.scenes.work import Workshop
from floodem.volumes.volume import Volume

_KEYS: Mapping[What, str] = {"meshes": "mesh", "skeletons": "skeletons"}
_PROPERTIES = "segment_properties"
_TABLE = "objects.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    what: What
    key: str
    identity: Mapping[str, Any]
    place: Path
    make: Callable[[Path], Mapping[str, Any]]
    remedy: str


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
        self._source = LabelSource(uri=f"precomputed://{self._place}")
        self._copied = {"segmentation": dict(identity)}
        self._identity = self._copied | {
            "only_ids": None if only is None else sorted(only),
        }

    def measure(self) -> Sizes:
        """Return how large the objects are that are to be listed.

        Raises
        ------
        LabelError
            When an id that was asked for is not there.
        """
        place = self._workshop.measures_place(self._name)
        self._workshop.part(
            f"measures-{self._name}", identity=self._copied, place=place, make=self._measure
        )
        try:
            with np.load(place / _TABLE, allow_pickle=False) as table:
                found = Sizes(table["ids"], table["voxels"], table["surface_nm2"])
        except (OSError, ValueError, KeyError) as error:
            raise VolumeFormatError(
                f"{place / _TABLE} is damaged: remove {place}, and run the same command again"
            ) from error
        only = self._options.only_ids
        if only is None:
            return found
        wanted = np.array(sorted(only), np.uint64)
        missing = np.setdiff1d(wanted, found.ids)
        if len(missing):
            raise LabelError(f"{self._name} has no object {missing[0]}: check the ids asked for")
        return found.select(np.isin(found.ids, wanted))

    def add_shapes(self, objects: Sizes) -> bool:
        """Put meshes and skeletons beside the scales; tell whether there are any."""
        wanted = [part for what in _KEYS if (part := self._part(what)) is not None]
        # A refusal leaves a finished scene as it was.
        for part in wanted:
            self._workshop.require_part(
                part.key, identity=part.identity, place=part.place, remedy=part.remedy
            )
        self._remove(what for what in _KEYS if what not in {part.what for part in wanted})
        if not len(objects.ids):
            return False
        for part in wanted:
            self._workshop.part(
                part.key,
                identity=part.identity,
                place=part.place,
                make=part.make,
                remedy=part.remedy,
            )
        return bool(wanted)

    def write_list(self, objects: Sizes, *, scores: ObjectScores | None) -> None:
        """Write names and numbers of objects, and name all folders in the info."""
        folder = self._place / _PROPERTIES
        folder.mkdir(exist_ok=True)
        size = self._volume.voxel_size
        assert size is not None
        columns = property_columns(
            objects,
            voxel_nm3=math.prod(size.zyx_nm),
            names=self._options.names,
            scores=scores,
        )
        write_segment_properties(folder, ids=objects.ids, **columns)
        folders = (*_KEYS.values(), _PROPERTIES)
        self._name_folders(key for key in folders if (self._place / key).is_dir())

    def _name_folders(self, names: Iterable[str]) -> None:
        """Name these folders in the volume's info, and no others."""
        path = self._place / "info"
        info = read_json(path)
        folders = (*_KEYS.values(), _PROPERTIES)
        bare = {key: value for key, value in info.items() if key not in folders}
        wanted = bare | {key: key for key in names}
        if wanted != info:
            write_text(path, json.dumps(wanted))

    def _remove(self, unwanted: Iterable[What]) -> None:
        """Take shapes out, their names first, so that nothing is named that is not there."""
        gone = list(unwanted)
        keys = {_KEYS[what] for what in gone}
        folders = (*_KEYS.values(), _PROPERTIES)
        there = [key for key in folders if (self._place / key).is_dir()]
        if keys & set(there):
            self._name_folders(key for key in there if key not in keys)
        for what in gone:
            self._workshop.remove_part(f"{what}-{self._name}", place=self._place / _KEYS[what])

    def _part(self, what: What) -> _Part | None:
        """Return what is to be done for meshes or skeletons, None for nothing."""
        asked = self._options.shapes_of(self._name, what=what)
        if str(asked) == NONE:
            return None
        if str(asked) == MAKE:
            made_from: dict[str, Any] = {"is_sharded": self._options.is_sharded}
            make = functools.partial(self._make, what)
        else:
            folder = shapes_folder(Path(asked), what)
            made_from = {"taken": shapes_identity(folder)}
            make = functools.partial(self._take, what, folder)
        return _Part(
            what=what,
            key=f"{what}-{self._name}",
            identity=self._identity | {"what": what} | made_from,
            place=self._place / _KEYS[what],
            make=make,
            remedy=f"remove them first with --{what} none, ",
        )

    def _take(self, what: What, folder: Path, work: Path) -> Mapping[str, Any]:
        return take_shapes(
            folder,
            work,
            only_ids=self._options.only_ids,
            progress=self._listen(f"{what} of {self._name}"),
            should_stop=self._should_stop,
        )

    def _measure(self, work: Path) -> Mapping[str, Any]:
        blocks = work / "blocks"
        found = measure(
            self._source,
            crew=Crew(workers=self._options.workers),
            work=blocks,
            progress=self._listen(f"objects of {self._name}"),
            should_stop=self._should_stop,
        )
        with replacing(work / _TABLE) as partial, partial.open("wb") as file:
            np.savez(file, ids=found.ids, voxels=found.voxels, surface_nm2=found.surface_nm2)
        shutil.rmtree(blocks)
        return {"objects": len(found)}

    def _make(self, what: What, work: Path) -> Mapping[str, Any]:
        if what == "meshes":
            return self._make_meshes(work)
        return self._make_skeletons(work)

    def _make_meshes(self, work: Path) -> Mapping[str, Any]:
        only = self._options.only_ids
        made = mesh_segmentation(
            self._source.uri,
            work,
            options=MeshOptions(
                ids=None if only is None else tuple(sorted(only)),
                is_sharded=self._options.is_sharded,
            ),
            crew=Crew(workers=self._options.workers),
            progress=self._listen(f"meshes of {self._name}"),
            should_stop=self._should_stop,
        )
        # It names the labels' place on this machine.
        (work / RECORD).unlink(missing_ok=True)
        return {"objects": made.objects}

    def _make_skeletons(self, work: Path) -> Mapping[str, Any]:
        only = self._options.only_ids
        request = SkeletonRequest(
            ids=None if only is None else sorted(only), is_sharded=self._options.is_sharded
        )
        made = skeletonize(
            self._source,
            work,
            request=request,
            crew=Crew(workers=self._options.workers),
            progress=self._listen(f"skeletons of {self._name}"),
            should_stop=self._should_stop,
        )
        return {"objects": len(made.ids)}
