"""Segment graphs: what goes in comes out, the ledger of decisions, and which segments are one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from floodem.assembly.agglomeration.graph.format import SCORE_COLUMNS, ids_of, stored_ids
from floodem.assembly.agglomeration.graph.format import id_of as one_id_of
from floodem.assembly.agglomeration.graph.format import stored_id as one_stored_id
from floodem.assembly.agglomeration.graph.graph import SegmentGraph
from floodem.assembly.agglomeration.graph.merging import (
    members_of,
    merged_ids,
    parts_without,
    path_between,
    rows_of_merged,
    smallest_of_components,
)
from floodem.assembly.agglomeration.graph.records import Action, DecidedBy
from floodem.assembly.agglomeration.graph.rule import MergeRule
from floodem.assembly.agglomeration.graph.writer import score_columns, writing_graph
from floodem.assembly.agglomeration.resegmentation.scores import PointScores
from floodem.errors import LabelError, OptionError
from reference import merged_ids as reference
from segment_graph_cases import (
    HEADER,
    LARGEST,
    mapping_of,
    points_of,
    scores_of,
    write_graph,
)

IDS = st.one_of(st.integers(1, 9), st.sampled_from([2**31, 2**63 - 1, 2**63, LARGEST - 1, LARGEST]))
PAIRS = st.tuples(IDS, IDS).filter(lambda pair: pair[0] < pair[1])
CHAIN = {(1, 2): 0.9, (2, 3): 0.5, (3, 4): 0.95, (7, LARGEST): 0.99}


@pytest.fixture
def graph(tmp_path):
    with SegmentGraph.open(write_graph(tmp_path / "g.sqlite", CHAIN), writable=True) as opened:
        yield opened


def test_ids_of_64_bits_survive_the_signed_integers_of_the_file():
    ids = np.array([1, 2**32, 2**63 - 1, 2**63, LARGEST], np.uint64)
    stored = stored_ids(ids)
    assert stored.tolist() == [1, 2**32, 2**63 - 1, -(2**63), -1]
    assert ids_of(stored).tolist() == ids.tolist()
    assert [one_stored_id(one) for one in ids.tolist()] == stored.tolist()
    assert [one_id_of(one) for one in stored.tolist()] == ids.tolist()


def any_score(kind):
    if kind is float:
        return st.floats(-1e300, 1e300)
    return st.booleans() if kind is bool else st.integers(-(2**63), 2**63 - 1)


POINT_SCORES = st.builds(
    PointScores,
    **{name: any_score(kind) for name, kind in SCORE_COLUMNS.items() if name != "distance_nm"},
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(edges=st.dictionaries(PAIRS, POINT_SCORES, max_size=8), data=st.data())
def test_every_id_place_and_score_comes_back_exactly(tmp_path, edges, data):
    pairs = sorted(edges)
    points = points_of(pairs)
    at = data.draw(st.integers(0, len(pairs)))
    path = tmp_path / "g.sqlite"
    with writing_graph(path, header=HEADER, rule=MergeRule(), overwrite=True) as writer:
        # The later part first: batches come in any order.
        for part in (slice(at, None), slice(0, at)):
            writer.add(
                dataclasses.replace(
                    points,
                    **{
                        field.name: getattr(points, field.name)[part]
                        for field in dataclasses.fields(points)
                    },
                ),
                [edges[pair] for pair in pairs[part]],
            )
    with SegmentGraph.open(path) as opened:
        found = opened.edges()
        assert opened.header == HEADER
    assert list(zip(found.ids_a.tolist(), found.ids_b.tolist(), strict=True)) == pairs
    assert np.array_equal(found.positions, points.positions)
    assert np.array_equal(found.columns["distance_nm"], points.distances_nm)
    for field in dataclasses.fields(PointScores):
        column = found.columns[field.name]
        assert column.tolist() == [getattr(edges[pair], field.name) for pair in pairs]
        assert column.dtype == np.dtype(SCORE_COLUMNS[field.name])


def test_the_same_edges_give_the_same_bytes(tmp_path):
    one, other = (write_graph(tmp_path / name, CHAIN).read_bytes() for name in ("a", "b"))
    assert one == other


@settings(max_examples=100, deadline=None)
@given(pairs=st.lists(PAIRS, max_size=12), seed=st.randoms(use_true_random=False))
def test_merged_ids_are_the_smallest_of_what_hangs_together_in_any_order(pairs, seed):
    expected = reference.merged_ids(pairs)
    seed.shuffle(pairs)
    a, b = np.array(pairs, np.uint64).reshape(-1, 2).T
    old, new = smallest_of_components(a, b)
    assert dict(zip(old.tolist(), new.tolist(), strict=True)) == expected
    asked = np.array([1, 5, 12, LARGEST], np.uint64)
    assert merged_ids(asked, (old, new)).tolist() == [expected.get(i, i) for i in asked.tolist()]


def test_edges_that_the_rule_accepts_are_merges(graph):
    edges = graph.edges()
    assert edges.accepted.tolist() == [True, False, True, True]
    assert set(edges.decided_by.tolist()) == {DecidedBy.RULE}
    assert mapping_of(graph.path) == {1: 1, 2: 1, 3: 3, 4: 3, 7: 7, LARGEST: 7}


def test_another_rule_is_tried_or_kept_and_the_history_stays(graph):
    lenient = MergeRule(iou=0.4, distance_nm=100.0)
    assert graph.edges(lenient).accepted.all()
    assert graph.rule == MergeRule()
    assert graph.set_rule(lenient, note="try") == 2
    assert graph.rule == lenient
    assert graph.edges().accepted.all()
    kept = [(one.rule, one.note) for one in graph.rules()]
    assert kept == [(MergeRule().to_json(), ""), (lenient.to_json(), "try")]


def test_a_decision_overrules_the_rule_until_it_is_taken_back(graph):
    graph.decide(3, 2, action="merge", note="the same axon")
    split = graph.decide(1, 2, action="split")
    edges = graph.edges()
    assert edges.accepted.tolist() == [False, True, True, True]
    assert edges.decided_by.tolist()[:2] == [DecidedBy.SPLIT, DecidedBy.MERGE]
    assert edges.entries.tolist() == [2, 1, 0, 0]
    graph.set_rule(MergeRule(iou=1.0))
    assert graph.edges().accepted.tolist() == [False, True, False, False]
    graph.set_rule(MergeRule())
    graph.undo_entry(split.number)
    assert graph.edges().accepted.tolist() == [True, True, True, True]
    told = [(e.action, e.pair, e.entry, e.note, e.stands) for e in graph.entries()]
    assert told == [
        (Action.MERGE, (2, 3), None, "the same axon", True),
        (Action.SPLIT, (1, 2), None, "", False),
        (Action.UNDO, None, 2, "", True),
    ]


def test_undoing_a_merge_twice_is_as_before(graph):
    before = mapping_of(graph.path)
    assert graph.undo(2, 1).action is Action.SPLIT
    assert 1 not in mapping_of(graph.path)
    assert graph.undo(1, 2).action is Action.UNDO
    assert mapping_of(graph.path) == before


def test_undoing_every_merge_gives_the_base_back_and_can_be_undone(graph):
    graph.decide(2, 3, action="merge")
    graph.decide(5, 6, action="merge")  # no edge joins the two
    before = mapping_of(graph.path)
    undone = graph.undo_all()
    assert mapping_of(graph.path) == {}
    assert set(graph.edges().decided_by.tolist()) == {DecidedBy.UNDO_ALL}
    graph.set_rule(MergeRule(iou=0.1))
    assert mapping_of(graph.path) == {}
    graph.decide(3, 4, action="merge")
    assert mapping_of(graph.path) == {3: 3, 4: 3}
    graph.undo_entry(undone.number)
    graph.set_rule(MergeRule())
    assert mapping_of(graph.path) == before


DECISIONS = st.lists(
    st.one_of(
        st.tuples(st.just("merge"), PAIRS),
        st.tuples(st.just("split"), st.sampled_from(sorted(CHAIN))),
        st.tuples(st.just("undo"), st.integers(1, 8)),
        st.tuples(st.just("undo-all"), st.none()),
    ),
    max_size=8,
)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(decisions=DECISIONS)
def test_any_ledger_says_what_replaying_it_says(tmp_path, decisions):
    path = write_graph(tmp_path / "g.sqlite", CHAIN, overwrite=True)
    kept = []
    with SegmentGraph.open(path, writable=True) as graph:
        for action, argument in decisions:
            if action == "undo":
                entries = graph.entries()
                if argument > len(entries) or not entries[argument - 1].stands:
                    with pytest.raises(LabelError, match="no entry|taken back already"):
                        graph.undo_entry(argument)
                    continue
                graph.undo_entry(argument)
            elif action == "undo-all":
                graph.undo_all()
            else:
                graph.decide(*argument, action=action)
            kept.append((action, argument))
        merges = reference.after_decisions(CHAIN, kept, accepts=lambda pair: CHAIN[pair] > 0.8)
        a, b = graph.edges().joined()
        assert set(zip(a.tolist(), b.tolist(), strict=True)) == merges
        assert len(graph.entries()) == len(kept)
        last = graph.undo_all()
        assert mapping_of(path) == {}
        graph.undo_entry(last.number)
    assert mapping_of(path) == reference.merged_ids(sorted(merges))


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda g: g.decide(1, 1, action="merge"), "no two segments"),
        (lambda g: g.decide(0, 1, action="merge"), "no two segments"),
        (lambda g: g.decide(1, LARGEST + 1, action="merge"), "no two segments"),
        (lambda g: g.decide(1, 3, action="split"), "no edge joins segments 1 and 3"),
        (lambda g: g.undo(2, 3), "nothing to undo"),
        (lambda g: g.undo(1, 4), "nothing to undo"),
        (lambda g: g.undo_entry(1), "no entry 1"),
        (lambda g: g.decide(1, 2, action="split", note="n" * 2001), "too long"),
        (lambda g: g.set_rule(MergeRule(), note="n" * 2001), "too long"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(graph, act, says):
    before = graph.path.read_bytes()
    with pytest.raises((LabelError, OptionError), match=says):
        act(graph)
    assert graph.path.read_bytes() == before


def test_of_several_changes_all_are_made_or_none(graph):
    before = graph.path.read_bytes()

    def change():
        with graph.changing():
            graph.undo_all()
            graph.set_rule(MergeRule(iou=0.1))
            graph.undo(1, 4)

    with pytest.raises(LabelError, match="nothing to undo"):
        change()
    assert graph.path.read_bytes() == before
    assert graph.entries() == []


def test_the_merges_of_a_segment_the_way_through_it_and_its_parts_are_told(graph):
    graph.decide(2, 3, action="merge")
    graph.decide(1, 9, action="merge")
    edges = graph.edges()
    assert rows_of_merged(edges, 4).tolist() == [0, 1, 2]
    assert members_of(edges, 9).tolist() == [1, 2, 3, 4, 9]
    assert members_of(edges, 12).tolist() == [12]
    assert path_between(edges, 9, 4) == [9, 1, 2, 3, 4]
    assert path_between(edges, 4, 7) == []
    assert [part.tolist() for part in parts_without(edges, 3, 2)] == [[3, 4], [1, 2, 9]]
    graph.decide(4, 9, action="merge")
    assert path_between(graph.edges(), 9, 4) == [9, 4]
    assert [part.tolist() for part in parts_without(graph.edges(), 3, 2)] == [[1, 2, 3, 4, 9]]
    with pytest.raises(LabelError, match="not merged with each other"):
        parts_without(graph.edges(), 1, 3)


@settings(max_examples=50, deadline=None)
@given(pairs=st.sets(PAIRS, min_size=1, max_size=8), data=st.data())
def test_parts_are_what_merging_without_the_edge_gives(tmp_path_factory, pairs, data):
    path = tmp_path_factory.mktemp("parts") / "g.sqlite"
    write_graph(path, dict.fromkeys(pairs, 0.9))
    with SegmentGraph.open(path) as graph:
        edges = graph.edges()
    a, b = data.draw(st.sampled_from(sorted(pairs)))
    left = reference.merged_ids(sorted(pairs - {(a, b)}))
    wholes = [left.get(one, one) for one in (a, b)]
    expected = [
        sorted({one for one, whole in left.items() if whole == mine} | {mine}) for mine in wholes
    ]
    found = [part.tolist() for part in parts_without(edges, a, b)]
    assert found == (expected[:1] if wholes[0] == wholes[1] else expected)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"iou": np.array([np.nan])}, "no finite float"),
        ({"calls": np.array([1.5])}, "no finite int"),
        ({"recovered_a": np.array([2])}, "no finite bool"),
        ({"iou": np.array([0.5, 0.5])}, "shape"),
        ({"beauty": np.array([0.5])}, "beauty is missing or unknown"),
    ],
)
def test_scores_that_are_none_are_refused_and_leave_no_file(tmp_path, change, says):
    path = tmp_path / "g.sqlite"
    with pytest.raises(OptionError, match=says):
        SegmentGraph.create(
            path,
            header=HEADER,
            points=points_of([(1, 2)]),
            scores=scores_of([0.5]) | change,
            rule=MergeRule(),
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pairs", [[(2, 1)], [(0, 1)], [(3, 3)]])
def test_pairs_that_are_no_edges_are_refused(tmp_path, pairs):
    with pytest.raises(LabelError, match="two segments"):
        write_graph(tmp_path / "g.sqlite", dict.fromkeys(pairs, 0.5))
    assert list(tmp_path.iterdir()) == []


def test_a_pair_that_comes_twice_is_refused(tmp_path):
    def write_twice():
        with writing_graph(tmp_path / "g.sqlite", header=HEADER, rule=MergeRule()) as writer:
            for _ in range(2):
                writer.add(points_of([(1, 2)]), scores_of([0.5]))

    with pytest.raises(LabelError, match="comes twice"):
        write_twice()
    assert list(tmp_path.iterdir()) == []


def test_columns_of_scores_follow_the_dataclass():
    one = PointScores(
        **{
            name: kind(number % 2 if kind is bool else number)
            for number, (name, kind) in enumerate(SCORE_COLUMNS.items())
            if name != "distance_nm"
        }
    )
    found = score_columns([one, one])
    assert list(found) == [field.name for field in dataclasses.fields(PointScores)]
    assert found["size_a"].tolist() == [one.size_a] * 2
    assert score_columns([])["iou"].shape == (0,)


EDGES = st.fixed_dictionaries(
    {
        "iou": st.floats(0, 1),
        "coverage": st.floats(0, 1),
        "deleted": st.floats(0, 1),
        "distance": st.floats(0, 200),
    }
)


@settings(max_examples=100, deadline=None)
@given(
    edge=EDGES,
    iou=st.floats(0, 1),
    coverage=st.floats(0, 1),
    deleted=st.floats(0, 1),
    distance=st.none() | st.floats(0, 200),
)
def test_margins_are_positive_where_the_rule_accepts(edge, iou, coverage, deleted, distance):
    rule = MergeRule(iou=iou, coverage=coverage, deleted=deleted, distance_nm=distance)
    columns = scores_of([edge["iou"]], coverage=edge["coverage"], deleted=edge["deleted"])
    columns["distance_nm"] = np.array([edge["distance"]])
    [margin], [accepted] = rule.margins(columns), rule.accepts(columns)
    assert -1 <= margin <= 1
    if margin > 1e-9:
        assert accepted
    if margin < -1e-9:
        assert not accepted


def test_an_edge_flooded_from_one_side_has_the_margin_of_what_was_measured():
    columns = scores_of([0.0] * 4)
    columns["a_covers_b"] = np.array([0.3, 0.15, 0.9, 0.3])
    for name in ("b_covers_a", "b_covers_b", "size_b", "deleted_b", "seeds_b"):
        columns[name][:3] = 0
    rule = MergeRule()
    assert rule.margins(columns) == pytest.approx([-0.5, -0.75, 0.0, -1.0])
    assert not rule.accepts(columns).any()
    columns["seeds_a"][:3] = 0
    assert rule.margins(columns).tolist() == [-1.0] * 4


def test_a_margin_is_1_for_perfect_scores_and_0_on_a_threshold():
    columns = scores_of([1.0, 0.8, 0.4, 0.0], coverage=1.0)
    assert MergeRule().margins(columns).tolist() == [1.0, 0.0, -0.5, -1.0]
