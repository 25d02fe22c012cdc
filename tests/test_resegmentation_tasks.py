"""Decision points as tasks of a run, and the ends of segments."""

from __future__ import annotations

import dataclasses
import json
import pickle

import numpy as np
import pytest

from bright import bright_model, bright_tubes
from flood_cases import write_volume
from floodem.assembly.agglomeration.resegmentation import tasks as reseg_tasks
from floodem.assembly.agglomeration.resegmentation.endpoints import score_endpoint
from floodem.assembly.agglomeration.resegmentation.resegmenter import (
    ResegmentationOptions,
    Resegmenter,
)
from floodem.assembly.agglomeration.resegmentation.tasks import (
    PointToScore,
    ScoreTask,
    close_resegmenter,
    score_points_task,
    scores_from_rows,
)
from floodem.cluster import Task, TaskContext, run_tasks
from floodem.cluster.context import entering
from floodem.errors import GeometryError, LabelError, ModelError, StoppedError
from floodem.flooding.options import FloodOptions
from floodem.network.model_file import load_model, save_model
from floodem.shapes.source import LabelSource
from floodem.volumes import open_volume
from floodem.volumes.source import VolumeSource
from resegmentation_cases import halved, resegmenter, tubes, twin

OPTIONS = ResegmentationOptions(
    radius=(8, 10, 20), analysis_radius=(5, 6, 16), exclusion_radius=(1, 2, 2)
)
POINTS = tuple(
    PointToScore(id_a=a, id_b=b, position=(100 + z, 200 + y, 300 + x))
    for a, b, (z, y, x) in [(1, 101, (5, 6, 24)), (1, 2, (5, 13, 12)), (4, 104, (18, 6, 24))]
)


@pytest.fixture
def task(tmp_path):
    image, truth = bright_tubes((24, 40, 48))
    model = tmp_path / "model.safetensors"
    save_model(bright_model(), model)
    yield ScoreTask(
        image=VolumeSource(uri=write_volume(tmp_path / "em.zarr", image)),
        segmentation=LabelSource(
            uri=write_volume(tmp_path / "seg.zarr", halved(truth.astype(np.uint64), at=24))
        ),
        voxel_size=None,
        model=str(model),
        model_digest=load_model(model).digest(),
        options=OPTIONS,
        flood=FloodOptions(),
        points=POINTS,
        device="cpu",
    )
    close_resegmenter()


def test_a_task_says_what_the_points_alone_say(task):
    found = score_points_task(pickle.loads(pickle.dumps(task)))
    with open_volume(task.image.uri) as image, open_volume(task.segmentation.uri) as labels:
        alone = Resegmenter(
            image, labels, model=load_model(task.model), options=OPTIONS, device="cpu"
        )
        expected = [alone.score(p.id_a, p.id_b, p.position) for p in POINTS]
    assert scores_from_rows([json.loads(json.dumps(found))]) == expected
    assert found["calls"] == sum(scores.calls for scores in expected) > 0
    assert found["computed_on"] == "cpu in float32"
    assert [scores.iou > 0.8 for scores in expected] == [True, False, True]


def test_scores_do_not_depend_on_which_points_share_a_task(task, tmp_path):
    together = score_points_task(task)["scores"]
    tasks = [
        Task(key=f"point-{n}", argument=dataclasses.replace(task, points=(point,)))
        for n, point in reversed(list(enumerate(POINTS)))
    ]
    results = run_tasks(
        score_points_task, tasks, receipts=tmp_path / "receipts", identity={"made": "here"}
    )
    assert [result["scores"][0] for result in reversed(results)] == together


def test_volumes_and_network_are_opened_once_for_many_tasks(task, monkeypatch):
    opened = []

    def opening(*volumes, **rest):
        opened.append(volumes)
        return Resegmenter(*volumes, **rest)

    monkeypatch.setattr(reseg_tasks, "Resegmenter", opening)
    for point in POINTS:
        score_points_task(dataclasses.replace(task, points=(point,)))
    assert len(opened) == 1
    score_points_task(dataclasses.replace(task, flood=FloodOptions(segment_threshold=0.7)))
    assert len(opened) == 2


def test_a_segmentation_that_was_replaced_is_opened_anew(task, tmp_path):
    first = score_points_task(task)["scores"]
    _, truth = bright_tubes((24, 40, 48))
    (tmp_path / "seg.zarr").rename(tmp_path / "old.zarr")
    write_volume(tmp_path / "seg.zarr", truth.astype(np.uint64))
    assert score_points_task(task)["scores"] != first


def test_a_task_reports_how_far_it_is(task):
    told = []
    with entering(TaskContext(tells=told.append)):
        found = score_points_task(task)
    assert [values["points"] for values in told] == [1, 2, 3]
    assert told[-1]["calls"] == found["calls"]


def test_a_task_stops_when_told_to(task):
    with entering(TaskContext(asks=lambda: True)), pytest.raises(StoppedError, match="to go on"):
        score_points_task(task)


def test_a_task_stops_also_while_another_has_its_turn(task):
    told = TaskContext(asks=lambda: True)
    with (
        reseg_tasks._scoring,
        entering(told),
        pytest.raises(StoppedError, match="before its turn"),
    ):
        score_points_task(task)


def test_another_network_than_the_run_began_with_is_refused(task):
    save_model(bright_model(deltas=(1, 1, 1)), task.model, overwrite=True)
    with pytest.raises(ModelError, match="not the network that the run began with"):
        score_points_task(task)


@pytest.mark.parametrize("position", [(6, 12, 16), (6, 12, 20), (6, 12, 3)])
def test_an_end_of_a_segment_tells_what_it_goes_on_as(position):
    image, labels = tubes()
    labels = halved(labels)
    labels[2:5][labels[2:5] > 100] = 7
    found = score_endpoint(resegmenter(image, labels), 1, position=position)
    overlaps, size = twin(image, labels).overlaps(1, position)
    assert found.size == size
    assert dict(zip(found.ids.tolist(), found.voxels.tolist(), strict=True)) == {
        label: voxels for label, (voxels, _) in overlaps.items()
    }
    for label, share, part in zip(
        found.ids.tolist(), found.of_flood, found.of_segment, strict=True
    ):
        voxels, there = overlaps[label]
        assert (share, part) == (voxels / size, voxels / there)
    assert sorted(found.voxels, reverse=True) == found.voxels.tolist()


def test_an_end_that_goes_on_reaches_the_next_segment_in_spite_of_others():
    image, labels = tubes()
    labels = halved(labels)
    labels[:, :, 16:19][labels[:, :, 16:19] > 0] = 50
    found = score_endpoint(resegmenter(image, labels), 1, position=(6, 12, 16))
    assert set(found.ids.tolist()) == {1, 50, 101}
    assert found.of_segment[found.ids == 101] > 0.8
    assert found.is_recovered


def test_an_end_that_is_one_reaches_nothing_else():
    image, labels = tubes()
    image[:, :, 15:] = -1
    labels[:, :, 14:] = 0
    labels[:, 10:14, 18:] = 9
    found = score_endpoint(resegmenter(image, labels), 1, position=(6, 12, 14))
    assert found.ids.tolist() == [1]
    assert found.of_flood[0] <= 1


def test_a_segment_that_is_not_there_has_no_end():
    image, labels = tubes()
    found = score_endpoint(resegmenter(image, labels), 77, position=(6, 12, 14))
    assert (len(found), found.size, found.seeds, found.calls) == (0, 0, 0, 0)


def test_ends_that_make_no_sense_are_refused():
    image, labels = tubes()
    with pytest.raises(LabelError, match="0 is no segment"):
        score_endpoint(resegmenter(image, labels), 0, position=(6, 12, 14))
    with pytest.raises(GeometryError, match="outside"):
        score_endpoint(resegmenter(image, labels), 1, position=(6, 12, 99))
