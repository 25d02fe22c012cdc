"""What blocks are read from: addresses in, arrays and networks out, in any process.

Volumes and the network stay open for the next block of a process. What lies here can
be pickled; whoever had the blocks done closes with `close_sources`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt32, UInt64

from floodem.errors import GeometryError, LabelError, ModelError
from floodem.flooding.masks.rules import read_padded
from floodem.geometry import Box, Zyx
from floodem.labels.relabel import compact
from floodem.volumes import open_volume
from floodem.volumes.location import parse_location
from floodem.volumes.pyramid_geometry import level_box
from floodem.volumes.source import VolumeSource
from floodem.volumes.volume import Array, Volume

if TYPE_CHECKING:
    from floodem.network.model_file import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialLabels:
    """Labels that are there already, perhaps on coarser voxels than the image's.

    Voxel c of labels that are r times as coarse lies over the voxels from r * c to
    r * (c + 1) - 1 of the image, as in pyramids and masks.

    Attributes
    ----------
    uri, level
        As `floodem.open_volume` takes them.
    ratio
        Voxels of the image along each edge of a voxel of the labels, z, y, x.

    Raises
    ------
    GeometryError
        When a ratio is below 1.
    """

    uri: str
    level: int = 0
    ratio: Zyx = (1, 1, 1)

    def __post_init__(self) -> None:
        if min(self.ratio) < 1:
            raise GeometryError(
                f"initial labels {self.uri} cannot be {self.ratio} (z,y,x) times as coarse as the "
                "image: give whole numbers from 1 on"
            )

    def open(self) -> Volume:
        """Open the volume.

        Raises
        ------
        VolumeNotFoundError, VolumeFormatError, UnsafeFileError, StorageError
            As `floodem.open_volume`.
        """
        return open_volume(self.uri, level=self.level)

    def require_usable(self, box: Box) -> None:
        """Check before a run that these are labels and lie over a box of the image.

        Raises
        ------
        LabelError
            When they are no labels.
        GeometryError
            When they do not cover the box; the last voxel of a coarser level may be missing.
        FloodemError
            When they cannot be opened.
        """
        with self.open() as volume:
            _require_labels(volume)
            needed = level_box(box, self.ratio)
            slack: Zyx = tuple(int(edge > 1) for edge in self.ratio)  # type: ignore[assignment]
            if not volume.box.grow(slack).contains(needed):
                raise GeometryError(
                    f"initial labels {volume.uri} hold {volume.box} (z,y,x) and the image needs "
                    f"{needed} of them: give labels of the whole box"
                )

    def read(self, box: Box) -> tuple[UInt32[np.ndarray, "z y x"], UInt64[np.ndarray, "carried"]]:
        """Return the labels over a box of the image, numbered anew, and their ids.

        Returns
        -------
        labels
            1 to k in the order of the ids, 0 where there is none.
        ids
            What they are called outside, ascending.

        Raises
        ------
        LabelError
            When they are no labels.
        StorageError, VolumeFormatError
            When they cannot be read.
        """
        coarse = level_box(box, self.ratio)
        with _reading:
            volume = _opened(self)
            _require_labels(volume)
            found = read_padded(volume, coarse)
        labels, ids = compact(found)
        return _upsampled(labels, coarse, box=box, ratio=self.ratio).astype(np.uint32), ids


def _require_labels(volume: Volume) -> None:
    if volume.dtype.kind not in "ui":
        raise LabelError(
            f"{volume.uri} holds {volume.dtype}, not labels: give an integer segmentation"
        )


def _upsampled(coarse_labels: Array, coarse: Box, *, box: Box, ratio: Zyx) -> Array:
    """Return the labels of the nearest coarse voxels, for the voxels of a box."""
    if ratio == (1, 1, 1):
        return coarse_labels
    ends = zip(box.start, box.stop, ratio, coarse.start, strict=True)
    nearest = [np.arange(a, b) // edge - first for a, b, edge, first in ends]
    return coarse_labels[np.ix_(*nearest)]


_reading = threading.Lock()
"""Held while volumes are opened and read: not every format bears two readers at once."""

_loading = threading.Lock()
_open: dict[VolumeSource | InitialLabels, tuple[Volume, tuple[int, int] | None]] = {}
"""Some files are unpacked whole when they are opened, which no block pays again."""
_models: dict[tuple[str, str], Model] = {}
"""At most one."""


def read_image(source: VolumeSource, box: Box) -> Array:
    """Return the raw voxels of a box.

    Raises
    ------
    GeometryError
        When the box is not inside the image.
    FloodemError
        When it cannot be opened or read.
    """
    with _reading:
        return _opened(source).read(box)


def task_model(path: str, digest: str) -> Model:
    """Return the network of a file, loaded once per process.

    Raises
    ------
    ModelError
        When the file has another digest now, or is damaged.
    VolumeNotFoundError
        When there is none.
    """
    from floodem.network.model_file import load_model

    with _loading:
        if (path, digest) not in _models:
            model = load_model(path)
            if model.digest() != digest:
                raise ModelError(
                    f"{path} is not the network that the run began with: put that one back, or "
                    "begin again with --overwrite"
                )
            _models.clear()
            _models[path, digest] = model
        return _models[path, digest]


def close_sources() -> None:
    """Close what blocks of this process were read from; by who had them done."""
    with _reading:
        while _open:
            _open.popitem()[1][0].close()
    with _loading:
        _models.clear()


def _opened(source: VolumeSource | InitialLabels) -> Volume:
    stamp = source_stamp(source.uri)
    if source not in _open or _open[source][1] != stamp:
        for other in [one for one in _open if type(one) is type(source)]:
            _open.pop(other)[0].close()
        _open[source] = source.open(), stamp
    return _open[source][0]


def source_stamp(uri: str) -> tuple[int, int] | None:
    """Return by what a local file is known: workers of a cluster outlive runs and files.

    What lies on a server has none.
    """
    location = parse_location(uri)
    if location.is_remote or not location.local.exists():
        return None
    stat = location.local.stat()
    return (stat.st_mtime_ns, stat.st_ino)
