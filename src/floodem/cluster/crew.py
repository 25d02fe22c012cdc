"""Who does the tasks: this process, several on this machine, a cluster, or one of many shards."""

from __future__ import annotations

import re
from dataclasses import dataclass

from floodem.errors import OptionError

_SHARD = re.compile(r"(\d+)/(\d+)")
DEATHS_PER_TASK = 3
"""A task whose worker died so often is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One of several processes that share work without talking to each other.

    Attributes
    ----------
    number
        From 1 to `count`.
    count
        How many there are.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``2/8``, the second of eight.

        Raises
        ------
        OptionError
            When it is anything else.
        """
        match = _SHARD.fullmatch(text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise OptionError(
                f"{text!r} is no shard: write I/N with I from 1 to N, for example 1/8 (a job "
                "array of 8 then counts from 1)"
            )
        return cls(number=int(match[1]), count=int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def takes(self, position: int) -> bool:
        """Tell whether the task at a position, from 0, is this shard's."""
        return position % self.count == self.number - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """Who does the tasks of a run.

    Attributes
    ----------
    workers
        Processes on this machine; 1 works in this one.
    slots
        Tasks that a worker holds at once, so that one can read or write while another
        computes.
    cluster
        ``local:N``, the address of a Dask scheduler, or a TOML file about a SLURM
        cluster; None: no cluster.
    is_insecure
        Allow the plain addresses (tcp://) of schedulers that anyone on the network may use.
    shard
        Which part of the work is done here; None: all of it.
    deaths
        How often a task's worker may die before the task is given up.
    """

    workers: int = 1
    slots: int = 1
    cluster: str | None = None
    is_insecure: bool = False
    shard: Shard | None = None
    deaths: int = DEATHS_PER_TASK

    def __post_init__(self) -> None:
        if self.workers < 1 or self.slots < 1 or self.deaths < 1:
            raise OptionError(
                f"{self.workers} workers with {self.slots} slots cannot work: give 1 or more"
            )
        if self.cluster is not None and self.shard is not None:
            raise OptionError(
                f"a shard ({self.shard}) works without a cluster ({self.cluster}): give one of both"
            )


ALONE = Crew()
"""This process does everything."""
