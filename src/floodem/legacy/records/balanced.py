"""The coordinates file of the historic training: an index in, GZIP TFRecord files out.

Every partition is resampled to the size of the largest, over all volumes, and all is
shuffled. So that any number of records takes little memory, they are dealt at random
into buckets in a temporary file first, and each bucket is shuffled by itself: every
order of all records is then as likely as any other.

    index --> repeated centres --> buckets --> shuffled --> records --> gzip

The newer schema, and reading, have other modules.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Int64, UInt64

from floodem.errors import GeometryError, OptionError
from floodem.files import making_folders, replacing, require_free_disk, storage_error
from floodem.legacy.records.gzip_stream import GzipStream
from floodem.legacy.records.packing import RecordWriter
from floodem.progress import Progress, ProgressListener
from floodem.training.coordinates.index import CoordinateIndex
from floodem.volumes.parallel import usable_threads
from floodem.volumes.staging import require_no_destination

BUCKET_RECORDS = 2**18
"""Centres that are shuffled at once, 8 bytes each: few enough to stay near the processor."""

_MOST_BUCKETS = 2**12

_DEALT_RECORDS = 2**18
"""Centres that are dealt into buckets at once."""

CHUNK_RECORDS = 2**14
"""Records that are made and compressed at once, about 1.2 MB; with more, half of the time goes
into fresh memory."""

_PACKED_BITS = 64
_PACKED_BYTES = 8
_STREAM = 0x7466726563  # "tfrec": other parts of a run draw from other streams of its seed

Packed = UInt64[np.ndarray, "n"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TfrecordResult:
    """What was written.

    Attributes
    ----------
    paths
        The files.
    records
        How many, in all files.
    voxels
        Different voxels of each partition; each partition has as many records as the
        largest of these.
    """

    paths: tuple[Path, ...]
    records: int
    voxels: dict[int, int]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "paths": [str(path) for path in self.paths],
            "records": self.records,
            "voxels": {str(partition): count for partition, count in self.voxels.items()},
        }


def write_tfrecord(
    index: CoordinateIndex,
    destination: str | Path,
    *,
    shards: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    threads: int | None = None,
    progress: ProgressListener | None = None,
) -> TfrecordResult:
    """Write the centres of an index as the historic training reads them.

    Coordinates are x, y, z in the frame of the labels: indices of the array where
    the labels have no offset, as historic ones have not.

    Parameters
    ----------
    index
        Weights are not used; background is written if the index holds it.
    destination
        The file, or the beginning of the names of `shards`: ``DST-00003-of-00025``.
    shards
        How many files; None: one of the name itself.
    seed
        Of the order.
    overwrite
        Replace existing files; they appear when all are complete.
    threads
        That compress; by default one for each core.
    progress
        Called after each chunk, in records.

    Raises
    ------
    OptionError
        When there are fewer records than files.
    DestinationExistsError
        When a file is there and `overwrite` is not set.
    StorageError, ResourceError
        When the file system refuses, or the disk is too full.
    """
    paths = shard_paths(Path(destination), shards=shards)
    if not overwrite:
        for path in paths:
            require_no_destination(path, uri=str(path))
    centres = _Resampled(index)
    if centres.records < len(paths):
        raise OptionError(
            f"{centres.records} records do not fill {len(paths)} files: ask for fewer shards"
        )
    require_free_disk(
        paths[0], needed_bytes=centres.records * _PACKED_BYTES, purpose="shuffling coordinates"
    )
    folder = paths[0].absolute().parent
    random = np.random.Generator(np.random.Philox(key=[seed, _STREAM]))
    with making_folders(folder), ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
            buckets = _Buckets(file, centres=centres, random=random)
        except OSError as error:
            raise storage_error("write in", folder, error) from error
        _write_files(
            paths,
            centres=centres,
            buckets=buckets,
            names=index.volume_names,
            threads=threads,
            progress=progress,
        )
    return TfrecordResult(paths=tuple(paths), records=centres.records, voxels=centres.voxels)


def shard_paths(path: Path, *, shards: int | None) -> list[Path]:
    """Return the names of the files: ``DST``, or ``DST-00000-of-00002`` and so on."""
    if shards is None:
        return [path]
    return [path.with_name(f"{path.name}-{one:05}-of-{shards:05}") for one in range(shards)]


def _write_files(
    paths: Sequence[Path],
    *,
    centres: _Resampled,
    buckets: _Buckets,
    names: Sequence[str],
    threads: int | None,
    progress: ProgressListener | None,
) -> None:
    """Write all files; none appears before all are complete."""
    workers = usable_threads(threads)
    report = progress or (lambda _: None)
    records = RecordWriter(names)
    done = 0
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        for number, path in enumerate(paths):
            stop = (number + 1) * centres.records // len(paths)
            partial = stack.enter_context(replacing(path))
            with open(partial, "wb") as file, GzipStream(file, pool=pool, ahead=workers) as stream:
                while done < stop:
                    chunk = buckets.take(min(CHUNK_RECORDS, stop - done))
                    stream.write(records.records(*centres.unpack(chunk)))
                    done += len(chunk)
                    report(
                        Progress(stage="records", done=done, total=centres.records, unit="records")
                    )


class _Resampled:
    """All centres, each as often as it takes to make its partition as large as the largest.

    A centre is packed into one number: its volume, then z, y, x from the volume's start.
    """

    def __init__(self, index: CoordinateIndex) -> None:
        self._index = index
        self.voxels: dict[int, int] = {}
        for name in index.volume_names:
            for partition in index.partitions(name):
                count = index.count(name, partition)
                self.voxels[partition] = self.voxels.get(partition, 0) + count
        self._largest = max(self.voxels.values())
        self.records = len(self.voxels) * self._largest
        shapes = [volume.box.shape for volume in index.volumes]
        self._bits = [(max(sizes) - 1).bit_length() for sizes in zip(*shapes, strict=True)]
        if sum(self._bits) + (len(shapes) - 1).bit_length() > _PACKED_BITS:
            raise GeometryError(
                f"volumes of up to {[max(sizes) for sizes in zip(*shapes, strict=True)]} voxels "
                f"(z,y,x) are too large for one file of coordinates: take fewer or smaller ones"
            )
        self._starts = np.array([volume.box.start for volume in index.volumes], np.int64)

    def batches(self, random: np.random.Generator) -> Iterator[Packed]:
        """Yield all centres in the order of partitions, a few million at once."""
        for partition, count in self.voxels.items():
            times, rest = divmod(self._largest, count)
            # `rest` of the voxels come once more: evenly spread ones, from a random one on.
            phase = int(random.integers(count))
            for packed in self._packed(partition):
                ends = phase + rest * np.arange(1, len(packed) + 1)
                is_extra = ends // count != (ends - rest) // count
                phase = int(ends[-1] % count)
                yield packed[is_extra]
                at_once = max(1, _DEALT_RECORDS // len(packed))
                for done in range(0, times, at_once):
                    yield np.tile(packed, min(at_once, times - done))

    def unpack(self, packed: Packed) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "3 n"]]:
        """Return the numbers of the volumes, and x, y, z in their frames."""
        left = packed
        columns = []
        for bits in reversed(self._bits):
            columns.append((left & np.uint64(2**bits - 1)).astype(np.int64))
            left = left >> np.uint64(bits)
        volumes = left.astype(np.int64)
        centres_xyz = np.stack(columns)
        centres_xyz += self._starts[volumes].T[::-1]
        return volumes, centres_xyz

    def _packed(self, partition: int) -> Iterator[Packed]:
        for number, volume in enumerate(self._index.volumes):
            for centres in self._index.centres(volume.name, partition):
                packed = np.full(len(centres), number, np.uint64)
                for axis, bits in enumerate(self._bits):
                    packed <<= np.uint64(bits)
                    packed |= (centres[:, axis] - volume.box.start[axis]).astype(np.uint64)
                yield packed


class _Buckets:
    """Centres dealt at random into buckets in a file, and taken from it in random order."""

    def __init__(
        self, file: IO[bytes], *, centres: _Resampled, random: np.random.Generator
    ) -> None:
        self._file = file
        self._random = random
        self._number = min(_MOST_BUCKETS, -(-centres.records // BUCKET_RECORDS))
        # For each time that centres were dealt, where in the file each bucket's begin.
        self._bounds: list[Int64[np.ndarray, "bounds"]] = []
        self._next = 0
        self._left = np.zeros(0, np.uint64)
        # As many times as buckets at most, so that what is noted of them stays small.
        at_once = max(_DEALT_RECORDS, centres.records // _MOST_BUCKETS)
        waiting: list[Packed] = []
        for batch in centres.batches(random):
            waiting.append(batch)
            if sum(len(one) for one in waiting) >= at_once:
                self._deal(np.concatenate(waiting))
                waiting.clear()
        self._deal(np.concatenate([np.zeros(0, np.uint64), *waiting]))

    def take(self, count: int) -> Packed:
        """Return the next centres; fewer than asked for at the end of a bucket."""
        while not len(self._left):
            self._left = self._read(self._next)
            self._random.shuffle(self._left)
            self._next += 1
        taken, self._left = self._left[:count], self._left[count:]
        return taken

    def _deal(self, packed: Packed) -> None:
        kind = np.min_scalar_type(self._number - 1)
        bucket = self._random.integers(self._number, size=len(packed), dtype=kind)
        self._file.write(packed[np.argsort(bucket, kind="stable")].data)
        counts = np.bincount(bucket, minlength=self._number)
        before = int(self._bounds[-1][-1]) if self._bounds else 0
        self._bounds.append(before + np.append(0, np.cumsum(counts)))

    def _read(self, bucket: int) -> Packed:
        parts = []
        for bounds in self._bounds:
            self._file.seek(int(bounds[bucket]) * _PACKED_BYTES)
            length = int(bounds[bucket + 1] - bounds[bucket]) * _PACKED_BYTES
            parts.append(np.frombuffer(self._file.read(length), np.uint64))
        return np.concatenate(parts)
