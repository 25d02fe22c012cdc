"""What follows on shared work: this shard's part first, then those that nobody does.

Shards that have ended cannot be asked for more. So the one that comes to a later stage
does its own part of it and then, one after the other, the parts of shards that are not at
work; shards that are started again meanwhile do their own. Nothing is done twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from floodem.cluster.crew import Crew, Shard
from floodem.errors import OtherWorkError, RunConflictError, ShardDoneError

Result = TypeVar("Result")


def share_rest(run: Callable[[Crew], Result], *, crew: Crew) -> Result:
    """Do a later stage of work that shards share, as far as others are not at it.

    Parameters
    ----------
    run
        Does the tasks of a crew's shard and returns all results (`run_tasks`).
    crew
        Who works here; without a shard it does everything.

    Raises
    ------
    ShardDoneError
        When other shards are at work on what is left: the last of them goes on.
    OtherWorkError
        When the work is of other data or options.
    FloodemError
        What `run` raises.
    """
    if crew.shard is None:
        return run(crew)
    own, count = crew.shard.number, crew.shard.count
    for step in range(count):
        number = (own - 1 + step) % count + 1
        try:
            return run(replace(crew, shard=Shard(number=number, count=count)))
        except OtherWorkError:
            raise
        except (ShardDoneError, RunConflictError):  # done, or somebody is at it
            continue
    raise ShardDoneError(
        f"shard {crew.shard} is done, and others are at work on what is left: the last one goes on"
    )
