"""Decision points: places where two segments may belong together, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt64

from floodem.assembly.columns import pack_columns, unpack_columns
from floodem.errors import OptionError

POINTS_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PointOptions:
    """Which places are decision points.

    Attributes
    ----------
    max_distance_nm
        How far segments grow into the empty space between them, in nanometres; what meets may
        be twice as far apart. The default bridges two cell membranes, or a section of 50 nm
        that is lost. On the published FIB-25 segmentation it offers nearly all joins that any
        distance does, for a tenth more points than segments that touch already
        (benchmarks/results/decision-points.md).
    min_size
        Segments of fewer voxels take no part: their voxels count as empty space. 0: all do,
        since a segmentation has a least size of its own, and half of the joins that were
        missing there concern segments only a little larger.

    Raises
    ------
    OptionError
        When one of them is negative.
    """

    max_distance_nm: float = 50.0
    min_size: int = 0

    def __post_init__(self) -> None:
        if not self.max_distance_nm >= 0:
            raise OptionError(
                f"max distance {self.max_distance_nm} nm is negative: give 0 or more nanometres"
            )
        if self.min_size < 0:
            raise OptionError(f"min size {self.min_size} is negative: give 0 or more voxels")

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PointOptions:
        """Return the options that `to_json` told of.

        Raises
        ------
        OptionError
            When the values are no such options.
        """
        names = {field.name for field in fields(cls)}
        try:
            unknown = sorted(set(values) - names)
            if unknown:
                raise OptionError(
                    f"decision points have no option {unknown[0]}: name some of {sorted(names)}"
                )
            found = dict(values)
            if "max_distance_nm" in found:
                found["max_distance_nm"] = float(found["max_distance_nm"])
            if "min_size" in found:
                found["min_size"] = int(found["min_size"])
            return cls(**found)
        except (TypeError, ValueError) as error:
            raise OptionError(
                f"{values!r:.200} are no options of decision points ({error})"
            ) from error


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DecisionPoints:
    """One place for every pair of segments that come near each other.

    Attributes
    ----------
    ids_a, ids_b
        The segments, the smaller id first; rows are ordered by `ids_a`, then `ids_b`, and no
        pair occurs twice.
    positions
        The voxel z, y, x, in the frame of the segmentation.
    distances_nm
        Mean distance of the point's two voxels to the segments, in nanometres.
    """

    ids_a: UInt64[np.ndarray, "points"]
    ids_b: UInt64[np.ndarray, "points"]
    positions: Int64[np.ndarray, "points 3"]
    distances_nm: Float64[np.ndarray, "points"]

    def __len__(self) -> int:
        return len(self.ids_a)

    def rows(self, order: Int64[np.ndarray, "rows"]) -> DecisionPoints:
        """Return some of the points, in another order."""
        return DecisionPoints(**{one.name: getattr(self, one.name)[order] for one in fields(self)})

    def pack(self) -> bytes:
        """Return a numpy archive of the table; the same table gives the same bytes."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return pack_columns(columns, version=POINTS_VERSION)

    @classmethod
    def unpack(cls, packed: bytes | None, *, uri: str) -> DecisionPoints:
        """Return the table that `pack` made bytes of.

        Parameters
        ----------
        packed
            None where there was nothing to read.
        uri
            Where it was read, for messages.

        Raises
        ------
        VolumeFormatError
            When it is missing or damaged, or of another version.
        UnsafeFileError
            When it declares more than its bytes can hold.
        """
        like = {
            "ids_a": np.zeros(0, np.uint64),
            "ids_b": np.zeros(0, np.uint64),
            "positions": np.zeros((0, 3), np.int64),
            "distances_nm": np.zeros(0, np.float64),
        }
        return cls(
            **unpack_columns(
                packed, like=like, version=POINTS_VERSION, what="decision points", uri=uri
            )
        )
