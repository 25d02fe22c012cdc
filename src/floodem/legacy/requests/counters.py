"""What a run counted, under all the names that old scripts read: counters in, counters out."""

from __future__ import annotations

from collections.abc import Mapping

NETWORK_CALLS = "inference-calls"
SAME_AS_NETWORK_CALLS = (
    "update_at-calls",
    "predict-calls",
    "get-image-calls",
    "client-wait-calls",
    "movement_policy-calls",
    "segment_at-overhead-calls",
)
"""In the old programs each of these was counted once for every network call."""

ONCE = ("load-image-calls", "segment_all-calls")
"""Counted once for every subvolume."""


def with_all_names(counters: Mapping[str, int]) -> dict[str, int]:
    """Return counters by their old names together with those that follow from them.

    Parameters
    ----------
    counters
        As `floodem.legacy.results.counters.old_counters` gives them.
    """
    calls = counters.get(NETWORK_CALLS, 0)
    return {
        **dict.fromkeys(ONCE, 1),
        **dict.fromkeys(SAME_AS_NETWORK_CALLS, calls),
        **counters,
    }
