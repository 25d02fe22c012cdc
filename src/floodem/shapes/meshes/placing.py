"""Stage three of meshing a volume: encoded meshes come in, the files of the destination go out.

Two files for each object, or shards for object stores; both in the working folder,
which takes its place when all is there (`floodem.shapes.meshes.destination`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt64

from floodem.cluster import Task
from floodem.files import storage_error, sync_folder
from floodem.shapes.meshes.gathering import ENCODED_COLUMNS
from floodem.shapes.meshes.packs import Place, read_table
from floodem.shapes.precomputed import (
    EncodedMesh,
    ShardingSpec,
    choose_sharding,
    writing_shard,
)
from floodem.shapes.precomputed.folders import object_name


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlaceWork:
    """Encoded meshes to put into files.

    Attributes
    ----------
    folder
        Where the files go.
    packs
        Files of `floodem.shapes.meshes.gathering`.
    rows
        One for each object: its id, the number of its pack, start, size, bytes of the manifest.
    spec, shard
        The shard to write; None: two files for each object.
    """

    folder: Path
    packs: tuple[Path, ...]
    rows: UInt64[np.ndarray, "objects 5"]
    spec: ShardingSpec | None
    shard: int | None


def placing_tasks(
    folder: Path, packs: list[Path], *, is_sharded: bool
) -> tuple[list[Task], ShardingSpec | None]:
    """Return the tasks for `place_meshes`, and how objects are spread over shards, if they are.

    Raises
    ------
    StorageError, VolumeFormatError
        When a pack cannot be read.
    """
    tables = [read_table(path, columns=ENCODED_COLUMNS) for path in packs]
    if not is_sharded:
        works = [
            PlaceWork(folder=folder, packs=(path,), rows=_numbered(table, 0), spec=None, shard=None)
            for path, table in zip(packs, tables, strict=True)
        ]
        return [Task(key=f"{n:06}", argument=work) for n, work in enumerate(works)], None
    numbered = [_numbered(table, number) for number, table in enumerate(tables)]
    rows = np.concatenate([np.zeros((0, 5), np.uint64), *numbered])
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    spec = choose_sharding(len(rows), int(rows[:, 3].sum()))
    tasks = []
    for shard, ids in spec.group_by_shard(rows[:, 0]).items():
        mine = rows[np.searchsorted(rows[:, 0], ids)]
        work = PlaceWork(folder=folder, packs=tuple(packs), rows=mine, spec=spec, shard=shard)
        tasks.append(Task(key=f"{shard:x}", argument=work))
    return tasks, spec


def _numbered(table: UInt64[np.ndarray, "objects 4"], pack: int) -> UInt64[np.ndarray, "objects 5"]:
    return np.insert(table, 1, pack, axis=1)


def place_meshes(work: PlaceWork) -> dict[str, Any]:
    """Write the files of some objects, or one shard.

    Raises
    ------
    StorageError, VolumeFormatError
        When a file cannot be read or written.
    """
    rows = work.rows.tolist()
    if work.spec is None or work.shard is None:
        for row in rows:
            encoded = _encoded(row, work)
            name = object_name(row[0])
            _write(work.folder / name, encoded.fragments)
            _write(work.folder / f"{name}.index", encoded.manifest)
        sync_folder(work.folder)
    else:
        with writing_shard(work.folder, work.shard, spec=work.spec) as shard:
            for row in rows:
                encoded = _encoded(row, work)
                shard.add(row[0], encoded.manifest, fragments=encoded.fragments)
    return {"objects": len(rows)}


def _write(path: Path, data: bytes) -> None:
    """Write a file that nobody looks at before its folder takes its place, and force it to disk."""
    try:
        with open(path, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise storage_error("write", path, error) from error


def _encoded(row: list[int], work: PlaceWork) -> EncodedMesh:
    _, pack, start, size, manifest = row
    data = Place(path=work.packs[pack], start=start, size=size).read()
    return EncodedMesh(bytes(data[:manifest]), bytes(data[manifest:]))
