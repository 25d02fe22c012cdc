"""`--cluster slurm.toml` with a real SLURM: workers are jobs, and end with the run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cluster_cases import (
    IDENTITY,
    environment,
    note_down,
    note_down_slowly,
    squares,
    tasks_for,
    times_done,
)
from dask_programs import HERE, wait_until
from floodem.cluster import Crew, Task, run_tasks, slurm_jobs
from floodem.errors import ResourceError
from slurm_programs import slurm_here

pytest.importorskip("dask_jobqueue")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def programs():
    with slurm_here() as started:
        yield started


@pytest.fixture(autouse=True)
def surroundings(programs, monkeypatch):
    """What jobs need to find SLURM and the tests; and no half minutes of waiting."""
    monkeypatch.setenv("SLURM_CONF", programs.environment["SLURM_CONF"])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(slurm_jobs, "_TENDED_EVERY_S", 1.0)
    wait_until(lambda: programs.jobs() == [], what="the end of earlier jobs")


def slurm_toml(folder: Path, **changes: object) -> str:
    values = {
        "workers": 2,
        "time": "00:10:00",
        "memory": "500M",
        "partition": "all",
        "interface": "lo",
        "shared": str(folder / "共有"),
        **changes,
    }
    lines = [
        f"{key} = {value if isinstance(value, int) else f'{chr(34)}{value}{chr(34)}'}"
        for key, value in values.items()
    ]
    path = folder / "slurm.toml"
    path.write_text("\n".join(["version = 1", "[slurm]", *lines, ""]), encoding="utf-8")
    return str(path)


def run(function, tasks, folder, *, cluster, **options):
    return run_tasks(
        function,
        tasks,
        receipts=folder / "receipts",
        identity=IDENTITY,
        crew=Crew(cluster=cluster),
        **options,
    )


def test_jobs_do_the_tasks_and_are_given_back(tmp_path, programs):
    cluster = slurm_toml(tmp_path)
    assert run(note_down, tasks_for(tmp_path, 12), tmp_path, cluster=cluster) == squares(12)
    assert times_done(tmp_path) == dict.fromkeys(range(12), 1)
    wait_until(lambda: programs.jobs() == [], what="the end of the jobs")
    shared = tmp_path / "共有"
    assert [path.name for path in shared.iterdir()] == ["logs"], "no key is left"
    logs = "".join(log.read_text(encoding="utf-8") for log in (shared / "logs").iterdir())
    assert "Registered to" in logs


def test_a_worker_has_the_cores_of_its_job(tmp_path):
    tasks = [Task(key="one", argument=None)]
    found = run(environment, tasks, tmp_path, cluster=slurm_toml(tmp_path, workers=1, cores=2))
    assert found[0]["OMP_NUM_THREADS"] == "2"


def test_a_job_that_is_cancelled_is_followed_by_another(tmp_path, programs):
    def cancel():
        wait_until(lambda: len(times_done(tmp_path)) >= 3, what="the first tasks", seconds=60)
        programs.say("scancel", programs.jobs()[0].split()[0])

    meddler = threading.Thread(target=cancel)
    meddler.start()
    notes = []
    try:
        results = run(
            note_down_slowly,
            tasks_for(tmp_path, 60),
            tmp_path,
            cluster=slurm_toml(tmp_path, workers=1),
            reported=lambda key, values: notes.append(values["note"]),
        )
    finally:
        meddler.join()
    assert results == squares(60)
    assert sum(times_done(tmp_path).values()) <= 60 + 1
    assert any("joined" in note for note in notes)
    wait_until(lambda: programs.jobs() == [], what="the end of the jobs")


def test_a_worker_whose_time_is_nearly_over_leaves_and_another_job_goes_on(tmp_path, programs):
    """A job of 25 seconds takes tasks for 20; what it has begun it finishes."""
    results = run(
        note_down_slowly,
        tasks_for(tmp_path, 130),
        tmp_path,
        cluster=slurm_toml(tmp_path, workers=1, time="00:00:25"),
    )
    assert results == squares(130)
    assert times_done(tmp_path) == dict.fromkeys(range(130), 1), "none was lost"
    workers = {line for log in tmp_path.glob("*.log") for line in log.read_text().split()}
    assert len(workers) >= 2
    wait_until(lambda: programs.jobs() == [], what="the end of the jobs")


def test_jobs_that_never_work_end_the_run_with_where_to_look(tmp_path, programs):
    with pytest.raises(ResourceError, match="see what they wrote to .*logs"):
        run(
            note_down,
            tasks_for(tmp_path, 3),
            tmp_path,
            cluster=slurm_toml(tmp_path, python="/bin/false"),
        )
    wait_until(lambda: programs.jobs() == [], what="the end of the jobs")


LONELY = """
import sys
from pathlib import Path
from cluster_cases import *
from floodem.cluster import Crew, run_tasks

if __name__ == "__main__":
    folder, cluster = Path(sys.argv[1]), sys.argv[2]
    run_tasks(
        wait_for_stop, tasks_for(folder, 1), receipts=folder / "receipts", identity={},
        crew=Crew(cluster=cluster),
        reported=lambda key, values: print(key, values, flush=True),
    )
"""


def test_jobs_end_by_themselves_when_the_run_is_killed(tmp_path, programs):
    (tmp_path / "lonely.py").write_text(LONELY, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, tmp_path / "lonely.py", tmp_path, slurm_toml(tmp_path, workers=1)],
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "begun" in line:
                break
        assert len(programs.jobs()) == 1
        process.kill()
    # the worker notices at once, and waits half a minute for its task
    wait_until(lambda: programs.jobs() == [], what="the end of the job", seconds=90)
