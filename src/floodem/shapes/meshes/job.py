"""A segmentation of any size becomes a folder of meshes: the driver of all stages.

blocks (`floodem.shapes.meshes.blocks`) -> objects (`gathering`) -> files (`placing`)
-> destination (`destination`); each stage is a list of tasks with receipts
(`floodem.cluster`), so that a stopped run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from floodem.cluster import Task, run_tasks
from floodem.errors import DependencyError, GeometryError, LabelError, OptionError
from floodem.geometry import Box, VoxelSize
from floodem.progress import Progress, ProgressListener
from floodem.shapes.files import FORMATS
from floodem.shapes.meshes.blocks import (
    FRAGMENT_COLUMNS,
    BlockWork,
    Source,
    block_edge,
    mesh_block,
)
from floodem.shapes.meshes.destination import MeshDestination
from floodem.shapes.meshes.gathering import (
    FACES,
    OBJECT,
    VOXELS,
    Blocks,
    GatherWork,
    Pieces,
    gather_objects,
)
from floodem.shapes.meshes.marching import SHAPES_EXTRA
from floodem.shapes.meshes.options import MeshOptions
from floodem.shapes.meshes.packs import read_table
from floodem.shapes.meshes.placing import place_meshes, placing_tasks
from floodem.shapes.meshes.simplification import default_error_nm
from floodem.shapes.meshes.source import source_identity
from floodem.shapes.precomputed import MeshInfo, write_info
from floodem.volumes.volume import Volume

MESHING_VERSION = 1
"""Changes when the same labels and options give other files."""

_LIBRARIES = ("zmesh", "pyfqmr", "DracoPy")

_FACES_A_TASK = 200_000
"""A few seconds of work: little is lost by a kill, and several processes end together."""

_NAMED_IDS = 5

_Run = Callable[..., list[dict[str, Any]]]


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
    segmentation: str | Path | Source,
    destination: str | Path,
    *,
    options: MeshOptions | None = None,
    workers: int = 1,
    work: Path | None = None,
    overwrite: bool = False,
    progress: ProgressListener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> MeshResult:
    """Mesh the objects of a segmentation and write them where Neuroglancer finds them.

    A stopped or killed run goes on when it is repeated, and ends with the same files
    to the last byte. The result depends on the labels, the options and the versions of
    the libraries; not on the number of workers. Another edge of blocks moves vertices
    within the error.

    Parameters
    ----------
    segmentation
        A label volume: its address, or with more to say (level, channel, ...) a `Source`.
    destination
        A folder; where it lies in the folder of a precomputed segmentation, that one's
        info will name it. An s3:// or gs:// address. One file, where its name ends with
        that of a file format and one id is asked for.
    options
        What to mesh and how.
    workers
        Processes. Each holds one block of labels with its meshes, or one object's mesh:
        about half a kilobyte for each triangle that the blocks have left of it.
    work
        A local folder for working files, for destinations on servers. Others have
        theirs in ``DST.floodem``, and it is removed at the end.
    overwrite
        Replace meshes that are there, and begin unfinished work again.
    progress, should_stop
        Told of blocks, objects and files; asked between them.

    Raises
    ------
    LabelError
        When the volume holds no labels, or none of the ids.
    GeometryError
        When the voxel size is unknown, or the box is not in the volume.
    DestinationExistsError
        When something else is at the destination.
    RunConflictError
        When unfinished work there is of other data or options, or another process works.
    DependencyError
        When zmesh, pyfqmr or DracoPy is not installed.
    StoppedError
        When it was told to stop.
    """
    source = segmentation if isinstance(segmentation, Source) else Source(uri=str(segmentation))
    options = options or MeshOptions()
    options, is_file = _with_format(options, destination)
    with source.open() as volume:
        job = _job(volume, source, options)
        identity = job.identity | {"source": source_identity(volume)}
    place = MeshDestination(destination, is_file=is_file, overwrite=overwrite, work=work)
    is_sharded = place.is_remote if options.is_sharded is None else options.is_sharded
    identity["is_sharded"] = is_sharded
    done = place.finished(identity)
    if done is not None:
        return _result(done, destination=place.uri, was_finished=True)
    with place.hold(identity) as folder:

        def run(function: Any, tasks: Sequence[Task], *, of: str) -> list[dict[str, Any]]:
            return run_tasks(
                function,
                tasks,
                receipts=folder / of / "receipts",
                identity=identity,
                workers=workers,
                progress=_listening(progress, of),
                should_stop=should_stop,
            )

        made = _make(job, folder, run=run, is_sharded=is_sharded)
        result = _summary(made, job)
        place.commit(identity, result)
    return _result(result, destination=place.uri, was_finished=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """All that the stages need to know."""

    source: Source
    options: MeshOptions
    region: Box
    voxel_size: VoxelSize
    max_error_nm: float
    block_edge: int

    @property
    def identity(self) -> dict[str, Any]:
        """What the files depend on, as JSON values."""
        ids = self.options.ids
        return {
            "meshing": MESHING_VERSION,
            "libraries": {name: _version(name) for name in _LIBRARIES},
            "region": str(self.region),
            "voxel_size_zyx_nm": list(self.voxel_size.zyx_nm),
            "max_error_nm": self.max_error_nm,
            "block_edge": self.block_edge,
            "ids": None if ids is None else [str(label) for label in ids],
            "min_voxels": self.options.min_voxels,
            "file_format": self.options.file_format,
        }


def _with_format(options: MeshOptions, destination: str | Path) -> tuple[MeshOptions, bool]:
    """Take the format from the destination's ending; tell whether it is one file.

    Raises
    ------
    OptionError
        When it is one file for several objects, or of another format.
    """
    from dataclasses import replace

    ending = Path(str(destination)).suffix.removeprefix(".").lower()
    if ending not in FORMATS or Path(str(destination)).is_dir():
        return options, False
    if options.file_format not in {None, ending}:
        raise OptionError(
            f"{destination} would be {ending} and not {options.file_format}: leave --format "
            "(file_format) out, or name the file otherwise"
        )
    if options.ids is None or len(set(options.ids)) != 1:
        raise OptionError(
            f"{destination} is one file and holds one object: name it with --ids (ids), or give a "
            f"folder and --format {ending} (file_format)"
        )
    return replace(options, file_format=ending), True


def _job(volume: Volume, source: Source, options: MeshOptions) -> _Job:
    if volume.dtype.kind not in "ui":
        raise LabelError(
            f"{volume.uri} holds {volume.dtype} values, which are no labels: "
            "give a volume of unsigned integers, 0 for background"
        )
    voxel_size = options.voxel_size or volume.voxel_size
    if voxel_size is None:
        raise GeometryError(
            f"{volume.uri} does not say how large its voxels are: "
            "give z,y,x in nanometres with --voxel-size (voxel_size)"
        )
    region = options.box or volume.box
    if not volume.box.contains(region) or region.size == 0:
        raise GeometryError(f"box {region} is not inside {volume.uri}, which holds {volume.box}")
    return _Job(
        source=source,
        options=options,
        region=region,
        voxel_size=voxel_size,
        max_error_nm=options.max_error_nm or default_error_nm(voxel_size),
        block_edge=options.block_edge or block_edge(region),
    )


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        raise DependencyError(
            f"making meshes needs {library}, which is not installed here: "
            f"pip install {SHAPES_EXTRA!r}"
        ) from None


def _listening(progress: ProgressListener | None, of: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(
        Progress(stage=f"mesh {of}", done=done, total=total, unit=_UNITS[of])
    )


_UNITS = {"blocks": "blocks", "objects": "parts", "files": "files"}


def _make(job: _Job, folder: Path, *, run: _Run, is_sharded: bool) -> list[list[Any]]:
    """Run all stages; return the rows of `gather_objects`."""
    blocks = Blocks(region=job.region, edge=job.block_edge, folder=folder / "blocks")
    for name in ("blocks", "objects", "result"):
        (folder / name).mkdir(exist_ok=True)
    edges = job.voxel_size.zyx_nm
    ids = None if job.options.ids is None else tuple(sorted(set(job.options.ids)))
    run(
        mesh_block,
        [
            Task(
                key=str(number),
                argument=BlockWork(
                    source=job.source,
                    region=job.region,
                    core=core,
                    edges_nm=edges,
                    ids=ids,
                    max_error_nm=job.max_error_nm / 2,
                    path=blocks.path(number),
                ),
            )
            for number, core in enumerate(blocks.cores())
        ],
        of="blocks",
    )
    works = [
        GatherWork(
            blocks=blocks,
            pieces=pieces,
            edges_nm=edges,
            max_error_nm=job.max_error_nm / 2,
            path=_path_of(number, folder, job),
            file_format=job.options.file_format,
        )
        for number, pieces in _groups(_pieces(blocks, job))
    ]
    tasks = [Task(key=f"{number:06}", argument=work) for number, work in enumerate(works)]
    # The heaviest first, so that no process waits long for another at the end.
    tasks.sort(key=lambda task: -int(task.argument.pieces[:, FACES].sum()))
    results = run(gather_objects, tasks, of="objects")
    if job.options.file_format is None:
        packs = [work.path for work in works]
        placing, spec = placing_tasks(folder / "result", packs, is_sharded=is_sharded)
        run(place_meshes, placing, of="files")
        write_info(folder / "result", MeshInfo(sharding=spec))
    rows: list[list[Any]] = [row for one in results for row in one["objects"]]
    return sorted(rows)


def _path_of(number: int, folder: Path, job: _Job) -> Path:
    if job.options.file_format is None:
        return folder / "objects" / f"{number:06}.pack"
    return folder / "result"


def _pieces(blocks: Blocks, job: _Job) -> Pieces:
    """Return where the pieces of all objects are, by id, then block.

    Raises
    ------
    LabelError
        When none of the ids that were asked for is there.
    """
    tables = [np.zeros((0, 4 + FRAGMENT_COLUMNS), np.uint64)]
    for number in range(len(blocks.cores())):
        table = read_table(blocks.path(number), columns=FRAGMENT_COLUMNS)
        tables.append(np.insert(table, 1, number, axis=1))
    pieces = np.concatenate(tables)
    if job.options.ids is not None and len(pieces) == 0:
        raise LabelError(
            f"{job.source.uri} has none of the ids {_some(job.options.ids)} in {job.region}: "
            "check them"
        )
    # Blocks are in order, and the sort is stable.
    pieces = pieces[np.argsort(pieces[:, OBJECT], kind="stable")]
    _, where = np.unique(pieces[:, OBJECT], return_inverse=True)
    voxels = np.bincount(where, weights=pieces[:, VOXELS]).astype(np.int64)
    is_kept = (voxels[where] >= max(job.options.min_voxels, 1)) & (pieces[:, FACES] > 0)
    return pieces[is_kept]


def _groups(pieces: Pieces) -> list[tuple[int, Pieces]]:
    """Cut the pieces into parts of whole objects with about the same number of faces."""
    if len(pieces) == 0:
        return []
    _, first, where = np.unique(pieces[:, OBJECT], return_index=True, return_inverse=True)
    faces = np.bincount(where, weights=pieces[:, FACES])
    group = ((np.cumsum(faces) - faces) // _FACES_A_TASK).astype(np.int64)
    starts = first[np.flatnonzero(np.diff(group, prepend=-1))]
    return list(enumerate(np.split(pieces, starts[1:])))


def _summary(rows: list[list[Any]], job: _Job) -> dict[str, Any]:
    """Return what the record keeps of a finished run."""
    most = max((len(row[2]) for row in rows), default=0)
    notices = []
    if job.options.ids is not None and len(rows) < len(set(job.options.ids)):
        found = {row[0] for row in rows}
        missing = sorted(set(job.options.ids) - found)
        notices.append(
            f"no mesh for {_some(missing)}: they are not in {job.source.uri}, or too small"
        )
    return {
        "objects": len(rows),
        "triangles": [
            sum(row[2][level] for row in rows if len(row[2]) > level) for level in range(most)
        ],
        "levels": [sum(len(row[2]) == count for row in rows) for count in range(1, most + 1)],
        "bytes": sum(row[3] for row in rows),
        "voxel_size_zyx_nm": list(job.voxel_size.zyx_nm),
        "max_error_nm": job.max_error_nm,
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


def _some(ids: Sequence[int]) -> str:
    shown = ", ".join(str(label) for label in ids[:_NAMED_IDS])
    return shown if len(ids) <= _NAMED_IDS else f"{shown} and {len(ids) - _NAMED_IDS} more"
