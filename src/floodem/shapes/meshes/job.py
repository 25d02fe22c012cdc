"""A segmentation of any size becomes a folder of meshes: the driver of all stages.

blocks (`floodem.shapes.meshes.blocks`) -> objects (`gathering`) -> files (`placing`)
-> destination (`destination`); each stage is a list of tasks with receipts
(`floodem.cluster`), so that a stopped run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floodem.cluster import ALONE, Crew, Task, run_tasks
from floodem.cluster.dask_crew import keeping_cluster
from floodem.cluster.holding import taking_rest
from floodem.cluster.sharing import share_rest
from floodem.errors import FloodemError
from floodem.geometry import VoxelSize
from floodem.progress import Progress, ProgressListener
from floodem.shapes.meshes.blocks import BlockWork, mesh_block
from floodem.shapes.meshes.destination import MeshDestination
from floodem.shapes.meshes.gathering import (
    FACES,
    Blocks,
    GatherWork,
    gather_objects,
)
from floodem.shapes.meshes.options import MeshOptions
from floodem.shapes.meshes.placing import place_meshes, placing_tasks
from floodem.shapes.meshes.plan import (
    MeshPlan,
    in_groups,
    make_plan,
    pieces_of,
    some_of,
    with_format,
)
from floodem.shapes.precomputed import MeshInfo, write_info
from floodem.shapes.source import LabelSource, close_source, source_identity


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshResult:
    """What was made.

    Attributes
    ----------
    destination
        Its address.
    objects
        How many have a mesh.
    triangles
        Of all objects together, by level, finest first.
    bytes
        Of all objects together, without infos and indices of shards.
    voxel_size
        That positions were made with.
    max_error_nm
        Of simplification, in the finest level.
    levels
        How many objects have so many levels of detail: entry k those with k + 1.
    was_finished
        Whether an earlier run of the same work had done it all.
    notices
        Sentences for whoever may print them.
    """

    destination: str
    objects: int
    triangles: tuple[int, ...]
    bytes: int
    voxel_size: VoxelSize
    max_error_nm: float
    levels: tuple[int, ...]
    was_finished: bool = False
    notices: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "destination": self.destination,
            "objects": self.objects,
            "triangles": list(self.triangles),
            "bytes": self.bytes,
            "voxel_size_zyx_nm": list(self.voxel_size.zyx_nm),
            "max_error_nm": self.max_error_nm,
            "levels": list(self.levels),
            "was_finished": self.was_finished,
            "notices": list(self.notices),
        }


def mesh_segmentation(
    segmentation: str | Path | LabelSource,
    destination: str | Path,
    *,
    options: MeshOptions | None = None,
    crew: Crew = ALONE,
    work: Path | None = None,
    overwrite: bool = False,
    progress: ProgressListener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> MeshResult:
    """Mesh the objects of a segmentation and write them where Neuroglancer finds them.

    A stopped or killed run goes on when it is repeated, and ends with the same files
    to the last byte. The result depends on the labels, the options and the versions of
    the libraries; not on who works. Another edge of blocks moves vertices
    within the error.

    Parameters
    ----------
    segmentation
        A label volume: its address, or with more to say (level, channel, ...) a `LabelSource`.
    destination
        A folder; where it lies in the folder of a precomputed segmentation, that one's
        info will name it. An s3:// or gs:// address. One file, where its name ends with
        that of a file format and one id is asked for.
    options
        What to mesh and how.
    crew
        Who works. Each process holds one block of labels with its meshes, or one object's
        mesh: about half a kilobyte for each triangle that the blocks have left of it.
        Of shards the one that comes last does what is left and ends the work.
    work
        A local folder for working files, for destinations on servers. Others have
        theirs in ``DST.floodem``, and it is removed at the end. All shards, and all
        workers of a cluster, must see it.
    overwrite
        Replace meshes that are there, and begin unfinished work again.
    progress, should_stop
        Told of blocks, objects and files; asked between them.

    Raises
    ------
    LabelError
        When the volume holds no labels, or none of the ids.
    OptionError
        When the voxel size is unknown.
    GeometryError
        When the box is not in the volume.
    DestinationExistsError
        When something else is at the destination.
    RunConflictError
        When unfinished work there is of other data or options, or another process works.
    DependencyError
        When zmesh, pyfqmr or DracoPy is not installed.
    ShardDoneError
        When this shard is done, and the work is not, or another one ends it.
    StoppedError
        When it was told to stop.
    """
    source = (
        segmentation
        if isinstance(segmentation, LabelSource)
        else LabelSource(uri=str(segmentation))
    )
    options = options or MeshOptions()
    options, is_file = with_format(options, destination)
    with source.open() as volume:
        plan = make_plan(volume, source, options)
        identity = plan.identity | {"source": source_identity(volume)}
    place = MeshDestination(destination, is_file=is_file, overwrite=overwrite, work=work)
    is_sharded = place.is_remote if options.is_sharded is None else options.is_sharded
    identity["is_sharded"] = is_sharded
    done = place.finished(identity)
    if done is not None:
        return _result(done, destination=place.uri, was_finished=True)
    stages = _Stages(
        plan=plan,
        place=place,
        identity=identity,
        is_sharded=is_sharded,
        crew=crew,
        progress=progress,
        should_stop=should_stop,
    )
    with place.hold(identity, crew=crew), keeping_cluster(crew):
        try:
            result = stages.make()
        except (FloodemError, OSError) as error:
            # Of two shards that come last, one may have ended the work under the other's hands.
            place.require_unfinished(crew, error)
            raise
    return _result(result, destination=place.uri, was_finished=False)


def _listening(progress: ProgressListener | None, of: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(
        Progress(stage=f"mesh {of}", done=done, total=total, unit=_UNITS[of])
    )


_UNITS = {"blocks": "blocks", "objects": "parts", "files": "files"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stages:
    plan: MeshPlan
    place: MeshDestination
    identity: Mapping[str, Any]
    is_sharded: bool
    crew: Crew
    progress: ProgressListener | None
    should_stop: Callable[[], bool]

    def make(self) -> dict[str, Any]:
        """Run all stages; return what the record keeps."""
        plan, folder = self.plan, self.place.folder
        blocks = Blocks(region=plan.region, edge=plan.block_edge, folder=folder / "blocks")
        for name in ("blocks", "objects", "result"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._mesh(blocks)
        results, packs = self._gather(blocks)
        spec = None
        if plan.options.file_format is None:
            placing, spec = placing_tasks(folder / "result", packs, is_sharded=self.is_sharded)
            self._run(place_meshes, placing, of="files")
        rows = sorted(row for one in results for row in one["objects"])
        result = _summary(rows, plan)
        with taking_rest(folder / "end", crew=self.crew, what=self.place.uri):
            self.place.require_unfinished(self.crew)
            if plan.options.file_format is None:
                write_info(folder / "result", MeshInfo(sharding=spec))
            self.place.commit(self.identity, result)
        return result

    def _run(self, function: Any, tasks: Sequence[Task], *, of: str) -> list[dict[str, Any]]:
        def run(who: Crew) -> list[dict[str, Any]]:
            return run_tasks(
                function,
                tasks,
                receipts=self.place.folder / of / "receipts",
                identity=self.identity,
                crew=who,
                progress=_listening(self.progress, of),
                should_stop=self.should_stop,
            )

        return run(self.crew) if of == "blocks" else share_rest(run, crew=self.crew)

    def _mesh(self, blocks: Blocks) -> None:
        """Mesh each block; shards do their own, and only the last one goes on."""
        plan = self.plan
        ids = None if plan.options.ids is None else tuple(sorted(set(plan.options.ids)))
        tasks = [
            Task(
                key=str(number),
                argument=BlockWork(
                    source=plan.source,
                    region=plan.region,
                    core=core,
                    edges_nm=plan.voxel_size.zyx_nm,
                    ids=ids,
                    max_error_nm=plan.max_error_nm / 2,
                    path=blocks.path(number),
                ),
            )
            for number, core in enumerate(blocks.cores())
        ]
        try:
            self._run(mesh_block, tasks, of="blocks")
        finally:
            close_source()

    def _gather(self, blocks: Blocks) -> tuple[list[dict[str, Any]], list[Path]]:
        """Join the pieces of objects; return the results, and where the objects are."""
        plan = self.plan
        works = [
            GatherWork(
                blocks=blocks,
                pieces=pieces,
                edges_nm=plan.voxel_size.zyx_nm,
                max_error_nm=plan.max_error_nm / 2,
                path=_path_of(number, self.place.folder, plan),
                file_format=plan.options.file_format,
            )
            for number, pieces in in_groups(pieces_of(blocks, plan))
        ]
        tasks = [Task(key=f"{number:06}", argument=work) for number, work in enumerate(works)]
        # The heaviest first, so that no process waits long for another at the end.
        tasks.sort(key=lambda task: -int(task.argument.pieces[:, FACES].sum()))
        return self._run(gather_objects, tasks, of="objects"), [work.path for work in works]


def _path_of(number: int, folder: Path, plan: MeshPlan) -> Path:
    if plan.options.file_format is None:
        return folder / "objects" / f"{number:06}.pack"
    return folder / "result"


def _summary(rows: list[list[Any]], plan: MeshPlan) -> dict[str, Any]:
    """Return what the record keeps of a finished run."""
    most = max((len(row[2]) for row in rows), default=0)
    notices = []
    if plan.options.ids is not None and len(rows) < len(set(plan.options.ids)):
        found = {row[0] for row in rows}
        missing = sorted(set(plan.options.ids) - found)
        notices.append(
            f"no mesh for {some_of(missing)}: they are not in the segmentation, or too small"
        )
    return {
        "objects": len(rows),
        "triangles": [
            sum(row[2][level] for row in rows if len(row[2]) > level) for level in range(most)
        ],
        "levels": [sum(len(row[2]) == count for row in rows) for count in range(1, most + 1)],
        "bytes": sum(row[3] for row in rows),
        "voxel_size_zyx_nm": list(plan.voxel_size.zyx_nm),
        "max_error_nm": plan.max_error_nm,
        "notices": notices,
    }


def _result(values: Mapping[str, Any], *, destination: str, was_finished: bool) -> MeshResult:
    return MeshResult(
        destination=destination,
        objects=values["objects"],
        triangles=tuple(values["triangles"]),
        bytes=values["bytes"],
        voxel_size=VoxelSize(*values["voxel_size_zyx_nm"]),
        max_error_nm=values["max_error_nm"],
        levels=tuple(values["levels"]),
        was_finished=was_finished,
        notices=tuple(values["notices"]),
    )
