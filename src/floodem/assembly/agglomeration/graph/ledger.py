"""What a ledger of decisions says in the end: its entries in, a verdict for each pair out.

An entry that a later one takes back counts as not written; one that takes back may be taken
back itself, which is a redo. What is left is read from first to last: ``merge`` and ``split``
overrule the rule for their pair until the next entry about it; ``undo-all`` forgets all
earlier ones and turns the rule off. So undoing everything gives the base back, merges that
are decided afterwards are added to it, and undoing the undoing gives all merges back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from floodem.assembly.agglomeration.graph.records import Action, Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """What a ledger says.

    Attributes
    ----------
    all_undone_by
        Number of the entry that turns the rule's merges off; None: the rule counts.
    pairs
        For each pair that was decided, the entry that counts.
    """

    all_undone_by: int | None
    pairs: dict[tuple[int, int], Entry]


def with_standing(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries, each with whether it stands.

    Parameters
    ----------
    entries
        By ascending number; an undo names an earlier one.
    """
    taken_back: set[int] = set()
    found = []
    for entry in reversed(entries):
        stands = entry.number not in taken_back
        if stands and entry.entry is not None:
            taken_back.add(entry.entry)
        found.append(replace(entry, stands=stands))
    return found[::-1]


def verdicts(entries: Sequence[Entry]) -> Verdicts:
    """Return what the entries that stand say (see `with_standing`)."""
    all_undone_by: int | None = None
    pairs: dict[tuple[int, int], Entry] = {}
    for entry in entries:
        if not entry.stands:
            continue
        if entry.action is Action.UNDO_ALL:
            all_undone_by, pairs = entry.number, {}
        elif entry.pair is not None:
            pairs[entry.pair] = entry
    return Verdicts(all_undone_by=all_undone_by, pairs=pairs)
