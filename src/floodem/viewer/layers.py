"""Volumes as layers of a picture: a `Volume` in, what the viewer shows of it out.

Here is decided whether a volume is an image or a segmentation, which grey values
its display spans and which objects get a mesh. Nothing here needs Neuroglancer;
floodem.viewer.scene hands the layers over.
"""

from __future__ import annotations

import enum
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from floodem.errors import FloodemError, LabelError
from floodem.geometry import Box, Zyx
from floodem.labels import label_dtype, require_labels, sizes
from floodem.volumes.kinds import SMALL_BYTES, looks_like_labels, middle
from floodem.volumes.volume import Array, Volume, as_dtype

MESH_VOXELS = 256**3
"""Neuroglancer's in-memory volumes are meshed whole: above this it takes minutes."""

MESHES_AT_FIRST = 8
"""As many objects as leave their branches visible: 25 of a filled volume make a painted cube."""

_HIDING_SHARE = 1 / 16  # of the voxels: eight such objects would fill half of the box
_CRUMB_SHARE = 1 / 256  # less than this is not worth a place of a large object

_DARKEST, _BRIGHTEST = 0.1, 99.9  # percent of the sample's voxels

_LOG = logging.getLogger(__name__)


class Kind(enum.StrEnum):
    """How a volume is shown."""

    IMAGE = "image"
    SEGMENTATION = "segmentation"


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A volume and how to show it.

    Attributes
    ----------
    volume
        Read only where the viewer looks.
    kind
        Image (grey) or segmentation (one colour for each id).
    name
        What stands on the layer's tab, unique among the layers.
    is_guess
        Whether the file, its type or voxels told the kind, not the user.
    """

    volume: Volume
    kind: Kind
    name: str
    is_guess: bool = False

    @property
    def may_be_otherwise(self) -> bool:
        """Whether small integers were taken for labels, which an image may hold as well."""
        is_small = self.volume.dtype.itemsize <= SMALL_BYTES
        return self.is_guess and self.kind is Kind.SEGMENTATION and is_small

    @property
    def has_meshes(self) -> bool:
        """Whether objects can be shown in 3-D: a segmentation of at most `MESH_VOXELS`."""
        return self.kind is Kind.SEGMENTATION and self.volume.box.size <= MESH_VOXELS


def guess_kind(volume: Volume) -> Kind:
    """Tell a segmentation from an image (see `floodem.volumes.kinds.looks_like_labels`)."""
    return Kind.SEGMENTATION if looks_like_labels(volume) else Kind.IMAGE


def grey_range(volume: Volume) -> tuple[float, float] | None:
    """Return the values to show as black and white, or None when all are equal.

    They are percentiles of the middle of the volume; 0, which pads many volumes,
    does not count.
    """
    sample = volume.read(middle(volume.box))
    values = sample[np.isfinite(sample) & (sample != 0)]
    if not values.size:
        return None
    low, high = (float(value) for value in np.percentile(values, [_DARKEST, _BRIGHTEST]))
    return (low, high) if low < high else None


def largest_objects(labels: Array, *, count: int) -> list[int]:
    """Return the ids of the objects with most voxels, the largest first; never 0."""
    ids, voxels = sizes(labels)
    order = np.argsort(-voxels, kind="stable")
    return [int(label) for label in ids[order] if label != 0][:count]


def objects_at_first(labels: Array) -> list[int]:
    """Return the ids of the objects to show in 3-D at first, the largest first; never 0.

    They are the `MESHES_AT_FIRST` largest. In a crowded volume, where enough others
    remain that are no crumbs, those that would hide them are left out.
    """
    ids, voxels = sizes(labels)
    shares = voxels / labels.size
    is_fair = (ids != 0) & (shares >= _CRUMB_SHARE) & (shares <= _HIDING_SHARE)
    if np.count_nonzero(is_fair) < MESHES_AT_FIRST:
        return largest_objects(labels, count=MESHES_AT_FIRST)
    order = np.argsort(-voxels[is_fair], kind="stable")
    return [int(label) for label in ids[is_fair][order][:MESHES_AT_FIRST]]


def unique_names(uris: Sequence[str]) -> list[str]:
    """Name layers by the last part of their addresses, numbered where these repeat."""
    names: list[str] = []
    for uri in uris:
        stem = uri.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1] or uri
        name, count = stem, 1
        while name in names:
            count += 1
            name = f"{stem} ({count})"
        names.append(name)
    return names


class ArrayXyz:
    """A volume as the array that Neuroglancer reads: indexed [x, y, z], from 0, on demand.

    It has the few members of an array that ``neuroglancer.LocalVolume`` uses. Slices
    are read one at a time: a volume need not be safe to read from several threads.

    Parameters
    ----------
    layer
        Labels are handed over as uint32 or uint64, since smaller integers open as
        grey images.
    labels
        The whole volume (z, y, x) where it is in memory already, to be meshed.
    """

    def __init__(self, layer: Layer, *, labels: Array | None = None) -> None:
        self._volume = layer.volume
        self._labels = labels
        self._lock = threading.Lock()
        z, y, x = layer.volume.shape
        self.shape = (x, y, z)
        self.dtype = _shown_dtype(layer)

    def __getitem__(self, slices_xyz: tuple[slice, slice, slice]) -> Array:
        """Read a box given by slices with a start and a stop, in the order x, y, z."""
        x, y, z = slices_xyz
        if self._labels is not None:
            return self._labels[z, y, x].T
        start: Zyx = (int(z.start), int(y.start), int(x.start))
        box = Box(start, (int(z.stop), int(y.stop), int(x.stop))).translate(self._volume.offset)
        try:
            with self._lock:
                voxels = self._volume.read(box)
            return self._converted(voxels).T
        except FloodemError as error:
            _LOG.warning("cannot show %s: %s", self._volume.uri, error)
            # What the server answers the browser with; other errors end in a traceback.
            raise ValueError(str(error)) from error

    def transpose(self) -> Array:
        """Return what is to be meshed (z, y, x): the labels in memory, or nothing."""
        return np.zeros((1, 1, 1), self.dtype) if self._labels is None else self._labels

    def _converted(self, voxels: Array) -> Array:
        if voxels.dtype.kind in "ui" and self.dtype.kind == "u":
            return as_dtype(voxels, self.dtype)
        return voxels.astype(self.dtype, copy=False)


def labels_in_memory(layer: Layer) -> Array:
    """Read a whole segmentation, as uint32 or uint64.

    Raises
    ------
    LabelError
        When a label is negative.
    """
    labels = layer.volume.read()
    require_labels(labels, what=layer.volume.uri)
    return as_dtype(labels, _shown_dtype(layer))


def _shown_dtype(layer: Layer) -> np.dtype[np.generic]:
    dtype = layer.volume.dtype
    if layer.kind is Kind.SEGMENTATION:
        if dtype.kind not in "ui":
            raise LabelError(
                f"{layer.volume.uri} holds {dtype} values, which are no labels: open it as an image"
            )
        return label_dtype(int(np.iinfo(dtype).max))
    # The viewer draws no wider integers and no other floats as images.
    is_drawn = dtype.kind in "ui" and dtype.itemsize <= 4
    return dtype if is_drawn else np.dtype(np.float32)
