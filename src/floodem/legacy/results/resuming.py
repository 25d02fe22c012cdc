"""Floods under way and the older programs' checkpoints, one made from the other.

In: a `BlockFlooder` between two steps. Out: a `Checkpoint` from which the older program
goes on; and the other way round.
"""

from __future__ import annotations

import socket

import numpy as np

from floodem.errors import LabelError, RunConflictError
from floodem.flooding.block import BlockFlooder, Origin, SeedOutcome
from floodem.flooding.flood import FloodEnd
from floodem.legacy.results.admitted import OriginInfo
from floodem.legacy.results.counters import old_counters, our_counters
from floodem.legacy.results.cpoint import Checkpoint

_EXCLUDED = -1
_MARKED = (SeedOutcome.NEAR_SEGMENT, SeedOutcome.WEAK_SEED, SeedOutcome.TOO_SMALL)
"""Rejected seeds that the older programs mark in the segmentation."""


def checkpoint_of(flooder: BlockFlooder) -> Checkpoint:
    """Return the state of a block for the older programs.

    The seed of a flood under way comes next: newer ones of those programs go on with the
    flood, older ones begin it again. Logits with which positions are waiting are not
    kept by us, nor looked at by them: they are 0.

    Raises
    ------
    LabelError
        When a segment's id has more than 31 bits.
    """
    canvas, flood = flooder.canvas, flooder.flood
    if flooder.largest_id > np.iinfo(np.int32).max:
        raise LabelError(
            f"segment id {flooder.largest_id} does not fit the 31 bits of an older program's "
            "checkpoint: renumber the initial segmentation from 1"
        )
    segmentation = canvas.segmentation.astype(np.int32)
    marked = flooder.seeds[np.isin(flooder.outcomes, _MARKED)]
    at = tuple(marked.T)
    segmentation[at] = np.where(segmentation[at] == 0, _EXCLUDED, segmentation[at])
    return Checkpoint(
        segmentation=segmentation,
        logits=canvas.logits.copy(),
        probability=canvas.probability.copy(),
        origins={
            segment: OriginInfo(origin.start, origin.calls, origin.seconds)
            for segment, origin in flooder.origins.items()
        },
        overlaps={segment: dict(found) for segment, found in flooder.overlaps.items()},
        waiting=() if flood is None else tuple((0.0, where) for where in flood.queue.waiting),
        visited=frozenset() if flood is None else frozenset(flood.queue.visited),
        low=None if flood is None else flood.low,
        high=None if flood is None else flood.high,
        seeds=flooder.seeds.copy(),
        next_seed=flooder.seeds_done,
        calls=0 if flood is None else flood.calls,
        counters=dict(old_counters({"seeds": flooder.seeds_done, **flooder.counters})),
        hosts=(socket.gethostname(),),
    )


def restore(flooder: BlockFlooder, checkpoint: Checkpoint) -> None:
    """Bring a new flooder to the state of an older program's checkpoint.

    A flood that was under way begins again, from its seed; what it had counted is
    counted once more.

    Raises
    ------
    RunConflictError
        When the checkpoint is of another block, or has no seeds yet.
    """
    canvas = flooder.canvas
    if checkpoint.segmentation.shape != canvas.shape or checkpoint.seeds is None:
        raise RunConflictError(
            f"the checkpoint is of a block of {checkpoint.segmentation.shape} voxels (z,y,x) with "
            f"{'no' if checkpoint.seeds is None else len(checkpoint.seeds)} seeds, this one has "
            f"{canvas.shape}: begin without it"
        )
    # Before 2020 the next seed was kept, not that of the flood under way.
    before = 1 if checkpoint.calls is None and checkpoint.next_seed else 0
    canvas.segmentation[...] = np.maximum(checkpoint.segmentation, 0)
    canvas.probability[...] = checkpoint.probability
    flooder.add_seeds(checkpoint.seeds)
    flooder.next_seed = checkpoint.next_seed - before
    flooder.largest_id = int(canvas.segmentation.max(initial=0))
    flooder.counters.update(our_counters(checkpoint.counters))
    ids, counts = np.unique(canvas.segmentation, return_counts=True)
    voxels = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    for segment, info in checkpoint.origins.items():
        flooder.origins[segment] = Origin(
            start=info.start_zyx,
            calls=info.iters,
            seconds=info.walltime_sec,
            voxels=voxels.get(segment, 0),
            end=FloodEnd.EXHAUSTED,
        )
    flooder.overlaps.update(checkpoint.overlaps)
    _restore_outcomes(flooder, checkpoint)


def _restore_outcomes(flooder: BlockFlooder, checkpoint: Checkpoint) -> None:
    """Say what became of the seeds so far, as far as the file tells.

    It does not tell why a seed came to nothing that lies in no segment: it counts as too small.
    """
    done = flooder.seeds[: flooder.next_seed]
    is_taken = flooder.canvas.segmentation[tuple(done.T)] > 0
    outcomes = np.where(is_taken, SeedOutcome.INSIDE_SEGMENT, SeedOutcome.TOO_SMALL)
    origins = {info.start_zyx for info in checkpoint.origins.values()}
    outcomes[[tuple(seed) in origins for seed in done.tolist()]] = SeedOutcome.ACCEPTED
    flooder.outcomes[: flooder.next_seed] = outcomes
