"""TFRecord files from records at hand: batches of coordinates in, one file out.

It writes either schema, as each batch is of, so that what was read comes back. From an
index floodem.legacy.records.balanced makes the files of the historic training.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from floodem.errors import OptionError
from floodem.files import making_folders, replacing
from floodem.legacy.records.gzip_stream import GzipStream
from floodem.legacy.records.packing import RecordWriter
from floodem.legacy.records.reading import CoordinateRecords
from floodem.volumes.parallel import usable_threads
from floodem.volumes.staging import require_no_destination


def write_records(
    batches: Iterable[CoordinateRecords],
    path: str | Path,
    *,
    compressed: bool = True,
    overwrite: bool = False,
    threads: int | None = None,
) -> int:
    """Write records into one TFRecord file; return how many.

    Parameters
    ----------
    batches
        Those with labels, segment ids and radii are written in the newer schema (``coord``),
        the others in the historic one (``center``).
    compressed
        With gzip, as the old programs want it.
    overwrite
        Replace what is there.
    threads
        That compress; by default one for each core.

    Raises
    ------
    OptionError
        When a batch has some but not all of the newer schema's fields.
    DestinationExistsError
        When something is there and `overwrite` is not set.
    StorageError
        When the file system refuses.
    """
    path = Path(path)
    if not overwrite:
        require_no_destination(path, uri=str(path))
    workers = usable_threads(threads)
    count = 0
    with ExitStack() as stack:
        stack.enter_context(making_folders(path.absolute().parent))
        partial = stack.enter_context(replacing(path))
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        file = stack.enter_context(open(partial, "wb"))
        stream = None
        if compressed:
            stream = stack.enter_context(GzipStream(file, pool=pool, ahead=workers))
        writers: dict[tuple[str, ...], RecordWriter] = {}
        for batch in batches:
            writer = writers.setdefault(batch.names, RecordWriter(batch.names))
            made = _made(batch, writer)
            if stream is None:
                file.write(made.data)
            else:
                stream.write(made)
            count += len(batch)
    return count


def _made(batch: CoordinateRecords, writer: RecordWriter) -> UInt8[np.ndarray, "bytes"]:
    centres_xyz = np.ascontiguousarray(batch.centres_xyz.T)
    newer = (batch.labels, batch.segment_ids, batch.radii)
    if all(one is None for one in newer):
        return writer.records(batch.volumes, centres_xyz)
    labels, segment_ids, radii = newer
    if labels is None or segment_ids is None or radii is None:
        raise OptionError(
            "records of the newer schema need labels, segment_ids and radii: give all three, or "
            "none for the historic one"
        )
    return writer.newer_records(
        batch.volumes, centres_xyz, labels=labels, segment_ids=segment_ids, radii=radii
    )
