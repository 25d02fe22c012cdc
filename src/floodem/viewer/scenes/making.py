"""Making a scene: volumes in, a folder that any web server shows out.

Volumes are copied with their coarser levels, objects measured, meshes and skeletons
made or taken over, then lists, viewer and pages written; scene.json comes last. Each
part is made once (floodem.viewer.scenes.work): a run that was stopped goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import floodem
from floodem.files import require_free_disk, write_text
from floodem.progress import Progress, ProgressListener
from floodem.viewer.layers import Kind, Layer
from floodem.viewer.scenes.blanks import write_blanks
from floodem.viewer.scenes.checking import read_json
from floodem.viewer.scenes.client import remove_client, write_client
from floodem.viewer.scenes.inputs import Input, Sources, open_inputs
from floodem.viewer.scenes.options import SceneOptions
from floodem.viewer.scenes.plan import ScenePlan, plan_scene
from floodem.viewer.scenes.readme import readme
from floodem.viewer.scenes.scene import (
    SCENE_FILE,
    SCENE_VERSION,
    VERSION_KEY,
    Scene,
    open_scene,
)
from floodem.viewer.scenes.scores import ObjectScores, read_scores
from floodem.viewer.scenes.shaping import Shaping
from floodem.viewer.scenes.state import Placed, first_state
from floodem.viewer.scenes.work import README, Workshop
from floodem.volumes import convert, open_volume
from floodem.volumes.conversion.fingerprint import fingerprint
from floodem.volumes.kinds import looks_like_labels
from floodem.volumes.volume import Kind as ValueKind

_SHARD_EDGE = 512
"""Of what is packed into one shard, in voxels: 128 MB of image."""

_USUAL = SceneOptions()


def make_scene(
    folder: str | Path,
    *,
    images: Sources = (),
    segmentations: Sources = (),
    options: SceneOptions = _USUAL,
    overwrite: bool = False,
    planned: Callable[[ScenePlan], None] | None = None,
    progress: ProgressListener | None = None,
    notice: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Scene:
    """Put volumes and the shapes in them into one folder that any web server shows.

    Parameters
    ----------
    folder
        New, or a scene: what of it is made from the same goes on or stays, and
        titles, names and scores are written anew. The record of its making lies beside
        it, in ``FOLDER.floodem``.
    images, segmentations
        Addresses, open volumes or both, by name or with ``NAME=`` in front of an
        address. Segments lie above images.
    options
        See `SceneOptions`.
    overwrite
        Begin again; other files in the folder stay.
    planned
        Called with what is going to be written, before it is.
    progress, notice
        Called with how far each part is, and with sentences on what is otherwise
        than one may think.
    should_stop
        Asked now and then; when it answers True, the making ends with `StoppedError`.

    Raises
    ------
    DestinationExistsError
        When the folder holds something else.
    RunConflictError
        When another process works on it, or it was begun with other volumes.
    ResourceError
        When the disk is too small.
    StoppedError
        When `should_stop` said so; the same call goes on.
    FloodemError
        Whatever `open_inputs`, `convert` and the makers of shapes refuse.
    """
    workshop = Workshop(Path(folder))
    with ExitStack() as opened:
        inputs = open_inputs(images, segmentations, options=options, opened=opened)
        scores = None if options.scores is None else read_scores(options.scores)
        plan = plan_scene(inputs, options)
        if planned is not None:
            planned(plan)
        making = _Making(
            workshop,
            options,
            progress=progress,
            notice=notice or _ignore,
            should_stop=should_stop,
        )
        with workshop.hold(overwrite=overwrite):
            left = sum(
                volume.expected_bytes
                for volume in plan.volumes
                if not (workshop.folder / volume.name).exists()
            )
            require_free_disk(workshop.folder, needed_bytes=left, purpose="the scene")
            making.tell(inputs)
            for one in inputs:
                making.copy(one)
            placed = [making.shape(one, scores, opened) for one in inputs]
            making.finish(placed, plan=plan, scores=scores)
            workshop.tidy()
    return open_scene(workshop.folder)


def _ignore(sentence: str) -> None:
    """Listen to nothing."""


def _absolute(uri: str) -> str:
    """Return an address that means the same from every folder."""
    return uri if "://" in uri else os.path.abspath(uri)


class _Making:
    def __init__(
        self,
        workshop: Workshop,
        options: SceneOptions,
        *,
        progress: ProgressListener | None,
        notice: Callable[[str], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._workshop = workshop
        self._folder = workshop.folder
        self._options = options
        self._progress = progress
        self._notice = notice
        self._should_stop = should_stop

    def tell(self, inputs: Sequence[Input]) -> None:
        """Say what is shown otherwise than one may think."""
        for one in inputs:
            if not (self._folder / one.name).exists():
                self._tell_kind(one)
            if not one.is_stated:
                self._notice(
                    f"{one.name} does not state its voxel size: taken for {one.voxel_size} nm, as "
                    "another volume has"
                )
        if self._options.is_sharded:
            self._notice(
                "shards want a server that sends parts of files (ranges), as object stores and "
                "floodem do; of others (python -m http.server) the page fetches whole shards"
            )

    def _tell_kind(self, one: Input) -> None:
        looks = Kind.SEGMENTATION if looks_like_labels(one.volume) else Kind.IMAGE
        if looks is not one.kind:
            self._notice(f"{one.name} looks like {looks}, and is taken for {one.kind} as given")

    def copy(self, one: Input) -> None:
        """Put a volume into the scene, with its coarser levels."""
        self._workshop.part(
            self._workshop.volume_key(one.name),
            identity=self._identity(one),
            place=self._folder / one.name,
            make=lambda work: self._convert(one, work),
        )

    def shape(self, one: Input, scores: ObjectScores | None, opened: ExitStack) -> Placed:
        """Put measures, meshes, skeletons and the list of objects into a segmentation."""
        volume = opened.enter_context(open_volume(f"precomputed://{self._folder / one.name}"))
        layer = Layer(volume, one.kind, one.name)
        if one.kind is Kind.IMAGE:
            return Placed(layer=layer)
        shaping = Shaping(
            self._workshop,
            volume,
            name=one.name,
            identity=self._identity(one),
            options=self._options,
            listen=self._listen,
            should_stop=self._should_stop,
        )
        objects = shaping.measure()
        has_shapes = shaping.add_shapes(objects)
        shaping.write_list(objects, scores=scores)
        return Placed(layer=layer, ids=objects.ids, has_shapes=has_shapes, scores=scores)

    def finish(
        self, placed: Sequence[Placed], *, plan: ScenePlan, scores: ObjectScores | None
    ) -> None:
        """Write viewer, pages and, last, scene.json."""
        options = self._options
        title = options.title or self._folder.name
        if options.has_client:
            write_client(self._folder, title=title)
        else:
            remove_client(self._folder)
        summary = None if scores is None else scores.summary
        lines = [f"  {volume}" for volume in plan.volumes]
        text = readme(
            title,
            lines=lines,
            scores=summary,
            has_client=options.has_client,
            is_sharded=options.is_sharded,
        )
        write_text(self._folder / README, text)
        values = {
            VERSION_KEY: SCENE_VERSION,
            "floodem": floodem.__version__,
            "title": title,
            "objects": {one.layer.name: len(one.ids) for one in placed if one.ids is not None},
            "scores": summary,
            "state": first_state(placed, title=title),
        }
        write_text(self._folder / SCENE_FILE, json.dumps(values, indent=1, allow_nan=False))

    def _convert(self, one: Input, work: Path) -> dict[str, Any]:
        options = self._options
        edge = _SHARD_EDGE
        made = convert(
            one.volume,
            f"precomputed://{work}",
            box=one.box,
            voxel_size=one.voxel_size,
            dtype=one.dtype,
            shards=(edge, edge, edge) if options.is_sharded else None,
            pyramid=options.pyramid,
            kind=ValueKind.IMAGE if one.kind is Kind.IMAGE else ValueKind.LABELS,
            threads=options.workers,
            progress=self._listen(one.name),
            should_stop=self._should_stop,
        )
        scales = read_json(work / "info")["scales"]
        blanks = write_blanks(work, scales=scales, should_stop=self._should_stop)
        return {"levels": made.levels, "blanks": blanks}

    def _identity(self, one: Input) -> dict[str, Any]:
        """Return what the copy depends on, as plain values."""
        return {
            "kind": str(one.kind),
            "source": {"uri": _absolute(one.volume.uri), **fingerprint(one.volume)},
            "box": str(one.box),
            "voxel_size": [float(edge) for edge in one.voxel_size.zyx_nm],
            "dtype": np.dtype(one.dtype).name,
            "pyramid": self._options.pyramid,
            "is_sharded": self._options.is_sharded,
        }

    def _listen(self, what: str) -> ProgressListener | None:
        """Return a listener that says which part of the scene is being made."""
        listener = self._progress
        if listener is None:
            return None

        def told(progress: Progress) -> None:
            listener(
                Progress(
                    stage=f"{what}: {progress.stage}",
                    done=progress.done,
                    total=progress.total,
                    unit=progress.unit,
                    note=progress.note,
                )
            )

        return told
