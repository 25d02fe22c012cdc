"""Merged ids the slow way: ids are lowered along pairs until none can be lowered any more."""

from __future__ import annotations


def merged_ids(pairs: list[tuple[int, int]]) -> dict[int, int]:
    """Return for each id that occurs the smallest id that it hangs together with."""
    lowest = {one: one for pair in pairs for one in pair}
    while True:
        before = dict(lowest)
        for a, b in pairs:
            lowest[a] = lowest[b] = min(lowest[a], lowest[b])
        if lowest == before:
            return lowest


def after_decisions(edges, entries, *, accepts) -> set[tuple[int, int]]:
    """Return the pairs that are merges, replaying a ledger from its beginning each time.

    Parameters
    ----------
    edges
        Pairs.
    entries
        (action, argument): "merge" or "split" with a pair, "undo" with a number from 1,
        "undo-all" with None.
    accepts
        Whether the rule accepts a pair.
    """
    standing = [True] * len(entries)
    # The last word counts, so an undo is looked at before what it undoes.
    for number in range(len(entries) - 1, -1, -1):
        action, argument = entries[number]
        if standing[number] and action == "undo":
            standing[argument - 1] = False
    merges = {pair for pair in edges if accepts(pair)}
    for (action, argument), stands in zip(entries, standing, strict=True):
        if not stands:
            continue
        if action == "undo-all":
            merges = set()
        elif action == "merge":
            merges.add(argument)
        elif action == "split":
            merges.discard(argument)
    return merges
