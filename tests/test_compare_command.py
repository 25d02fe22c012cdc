"""``floodem compare``: runs side by side, and what is no run."""

from __future__ import annotations

import json

import pytest

from floodem.cli.compare import compare
from floodem.errors import OptionError, VolumeFormatError, VolumeNotFoundError
from floodem.training.configuration.options import (
    NetworkOptions,
    TrainOptions,
    ValidationOptions,
    VolumeOptions,
)
from floodem.training.runs.comparison import compare_runs, flop_per_call
from validation_cases import run_on_disk

VOLUMES = (VolumeOptions(image="em.h5", labels="seg.h5"),)


def rows(last_step, *, hours, examples):
    return [
        {"step": last_step // 2, "loss": 1.0, "hours": hours / 2},
        {
            "step": last_step,
            "loss": None,
            "hours": hours,
            "examples_seen": examples,
            "fields_per_s": 70.0,
        },
    ]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Validations come every half hour.
    quick = run_on_disk(
        tmp_path / "quick", costs=(0.5, 0.3), rows=rows(1200, hours=1.0, examples=7200)
    )
    long = run_on_disk(
        tmp_path / "long",
        costs=(0.6, 0.4, 0.35, 0.2, 0.25),
        rows=rows(3000, hours=2.5, examples=9000),
        status="running",
    )
    fresh = run_on_disk(tmp_path / "fresh")
    return [folder.name for folder in (quick, long, fresh)]


def test_runs_are_sorted_by_their_best_score(runs):
    quick, long, fresh = runs
    found = compare_runs([fresh, quick, long])
    assert [run.folder for run in found.runs] == [long, quick, fresh]
    best, second, last = found.runs
    assert (best.best.cost, best.best.step, best.best.hours) == (0.2, 2000, 2.0)
    assert (best.latest.cost, best.status, best.step) == (0.25, "running", 3000)
    assert (second.examples, second.examples_per_second) == (7200, 2.0)
    assert last.best is last.latest is last.step is last.examples_per_second is None
    assert found.notices == (f"{fresh} has no validation score",)


def test_runs_are_compared_within_the_time_that_all_had(runs):
    found = compare_runs(runs)
    assert found.equal_hours == 1.0
    assert [run.within_equal_time and run.within_equal_time.cost for run in found.runs] == [
        0.4,
        0.3,
        None,
    ]


def test_the_tables_name_scores_and_costs(runs, capsys):
    compare(runs)
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    scores = next(line for line in lines if line and line[0] == runs[1])
    assert scores[1:] == [
        "0.2000",
        "0.400",
        "0.200",
        "90.0%",
        "2,000",
        "2.00",
        "0.2500",
        "0.4000",
        "-",
        "-",
    ]
    costs = [line for line in lines if line and line[0] == runs[1]][1]
    assert costs[1:9] == ["running", "3,000", "2.50", "9,000", "1", "70", "17.5", "17,33,33"]
    assert "conv_stack (depth 9, features 32)" in printed
    assert "within 1 h" in printed
    assert f"note: {runs[2]} has no validation score" in printed


def test_json_has_the_same_and_nothing_else(runs, capsys):
    compare(runs, as_json=True)
    values = json.loads(capsys.readouterr().out)
    assert values["equal_hours"] == 1.0
    assert [run["run"] for run in values["runs"]] == [runs[1], runs[0], runs[2]]
    assert values["runs"][0]["best"]["adapted_rand_error"] == 0.2
    assert values["runs"][2]["best"] is None
    assert values["runs"][0]["fov_zyx"] == [17, 33, 33]


def test_runs_validated_on_other_data_are_noted(tmp_path):
    folders = []
    for name in ("a", "b"):
        validation = ValidationOptions(image=f"{name}.h5", labels="labels.h5")
        options = TrainOptions(volumes=VOLUMES, validation=validation)
        folders.append(run_on_disk(tmp_path / name, costs=(0.5,), options=options))
    (notice,) = compare_runs(folders).notices
    assert "validated on different data" in notice
    assert "a.h5" in notice
    assert "b.h5" in notice


def test_a_run_no_better_than_one_segment_is_noted(tmp_path, capsys):
    about = {"objects": 12, "one_segment_error": 0.3}
    poor = run_on_disk(tmp_path / "poor", costs=(0.5, 0.3), held_out=about)
    good = run_on_disk(tmp_path / "good", costs=(0.5, 0.29), held_out=about)
    (notice,) = compare_runs([good, poor]).notices
    assert notice.startswith(f"{poor} was never better than one segment over everything")
    compare([str(good)])
    printed = capsys.readouterr().out
    assert "one segment" in printed
    assert "0.3000" in printed


def test_what_is_no_run_is_refused_by_name(tmp_path, runs):
    with pytest.raises(VolumeNotFoundError, match="nowhere is no folder"):
        compare_runs([runs[0], tmp_path / "nowhere"])
    (tmp_path / "photos").mkdir()
    with pytest.raises(VolumeNotFoundError, match="photos holds no training run: give the folder"):
        compare_runs([tmp_path / "photos", *runs])
    with pytest.raises(OptionError, match="is named twice"):
        compare_runs([runs[0], runs[1], runs[0] + "/"])
    with pytest.raises(OptionError, match="nothing to compare"):
        compare_runs([])


def test_a_damaged_row_of_validation_is_refused(tmp_path):
    folder = run_on_disk(tmp_path / "run", costs=(0.5,))
    path = folder / "validation.jsonl"
    path.write_text(path.read_text().replace('"fill"', '"full"'))
    with pytest.raises(VolumeFormatError, match="a row of validation is damaged.*fill, full"):
        compare_runs([folder])


def test_operations_of_a_field_of_view_are_counted():
    # 27 taps, 2 -> 3 and 3 -> 3 features, then 3 -> 1 without neighbours.
    network = NetworkOptions(arguments={"depth": 1, "features": 3}, fov=(5, 7, 7), deltas=(1, 2, 2))
    assert flop_per_call(network) == 2 * 5 * 7 * 7 * (27 * 2 * 3 + 27 * 3 * 3 + 3)


def test_operations_of_unknown_networks_are_not_counted():
    assert flop_per_call(NetworkOptions(name="elsewhere:Net")) is None
