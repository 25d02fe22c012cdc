"""``floodem measure SEG``: a segmentation in; size, surface, place and length of objects out."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from floodem.cli import options
from floodem.cli.skeletonize import notices
from floodem.cli.stopping import finishing_tasks
from floodem.cli.values import option_value
from floodem.counting import counted
from floodem.errors import OptionError, VolumeNotFoundError
from floodem.geometry import VoxelSize

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from floodem.shapes.measures.measure import Measures

_LARGEST = 10
_WORK_ENDING = ".floodem"
_NM_PER_UM = 1000


def measure(
    segmentation: Annotated[
        str, typer.Argument(metavar="SEG", help="Segmentation: a path or address.")
    ],
    *,
    csv: Annotated[
        Path | None, typer.Option(metavar="OUT.csv", help="Write one line for each object.")
    ] = None,
    length: Annotated[
        bool, typer.Option("--length", help="Also skeletonise objects of 1000 voxels or more.")
    ] = False,
    skeletons: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Take cable lengths from skeletons here.")
    ] = None,
    voxel_size: options.VoxelEdges = None,
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Keep what is counted, to go on with; shards share it."
        ),
    ] = None,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    shard: options.ShardPart = None,
    insecure: options.Insecure = False,
    level: options.Level = 0,
    channel: options.Channel = None,
    axes: options.Axes = None,
    allow_external: options.AllowExternal = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.csv.")] = False,
    as_json: options.Json = False,
) -> None:
    """Measure the objects of a segmentation.

    OUT.csv has one line for each object, by ascending id: voxels, volume_nm3,
    surface_nm2, its box z0,y0,x0,z1,y1,x1 (half-open) and centroid in voxels, and
    length_nm of its skeleton where that is asked for. Without --csv the largest
    objects are printed.

    Surfaces are estimated: round ones within 2 %, flat ones 6 % too small where they
    follow the voxels' faces and up to 3 % too large where they are slanted. Where the
    volume ends is no surface. Ctrl-C stops; with --csv or --work the same command goes on.
    --shard and --cluster need a --work folder that all machines see; the last shard
    writes OUT.csv.
    """
    from floodem.cli.labels import warn_of_image
    from floodem.shapes.measures.table_file import write_csv
    from floodem.shapes.source import LabelSource

    crew = options.chosen_crew(
        workers=workers, cluster=cluster, shard=shard, insecure=insecure, overwrite=overwrite
    )
    if work is None and (crew.shard is not None or crew.cluster is not None):
        raise OptionError(
            "shards and clusters leave what they count in a folder that all of them see: name it "
            "with --work"
        )
    if length and skeletons is not None:
        raise OptionError("--length computes skeletons and --skeletons reads them: give one")
    if csv is not None:
        _require_place(csv, overwrite=overwrite)
    size = option_value("--voxel-size", VoxelSize.parse, text=voxel_size)
    source = LabelSource(
        uri=segmentation, level=level, channel=channel, axes=axes, allow_external=allow_external
    )
    warn_of_image(source)
    with _working(csv, work) as folder:
        found = _measured(source, folder, {"size": size, "crew": crew, "length": length})
        if skeletons is not None:
            found = _with_read_lengths(found, skeletons)
        if csv is not None:
            write_csv(csv, found)
            if work is None:
                shutil.rmtree(folder)
    if as_json:
        print(json.dumps(as_values(found)))
    else:
        _print(found, csv)


def _require_place(csv: Path, *, overwrite: bool) -> None:
    """Refuse before the work what could not be written after it."""
    from floodem.volumes.staging import require_no_destination

    if not csv.absolute().parent.is_dir():
        raise VolumeNotFoundError(
            f"--csv {csv} cannot be written: there is no folder {csv.absolute().parent}"
        )
    if csv.is_dir() or not overwrite:
        require_no_destination(csv, uri=str(csv))


@contextlib.contextmanager
def _working(csv: Path | None, work: Path | None) -> Iterator[Path]:
    """Give a folder for what the processes leave: beside the CSV, where a stopped run goes on."""
    if work is not None:
        yield work
        return
    if csv is not None:
        yield csv.with_name(f"{csv.name}{_WORK_ENDING}")
        return
    with tempfile.TemporaryDirectory(prefix="floodem-") as folder:
        yield Path(folder) / "work"


def _measured(source: Any, work: Path, how: Mapping[str, Any]) -> Measures:
    from floodem.cluster.dask_crew import keeping_cluster
    from floodem.shapes.measures.measure import measure as run
    from floodem.shapes.skeletons.job import skeletonize
    from floodem.shapes.skeletons.request import SkeletonRequest

    crew = how["crew"]
    with finishing_tasks(overwrite=False) as working, keeping_cluster(crew):
        found = run(source, voxel_size=how["size"], crew=crew, work=work / "counts", **working)
        if not how["length"]:
            return found
        made = skeletonize(
            source,
            work / "skeletons",
            request=SkeletonRequest(voxel_size=how["size"]),
            crew=crew,
            takes_rest=True,
            **working,
        )
    for sentence in notices(made):
        print(f"note: {sentence}", file=sys.stderr)
    return found.with_lengths(made.ids, made.lengths_nm)


def _with_read_lengths(found: Measures, folder: Path) -> Measures:
    from floodem.cli.progress import progress_bar
    from floodem.shapes.measures.measure import skeleton_lengths
    from floodem.shapes.skeletons.folder import SkeletonFolder

    with progress_bar() as progress:
        ids, lengths = skeleton_lengths(SkeletonFolder(folder), found.ids, progress=progress)
    return found.with_lengths(ids, lengths)


def as_values(found: Measures) -> dict[str, Any]:
    """Return the sums over all objects as JSON values; single objects stand in the CSV."""
    values: dict[str, Any] = {
        "objects": len(found),
        "voxel_size_nm_zyx": list(found.voxel_size.zyx_nm),
        "voxels": int(found.voxels.sum()),
        "volume_nm3": float(found.volume_nm3.sum()),
        "surface_nm2": float(found.surface_nm2.sum()),
    }
    if found.length_nm is not None:
        import numpy as np

        values["length_nm"] = float(np.nansum(found.length_nm))
    return values


def _print(found: Measures, csv: Path | None) -> None:
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    where = f"{csv}: " if csv is not None else ""
    print(
        f"{where}{counted(len(found), 'object')}, {counted(int(found.voxels.sum()), 'voxel')} "
        f"of {found.voxel_size} nm"
    )
    if csv is not None or not len(found):
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("largest", "voxels", "volume um3", "surface um2", "centre z,y,x", "length um"):
        if name != "length um" or found.length_nm is not None:
            table.add_column(name, justify="right")
    for row in np.argsort(-found.voxels, kind="stable")[:_LARGEST]:
        cells = [
            str(found.ids[row]),
            f"{found.voxels[row]:,}",
            f"{found.volume_nm3[row] / _NM_PER_UM**3:.4g}",
            f"{found.surface_nm2[row] / _NM_PER_UM**2:.4g}",
            ",".join(str(int(index)) for index in found.centroid[row]),
        ]
        if found.length_nm is not None:
            length = found.length_nm[row] / _NM_PER_UM
            cells.append("-" if np.isnan(length) else f"{length:.2f}")
        table.add_row(*cells)
    Console(markup=False, highlight=False).print(table)
