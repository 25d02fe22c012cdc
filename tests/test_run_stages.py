"""A project makes what is stale, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import threading

import numpy as np
import pytest

from cut_runs import labels_of
from floodem.errors import (
    DestinationExistsError,
    FloodemError,
    OptionError,
    RunConflictError,
    StoppedError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.files import exclusive
from floodem.project.pipeline import Choice, run_project
from floodem.volumes import open_volume
from project_cases import STAGES, merge_in_graph, results, states, write_data, write_project


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with data and the results of a whole run, which tests copy."""
    folder = tmp_path_factory.mktemp("made")
    write_data(folder)
    run_project(write_project(folder))
    return folder


@pytest.fixture
def folder(made, tmp_path):
    shutil.copytree(made, tmp_path / "copy")  # copystat: times stay, as after a move
    return tmp_path / "copy"


def all_fresh(*but, **others):
    return {**dict.fromkeys(STAGES, "fresh"), **dict.fromkeys(but, "done"), **others}


def test_a_whole_run_makes_every_result_and_a_second_one_nothing(folder):
    names = {"image.zarr", "truth.zarr", "labels.zarr", "merges.sqlite", "merged.zarr"}
    names |= {"scores.json", "scores-before-merging.json", "meshes", "scene"}
    assert set(results(folder / "p")) == names
    before = {path: path.stat().st_mtime_ns for path in (folder / "p").rglob("*.json")}
    assert states(write_project(folder)) == all_fresh()
    assert {path: path.stat().st_mtime_ns for path in (folder / "p").rglob("*.json")} == before


@pytest.mark.parametrize(
    ("changes", "stale"),
    [
        ({"evaluate": {"worst": 30}}, ("evaluate",)),
        ({"evaluate": {"border": [1, 1, 1]}}, ("evaluate", "scene")),
        ({"mesh": {"error": 20.0}}, ("mesh", "scene")),
        ({"scene": {"title": "pipes"}}, ("scene",)),
        ({"agglomerate": {"rule": {"iou": 0.5}}}, ("merge",)),
        ({"agglomerate": {"max_retries": 9}}, ("agglomerate",)),
        ({"segment": {"min_segment_size": 21}}, ("segment",)),
    ],
)
def test_one_option_makes_stale_what_depends_on_it_and_nothing_else(folder, changes, stale):
    nested = changes.get("agglomerate", {}).pop("rule", None)
    path = write_project(folder, **changes)
    if nested is not None:
        text = "".join(f"{name} = {value}\n" for name, value in nested.items())
        path.write_text(f"{path.read_text()}[agglomerate.rule]\n{text}")
    found = states(path)
    assert found == all_fresh(*stale)
    assert states(path) == all_fresh()


@pytest.mark.parametrize(
    "changes",
    [
        {"cluster": {"workers": 2}},
        {"segment": {"checkpoint_seconds": 7.0, "device": "auto"}},
        {"project": {"name": "another", "folder": "p"}},
        {"cluster": None},
    ],
)
def test_who_works_and_how_often_it_saves_makes_nothing_stale(folder, changes):
    assert states(write_project(folder, **changes)) == all_fresh()


def test_another_segmentation_reaches_all_behind_it(folder):
    path = write_project(folder, segment={"segment_threshold": 0.99})
    plan = run_project(path, dry_run=True)
    assert plan.stage("segment").state == "stale"
    (reason,) = plan.stage("segment").reasons
    assert reason.said == "segment.segment_threshold was 0.6, now 0.99"
    assert (reason.before, reason.now) == (0.6, 0.99)
    assert {plan.stage(name).state for name in STAGES[3:]} == {"waits"}
    before = results(folder / "p")
    assert states(path) == all_fresh(*STAGES[2:])
    assert results(folder / "p")["labels.zarr"] != before["labels.zarr"]
    assert results(folder / "p")["image.zarr"] == before["image.zarr"]


def test_going_back_gives_the_first_results_again(folder):
    before = results(folder / "p")
    states(write_project(folder, segment={"segment_threshold": 0.99}))
    states(write_project(folder))
    assert results(folder / "p") == before


def test_a_plan_writes_nothing(folder):
    shutil.rmtree(folder / "p")
    plan = run_project(write_project(folder), dry_run=True)
    assert not (folder / "p").exists()
    assert plan.stage("prepare").state == "stale"
    assert plan.stage("train").state == "skipped"


def test_a_changed_input_file_is_named(folder):
    with open_volume(str(folder / "em.zarr"), writable=True) as volume:
        volume.write(volume.box, 255 - volume.read())
    path = write_project(folder)
    (reason,) = run_project(path, dry_run=True).stage("prepare").reasons
    assert reason.said == "em.zarr has changed"
    assert states(path)["segment"] == "done"


def test_an_input_outside_the_box_makes_only_the_copy_again(folder):
    path = write_project(folder, image={"box": "100:124,200:230,300:336"})
    states(path)
    with open_volume(str(folder / "em.zarr"), writable=True) as volume:
        values = volume.read()
        values[25] = 255 - values[25]
        volume.write(volume.box, values)
    assert states(path) == all_fresh("prepare")


@pytest.mark.parametrize("name", ["labels.zarr", "meshes", "scores.json", "merges.sqlite"])
def test_a_removed_result_is_made_again_and_leaves_later_stages_alone(folder, name):
    before = results(folder / "p")
    gone = folder / "p" / name
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    path = write_project(folder)
    stage = {"labels.zarr": "segment", "meshes": "mesh", "scores.json": "evaluate"}
    owner = stage.get(name, "agglomerate")
    (reason,) = run_project(path, dry_run=True).stage(owner).reasons
    assert reason.said == f"{name} is missing"
    assert states(path) == all_fresh(owner)
    assert results(folder / "p") == before


def test_an_edited_result_is_made_again(folder):
    before = results(folder / "p")
    with open_volume(str(folder / "p" / "labels.zarr"), writable=True) as volume:
        labels = volume.read()
        volume.write(volume.box, np.zeros_like(labels))
    path = write_project(folder)
    assert run_project(path, dry_run=True).stage("segment").reasons[0].said == (
        "labels.zarr was changed"
    )
    assert states(path)["segment"] == "done"
    assert results(folder / "p") == before


def test_a_touched_or_copied_result_is_still_fresh(folder):
    for path in (folder / "p").rglob("*"):
        if path.is_file() and path.parent.name != "stages":
            os.utime(path)
    assert states(write_project(folder)) == all_fresh()


def test_decisions_in_the_graph_stay_and_change_only_what_applies_them(folder):
    graph = folder / "p" / "merges.sqlite"
    labels = np.unique(labels_of(folder / "p" / "labels.zarr"))
    first, second = (int(label) for label in labels[labels > 0][:2])
    merge_in_graph(graph, first, second)
    found = states(write_project(folder))
    assert found == all_fresh("merge", "evaluate", "mesh", "scene")
    assert second not in labels_of(folder / "p" / "merged.zarr")
    assert states(write_project(folder)) == all_fresh()


def test_decisions_are_kept_aside_when_the_graph_is_made_again(folder):
    graph = folder / "p" / "merges.sqlite"
    merge_in_graph(graph, 1, 2)
    notes = []
    run_project(write_project(folder, agglomerate={"max_retries": 2}), notice=notes.append)
    assert (folder / "p" / "merges-earlier-1.sqlite").exists()
    assert any("held decisions of yours" in note for note in notes)


def test_what_others_wrote_is_never_replaced(folder):
    shutil.rmtree(folder / "p")
    (folder / "p").mkdir()
    (folder / "p" / "labels.zarr").write_text("mine")
    with pytest.raises(DestinationExistsError, match="has not made it: move it away"):
        states(write_project(folder))
    assert (folder / "p" / "labels.zarr").read_text() == "mine"


def test_a_refused_option_leaves_earlier_results_in_place(folder):
    before = results(folder / "p")
    wrong = write_project(folder, segment={"box": "0:5,0:5,0:5"})
    with pytest.raises(FloodemError, match=r"segment \(p.toml line \d+\)"):
        states(wrong)
    assert results(folder / "p") == before
    assert states(write_project(folder)) == all_fresh()


def test_two_runs_of_one_project_refuse_each_other(folder):
    path = write_project(folder)
    with (
        exclusive(folder / "p" / "stages" / "lock", what="a test"),
        pytest.raises(RunConflictError, match="another process is working on project"),
    ):
        states(path)


def test_a_stopped_run_says_where_and_goes_on(folder):
    before = results(folder / "p")
    shutil.rmtree(folder / "p")
    path = write_project(folder)
    asked = 0

    def should_stop():
        nonlocal asked
        asked += 1
        return asked > 40

    with pytest.raises(StoppedError):
        run_project(path, should_stop=should_stop)
    found = states(path)
    assert set(found.values()) <= {"fresh", "done"}
    assert results(folder / "p") == before


def test_only_from_and_until_leave_the_others_alone(folder):
    path = write_project(folder, segment={"segment_threshold": 0.99}, mesh={"error": 20.0})
    found = states(path, choice=Choice(only="mesh"))
    assert found["mesh"] == "done"
    assert found["segment"] == "left stale"
    assert found["scene"] == "left stale"
    found = states(path, choice=Choice(until="segment"))
    assert (found["segment"], found["agglomerate"]) == ("done", "left stale")
    found = states(path, choice=Choice(since="agglomerate"))
    assert found["segment"] == "fresh"
    assert states(path) == all_fresh()


def test_a_stage_whose_inputs_were_never_made_cannot_be_asked_for_alone(folder):
    shutil.rmtree(folder / "p")
    with pytest.raises(OptionError, match="mesh is made from merge, whose result is not there"):
        states(write_project(folder), choice=Choice(only="mesh"))


def test_a_forced_stage_is_made_again_and_later_ones_stay(folder):
    before = results(folder / "p")
    path = write_project(folder)
    assert states(path, choice=Choice(force=("segment",))) == all_fresh("segment")
    assert results(folder / "p") == before


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ({"only": "segmnt"}, "did you mean segment"),
        ({"only": "mesh", "since": "segment"}, "leave --from and --until out"),
        ({"until": "segment", "force": ("mesh",)}, "not among the stages"),
    ],
)
def test_impossible_choices_are_refused(choice, sentence):
    with pytest.raises(OptionError, match=sentence):
        Choice(**choice)


def test_a_skipped_stage_cannot_be_asked_for(folder):
    with pytest.raises(OptionError, match=r"--only train: that stage is skipped \(a network is"):
        states(write_project(folder), choice=Choice(only="train"))


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "floodem stage", "version": 2}'])
def test_a_damaged_record_is_named(folder, text):
    (folder / "p" / "stages" / "mesh.json").write_text(text)
    with pytest.raises(VolumeFormatError, match=r"mesh.json is no record of a stage"):
        states(write_project(folder))


def test_records_say_what_made_the_result(folder):
    record = json.loads((folder / "p" / "stages" / "segment.json").read_text())
    assert (record["format"], record["version"], record["state"]) == ("floodem stage", 1, "done")
    assert record["parts"]["segment.min_segment_size"] == 20
    assert "segment.device" not in record["parts"]
    assert len(record["outputs"]["labels.zarr"]["digest"]) == 64


def test_progress_names_the_stage(folder):
    shutil.rmtree(folder / "p")
    said = set()
    lock = threading.Lock()

    def listen(report):
        with lock:
            said.add(report.stage.partition(":")[0])

    run_project(write_project(folder), progress=listen)
    assert {"segment", "mesh", "prepare"} <= said


def test_a_missing_image_is_named_with_its_line(folder):
    shutil.rmtree(folder / "em.zarr")
    with pytest.raises(VolumeNotFoundError, match=r"p.toml has 1 mistake: line 3: image.source"):
        states(write_project(folder))
