"""Policies made of policies: another one's seeds backwards, or several in a row.

In: names and arguments of other policies. Out: their seeds, rearranged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from floodem.errors import OptionError
from floodem.flooding.seeds.context import NO_SEEDS, SeedContext
from floodem.flooding.seeds.registry import SeedPolicySpec, make_policy, seed_policy


@seed_policy("ReverseCoords")
class ReverseCoords:
    """The seeds of another policy, last one first.

    Two segmentations from opposite orders make mistakes in different places,
    which their consensus splits.

    Parameters
    ----------
    policy_to_reverse
        Name of the other policy.
    policy_args
        Its arguments.
    """

    def __init__(self, *, policy_to_reverse: str, **policy_args: Any) -> None:
        self._policy = make_policy(_spec([policy_to_reverse, policy_args], of="ReverseCoords"))

    def __call__(self, context: SeedContext) -> Int64[np.ndarray, "n 3"]:
        """Return the other policy's seeds in reverse order."""
        return self._policy(context)[::-1]


@seed_policy("SequentialPolicies")
class SequentialPolicies:
    """The seeds of several policies, one policy after another.

    All look at the block as it is before the first flood, as in the reference. For a
    policy that fills what the first has left, segment twice: the first result is
    the second run's initial segmentation.

    Parameters
    ----------
    policies
        Pairs of a name and a dictionary of arguments.
    """

    def __init__(self, *, policies: Any) -> None:
        if isinstance(policies, str) or not isinstance(policies, Sequence):
            raise OptionError(
                f"SequentialPolicies policies is {policies!r}: give a list of pairs [name, {{...}}]"
            )
        self._policies = [make_policy(_spec(pair, of="SequentialPolicies")) for pair in policies]

    def __call__(self, context: SeedContext) -> Int64[np.ndarray, "n 3"]:
        """Return the seeds of the first policy, then of the second, ..."""
        return np.concatenate([NO_SEEDS, *(policy(context) for policy in self._policies)])


def _spec(pair: Any, *, of: str) -> SeedPolicySpec:
    match pair:
        case [str() as name, Mapping() as args]:
            return SeedPolicySpec(name, dict(args))
    raise OptionError(
        f'{of} cannot use {pair!r}: name a policy and its arguments, ["PolicyPeaks", {{}}]'
    )
