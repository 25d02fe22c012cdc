"""Volumes as layers of a picture: a `Volume` in, what the viewer shows of it out.

Here is decided whether a volume is an image or a segmentation, which grey values
its display spans and which objects get a mesh. Nothing here needs Neuroglancer;
floodem.viewer.first_look hands the layers over.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from floodem.geometry import Box, VoxelSize
from floodem.labels import require_labels, sizes
from floodem.viewer.object_folders import Shape, ShapeFolder
from floodem.volumes.kinds import SMALL_BYTES, looks_like_labels, middle
from floodem.volumes.volume import Array, Volume

MESH_VOXELS = 256**3
"""Segmentations up to this size are kept in memory and meshed when a page asks for it."""

MESHES_AT_FIRST = 8
"""As many objects as leave their branches visible: 25 of a filled volume make a painted cube."""

_HIDING_SHARE = 1 / 16  # of the voxels: eight such objects would fill half of the box
_CRUMB_SHARE = 1 / 256  # less than this is not worth a place of a large object

_DARKEST, _BRIGHTEST = 0.1, 99.9  # percent of the sample's voxels


class Kind(enum.StrEnum):
    """How a volume is shown."""

    IMAGE = "image"
    SEGMENTATION = "segmentation"


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A volume that floodem serves, and how to show it.

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
    shapes
        Where more of its objects is: folders of meshes, skeletons or properties, or
        sources as the client names them.
    public
        What other people's viewers can open in place of what is served here, or None.
    """

    volume: Volume
    kind: Kind
    name: str
    is_guess: bool = False
    shapes: tuple[ShapeFolder | str, ...] = ()
    public: str | None = None

    @property
    def box(self) -> Box:
        """Where its voxels lie."""
        return self.volume.box

    @property
    def voxel_size(self) -> VoxelSize | None:
        """What the volume states, in nanometres."""
        return self.volume.voxel_size

    @property
    def may_be_otherwise(self) -> bool:
        """Whether small integers were taken for labels, which an image may hold as well."""
        is_small = self.volume.dtype.itemsize <= SMALL_BYTES
        return self.is_guess and self.kind is Kind.SEGMENTATION and is_small

    @property
    def is_meshed_here(self) -> bool:
        """Whether its objects are meshed on demand: at most `MESH_VOXELS`, no other meshes."""
        is_small = self.volume.box.size <= MESH_VOXELS
        return self.kind is Kind.SEGMENTATION and is_small and not has_mesh(self.shapes)

    @property
    def has_objects(self) -> bool:
        """Whether objects can be shown in 3-D."""
        return self.kind is Kind.SEGMENTATION and (self.is_meshed_here or bool(self.shapes))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RemoteLayer:
    """What the client reads from elsewhere by itself, and how to show it.

    Attributes
    ----------
    source
        As the client names it, or a local folder of shapes that is shown without a volume.
    name
        What stands on the layer's tab, unique among the layers.
    kind
        None leaves it to the client, which learns it from the server.
    box, voxel_size, shown_range
        What a quick look found out, or None: where its voxels lie, their size in
        nanometres, the grey values to show as black and white.
    is_mesh
        Whether it is one mesh and no volume.
    shapes
        As of `Layer`.
    selected
        Objects to show at first, where they are known.
    """

    source: str | ShapeFolder
    name: str
    kind: Kind | None = None
    box: Box | None = None
    voxel_size: VoxelSize | None = None
    shown_range: tuple[float, float] | None = None
    is_mesh: bool = False
    shapes: tuple[ShapeFolder | str, ...] = ()
    selected: tuple[int, ...] = ()

    @property
    def has_objects(self) -> bool:
        """Whether objects may be shown in 3-D, as far as is known."""
        return self.is_mesh or bool(self.shapes) or isinstance(self.source, ShapeFolder)


def has_mesh(shapes: Sequence[ShapeFolder | str]) -> bool:
    """Tell whether there are meshes among objects' shapes; addresses count as such."""
    return any(isinstance(one, str) or one.shape is Shape.MESH for one in shapes)


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


def objects_at_first(labels: Array, *, among: Collection[int] | None = None) -> list[int]:
    """Return the ids of the objects to show in 3-D at first, the largest first; never 0.

    They are the `MESHES_AT_FIRST` largest. In a crowded volume, where enough others
    remain that are no crumbs, those that would hide them are left out.

    Parameters
    ----------
    labels
        A sample of the segmentation, or all of it.
    among
        The ids that can be shown; None for all.
    """
    ids, voxels = sizes(labels)
    is_shown = ids != 0
    if among is not None:
        is_shown &= np.array([int(label) in among for label in ids], bool)
    shares = voxels / labels.size
    is_fair = is_shown & (shares >= _CRUMB_SHARE) & (shares <= _HIDING_SHARE)
    chosen = is_shown if np.count_nonzero(is_fair) < MESHES_AT_FIRST else is_fair
    order = np.argsort(-voxels[chosen], kind="stable")
    return [int(label) for label in ids[chosen][order][:MESHES_AT_FIRST]]


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


def labels_in_memory(layer: Layer) -> Array:
    """Read a whole segmentation.

    Raises
    ------
    LabelError
        When a label is negative or no integer.
    """
    labels = layer.volume.read()
    require_labels(labels, what=layer.volume.uri)
    return labels
