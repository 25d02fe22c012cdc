"""What every chunked format answers: is this one, where are its levels, what do they mean.

Folders and requests come in (z, y, x); tensorstore specs, metadata files to write
and what an array says about itself go out. Only names that end in ``_xyz`` are in
the order in which n5 and precomputed store.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from floodem.errors import OptionError, VolumeFormatError
from floodem.geometry import Box, Zyx
from floodem.volumes.axes import SPATIAL, USUAL
from floodem.volumes.chunked.layouts.folder import Folder
from floodem.volumes.declared import DEFAULT_CHUNKS, NUMBER_DTYPES, fit_chunks
from floodem.volumes.description import Description
from floodem.volumes.pyramid_geometry import level_box, level_voxel_size, require_factors
from floodem.volumes.registry import CreateRequest

if TYPE_CHECKING:
    import tensorstore

ZSTD_LEVEL = 3
_NO_DOWNSAMPLING: Zyx = (1, 1, 1)

Documents = dict[str, dict[str, Any]]
"""Metadata files of a new volume: path inside its folder, and the JSON object in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What an array says about itself; None where it is silent."""

    axes: str | None = None
    description: Description | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One array, and what the group around it says of it.

    Attributes
    ----------
    folder
        Where the array is.
    scale_index
        Which scale of a precomputed volume.
    axes
        Names of its stored axes.
    describe
        Works out voxel size, offset and kind, and adds to a list what is odd about
        them; may refuse.
    notices
        What is odd about the group.
    """

    folder: Folder
    scale_index: int | None = None
    axes: str | None = None
    describe: Callable[[list[str]], Description] | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pyramid:
    """The arrays of one volume, finest first."""

    levels: tuple[Level, ...]


class Layout(ABC):
    """How one chunked format is recognised, created and understood."""

    name: str
    driver: str
    metadata: str
    """The file that describes an array."""
    dtypes: tuple[str, ...] = NUMBER_DTYPES
    usual_axes: dict[int, str] = {n: USUAL[-n:] for n in (3, 4, 5)}  # noqa: RUF012 - never changed

    @abstractmethod
    def is_array(self, folder: Folder) -> bool:
        """Tell whether a folder is an array of this format, be it damaged."""

    def is_group(self, folder: Folder) -> bool:
        """Tell whether a folder is a group of this format, which may hold arrays."""
        return False

    def may_hold_arrays(self, folder: Folder) -> bool:
        """Tell whether to look for arrays in a folder below a group."""
        return self.is_group(folder)

    @abstractmethod
    def pyramid(self, folder: Folder, *, uri: str) -> Pyramid | None:
        """Return the levels that a group declares, or None when it is no pyramid.

        Raises
        ------
        VolumeFormatError
            When its metadata are damaged.
        """

    def is_pyramid(self, folder: Folder) -> bool:
        """Tell whether a folder is a pyramid, be it damaged."""
        try:
            return self.pyramid(folder, uri=folder.path) is not None
        except (VolumeFormatError, PermissionError):
            return True

    def spec(self, level: Level) -> dict[str, Any]:
        """Return what tensorstore must know to open a level, besides driver and place."""
        return {}

    @abstractmethod
    def meaning(self, store: tensorstore.TensorStore, folder: Folder, *, uri: str) -> Meaning:
        """Read what an open array says about itself."""

    @abstractmethod
    def documents(self, request: CreateRequest) -> Documents:
        """Return the metadata files of a new volume, the arrays' before their group's.

        Raises
        ------
        FloodemError
            When the format cannot hold what is asked for.
        """

    def require_dtype(self, request: CreateRequest) -> None:
        """Refuse a type that the format does not hold."""
        if request.dtype.name not in self.dtypes:
            raise VolumeFormatError(
                f"{request.location.uri}: {self.name} volumes hold {', '.join(self.dtypes)}, not "
                f"{request.dtype}; "
                "choose one of these (convert --dtype, in Python dtype=) or another format"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLevel:
    """Where and how one level of a new volume lies; all triples are z, y, x."""

    factors: Zyx
    box: Box
    description: Description
    chunks: Zyx
    shards: Zyx | None


def new_levels(request: CreateRequest) -> tuple[NewLevel, ...]:
    """Lay out the levels of a new volume, the first one included.

    Raises
    ------
    OptionError
        When factors are not positive or levels do not become coarser, or shards
        are not whole chunks.
    """
    return tuple(_new_levels(request))


def _new_levels(request: CreateRequest) -> Iterator[NewLevel]:
    finest = Box.from_shape(request.shape, start=request.offset)
    chunks = request.chunks or DEFAULT_CHUNKS
    before: Zyx | None = None
    for factors in (_NO_DOWNSAMPLING, *request.levels):
        require_factors(factors)
        if before is not None:
            _require_coarser(request, factors, before)
        before = factors
        box = level_box(finest, factors)
        yield NewLevel(
            factors=factors,
            box=box,
            description=Description(
                voxel_size=level_voxel_size(request.voxel_size, factors),
                offset=box.start,
                kind=request.kind,
            ),
            chunks=fit_chunks(chunks, shape=box.shape),
            shards=_fit_shards(request, chunks, shape=box.shape),
        )


def _require_coarser(request: CreateRequest, factors: Zyx, before: Zyx) -> None:
    if factors == before or any(f < b for f, b in zip(factors, before, strict=True)):
        raise OptionError(
            f"{request.location.uri}: a level with the factors {factors} (z,y,x) cannot follow "
            f"one with {before}: give factors against the finest level, each coarser than the "
            "one before"
        )


def _fit_shards(request: CreateRequest, chunks: Zyx, *, shape: Zyx) -> Zyx | None:
    """Cut shards at the volume's edges, where they remain whole (cut) chunks."""
    if request.shards is None:
        return None
    if any(shard % chunk for shard, chunk in zip(request.shards, chunks, strict=True)):
        raise OptionError(
            f"{request.location.uri}: shards of {request.shards} voxels (z,y,x) are not whole "
            f"chunks of {chunks}: choose multiples of the chunks"
        )
    z, y, x = (
        min(shard // chunk, -(-length // fitted)) * fitted
        for shard, chunk, fitted, length in zip(
            request.shards, chunks, fit_chunks(chunks, shape=shape), shape, strict=True
        )
    )
    return (z, y, x)


def new_axes(request: CreateRequest) -> str:
    """Return the names of the axes of a new array: several channels come first."""
    return f"c{SPATIAL}" if request.channels > 1 else SPATIAL


def channel_edge(request: CreateRequest, edge: int) -> tuple[int, ...]:
    """Return an edge along the axis of channels, for lists of edges; nothing without one."""
    return (edge,) if request.channels > 1 else ()


def named_axes(names: Any) -> str | None:
    """Return names of axes as letters, or None where one of them is no name we know."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    letters = "".join(name.lower() for name in names)
    is_known = len(letters) == len(names) == len(set(letters)) and set(letters) <= set(USUAL)
    return letters if is_known else None
