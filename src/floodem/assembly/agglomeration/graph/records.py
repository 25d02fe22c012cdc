"""What a segment graph tells: its header, its edges, and what people decided, as plain values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

import numpy as np
from jaxtyping import Bool, Int8, Int64, Shaped, UInt64

from floodem.errors import FloodemError, VolumeFormatError
from floodem.geometry import Box, VoxelSize
from floodem.shapes.source import LabelSource

_FORMAT = "floodem segment graph"


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphHeader:
    """What a graph is about.

    Attributes
    ----------
    segmentation
        Where the base segmentation was when the graph was made. That a file may have links
        to others (`LabelSource.allow_external`) is not kept: who opens it decides.
    identity
        What told it from changed ones (`LabelSource.identity`), as JSON values.
    sample
        Checksum of some of its voxels, by which a copy is known again.
    box
        What it holds, z, y, x.
    voxel_size
        In nanometres; None where it is not known.
    about
        What a reader wants to know besides, as JSON values: image, model, options.
    """

    segmentation: LabelSource
    identity: Mapping[str, Any]
    sample: int
    box: Box
    voxel_size: VoxelSize | None
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def least_coverage(self) -> float | None:
        """Coverage below which edges have no second flood, and so are merges by no rule.

        None where both sides were flooded everywhere, or the header says nothing of it.
        """
        match self.about:
            case {
                "resegmentation": {"terminate_early": True, "recovery_fraction": float() as part}
            }:
                return part
        return None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        source = self.segmentation
        return {
            "format": _FORMAT,
            "segmentation": {
                "uri": source.uri,
                "level": source.level,
                "channel": source.channel,
                "axes": source.axes,
            },
            "identity": dict(self.identity),
            "sample": self.sample,
            "box_zyx": str(self.box),
            "voxel_size_nm_zyx": None if self.voxel_size is None else list(self.voxel_size.zyx_nm),
            "about": dict(self.about),
        }

    @classmethod
    def from_text(cls, text: str, *, where: str) -> GraphHeader:
        """Return the header that a file holds.

        Raises
        ------
        VolumeFormatError
            When it is none.
        """
        try:
            values = json.loads(text)
            source, size = values["segmentation"], values["voxel_size_nm_zyx"]
            uri, axes = source["uri"], source["axes"]
            is_one = (
                values["format"] == _FORMAT
                and isinstance(uri, str)
                and isinstance(axes, str | None)
                and isinstance(values["identity"], dict)
                and isinstance(values["about"], dict)
            )
            if not is_one:
                raise TypeError("it has other values")
            return cls(
                segmentation=LabelSource(
                    uri=uri,
                    level=_whole(source["level"]),
                    channel=None if source["channel"] is None else _whole(source["channel"]),
                    axes=axes,
                ),
                identity=values["identity"],
                sample=_whole(values["sample"]),
                box=Box.parse(values["box_zyx"]),
                voxel_size=None if size is None else _voxel_size(size),
                about=values["about"],
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            reason = str(error) if isinstance(error, FloodemError) else type(error).__name__
            raise VolumeFormatError(
                f"{where} cannot be used as a segment graph, because its header is damaged "
                f"({reason:.200}): take a copy, or make it anew"
            ) from error


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError("not a number")
    return value


def _voxel_size(values: Any) -> VoxelSize:
    z, y, x = (float(value) for value in values)
    if not all(math.isfinite(edge) for edge in (z, y, x)):
        raise ValueError("a voxel size is not finite")
    return VoxelSize(z, y, x)


class Action(StrEnum):
    """What an entry of the ledger does."""

    MERGE = "merge"
    SPLIT = "split"
    UNDO = "undo"
    UNDO_ALL = "undo-all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of the ledger of decisions.

    Attributes
    ----------
    number
        Its place in the ledger, from 1.
    time
        When it was written, UTC.
    pair
        The two ids, the smaller first, of a merge or split; else None.
    entry
        Which entry an undo takes back; else None.
    note
        What its author wants to be remembered.
    stands
        Whether no later entry takes it back.
    """

    number: int
    time: str
    action: Action
    pair: tuple[int, int] | None = None
    entry: int | None = None
    note: str = ""
    stands: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRule:
    """One rule that the graph had, and when it got it."""

    number: int
    time: str
    rule: Mapping[str, Any]
    note: str


class DecidedBy(IntEnum):
    """Who says whether an edge is a merge."""

    RULE = 0
    MERGE = 1
    SPLIT = 2
    UNDO_ALL = 3


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class EdgeTable:
    """The edges of a graph, ordered by `ids_a`, then `ids_b`.

    Attributes
    ----------
    ids_a, ids_b
        The two base segments, the smaller id first.
    positions
        The voxel z, y, x of the decision point, in the frame of the segmentation.
    columns
        ``distance_nm`` and all fields of `PointScores`, an array each.
    accepted
        Whether the edge is a merge now.
    decided_by
        Who says so: values of `DecidedBy`.
    entries
        Number of the ledger's entry that says so, 0 where the rule does.
    other_merges
        Pairs that somebody merged though no edge joins them.
    """

    ids_a: UInt64[np.ndarray, "edges"]
    ids_b: UInt64[np.ndarray, "edges"]
    positions: Int64[np.ndarray, "edges 3"]
    columns: Mapping[str, Shaped[np.ndarray, "edges"]]
    accepted: Bool[np.ndarray, "edges"]
    decided_by: Int8[np.ndarray, "edges"]
    entries: Int64[np.ndarray, "edges"]
    other_merges: UInt64[np.ndarray, "others 2"]

    def __len__(self) -> int:
        return len(self.ids_a)

    def joined(self) -> tuple[UInt64[np.ndarray, "merges"], UInt64[np.ndarray, "merges"]]:
        """Return all pairs that are merges now: accepted edges, then other merges."""
        return (
            np.concatenate([self.ids_a[self.accepted], self.other_merges[:, 0]]),
            np.concatenate([self.ids_b[self.accepted], self.other_merges[:, 1]]),
        )

    def row(self, a: int, b: int) -> int | None:
        """Return the row of a pair, in either order; None where no edge joins the two."""
        low, high = sorted((a, b))
        first, last = (
            np.searchsorted(self.ids_a, np.uint64(low), side="left"),
            np.searchsorted(self.ids_a, np.uint64(low), side="right"),
        )
        at = int(first + np.searchsorted(self.ids_b[first:last], np.uint64(high)))
        return at if at < last and int(self.ids_b[at]) == high else None
