"""Skeletons of a whole segmentation: labels of any size in, a folder of skeletons out.

::

    count objects  -->  plan  -->  skeletonise groups  -->  shards, if asked  -->  info, link
    (blocks)                       (tasks)                  (tasks)

Counting and skeletonising are tasks with receipts (`floodem.cluster`) in
``DST.floodem``: a run that was killed goes on with the same command and leaves the
same files. Each worker holds the labels or the mask of one group or object and its
graph, of which the plan (`floodem.shapes.skeletons.plan`) bounds both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt64

from floodem.cluster import ALONE, Crew, Task, run_tasks
from floodem.cluster.dask_crew import keeping_cluster
from floodem.cluster.holding import holding, taking_rest
from floodem.cluster.sharing import share_rest
from floodem.errors import DestinationExistsError, FloodemError, RunConflictError
from floodem.files import making_folders, storage_error, write_new, write_text
from floodem.progress import Progress, ProgressListener
from floodem.shapes.measures.blocks import count_source
from floodem.shapes.measures.table import ObjectTable
from floodem.shapes.precomputed import (
    ShardingSpec,
    SkeletonInfo,
    choose_sharding,
    link_to_segmentation,
    write_info,
    writing_shard,
)
from floodem.shapes.precomputed.folders import INFO, MAX_INFO_BYTES, read_json, write_json
from floodem.shapes.precomputed.shards import read_range
from floodem.shapes.skeletons.kimimaro_adapter import load_kimimaro
from floodem.shapes.skeletons.objects import GroupTask, Outputs, skeletonize_group
from floodem.shapes.skeletons.plan import GROUP_VOXELS, Plan, Reading, plan, readings
from floodem.shapes.skeletons.request import Skeletonized, SkeletonRequest
from floodem.shapes.source import LabelSource, close_source, require_voxel_size

WORK_ENDING = ".floodem"
"""The record of a run lies beside its destination, under its name and this."""

_VERSION = 1
"""Of the method: skeletons of another one are not mixed with this one's."""

_RUN = "run.json"
_FINISHED = "finished"
_SWC = "swc"
_MAX_RUN_BYTES = 2**28
"""With a billion digits of ids it would be no command line."""


def skeletonize(
    source: LabelSource,
    destination: Path,
    *,
    request: SkeletonRequest,
    crew: Crew = ALONE,
    takes_rest: bool = False,
    overwrite: bool = False,
    progress: ProgressListener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Skeletonized:
    """Make the skeletons of a segmentation's objects.

    Parameters
    ----------
    source
        Where the labels are.
    destination
        Folder for the skeletons: precomputed ones in it, SWC files in it as well, or
        in its folder ``swc`` where both are asked for. In the folder of a precomputed
        segmentation, that segmentation's info is made to name it.
    crew
        Who works. Of shards the one that comes last does what is left; what is started
        again meanwhile does its own part.
    takes_rest
        Whether this follows on work that shards shared: then a shard counts for others, too.
    overwrite
        Begin again, removing what an earlier run made there.
    progress
        Called for blocks that are counted and objects that are done.
    should_stop
        Asked between tasks.

    Raises
    ------
    DestinationExistsError
        When something else is at the destination.
    RunConflictError
        When it was begun with other labels or options, or another process works on it.
    OptionError
        When the voxel size is not known.
    DependencyError
        When a method's package is not installed.
    LabelError
        When the volume holds no labels.
    ResourceError
        When a worker was killed.
    ShardDoneError
        When this shard is done and others are not.
    StoppedError
        When it was told to stop; the same call goes on.
    """
    if request.method == "kimimaro":
        load_kimimaro()
    work = destination.with_name(f"{destination.name}{WORK_ENDING}")
    with source.open() as volume:
        size = require_voxel_size(volume, request.voxel_size)
        labels = source.identity(volume)
        identity = {"version": _VERSION, "labels": labels, "request": request.identity()}
        _require_ours(destination, work)
        with holding(work, crew=crew, what=str(destination)), keeping_cluster(crew):
            values = json.loads(json.dumps(identity))
            if crew.shard is None:
                _begin(destination, work, identity=values, again=overwrite)
            else:
                _join(destination, work, identity=values)
            run = _Run(
                source=source,
                destination=destination.absolute(),  # workers may be elsewhere
                work=work.absolute(),
                request=request,
                identity=identity,
                crew=crew,
                progress=progress,
                should_stop=should_stop,
            )
            objects = count_source(
                source,
                volume,
                work=work / "objects",
                identity=labels,
                crew=crew,
                takes_rest=takes_rest,
                progress=progress,
                should_stop=should_stop,
            )
            ways = readings(volume, voxel_size=size, is_fixed=request.is_level_fixed)
            return dataclasses.replace(run.make(objects, ways), destination=destination)


def _require_ours(destination: Path, work: Path) -> None:
    """Refuse a destination that holds what this command has not made."""
    try:
        is_taken = destination.is_file() or (destination.exists() and any(destination.iterdir()))
        if is_taken and not (work / _RUN).exists():
            raise DestinationExistsError(
                f"{destination} is there already and not from this command: choose another name"
            )
    except FloodemError:
        raise
    except OSError as error:
        raise storage_error("look at", destination, error) from error


def _begin(destination: Path, work: Path, *, identity: Mapping[str, Any], again: bool) -> None:
    """Refuse what is of other options; otherwise note what is being made."""
    _require_ours(destination, work)
    record = work / _RUN
    try:
        is_other = record.exists() and read_json(record, max_bytes=_MAX_RUN_BYTES) != identity
        if is_other and destination.exists() and not again:
            raise _begun_otherwise(destination)
        if record.exists() and (again or is_other):
            for folder in (destination, *(one for one in work.iterdir() if one.is_dir())):
                if folder.exists():
                    shutil.rmtree(folder)
            (work / _FINISHED).unlink(missing_ok=True)
            record.unlink()
        write_json(record, identity)
    except FloodemError:
        raise
    except OSError as error:
        raise storage_error("prepare", destination, error) from error


def _join(destination: Path, work: Path, *, identity: Mapping[str, Any]) -> None:
    """Note what is being made, as the first of several shards, or refuse what is something else."""
    _require_ours(destination, work)
    record = work / _RUN
    write_new(record, json.dumps(identity).encode())
    if read_json(record, max_bytes=_MAX_RUN_BYTES) != identity:
        raise _begun_otherwise(destination)


def _begun_otherwise(destination: Path) -> RunConflictError:
    return RunConflictError(
        f"{destination} was begun with other labels or options: repeat the earlier command "
        "to go on with it, give --overwrite to begin again, or choose another destination"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One run, from the table of objects to the finished folder."""

    source: LabelSource
    destination: Path
    work: Path
    request: SkeletonRequest
    identity: Mapping[str, Any]
    crew: Crew
    progress: ProgressListener | None
    should_stop: Callable[[], bool]

    def make(self, objects: ObjectTable, ways: Sequence[Reading]) -> Skeletonized:
        """Make everything that is not there yet, and say what is there."""
        was_finished = (self.work / _FINISHED).exists()
        wanted, missing, too_small = self._wanted(objects)
        planned = plan(wanted, ways, memory_bytes=self.request.memory_bytes)
        outputs = self._outputs()
        is_shared = self.crew.shard is not None
        folders = [one for one in (outputs.precomputed, outputs.packs, outputs.swc) if one]
        with contextlib.ExitStack() as made:
            for folder in (self.destination, *folders):
                made.enter_context(making_folders(folder, is_shared=is_shared))
            rows = self._groups(planned, outputs)
        found = np.array(
            [row[1:4] for group in rows for row in group["objects"]], np.float64
        ).reshape(-1, 3)
        ids = np.array([row[0] for group in rows for row in group["objects"]], np.uint64)
        sizes = np.array([row[4] for group in rows for row in group["objects"]], np.int64)
        # Empty so far where everything is in packs, or nothing is large enough.
        with making_folders(self.destination, is_shared=is_shared):
            spec = self._shards(planned, ids=ids, sizes=sizes) if self.request.is_sharded else None
            with taking_rest(self.work / "end", crew=self.crew, what=str(self.destination)):
                self._finish(spec)
        order = np.argsort(ids, kind="stable")
        is_made = found[order, 0] > 0
        kept = order[is_made]
        return Skeletonized(
            destination=self.destination,
            ids=ids[kept],
            vertices=found[kept, 0].astype(np.int64),
            pieces=found[kept, 1].astype(np.int64),
            lengths_nm=found[kept, 2],
            coarse=sum(len(one.ids) for one in planned.groups if one.reading.coarsening > 1),
            refused=tuple(planned.refused.tolist()),
            lost=tuple(ids[order[~is_made]].tolist()),
            too_small=too_small,
            missing=missing,
            was_finished=was_finished,
        )

    def _wanted(self, objects: ObjectTable) -> tuple[ObjectTable, tuple[int, ...], int]:
        """Return the objects to do, the ids that are not there, and how many are too small."""
        if self.request.ids is None:
            is_large = objects.voxels >= self.request.min_voxels
            return objects.select(is_large), (), int((~is_large).sum())
        asked = np.array(sorted(set(self.request.ids)), np.uint64)
        missing = np.setdiff1d(asked, objects.ids).tolist()
        return objects.select(np.isin(objects.ids, asked)), tuple(missing), 0

    def _outputs(self) -> Outputs:
        formats, is_sharded = self.request.formats, self.request.is_sharded
        has_precomputed = "precomputed" in formats
        swc = self.destination / _SWC if has_precomputed else self.destination
        return Outputs(
            precomputed=self.destination if has_precomputed and not is_sharded else None,
            packs=self.work / "packs" if is_sharded else None,
            swc=swc if "swc" in formats else None,
            swc_unit=self.request.swc_unit,
            swc_source=_last_name(self.source.uri),
        )

    def _groups(self, planned: Plan, outputs: Outputs) -> list[dict[str, Any]]:
        options = dataclasses.replace(self.request.teasar, min_piece_voxels=self.request.min_voxels)
        tasks = [
            Task(
                key=group.key,
                argument=GroupTask(
                    source=self.source,
                    group=group,
                    method=self.request.method,
                    options=options,
                    outputs=outputs,
                ),
            )
            for group in planned.groups
        ]
        return self._tasks(skeletonize_group, tasks, stage="skeletonising", unit="groups")

    def _shards(
        self,
        planned: Plan,
        *,
        ids: UInt64[np.ndarray, "objects"],
        sizes: Int64[np.ndarray, "objects"],
    ) -> ShardingSpec:
        """Gather the encoded skeletons into shards, one task each."""
        spec = choose_sharding(int((sizes > 0).sum()), int(sizes.sum()))
        counts = [len(group.ids) for group in planned.groups]
        ends = np.cumsum(sizes)
        firsts = np.concatenate([[0], np.cumsum(counts)])[:-1]
        before = np.repeat(ends[firsts] - sizes[firsts], counts) if len(ids) else ends
        starts = ends - sizes - before
        packs = np.repeat(np.arange(len(counts)), counts)
        paths = [self.work / "packs" / f"{group.key}.bin" for group in planned.groups]
        order = np.argsort(ids, kind="stable")
        order = order[sizes[order] > 0]
        shards = spec.shard_of(ids[order])
        tasks = []
        for shard in np.unique(shards).tolist():
            rows = order[shards == shard]
            argument = _Shard(
                folder=self.destination,
                number=int(shard),
                spec=spec,
                ids=ids[rows],
                paths=[paths[pack] for pack in packs[rows]],
                starts=starts[rows],
                sizes=sizes[rows],
            )
            tasks.append(Task(key=f"shard-{shard}", argument=argument))
        self._tasks(_write_shard, tasks, stage="writing shards", unit="shards")
        return spec

    def _tasks(
        self,
        function: Callable[[Any], Mapping[str, Any]],
        tasks: Sequence[Task],
        *,
        stage: str,
        unit: str,
    ) -> list[dict[str, Any]]:
        def tell(done: int, total: int) -> None:
            if self.progress is not None:
                self.progress(Progress(stage=stage, done=done, total=total, unit=unit))

        def run(who: Crew) -> list[dict[str, Any]]:
            return run_tasks(
                function,
                tasks,
                receipts=self.work / unit,
                identity={**self.identity, "group_voxels": GROUP_VOXELS},
                crew=who,
                progress=tell,
                should_stop=self.should_stop,
            )

        try:
            return share_rest(run, crew=self.crew)
        finally:
            close_source()

    def _finish(self, spec: ShardingSpec | None) -> None:
        """Say what the folder holds, name it where it belongs to, and remove what is not needed."""
        if "precomputed" in self.request.formats:
            write_info(self.destination, SkeletonInfo(sharding=spec))
            _link(self.destination)
        try:
            if spec is not None and (self.work / "packs").exists():
                shutil.rmtree(self.work / "packs")
        except OSError as error:
            raise storage_error("remove", self.work / "packs", error) from error
        write_text(self.work / _FINISHED, "")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Shard:
    folder: Path
    number: int
    spec: ShardingSpec
    ids: UInt64[np.ndarray, "objects"]
    paths: Sequence[Path]
    starts: Int64[np.ndarray, "objects"]
    sizes: Int64[np.ndarray, "objects"]


def _write_shard(shard: _Shard) -> dict[str, Any]:
    places = zip(
        shard.ids.tolist(), shard.paths, shard.starts.tolist(), shard.sizes.tolist(), strict=True
    )
    with writing_shard(shard.folder, shard.number, spec=shard.spec) as writer:
        for number, path, start, size in places:
            writer.add(number, read_range(path, start, size=size))
    return {"objects": len(shard.ids)}


def _link(folder: Path) -> None:
    """Name a folder of skeletons in the info of the segmentation that it lies in, if any."""
    absolute = folder.absolute()
    for above in absolute.parents:
        if not (above / INFO).is_file():
            continue
        info = read_json(above / INFO, max_bytes=MAX_INFO_BYTES)
        if isinstance(info, dict) and info.get("type") == "segmentation" and "scales" in info:
            link_to_segmentation(above, skeletons=absolute.relative_to(above).as_posix())
            return


def _last_name(uri: str) -> str:
    """Return the last part of an address: who is sent a file need not learn the folders here."""
    return uri.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
