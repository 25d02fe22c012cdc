"""`floodem run`: what a user sees of a project."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from bright import bright_model
from floodem.cli.run import numbers_text
from floodem.errors import OptionError
from floodem.network.model_file import save_model
from floodem.project.pipeline import read_project, run_project
from floodem.project.pipeline.starting import write_project as write_first
from project_cases import command, results, write_data, write_project

TIMEOUT_S = 120


def run(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "floodem", "run", *map(str, words)],
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT_S,
        check=False,
        **options,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    write_data(folder)
    return folder


def test_a_project_is_planned_made_and_tabled(folder):
    path = write_project(folder)
    plan = run(path, "--plan")
    assert plan.returncode == 0, plan.stderr
    assert "prepare: stale (not made yet)" in plan.stdout
    assert "mesh: waits (merge comes first)" in plan.stdout
    assert "train: skipped (a network is given)" in plan.stdout
    made = run(path)
    assert made.returncode == 0, made.stderr
    rows = {line.split()[0]: line for line in made.stdout.splitlines()}
    assert "segments" in rows["segment"]
    assert "labels.zarr" in rows["segment"]
    assert "Rand error" in rows["evaluate"]
    assert "(before " in rows["evaluate"]
    assert rows["mesh"].split()[1] == "done"
    assert f"all in {folder / 'p'}" in made.stdout
    told = json.loads(run(path, "--json").stdout)
    assert {one["state"] for one in told["stages"]} == {"fresh", "skipped"}
    scores = next(one for one in told["stages"] if one["stage"] == "evaluate")["numbers"]
    assert 0 <= scores["Rand error"] <= 1
    write_project(folder, mesh={"error": 20.0})
    assert "mesh: stale (mesh.error was nothing, now 20.0)" in run(path, "--plan").stdout


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["p.toml", "--only", "segmnt"], 2, "did you mean segment"),
        (["p.toml", "--image", "a"], 2, "are of --init"),
        (["none.toml"], 3, "no project file"),
        (["p.toml", "--init"], 2, "add --image IMAGE"),
        (["p.toml", "--init", "--image", "em.zarr"], 2, "is there already"),
    ],
)
def test_wrong_words_end_in_one_sentence(folder, words, code, sentence):
    write_project(folder)
    ended = run(*words, cwd=folder)
    assert ended.returncode == code
    assert sentence in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_wrong_file_ends_with_all_its_mistakes(folder):
    path = folder / "wrong.toml"
    path.write_text('version = 1\n[image]\nsorce = "em.zarr"\n[mesh]\neror = 1.0\n')
    ended = run(path)
    assert ended.returncode == 2
    first, *mistakes = ended.stderr.splitlines()
    assert first.startswith("error: ")
    assert first.endswith("mistakes:")
    told = [line.strip() for line in mistakes]
    assert "line 3: no key is called image.sorce: did you mean image.source?" in told
    assert "line 5: no key is called mesh.eror: did you mean mesh.error?" in told


def test_only_missing_files_end_with_the_code_of_missing_files(tmp_path):
    path = write_project(tmp_path)
    ended = run(path)
    assert ended.returncode == 3
    assert "image.source is 'em.zarr', and there is no" in ended.stderr
    assert "labels.source is 'truth.zarr', and there is no" in ended.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as on POSIX")
def test_ctrl_c_ends_with_4_and_the_same_command_goes_on(folder):
    run_project(write_project(folder, "whole.toml"))
    path = write_project(folder, "stopped.toml")
    record = folder / "stopped" / "stages" / "segment.json"
    process = subprocess.Popen(command(path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + TIMEOUT_S
    while not record.exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 4, said.decode()
    assert run(path).returncode == 0
    assert results(folder / "stopped") == results(folder / "whole")


def test_a_first_file_is_written_from_the_data_and_runs(folder):
    path = folder / "first" / "first.toml"
    written = write_first(
        path,
        image=str(folder / "em.zarr"),
        truth=str(folder / "truth.zarr"),
        model=str(folder / "m.safetensors"),
    )
    assert written.path == path
    project = read_project(path)
    assert project.image.source == "../em.zarr"
    assert project.resolved(project.image.source) == str(folder / "em.zarr")
    for table in (project.segment, project.agglomerate, project.evaluate, project.mesh):
        assert table is not None
    plan = run_project(path, dry_run=True)
    assert plan.stage("segment").state == "stale"
    with pytest.raises(OptionError, match="is there already"):
        write_first(path, image=str(folder / "em.zarr"))


def test_a_first_file_without_network_trains_where_there_are_labels(folder):
    trains = folder / "trains.toml"
    write_first(trains, image=str(folder / "em.zarr"), truth=str(folder / "truth.zarr"))
    project = read_project(trains)
    assert project.train is not None
    assert project.segment is not None
    bare = folder / "bare.toml"
    notes = write_first(bare, image=str(folder / "em.zarr")).reasons
    assert any("there is no network yet" in note for note in notes)
    assert read_project(bare).segment is None


def test_a_first_file_tells_of_the_voxel_size_once_and_shows_its_progress(tmp_path):
    np.save(tmp_path / "em.npy", np.random.default_rng(0).integers(0, 255, (24, 40, 40), np.uint8))
    stages = set()
    written = write_first(
        tmp_path / "p.toml",
        image=str(tmp_path / "em.npy"),
        model="synthetic",
        progress=lambda report: stages.add(report.stage),
    )
    assert sum("voxel size" in note for note in written.reasons) == 1
    assert "looking at sections" in stages


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ({"points": 132, "merges": 1, "calls": 1700}, "132 points, 1 merge, 1,700 calls"),
        ({"joined": 2, "into": 1}, "2 segments joined into 1"),
        ({"joined": 1204, "into": 1001}, "1,204 segments joined into 1,001"),
        ({"segments": 1, "covered": 0.736}, "1 segment, 73.6% covered"),
        ({"mergers": 1, "before: mergers": 3}, "1 merger (before 3)"),
    ],
)
def test_numbers_are_told_with_words_that_fit_them(numbers, text):
    assert numbers_text(numbers) == text


def test_a_first_file_is_refused_for_what_cannot_be(folder, tmp_path):
    save_model(bright_model(), tmp_path / "m.safetensors")
    image = str(folder / "em.zarr")
    with pytest.raises(OptionError, match="no network is called 'nothing'"):
        write_first(tmp_path / "a.toml", image=image, model="nothing")
    assert not (tmp_path / "a.toml").exists()
