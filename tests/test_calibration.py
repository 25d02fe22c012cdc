"""Thresholds fitted on labelled data: scores as if voxels were merged, and careful choices."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floodem.assembly.agglomeration.calibration import calibration
from floodem.assembly.agglomeration.calibration import search as calibration_search
from floodem.assembly.agglomeration.calibration.calibration import (
    CalibrationOptions,
    calibrate_graph,
    fit_rule,
)
from floodem.assembly.agglomeration.calibration.overlaps import Counting
from floodem.assembly.agglomeration.calibration.search import grid, try_rules
from floodem.assembly.agglomeration.calibration.truth import assign, judge
from floodem.assembly.agglomeration.graph.base import describe_base
from floodem.assembly.agglomeration.graph.graph import SegmentGraph
from floodem.assembly.agglomeration.graph.records import EdgeTable
from floodem.assembly.agglomeration.graph.rule import MergeRule
from floodem.cli.calibrate import _stability
from floodem.cli.main import main
from floodem.cluster import Crew
from floodem.errors import LabelError, OptionError, OtherWorkError, StoppedError
from floodem.evaluation import evaluate
from floodem.geometry import Box
from floodem.labels import OverlapTable, contingency
from floodem.shapes.source import LabelSource
from reference import merged_ids as reference
from segment_graph_cases import points_of, scores_of, write_labels

FEW = (0.0, 0.25, 0.5, 0.75, 1.0)


@pytest.fixture(autouse=True)
def coarse_grid(monkeypatch):
    """Few rules are enough here, and they are tried much faster."""
    monkeypatch.setattr(calibration_search, "GRID_IOU", FEW)
    monkeypatch.setattr(calibration_search, "GRID_COVERAGE", (0.0, 0.5))
    monkeypatch.setattr(calibration_search, "GRID_DELETED", (0.02, 1.0))


def edges_of(edges: dict, **scores) -> EdgeTable:
    """A table of edges, by pair and iou."""
    pairs = sorted(edges)
    points = points_of(pairs)
    columns = scores_of([edges[pair] for pair in pairs], **scores)
    return EdgeTable(
        ids_a=points.ids_a,
        ids_b=points.ids_b,
        positions=points.positions,
        columns={"distance_nm": points.distances_nm, **columns},
        accepted=np.zeros(len(pairs), np.bool_),
        decided_by=np.zeros(len(pairs), np.int8),
        entries=np.zeros(len(pairs), np.int64),
        other_merges=np.zeros((0, 2), np.uint64),
    )


def renamed(labels, mapping):
    found = labels.copy()
    for old, new in mapping.items():
        found[labels == old] = new
    return found


def bars():
    """Six objects of eight voxels along x, each of four base segments of two."""
    x = np.arange(48)
    base = np.broadcast_to(x // 2 + 1, (2, 3, 48)).astype(np.uint64)
    truth = np.broadcast_to(x // 8 + 1, (2, 3, 48)).astype(np.uint64)
    return base, truth


def neighbours(right: float, wrong: float) -> dict:
    """Edges between all bars that touch, with an iou for those within an object."""
    return {(one, one + 1): right if (one - 1) // 4 == one // 4 else wrong for one in range(1, 24)}


@settings(max_examples=40, deadline=None)
@given(data=st.data(), folds=st.integers(1, 4))
def test_scores_of_any_rule_are_those_of_the_merged_voxels(data, folds):
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    base = rng.integers(0, 7, (4, 4, 6)).astype(np.uint64)
    truth = rng.integers(0, 5, (4, 4, 6)).astype(np.uint64)
    truth[0, 0, 0] = 1
    pairs = st.tuples(st.integers(1, 9), st.integers(1, 9)).filter(lambda pair: pair[0] < pair[1])
    edges = data.draw(st.dictionaries(pairs, st.sampled_from(FEW), max_size=8))
    table = contingency(base, truth)
    table = table.select(table.ids_b != 0)
    rules = grid(edges_of(edges))[::3]
    tried = try_rules(edges_of(edges), table, rules=rules, folds=folds)
    for number in {0, len(rules) // 2, len(rules) - 1}:
        accepted = [pair for pair in edges if edges[pair] > rules[number].iou]
        if rules[number].distance_nm is not None:
            continue
        found = evaluate(renamed(base, reference.merged_ids(accepted)), truth, worst=0).all_truth
        assert tried.split_bits[number].sum() == pytest.approx(found.voi_split_bits, abs=1e-9)
        assert tried.merge_bits[number].sum() == pytest.approx(found.voi_merge_bits, abs=1e-9)
    whole = evaluate(base, truth, worst=0).all_truth
    assert tried.base_split_bits.sum() == pytest.approx(whole.voi_split_bits, abs=1e-9)
    assert tried.base_merge_bits.sum() == pytest.approx(whole.voi_merge_bits, abs=1e-9)
    assert tried.shares.sum() == pytest.approx(1)


def test_thresholds_that_tell_right_from_wrong_are_found():
    base, truth = bars()
    found = fit_rule(edges_of(neighbours(0.7, 0.4)), contingency(base, truth))
    assert found.rule.iou == 0.5
    fitted, default = found.outcomes["fitted"], found.outcomes["default"]
    assert (fitted.right, fitted.wrong, fitted.precision, fitted.recall) == (18, 0, 1.0, 1.0)
    assert fitted.scores.adapted_rand_error == 0
    assert (fitted.scores.voi_split_bits, fitted.scores.voi_merge_bits) == (0, 0)
    assert (default.accepted, default.precision, default.recall) == (0, None, 0.0)
    assert found.outcomes["base"].scores.voi_split_bits == pytest.approx(2)
    assert (found.edges, found.clear_edges, found.right_edges) == (23, 23, 18)
    assert (found.segments, found.unclear_segments) == (24, 0)
    assert found.held_out is not None
    assert found.held_out.voi_split_bits == pytest.approx(0)
    assert found.held_out.rules == (found.rule,) * 5


def test_outcomes_are_what_evaluate_says_of_merged_voxels():
    base, truth = bars()
    edges = neighbours(0.7, 0.4) | {(1, 2): 0.3, (4, 5): 0.9}
    rule = MergeRule(iou=0.6)
    found = fit_rule(edges_of(edges), contingency(base, truth), rule=rule)
    for name in ("base", "default", "in force", "fitted"):
        used = found.outcomes[name].rule
        accepted = [pair for pair in edges if used is not None and edges[pair] > used.iou]
        merged = renamed(base, reference.merged_ids(accepted))
        assert found.outcomes[name].scores == evaluate(merged, truth, worst=0).all_truth


def test_a_merger_is_not_bought_with_fewer_splits_unless_it_is_allowed():
    base, truth = bars()
    # The only threshold that accepts right merges accepts one wrong one, too.
    edges = edges_of(neighbours(0.7, 0.4) | {(4, 5): 0.9})
    table = contingency(base, truth)
    strict = fit_rule(edges, table, options=CalibrationOptions(max_merge_bits=0.01))
    assert strict.outcomes["fitted"].accepted == 0
    assert strict.outcomes["fitted"].scores == strict.outcomes["base"].scores
    lenient = fit_rule(edges, table, options=CalibrationOptions(max_merge_bits=0.5))
    assert (lenient.outcomes["fitted"].right, lenient.outcomes["fitted"].wrong) == (18, 1)


def test_of_equal_rules_the_most_careful_is_taken():
    base, truth = bars()
    pairs = neighbours(0.9, 0.1)
    found = fit_rule(edges_of(pairs, coverage=0.9), contingency(base, truth))
    assert found.rule == MergeRule(iou=0.8, coverage=0.6, deleted=0.02, distance_nm=None)
    # Merges that change nothing are left out: those of segments outside of the truth.
    outside = {(one, one + 1): 0.6 for one in range(100, 110)}
    found = fit_rule(edges_of(pairs | outside), contingency(base, truth))
    assert found.outcomes["fitted"].accepted == 18


def test_segments_are_joined_over_others_that_truth_does_not_reach():
    base, truth = bars()
    table = contingency(base, truth)
    rules = [MergeRule(iou=0.5), MergeRule(iou=1.0)]
    direct = try_rules(edges_of({(1, 2): 0.9}), table, rules=rules, folds=1)
    around = try_rules(edges_of({(1, 99): 0.9, (2, 99): 0.9}), table, rules=rules, folds=1)
    assert np.array_equal(direct.split_bits, around.split_bits)
    assert direct.split_bits[0] < direct.split_bits[1]


def test_overfitting_shows_on_objects_that_were_left_out():
    """One object's edges have other scores: without it the fit finds another threshold."""
    base, truth = bars()
    edges = neighbours(0.9, 0.1)
    for one in (21, 22, 23):
        edges[one, one + 1] = 0.3
    found = fit_rule(edges_of(edges), contingency(base, truth), options=CalibrationOptions(folds=6))
    assert found.outcomes["fitted"].recall == 1
    assert found.held_out is not None
    assert len(set(found.held_out.rules)) == 2
    assert found.held_out.voi_split_bits == pytest.approx(2 / 6)
    assert found.outcomes["fitted"].scores.voi_split_bits == 0


@pytest.mark.parametrize("folds", [0, 1])
def test_without_folds_nothing_is_held_out(folds):
    base, truth = bars()
    options = CalibrationOptions(folds=folds)
    assert fit_rule(edges_of({}), contingency(base, truth), options=options).held_out is None


def test_segments_without_a_clear_object_are_left_out_and_counted():
    table = OverlapTable(
        *(np.array(ids, np.uint64) for ids in ([0, 1, 1, 2, 2, 3, 3, 4], [1, 1, 2, 1, 2, 0, 1, 0])),
        np.array([5, 9, 1, 6, 4, 6, 4, 8], np.int64),
    )
    found = assign(table, purity=0.8)
    assert found.segments.tolist() == [1, 2, 3, 4]
    # Of 2 a share of 0.6 is in one object; most of 3, and all of 4, has no truth.
    assert found.objects.tolist() == [1, 0, 0, 0]
    assert found.unclear == 3
    assert assign(table, purity=0.5).objects.tolist() == [1, 1, 0, 0]
    truth = judge(edges_of({(1, 2): 0.9, (1, 9): 0.9}), assign(table, purity=0.5))
    assert truth.is_clear.tolist() == [True, False]
    assert truth.is_right.tolist() == [True, False]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 9999), purity=st.floats(0.5, 1, exclude_min=True))
def test_the_object_of_a_segment_is_where_most_of_it_lies(seed, purity):
    rng = np.random.default_rng(seed)
    base, truth = rng.integers(0, 5, (2, 60)).astype(np.uint64)
    found = assign(contingency(base, truth), purity=purity)
    assert found.segments.tolist() == sorted(set(base.tolist()) - {0})
    for segment, got in zip(found.segments.tolist(), found.objects.tolist(), strict=True):
        inside = truth[base == segment]
        labelled = inside[inside != 0]
        names, counts = np.unique(labelled, return_counts=True)
        is_clear = (
            len(labelled) >= 0.5 * len(inside)
            and len(labelled) > 0
            and counts.max() >= purity * len(labelled)
        )
        assert got == (names[np.argmax(counts)] if is_clear else 0)


def test_truth_without_a_label_is_refused():
    base, truth = bars()
    with pytest.raises(LabelError, match="nothing but ignored labels"):
        fit_rule(edges_of({}), contingency(base, np.zeros_like(truth)))


@pytest.mark.parametrize(
    "options", [{"purity": 0.0}, {"purity": 1.5}, {"max_merge_bits": -1.0}, {"folds": -1}]
)
def test_impossible_options_are_refused(options):
    with pytest.raises(OptionError):
        CalibrationOptions(**options)


def test_a_fit_can_be_stopped():
    base, truth = bars()
    with pytest.raises(StoppedError):
        fit_rule(edges_of({}), contingency(base, truth), should_stop=lambda: True)


@pytest.fixture
def files(tmp_path):
    """A graph over the bars, and their truth, which begins a little later."""
    base, truth = bars()
    uri = write_labels(tmp_path / "base.zarr", base)
    edges = neighbours(0.7, 0.4)
    SegmentGraph.create(
        tmp_path / "g.sqlite",
        header=describe_base(LabelSource(uri=uri), about={}),
        points=points_of(edges),
        scores=scores_of([edges[pair] for pair in sorted(edges)]),
        rule=MergeRule(),
    )
    write_labels(tmp_path / "truth.zarr", truth[1:], offset=(4, -5, 10))
    return tmp_path


def test_volumes_are_laid_over_each_other_by_their_frames(files):
    base, truth = bars()
    found = calibrate_graph(files / "g.sqlite", files / "truth.zarr")
    expected = fit_rule(edges_of(neighbours(0.7, 0.4)), contingency(base[1:], truth[1:]))
    assert found == expected


def test_counting_in_tasks_gives_the_same(files):
    work = files / "work"
    counting = Counting(crew=Crew(workers=1), work=work)
    found = calibrate_graph(files / "g.sqlite", files / "truth.zarr", counting=counting)
    assert found == calibrate_graph(files / "g.sqlite", files / "truth.zarr")
    assert (work / "counts").is_dir()
    boxed = Counting(box=Box((4, -5, 10), (5, -2, 26)))
    found = calibrate_graph(files / "g.sqlite", files / "truth.zarr", counting=boxed)
    assert found.segments == 8


def test_another_base_is_refused(files):
    base, _ = bars()
    write_labels(files / "base.zarr", base + np.uint64(1), overwrite=True)
    with pytest.raises(OtherWorkError):
        calibrate_graph(files / "g.sqlite", files / "truth.zarr")


def floodem(*arguments, code=0):
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main([str(one) for one in arguments])
    assert ended.value.code == code, err.getvalue()
    return out.getvalue() if code == 0 else err.getvalue()


def test_the_command_prints_the_rules_and_keeps_the_best_on_demand(files, monkeypatch):
    monkeypatch.setattr(calibration, "FEW_RIGHT_EDGES", 18)
    graph = files / "g.sqlite"
    before = graph.read_bytes()
    printed = floodem("calibrate", graph, files / "truth.zarr", "--workers", "1")
    assert (
        "23 edges, 23 of them between segments of clear objects, 18 of those within one" in printed
    )
    [fitted] = [line.split()[1:] for line in printed.splitlines() if line.startswith("fitted   ")]
    assert fitted[:8] == ["18", "18", "0", "1.000", "1.000", "0.0000", "0.0000", "0.0000"]
    assert "fitted rule: iou > 0.5, coverage > 0.5, deleted < 0.02" in printed
    assert (
        f"floodem merges {graph} --iou 0.5 --coverage 0.5 --deleted 0.02 --distance any" in printed
    )
    assert "warning" not in printed
    assert "fitted again 5 times, each time without another group of objects, the rule" in printed
    assert graph.read_bytes() == before
    floodem("calibrate", graph, files / "truth.zarr", "--workers", "1", "--set")
    with SegmentGraph.open(graph) as opened:
        assert opened.rule == MergeRule(iou=0.5, coverage=0.5)
        assert "calibrated on" in opened.rules()[-1].note
        assert len(opened.rules()) == 2


def test_a_fit_on_few_right_edges_is_not_recommended(files):
    arguments = ("calibrate", files / "g.sqlite", files / "truth.zarr", "--workers", "1")
    printed = floodem(*arguments)
    assert "warning: there are few right edges to fit a rule on, 18 (fewer than 100)" in printed
    assert "--set" not in printed
    said = floodem(*arguments, "--set")
    assert "warning: there are few" in said
    assert "it is the rule of" in said


def test_a_rule_that_depends_on_the_objects_that_are_seen_is_said_to():
    one, other = MergeRule(), MergeRule(iou=0.5)
    assert _stability(one, [one, other, other]) == (
        "fitted again 3 times, each time without another group of objects, the rule is another "
        "one 2 times: it depends on which objects are labelled"
    )
    assert _stability(one, [one, one]).endswith("the rule is always the same")


def test_json_has_all_numbers(files):
    values = json.loads(
        floodem("calibrate", files / "g.sqlite", files / "truth.zarr", "--json", "--folds", "2")
    )
    assert set(values["outcomes"]) == {"base", "default", "fitted"}
    assert values["outcomes"]["fitted"]["scores"]["voi_split_bits"] == 0
    assert len(values["held_out"]["rules"]) == 2


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--purity", "2"], 2),
        (["--box", "0:1"], 2),
        (["--shard", "1/2"], 2),
        (["--ignore", "x"], 2),
    ],
)
def test_mistakes_in_the_command_are_one_sentence(files, arguments, code):
    said = floodem("calibrate", files / "g.sqlite", files / "truth.zarr", *arguments, code=code)
    assert said.count("\n") == 1
