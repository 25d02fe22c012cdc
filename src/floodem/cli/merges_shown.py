"""What ``floodem merges`` prints: an open graph and its edges in, a few lines or JSON out."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from floodem.counting import counted
from floodem.errors import LabelError, OptionError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from jaxtyping import Bool, Float64, Int64

    from floodem.assembly.agglomeration.graph.applying import Applied
    from floodem.assembly.agglomeration.graph.graph import SegmentGraph
    from floodem.assembly.agglomeration.graph.records import EdgeTable, Entry
    from floodem.assembly.agglomeration.graph.rule import MergeRule

_DEFAULT_ROWS = 10
_WIDTH_IN_FILES = 140
_ENTRIES_SHOWN = 10
_IDS_SHOWN = 12
_TITLES = {
    "near": "undecided edges nearest to a threshold",
    "best": "surest edges",
    "worst": "edges farthest from a merge",
    "of": "merges inside the segment that holds {id}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Which edges are listed.

    Attributes
    ----------
    order
        ``near``, ``best``, ``worst`` or ``of``.
    rows
        How many; None: all.
    of
        A segment, whose merges are listed.
    between
        Two segments, between which the way is shown.
    """

    order: str
    rows: int | None
    of: int | None = None
    between: tuple[int, int] | None = None

    @classmethod
    def chosen(
        cls,
        *,
        near: int | None,
        best: int | None,
        worst: int | None,
        of: int | None,
        between: tuple[int, int] | None,
    ) -> Listing:
        """Return what was asked for.

        Raises
        ------
        OptionError
            When several orders are.
        """
        given = {
            name: rows
            for name, rows in (("near", near), ("best", best), ("worst", worst))
            if rows is not None
        }
        if len(given) > 1:
            raise OptionError(
                f"{' and '.join(f'--{name}' for name in given)} are two orders: give one of them"
            )
        if given:
            [(order, rows)] = given.items()
            return cls(order=order, rows=rows, of=of, between=between)
        if of is not None:
            return cls(order="of", rows=None, of=of, between=between)
        return cls(order="near", rows=_DEFAULT_ROWS, between=between)

    def require_known(self, edges: EdgeTable, entries: Sequence[Entry]) -> None:
        """Refuse ids of which no edge and no decision knows anything.

        Raises
        ------
        LabelError
            Naming the first such id.
        """
        asked = [] if self.of is None else [self.of]
        decided = {one for entry in entries if entry.pair is not None for one in entry.pair}
        for one in (*asked, *(self.between or ())):
            if one not in decided and not ((edges.ids_a == one) | (edges.ids_b == one)).any():
                raise LabelError(
                    f"no edge of the graph knows segment {one} (it may still be a segment without "
                    "neighbours): give the id of a segment with an edge, as --csv lists them"
                )

    def chosen_rows(
        self, edges: EdgeTable, margins: Float64[np.ndarray, "edges"]
    ) -> Int64[np.ndarray, "rows"]:
        """Return the rows that are listed, in their order; equal ones by ids."""
        import numpy as np

        from floodem.assembly.agglomeration.graph.merging import rows_of_merged
        from floodem.assembly.agglomeration.graph.rule import is_two_sided

        rows = np.arange(len(edges)) if self.of is None else rows_of_merged(edges, self.of)
        if self.order == "near":  # a queue, which nobody wants to go through twice
            rows = rows[~_is_decided(edges)[rows]]
        # The weakest merge of a segment first: that is the one to look at.
        keys = {"near": abs(margins), "best": -margins, "worst": margins, "of": margins}
        # Of equal margins one from both sides says more for a merge than one from a single side.
        is_both = is_two_sided(edges.columns)
        is_later = is_both if self.order in ("worst", "of") else ~is_both
        ordered = rows[np.lexsort((is_later[rows], keys[self.order][rows]))]
        return ordered[: self.rows]


def as_values(
    graph: SegmentGraph, edges: EdgeTable, *, listing: Listing, applied: Applied | None
) -> dict[str, Any]:
    """Return what is known of a graph as JSON values."""
    from floodem.assembly.agglomeration.graph.merging import members_of, path_between

    rule = graph.rule
    values: dict[str, Any] = {
        "format": "floodem merges",
        "graph": str(graph.path),
        "header": graph.header.to_json(),
        "rule": rule.to_json(),
        "rules": [asdict(one) for one in graph.rules()],
        "decisions": [asdict(one) for one in graph.entries()],
        **_counts(edges),
        "listed": _listed(edges, rule, listing),
    }
    if listing.of is not None:
        values["members"] = members_of(edges, listing.of).tolist()
    if listing.between is not None:
        values["between"] = path_between(edges, *listing.between)
    if applied is not None:
        values["applied"] = asdict(applied)
    return values


def _counts(edges: EdgeTable) -> dict[str, int]:
    import numpy as np

    from floodem.assembly.agglomeration.graph.merging import smallest_of_components

    old_ids, new_ids = smallest_of_components(*edges.joined())
    return {
        "edges": len(edges),
        "accepted": int(edges.accepted.sum()),
        "decided": int(_is_decided(edges).sum()) + len(edges.other_merges),
        "other_merges": len(edges.other_merges),
        "joined": len(old_ids),
        "wholes": len(np.unique(new_ids)),
    }


def _is_decided(edges: EdgeTable) -> Bool[np.ndarray, "edges"]:
    """Tell which edges somebody decided about."""
    import numpy as np

    from floodem.assembly.agglomeration.graph.records import DecidedBy

    return np.isin(edges.decided_by, (DecidedBy.MERGE, DecidedBy.SPLIT))


def _listed(edges: EdgeTable, rule: MergeRule, listing: Listing) -> list[dict[str, Any]]:
    from floodem.assembly.agglomeration.graph.records import DecidedBy
    from floodem.assembly.agglomeration.graph.rule import is_two_sided, measured_coverage

    margins = rule.margins(edges.columns)
    is_both, coverage = is_two_sided(edges.columns), measured_coverage(edges.columns)
    return [
        {
            "id_a": int(edges.ids_a[row]),
            "id_b": int(edges.ids_b[row]),
            "position_zyx": edges.positions[row].tolist(),
            **{name: column[row].item() for name, column in edges.columns.items()},
            "accepted": bool(edges.accepted[row]),
            "decided_by": DecidedBy(int(edges.decided_by[row])).name.lower().replace("_", "-"),
            "entry": int(edges.entries[row]) or None,
            "margin": float(margins[row]),
            "two_sided": bool(is_both[row]),
            "measured_coverage": float(coverage[row]),
        }
        for row in listing.chosen_rows(edges, margins).tolist()
    ]


def print_graph(
    graph: SegmentGraph, edges: EdgeTable, *, listing: Listing, written: Sequence[Entry]
) -> None:
    """Print the rule, counts, decisions, and the edges that are listed."""
    from floodem.assembly.agglomeration.graph.ledger import verdicts
    from floodem.assembly.agglomeration.graph.records import Action

    counts, entries = _counts(edges), graph.entries()
    print(f"{graph.path}: {counted(counts['edges'], 'edge')} over {graph.header.segmentation.uri}")
    print(f"rule {_number_of_rules(graph)}: {rule_in_words(graph.rule)}")
    print(_merges_in_words(counts))
    undone_by = verdicts(entries).all_undone_by
    for entry in written:
        off = ""
        if undone_by is not None and entry.action is Action.UNDO:
            off = f"; merges stay off until entry {undone_by} is undone"
        print(_consequence(edges, entry, entries) + off)
    if undone_by is not None:
        print(
            f"all merges are undone by entry {undone_by}, those of any rule: --undo {undone_by} "
            "brings them back"
        )
    _print_entries(entries)
    if listing.between is not None:
        _print_way(edges, listing.between)
    if listing.of is not None:
        _print_members(edges, listing.of)
    _print_edges(edges, graph.rule, listing)


def rule_in_words(rule: MergeRule) -> str:
    """Return the thresholds in a line."""
    far = "" if rule.distance_nm is None else f", distance at most {rule.distance_nm:g} nm"
    return f"iou > {rule.iou:g}, coverage > {rule.coverage:g}, deleted < {rule.deleted:g}{far}"


def _merges_in_words(counts: Mapping[str, int]) -> str:
    things = {"accepted": "edge", "other_merges": "other pair"}
    merges = [counted(counts[name], thing) for name, thing in things.items() if counts[name]]
    if not merges:
        return "no merges"
    return (
        f"merges: {' and '.join(merges)}; {counted(counts['joined'], 'segment')} joined to "
        f"{counted(counts['wholes'], 'segment')}"
    )


def _number_of_rules(graph: SegmentGraph) -> str:
    rules = graph.rules()
    return f"{rules[-1].number} of {len(rules)}" if len(rules) > 1 else "in force"


def _consequence(edges: EdgeTable, entry: Entry, entries: Sequence[Entry]) -> str:
    """Say what a new entry means for the pair that it is about."""
    from floodem.assembly.agglomeration.graph.merging import path_between
    from floodem.assembly.agglomeration.graph.records import Action

    said = f"entry {entry.number}: {_entry_in_words(entry)}"
    about = entry
    while about.action is Action.UNDO:
        about = next(one for one in entries if one.number == about.entry)
    if about.pair is None:
        return said
    a, b = about.pair
    way = path_between(edges, a, b)
    if not way:
        return f"{said}; {a} and {b} are apart now"
    over = way[1:-1]
    if not over:
        return f"{said}; {a} and {b} are one segment now"
    return f"{said}; {a} and {b} are still one segment, over {_ids_in_words(over)}"


def _entry_in_words(entry: Entry) -> str:
    what = entry.action.value
    if entry.pair is not None:
        what = f"{what} {entry.pair[0]},{entry.pair[1]}"
    elif entry.entry is not None:
        what = f"{what} entry {entry.entry}"
    return what + (f" ({_plain(entry.note)})" if entry.note else "")


def _plain(note: str) -> str:
    """Return a note that no console takes for more than a line of text."""
    return "".join(letter if letter.isprintable() else " " for letter in note)


def _print_entries(entries: Sequence[Entry]) -> None:
    if not entries:
        return
    print(f"\ndecisions ({len(entries)}; --json names all)")
    for entry in entries[-_ENTRIES_SHOWN:]:
        taken = "" if entry.stands else ", taken back"
        print(f"{entry.number:>6} {_plain(entry.time)} {_entry_in_words(entry)}{taken}")


def _print_way(edges: EdgeTable, pair: tuple[int, int]) -> None:
    from floodem.assembly.agglomeration.graph.merging import path_between

    way = path_between(edges, *pair)
    if not way:
        print(f"\n{pair[0]} and {pair[1]} are not in one merged segment")
        return
    print(f"\nfrom {pair[0]} to {pair[1]}: {' - '.join(map(str, way))}")


def _print_members(edges: EdgeTable, merged_id: int) -> None:
    from floodem.assembly.agglomeration.graph.merging import members_of

    members = members_of(edges, merged_id).tolist()
    print(f"\nsegment {members[0]} is made of {_ids_in_words(members)}")


def _ids_in_words(ids: Sequence[int]) -> str:
    shown = ", ".join(str(one) for one in ids[:_IDS_SHOWN])
    more = len(ids) - _IDS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _print_edges(edges: EdgeTable, rule: MergeRule, listing: Listing) -> None:
    from rich.console import Console
    from rich.table import Table

    found = _listed(edges, rule, listing)
    if not found:
        return
    print(f"\n{_TITLES[listing.order].format(id=listing.of)}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("a", "b", "at z,y,x", "margin", "iou", "coverage", "deleted", "nm", "merge", "by"):
        table.add_column(name, justify="right")
    for edge in found:
        deleted = [
            edge[f"deleted_{side}"] / edge[f"size_{side}"] for side in "ab" if edge[f"size_{side}"]
        ]
        who = edge["decided_by"] + (f" {edge['entry']}" if edge["entry"] else "")
        table.add_row(
            str(edge["id_a"]),
            str(edge["id_b"]),
            ",".join(map(str, edge["position_zyx"])),
            f"{edge['margin']:+.3f}",
            f"{edge['iou']:.3f}" if edge["two_sided"] else "-",
            f"{edge['measured_coverage']:.3f}" if edge["seeds_a"] or edge["seeds_b"] else "-",
            f"{min(deleted):.4f}" if deleted else "-",
            f"{edge['distance_nm']:.0f}",
            "yes" if edge["accepted"] else "no",
            who,
        )
    width = None if sys.stdout.isatty() else _WIDTH_IN_FILES
    Console(markup=False, highlight=False, width=width).print(table)
    if not all(edge["two_sided"] for edge in found):
        print(
            "iou -: one side was not flooded, as the flood from the other had failed already: no "
            "merge by any rule, and its margin is that of the one flood, at most 0"
        )
