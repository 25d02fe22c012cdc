"""The base segmentation of a graph: an address in, a header out; later the same voxels again.

At its own address the segmentation must be unchanged (`LabelSource.identity`). A copy
elsewhere has other names and times, and so is known by its box and by some of its voxels.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from floodem.assembly.agglomeration.graph.records import GraphHeader
from floodem.errors import OtherWorkError, VolumeNotFoundError
from floodem.geometry import Box, VoxelSize
from floodem.labels import require_labels
from floodem.shapes.source import LabelSource
from floodem.volumes.conversion.receipts import checksum
from floodem.volumes.location import parse_location
from floodem.volumes.servers.addresses import without_secrets
from floodem.volumes.volume import Volume

_SAMPLES = 3
"""Boxes along each axis whose voxels are looked at."""

_SAMPLE_EDGE = 32


def describe_base(
    segmentation: LabelSource, *, voxel_size: VoxelSize | None = None, about: Mapping[str, Any]
) -> GraphHeader:
    """Return the header of a graph over a segmentation as it is now.

    Parameters
    ----------
    voxel_size
        In nanometres, where the segmentation does not state it or is wrong.
    about
        What a reader wants to know besides, as JSON values: image, model, options.

    Raises
    ------
    FloodemError
        When it cannot be opened, or holds no labels.
    """
    with segmentation.open() as volume:
        source = replace(
            segmentation,
            uri=without_secrets(parse_location(segmentation.uri).absolute),
            allow_external=False,
        )
        return GraphHeader(
            segmentation=source,
            identity=identity_of(segmentation, volume),
            sample=sample_of(volume),
            box=volume.box,
            voxel_size=voxel_size or volume.voxel_size,
            about=about,
        )


def identity_of(segmentation: LabelSource, volume: Volume) -> dict[str, Any]:
    """Return what tells a segmentation from changed ones, whatever it is called."""
    identity = segmentation.identity(volume)
    return {name: value for name, value in identity.items() if name != "uri"}


def sample_of(volume: Volume) -> int:
    """Return a checksum of some voxels: small boxes all over the volume.

    Raises
    ------
    LabelError
        When it holds no labels.
    StorageError, VolumeFormatError
        When it cannot be read.
    """
    sums = []
    for places in itertools.product(range(_SAMPLES), repeat=3):
        edges = [min(_SAMPLE_EDGE, length) for length in volume.shape]
        z, y, x = (
            first + (length - edge) * (2 * place + 1) // (2 * _SAMPLES)
            for first, length, edge, place in zip(
                volume.offset, volume.shape, edges, places, strict=True
            )
        )
        labels = volume.read(Box.from_shape((edges[0], edges[1], edges[2]), start=(z, y, x)))
        require_labels(labels, what=f"the segmentation {volume.uri}")
        sums.append(checksum(np.ascontiguousarray(labels, np.uint64)))
    return checksum(np.array(sums, ">u4"))


@contextlib.contextmanager
def opened_base(
    header: GraphHeader, segmentation: LabelSource | None = None
) -> Iterator[tuple[LabelSource, Volume]]:
    """Open the base segmentation of a graph, and make sure that it is the one.

    Parameters
    ----------
    segmentation
        Where it is now; None: where it was.

    Raises
    ------
    OtherWorkError
        When it was changed, or is another one.
    FloodemError
        When it cannot be opened.
    """
    source = header.segmentation if segmentation is None else segmentation
    with _opened(source, is_asked=segmentation is not None) as volume:
        is_here = segmentation is None or _is_same_place(source, header.segmentation)
        if is_here and identity_of(source, volume) == header.identity:
            yield source, volume
            return
        if is_here or volume.box != header.box or sample_of(volume) != header.sample:
            raise OtherWorkError(
                f"{volume.uri} is not the segmentation that the graph was made from, or was "
                f"changed since (the graph knows {header.box}, z,y,x): give a copy of it with "
                "--segmentation, or make the graph anew"
            )
        yield source, volume


def _opened(source: LabelSource, *, is_asked: bool) -> Volume:
    try:
        return source.open()
    except VolumeNotFoundError as error:
        if is_asked:
            raise
        raise VolumeNotFoundError(
            f"the base segmentation of the graph is not at {source.uri} any more: say where it is "
            "with --segmentation"
        ) from error


def _is_same_place(one: LabelSource, other: LabelSource) -> bool:
    places = parse_location(one.uri), parse_location(other.uri)
    return places[0].is_same(places[1]) and (one.level, one.channel) == (other.level, other.channel)
