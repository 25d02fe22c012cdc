"""Which node of the joining a segment is: results of floods in, numbers of nodes out.

Carried segments come first, in the order of what they are called outside, each one node
over all blocks; then the new ones, block by block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer, UInt64

from floodem.errors import VolumeFormatError
from floodem.labels.runs import Ids


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BlockCounts:
    """How many segments each block has, in the order of the blocks.

    Attributes
    ----------
    segments
        All of them.
    carried
        Those that are carried.
    """

    segments: Int64[np.ndarray, "blocks"]
    carried: Int64[np.ndarray, "blocks"]

    def has(
        self,
        block: int | Int64[np.ndarray, "segments"],
        ids: Integer[np.ndarray, "segments"],
        *,
        outside: UInt64[np.ndarray, "segments"],
    ) -> bool:
        """Tell whether blocks have such segments; the arguments are those of `SegmentNodes.of`."""
        is_there = (ids > 0) & (ids <= self.segments[block])
        return bool(np.all(is_there & ((ids <= self.carried[block]) == (outside != 0))))


class SegmentNodes:
    """The nodes of all blocks.

    Parameters
    ----------
    counts
        Segments of each block.
    carried
        What carried segments are called outside, ascending.

    Attributes
    ----------
    count
        Number of nodes; the first ``len(carried)`` are carried.
    """

    def __init__(self, counts: BlockCounts, *, carried: Ids) -> None:
        new = counts.segments - counts.carried
        self.count = len(carried) + int(new.sum())
        self._counts = counts
        self._carried = carried
        self._before_new = len(carried) + np.cumsum(new) - new

    def of_block(self, block: int, carried: Ids) -> Int64[np.ndarray, "segments"]:
        """Return the nodes of all segments of a block, which carries these.

        Raises
        ------
        VolumeFormatError
            As `of`.
        """
        count = int(self._counts.segments[block])
        outside = np.concatenate([carried, np.zeros(count - len(carried), np.uint64)])
        return self.of(block, np.arange(1, count + 1), outside=outside)

    def of(
        self,
        block: int | Int64[np.ndarray, "segments"],
        ids: Integer[np.ndarray, "segments"],
        *,
        outside: UInt64[np.ndarray, "segments"],
    ) -> Int64[np.ndarray, "segments"]:
        """Return the nodes of segments.

        Parameters
        ----------
        block
            Number of the block that they are of, one for all or one each.
        ids
            Their ids there.
        outside
            What carried ones are called outside, 0 for new ones.

        Raises
        ------
        VolumeFormatError
            When no block carries such an id.
        """
        nodes: np.ndarray[Any, np.dtype[np.int64]] = (
            self._before_new[block] + ids.astype(np.int64) - 1 - self._counts.carried[block]
        )
        is_carried = outside != 0
        if is_carried.any():
            nodes[is_carried] = self._carried_nodes(outside[is_carried])
        return nodes

    def _carried_nodes(self, outside: Ids) -> Int64[np.ndarray, "segments"]:
        nodes = np.searchsorted(self._carried, outside)
        is_known = nodes < len(self._carried)
        is_known[is_known] = self._carried[nodes[is_known]] == outside[is_known]
        if not is_known.all():
            raise VolumeFormatError(
                f"a block names the carried segment {outside[~is_known][0]}, which is in no "
                "block's table: begin again with --overwrite"
            )
        return nodes


def block_counts(floods: Sequence[Mapping[str, Any]], *, blocks: int) -> BlockCounts:
    """Take the counts from what the flood of each block returned.

    Raises
    ------
    VolumeFormatError
        When these are not results of so many floods.
    """
    try:
        segments = np.array([flood["segments"] for flood in floods], np.int64)
        carried = np.array([flood["carried"] for flood in floods], np.int64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise VolumeFormatError(
            f"a flood returned no counts of segments ({error}): begin again with --overwrite"
        ) from error
    if len(segments) != blocks or (carried < 0).any() or (segments < carried).any():
        raise VolumeFormatError(
            f"results of {len(segments)} floods do not fit {blocks} blocks: begin again with "
            "--overwrite"
        )
    return BlockCounts(segments=segments, carried=carried)
