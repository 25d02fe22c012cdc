"""All floods of one block: seeds in order, segments accepted or refused.

In: a canvas, options and seeds. Out: labels, origins, overlaps, counters, and
for every seed what became of it. The work goes step by step, and between two
steps its state can be saved (floodem.flooding.checkpoint).
"""

from __future__ import annotations

import enum
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from floodem.errors import LabelError
from floodem.flooding.canvas import Canvas, quantise_probability
from floodem.flooding.flood import Flood, FloodEnd
from floodem.flooding.options import FloodOptions
from floodem.geometry import Box, Zyx


class SeedOutcome(enum.IntEnum):
    """What became of a seed; the names are the reasons in seeds.csv."""

    WAITING = 0
    ACCEPTED = 1
    INSIDE_SEGMENT = 2
    OUTSIDE_BLOCK = 3
    MASKED = 4
    NEAR_SEGMENT = 5
    NO_STEP = 6
    WEAK_SEED = 7
    TOO_SMALL = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """How a segment came about.

    Attributes
    ----------
    start
        Its seed, z, y, x in the block's array.
    calls
        Network calls of its flood.
    seconds
        Wall time of its flood; after a resume, of the part since then.
    voxels
        Its size.
    end
        Why its flood ended; MAX_CALLS and MAX_VOXELS mark a segment that was
        cut short and may be a merger.
    """

    start: Zyx
    calls: int
    seconds: float
    voxels: int
    end: FloodEnd


class BlockFlooder:
    """Floods a block from its seeds, in order, one after the other.

    Parameters
    ----------
    canvas
        Untouched, or with an initial segmentation, which is kept.
    options
        Of the loop over seeds; the canvas has its own part of them.
    seed_mask
        True where no seed may lie, beside where the canvas is restricted.

    Attributes
    ----------
    seeds, outcomes
        All seeds so far and one `SeedOutcome` for each.
    origins, overlaps
        By segment id; an overlap maps ids of earlier segments to the number of
        voxels that this flood wanted and they already had.
    counters
        network_calls, floods, seed_got_too_weak, skip_threshold,
        skip_invalid_position, skip_restricted_position, voxels_segmented,
        voxels_overlapping: counted as the reference counts them.
    """

    def __init__(
        self,
        canvas: Canvas,
        options: FloodOptions,
        *,
        seed_mask: Bool[np.ndarray, "z y x"] | None = None,
    ) -> None:
        self.canvas = canvas
        self.options = options
        self.seed_mask = seed_mask
        self.seeds: Int64[np.ndarray, "n 3"] = np.empty((0, 3), np.int64)
        self.outcomes: UInt8[np.ndarray, "n"] = np.empty(0, np.uint8)
        self.next_seed = 0
        self.flood: Flood | None = None
        self.counters: Counter[str] = Counter()
        self.origins: dict[int, Origin] = {}
        self.overlaps: dict[int, dict[int, int]] = {}
        self.largest_id = int(canvas.segmentation.max(initial=0))
        self._flood_began = time.monotonic()

    @property
    def seeds_done(self) -> int:
        """How many seeds have their outcome."""
        return self.next_seed - (self.flood is not None)

    def add_seeds(self, seeds: Int64[np.ndarray, "n 3"]) -> None:
        """Append seeds, z, y, x in the block's array."""
        self.seeds = np.concatenate([self.seeds, seeds])
        waiting = np.full(len(seeds), SeedOutcome.WAITING, np.uint8)
        self.outcomes = np.concatenate([self.outcomes, waiting])

    def advance(self) -> bool:
        """Do one step of the current flood or begin the next; return False at the end."""
        if self.flood is None:
            self.flood = self._plant_next()
            if self.flood is None:
                return False
        end = self.flood.step(self.canvas, self.counters)
        end = end or self.flood.limit(self.canvas, self.options)
        if end is not None:
            self.outcomes[self.next_seed - 1] = self._harvest(self.flood, end)
            self.canvas.erase(self.flood.reach(self.canvas))
            self.flood = None
        return True

    def _plant_next(self) -> Flood | None:
        while self.next_seed < len(self.seeds):
            z, y, x = self.seeds[self.next_seed].tolist()
            refused = self._refuse((z, y, x))
            self.next_seed += 1
            if refused is None:
                self.counters["floods"] += 1
                self._flood_began = time.monotonic()
                return Flood.begin(self.canvas, (z, y, x))
            self.outcomes[self.next_seed - 1] = refused
        return None

    def _refuse(self, seed: Zyx) -> SeedOutcome | None:
        canvas = self.canvas
        if not canvas.is_open(seed):
            self.counters["skip_invalid_position"] += 1
            inside = Box((0, 0, 0), canvas.shape).contains_point(seed)
            taken = inside and canvas.segmentation[seed] > 0
            return SeedOutcome.INSIDE_SEGMENT if taken else SeedOutcome.OUTSIDE_BLOCK
        if canvas.is_restricted(seed):
            return SeedOutcome.MASKED
        if self.seed_mask is not None and self.seed_mask[seed]:
            return SeedOutcome.MASKED
        around = Box.from_shape((1, 1, 1), start=seed).grow(self.options.min_boundary_dist)
        around = around.intersection(Box((0, 0, 0), canvas.shape)) or around
        if canvas.segmentation[around.slices()].any():
            return SeedOutcome.NEAR_SEGMENT
        return None

    def _harvest(self, flood: Flood, end: FloodEnd) -> SeedOutcome:
        """Accept the flood as a new segment where nothing was before, or say why not."""
        canvas = self.canvas
        if flood.calls == 0:
            return SeedOutcome.NO_STEP
        if canvas.logits[flood.seed] < canvas.move_logit:
            return SeedOutcome.WEAK_SEED
        window = flood.reach(canvas).slices()
        logits, segmentation = canvas.logits[window], canvas.segmentation[window]
        wanted = logits >= canvas.segment_logit
        accepted = wanted & (segmentation == 0)
        voxels = int(np.count_nonzero(accepted))
        if voxels < self.options.min_segment_size:
            return SeedOutcome.TOO_SMALL
        earlier, counts = np.unique(segmentation[wanted], return_counts=True)
        overlaps = dict(zip(earlier.tolist(), counts.tolist(), strict=True))
        overlaps.pop(0, None)
        self.counters["voxels_segmented"] += voxels
        self.counters["voxels_overlapping"] += sum(overlaps.values())
        self.largest_id += 1
        if self.largest_id > np.iinfo(np.uint32).max:
            raise LabelError(
                f"segment id {self.largest_id} does not fit 32 bits: "
                "renumber the initial segmentation from 1"
            )
        segmentation[accepted] = self.largest_id
        canvas.probability[window][accepted] = quantise_probability(logits[accepted])
        self.overlaps[self.largest_id] = overlaps
        self.origins[self.largest_id] = Origin(
            start=flood.seed,
            calls=flood.calls,
            seconds=time.monotonic() - self._flood_began,
            voxels=voxels,
            end=end,
        )
        return SeedOutcome.ACCEPTED
