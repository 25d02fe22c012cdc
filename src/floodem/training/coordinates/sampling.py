"""``sample``: partitions at addresses in, an index file out, in bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from floodem.errors import OptionError
from floodem.files import existing_parent, making_folders, storage_error
from floodem.geometry import Zyx
from floodem.progress import ProgressListener
from floodem.training.coordinates.index import CoordinateIndex, IndexedVolume
from floodem.training.coordinates.indexing import index_partitions
from floodem.volumes.access import open_volume
from floodem.volumes.staging import require_no_destination


def sample(
    partitions: Mapping[str, str | Path],
    destination: str | Path,
    *,
    margin: Zyx,
    background: bool = False,
    weights: Mapping[str, float] | None = None,
    overwrite: bool = False,
    allow_external: bool = False,
    progress: ProgressListener | None = None,
) -> CoordinateIndex:
    """Write an index of the possible centres of examples; return it as it was read back.

    Parameters
    ----------
    partitions
        Addresses of partitions (`floodem.training.coordinates.partition_volume`), by the
        name that training gives their volume.
    destination
        The index file.
    margin
        Voxels (z, y, x) at each face of each volume that hold no centre.
    background
        Also keep background.
    weights
        How often to draw from a volume, relative to the others, by name; 1 by default.
    overwrite
        Replace what is at the destination.
    allow_external
        Follow HDF5 links that leave the file.
    progress
        Called after each block, in voxels.

    Raises
    ------
    DestinationExistsError
        When something is there and `overwrite` is not set.
    FloodemError
        As `open_volume` and `index_partitions`; the destination is then as it was.
    """
    path = Path(destination)
    if not overwrite:
        require_no_destination(path, uri=str(path))
    with (
        gathered(
            partitions,
            beside=path,
            margin=margin,
            background=background,
            weights=weights,
            allow_external=allow_external,
            progress=progress,
        ) as index,
        making_folders(path.parent),
    ):
        index.save(path, overwrite=overwrite)
    return CoordinateIndex.load(path)


@contextmanager
def gathered(
    partitions: Mapping[str, str | Path],
    *,
    beside: Path,
    margin: Zyx,
    background: bool = False,
    weights: Mapping[str, float] | None = None,
    allow_external: bool = False,
    progress: ProgressListener | None = None,
) -> Iterator[CoordinateIndex]:
    """Give an index whose runs wait in a temporary file on the disk of `beside`.

    The other parameters, and what is raised, are those of `sample`.
    """
    factors = weights or {}
    unknown = [name for name in factors if name not in partitions]
    if unknown:
        raise OptionError(
            f"a weight is given to volume {unknown[0]!r}, and the volumes are "
            f"{', '.join(partitions)}: name one of them"
        )
    with ExitStack() as stack:
        opened = [
            (name, stack.enter_context(open_volume(uri, allow_external=allow_external)))
            for name, uri in partitions.items()
        ]
        folder = existing_parent(beside.absolute().parent)
        try:
            spill = stack.enter_context(tempfile.TemporaryFile(dir=folder))
        except OSError as error:
            raise storage_error("write in", folder, error) from error
        volumes = [
            (IndexedVolume(name=name, box=volume.box, weight=factors.get(name, 1.0)), volume)
            for name, volume in opened
        ]
        yield index_partitions(
            volumes, margin=margin, background=background, spill=spill, progress=progress
        )
