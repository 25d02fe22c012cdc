"""``floodem evaluate --compare`` and ``--report``: several segmentations side by side."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floodem.cli.evaluate import evaluate
from floodem.cli.evaluate_report import split_addresses
from floodem.cli.main import main
from floodem.errors import EXIT_INPUT_REFUSED, EXIT_USAGE, GeometryError, OptionError
from floodem.evaluation import Difference, Interval, score_differences
from floodem.evaluation import evaluate as score
from floodem.evaluation.several import common_box, evaluate_several
from floodem.geometry import Box
from floodem.project.report.numbers import METRICS, best_of, object_changes, side_by_side
from report_cases import mended, read_page, scored, segmentation, truth, write


@pytest.fixture
def files(tmp_path):
    return [
        write(tmp_path / f"{name}.h5", array)
        for name, array in (("seg", segmentation()), ("truth", truth()), ("mended", mended()))
    ]


def metric(key):
    return next(one for one in METRICS if one.key == key)


def test_scores_stand_side_by_side_with_the_best_marked(files, capsys):
    evaluate(files[0], files[1], compare=[files[2]])
    text = capsys.readouterr().out
    merge = next(line for line in text.splitlines() if line.startswith("VOI merge"))
    numbers = re.findall(r"(\d\.\d+)( \*)?", merge)
    wanted = [score(uri, files[1]).all_truth.voi_merge_bits for uri in (files[0], files[2])]
    assert [float(number) for number, _ in numbers] == [pytest.approx(w, abs=5e-4) for w in wanted]
    assert [bool(mark) for _, mark in numbers] == [False, True]
    split = next(line for line in text.splitlines() if line.startswith("VOI split"))
    assert "*" not in split  # both have the same
    assert "objects better in mended.h5@labels than in seg.h5@labels" in text
    assert "worse" not in text
    assert "change " not in text.split("objects better")[0]


def test_changes_stand_below_the_numbers_where_objects_are_drawn(files, capsys):
    evaluate(files[0], files[1], compare=[files[2]], bootstrap=30)
    lines = capsys.readouterr().out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("VOI sum"))
    assert lines[at + 2].startswith("  change ")
    wanted = score_differences(
        *(score(uri, files[1], bootstrap=30) for uri in (files[0], files[2]))
    )["voi_sum_bits"]
    assert metric("voi_sum_bits").change_text(wanted) in lines[at + 2]
    assert any("changes are from seg.h5@labels" in line for line in lines)


def test_json_is_a_list_that_says_which_objects_changed(files, capsys):
    evaluate(files[0], files[1], compare=[files[2]], bootstrap=30, as_json=True)
    first, second = json.loads(capsys.readouterr().out)
    assert "against_first" not in first
    change = second["against_first"]["differences"]["voi_merge_bits"]
    assert change["low"] <= change["value"] <= change["high"] <= 0
    assert change["value"] == pytest.approx(
        second["all_truth"]["voi_merge_bits"] - first["all_truth"]["voi_merge_bits"]
    )
    assert first["format"] == second["format"] == "floodem evaluation"
    assert second["segmentation"]["uri"] == files[2]
    better = second["against_first"]["better"]
    assert {one["object"] for one in better} == {1, 2}
    total = sum(one["change_bits"] for one in better)
    assert total == pytest.approx(
        second["all_truth"]["voi_merge_bits"] - first["all_truth"]["voi_merge_bits"], abs=2e-3
    )


def test_addresses_are_repeated_or_listed_and_a_comma_in_a_name_stays(tmp_path):
    assert split_addresses(None) == []
    assert split_addresses(["a", "b,c"]) == ["a", "b", "c"]
    (tmp_path / "a,b.h5").write_bytes(b"")
    whole = f"{tmp_path / 'a,b.h5'}@labels"
    assert split_addresses([whole, "c"]) == [whole, "c"]
    with pytest.raises(OptionError, match="names nothing"):
        split_addresses(["a,,b"])


def test_all_are_scored_over_the_voxels_that_all_have(files, tmp_path, capsys):
    from floodem.volumes import create_volume

    part = f"{tmp_path / 'part.h5'}@labels"
    array = segmentation()[4:]
    with create_volume(part, shape=array.shape, dtype=array.dtype, offset=(11, 100, 200)) as made:
        made.write(made.box, array)
    box = common_box([files[0], part], region=None)
    assert box == Box((11, 100, 200), (31, 160, 260))
    assert common_box([files[0], files[2]], region=None) is None
    assert common_box([files[0], files[2], part], region=None) == box
    # A truth that holds less than both decides as well.
    both = evaluate_several([files[0], files[2]], part)
    assert [one.box for one in both] == [box, box]
    assert [one.box for one in evaluate_several([part, files[0]], part)] == [box, box]
    evaluate(files[0], files[1], compare=[part], as_json=True)
    first, second = json.loads(capsys.readouterr().out)
    assert first["box_zyx"] == second["box_zyx"] == str(box)
    assert first["all_truth"] == second["all_truth"]
    with pytest.raises(GeometryError, match="shares no voxel"):
        common_box([files[0], part], region=Box((7, 100, 200), (9, 110, 210)))


def test_changes_are_from_the_first_and_say_whether_they_are_for_the_better():
    worse, good = scored(bootstrap=50), scored(mended(), bootstrap=50)
    told = {one.metric.key: one for one in side_by_side([worse, good, worse])}
    merge, precision = told["voi_merge_bits"], told["rand_precision"]
    assert merge.best == {1}
    assert merge.changes[0] is None
    assert merge.changes[1].value < 0
    assert merge.metric.is_better(merge.changes[1])
    assert precision.changes[1].value > 0
    assert precision.metric.is_better(precision.changes[1])
    assert not merge.metric.is_better(precision.changes[1])
    same = merge.changes[2]
    assert (same.value, same.interval.low, same.interval.high, same.is_clear) == (0, 0, 0, False)
    assert told["coverage"].changes == (None, None, None)
    undrawn = side_by_side([scored(), scored(mended())])
    assert all(one.changes == (None, None) for one in undrawn)


def test_changes_are_written_with_their_signs_in_the_unit_of_the_number():
    change = Difference(value=-1500.0, interval=Interval(low=-2000.0, high=250.0, level=0.95))
    assert metric("erl_nm").change_text(change) == "-1.50 (-2.00 to +0.25)"
    assert (
        metric("voi_sum_bits").change_text(
            Difference(value=0.25, interval=Interval(low=0.0625, high=0.5, level=0.95))
        )
        == "+0.250 (+0.062 to +0.500)"
    )


def test_high_is_best_where_high_is_good_and_nothing_is_best_among_equals():
    worse, good = scored(), scored(mended())
    assert best_of(metric("rand_precision"), [worse, good]) == {1}
    assert best_of(metric("adapted_rand_error"), [good, worse]) == {0}
    assert best_of(metric("coverage"), [worse, good]) == frozenset()
    assert best_of(metric("voi_merge_bits"), [worse, good, good]) == {1, 2}


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_what_objects_cost_sums_to_the_scores(data):
    def labels():
        return data.draw(
            st.lists(st.integers(0, 4), min_size=24, max_size=24).map(
                lambda values: np.array(values, np.uint64).reshape(2, 3, 4)
            )
        )

    below = labels() + np.uint64(1)
    first, second = score(labels(), below), score(labels(), below)
    for found in (first, second):
        costs = found.object_costs
        assert costs.split_bits.sum() == pytest.approx(found.all_truth.voi_split_bits)
        assert costs.merge_bits.sum() == pytest.approx(found.all_truth.voi_merge_bits)
        assert costs.voxels.sum() == found.all_truth.voxels
    better, worse = object_changes(first, second, limit=100)
    assert all(one.change < 0 for one in better)
    assert all(one.change > 0 for one in worse)
    changes = sum(one.change for one in (*better, *worse))
    assert changes == pytest.approx(
        second.all_truth.voi_split_bits
        + second.all_truth.voi_merge_bits
        - first.all_truth.voi_split_bits
        - first.all_truth.voi_merge_bits,
        abs=0.0005 * len(first.object_costs.ids) + 1e-9,
    )


def run(*words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


def test_the_command_writes_a_report_of_all(files, tmp_path, capsys):
    page = tmp_path / "out put#1.html"
    words = ("evaluate", *files[:2], "--compare", files[2], "--report", page, "--no-viewer")
    assert run(*words, "--bootstrap", "20", "--worst", "1") == 0
    said = capsys.readouterr().out
    assert f"wrote {page}\n" in said
    found = read_page(page)
    assert "Side by side" in found.text
    assert "better: object" in found.text
    assert "the same objects are drawn again for both" in found.text
    assert re.search(r"change [-+]0\.\d{3} \([-+]0\.\d{3} to [-+]0\.\d{3}\)", found.text)
    assert len(found.pictures()) == 12
    # Asked again it replaces its own page, and JSON stays alone on stdout.
    assert run(*words, "--json") == 0
    said = capsys.readouterr()
    assert len(json.loads(said.out)) == 2
    assert f"wrote {page}\n" in said.err
    # Without the viewer no link is on it, and with it the command says how to open them.
    assert found.all("a") == []
    assert run(*words[:-1], "--worst", "1") == 0
    assert f"floodem view '{page}'" in capsys.readouterr().out
    assert len(read_page(page).all("a")) == 2


def test_what_cannot_become_a_report_is_refused_before_anything_is_scored(
    files, tmp_path, capsys, monkeypatch
):
    def never(*_, **__):
        raise AssertionError("scored")

    monkeypatch.setattr("floodem.evaluation.evaluate_several", never)
    (tmp_path / "mine.html").write_text("mine")
    assert run("evaluate", *files[:2], "--report", tmp_path / "mine.html") == EXIT_INPUT_REFUSED
    assert "no report of floodem" in capsys.readouterr().err
    assert run("evaluate", *files[:2], "--image", "em.h5") == EXIT_USAGE
    assert "--image is about a report" in capsys.readouterr().err
    assert run("evaluate", files[0], "--report", tmp_path / "out.html") == EXIT_USAGE
    assert "give TRUTH as well" in capsys.readouterr().err
    assert run("evaluate", *files[:2], "--compare", files[2], "--shard", "1/2") == EXIT_USAGE
    assert (tmp_path / "mine.html").read_text() == "mine"


def test_counts_of_each_segmentation_are_kept_apart(files, tmp_path, capsys):
    work = tmp_path / "work"
    words = ("evaluate", *files[:2], "--compare", files[2], "--json", "--work", work)
    assert run(*words) == 0
    wanted = capsys.readouterr().out
    assert run(*words) == 0
    assert capsys.readouterr().out == wanted
    assert run("evaluate", *files[:2], "--json", "--work", work) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(wanted)[0]


def test_skeletons_of_the_truth_are_made_once_for_all(files, tmp_path, monkeypatch):
    from floodem.evaluation.skeletons import from_truth

    made = []

    def counting(*words, **more):
        made.append(words)
        return skeletonize(*words, **more)

    skeletonize = from_truth.skeletonize
    monkeypatch.setattr(from_truth, "skeletonize", counting)
    options = {"skeletons": from_truth.FROM_TRUTH, "bootstrap": 20}
    found = evaluate_several([files[0], files[2]], files[1], **options)
    assert len(made) == 1
    for evaluation, address in zip(found, (files[0], files[2]), strict=True):
        assert evaluation == score(address, files[1], **options)
    assert score_differences(*found)["erl_nm"].value > 0
    work = str(tmp_path / "work")
    assert evaluate_several([files[0], files[2]], files[1], work=work, **options) == found
    assert (tmp_path / "work" / "skeletons-of-truth").is_dir()
    # Ignored objects have no skeletons.
    fewer = evaluate_several([files[0], files[2]], files[1], work=work, ignore=(0, 3), **options)
    assert fewer[0].skeletons.skeletons == found[0].skeletons.skeletons - 1


def test_a_report_is_viewed_alone(files, tmp_path, capsys):
    page = tmp_path / "out.html"
    assert run("evaluate", *files[:2], "--report", page, "--no-viewer") == 0
    capsys.readouterr()
    assert run("view", page, files[0]) == EXIT_USAGE
    assert "a report is shown as it is" in capsys.readouterr().err
    (tmp_path / "other.html").write_text("<html></html>")
    assert run("view", tmp_path / "other.html", "--no-browser") == EXIT_INPUT_REFUSED
    assert "no report of floodem" in capsys.readouterr().err
