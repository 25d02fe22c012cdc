"""Workers that are jobs of SLURM: options come in, a cluster goes out that sees to its jobs."""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from floodem.cluster.certificates import make_certificates, private_folder
from floodem.cluster.dask_clusters import Owned, closing, first_line, require, scheduler_options
from floodem.cluster.slurm import SlurmOptions, WorkerFiles, job_script, shared_folder
from floodem.errors import DependencyError, ResourceError
from floodem.files import storage_error

_TENDED_EVERY_S = 30.0
_ASKING_S = 60.0
"""For squeue to answer; a busy controller takes its time."""
_MOST_LOST_JOBS = 3
"""So many jobs in a row that end before their worker comes are no accident."""


@dataclass(slots=True, kw_only=True)
class Jobs(Owned):
    """Workers that are jobs of SLURM.

    Attributes
    ----------
    options, files
        Of the jobs.
    came
        Names of the jobs whose worker has come.
    lost
        Jobs in a row that ended before their worker came.
    next_s
        When jobs are looked at again.
    """

    options: SlurmOptions
    files: WorkerFiles
    came: set[str] = field(default_factory=set)
    lost: int = 0
    next_s: float = field(default_factory=lambda: time.monotonic() + _TENDED_EVERY_S)

    def tend(self) -> None:
        """Submit again what has ended, as jobs do when their time is over."""
        if time.monotonic() < self.next_s:
            return
        self.next_s = time.monotonic() + _TENDED_EVERY_S
        living = _living_jobs()
        if living is None:  # the controller does not answer: jobs live without it
            return
        connected = {str(state.name) for state in list(self.cluster.scheduler.workers.values())}
        for name, job in list(self.cluster.workers.items()):
            if name not in connected and job.job_id is not None and job.job_id not in living:
                job.status = require("distributed").core.Status.closed
                del self.cluster.workers[name]
                self.lost = 0 if name in self.came else self.lost + 1
                self.came.discard(name)
        if self.lost >= _MOST_LOST_JOBS and not connected:
            raise ResourceError(
                f"{self.lost} jobs of SLURM ended before they could work: see what they wrote to "
                f"{self.files.logs}, and run the same command again"
            )
        self.cluster.scale(self.options.workers)  # submits what is missing


def _living_jobs() -> set[str] | None:
    command = ["squeue", "--noheader", "--me", "--format=%A"]
    try:
        done = subprocess.run(
            command, capture_output=True, check=True, timeout=_ASKING_S, encoding="ascii"
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return set(done.stdout.split())


@contextlib.contextmanager
def submitting(options: SlurmOptions, *, slots: int) -> Iterator[Jobs]:
    """Submit jobs whose workers come to a scheduler in this process, and give them back.

    Parameters
    ----------
    options
        Of the jobs.
    slots
        Tasks that a worker holds at once.

    Raises
    ------
    DependencyError
        When SLURM's commands or dask-jobqueue are missing.
    ResourceError
        When the scheduler does not start.
    StorageError
        When the file system refuses the certificates.
    """
    for command in ("sbatch", "squeue", "scancel"):
        if shutil.which(command) is None:
            raise DependencyError(
                f"this machine has no {command}: start floodem where jobs are submitted, on a "
                "login node of the SLURM cluster"
            )
    folder = shared_folder(options)
    with contextlib.ExitStack() as stack:
        private = private_folder(folder, prefix="certificates-")
        stack.callback(shutil.rmtree, private, ignore_errors=True)
        logs = folder / "logs"
        try:
            logs.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise storage_error("make", logs, error) from error
        made = make_certificates()
        ca, certificate, key = made.write(private, role="worker")
        files = WorkerFiles(ca=ca, certificate=certificate, key=key, logs=logs)
        _require_accepted(options, files, slots=slots)
        security = made.security()
        # dask-jobqueue would write keys that are in memory to the current folder
        security.tls_ca_file, security.tls_worker_cert = str(ca), str(certificate)
        security.tls_worker_key = str(key)
        cluster = stack.enter_context(
            closing(_start_jobs(options, files, security=security, slots=slots))
        )
        jobs = Jobs(what="the SLURM cluster", cluster=cluster, options=options, files=files)
        _note_arrivals(cluster.scheduler, jobs.came)
        yield jobs


def _require_accepted(options: SlurmOptions, files: WorkerFiles, *, slots: int) -> None:
    """Ask SLURM whether it would take such a job, since a refused one would be waited for.

    Raises
    ------
    ResourceError
        When it would not, or does not answer.
    """
    script = job_script(
        options, scheduler="tls://127.0.0.1:8786", name="test", slots=slots, files=files
    )
    try:
        asked = subprocess.run(
            ["sbatch", "--test-only"],
            input=script,
            capture_output=True,
            text=True,
            timeout=_ASKING_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ResourceError(
            f"SLURM's controller has not answered for {_ASKING_S:.0f} s: try again when it does"
        ) from None
    if asked.returncode:
        said = " ".join(asked.stderr.split()) or f"sbatch ended with {asked.returncode}"
        raise ResourceError(
            f"SLURM does not take such jobs ({said}): mend the TOML file, or ask those who run "
            "the cluster"
        )


def _note_arrivals(scheduler: Any, came: set[str]) -> None:
    """Collect the names of the workers that come."""
    distributed = require("distributed")

    class Arrivals(distributed.SchedulerPlugin):  # type: ignore[misc,name-defined]
        name = "floodem-arrivals"

        def add_worker(self, scheduler: Any, worker: str) -> None:
            came.add(str(scheduler.workers[worker].name))

    scheduler.add_plugin(Arrivals())
    came.update(str(state.name) for state in list(scheduler.workers.values()))


def _start_jobs(options: SlurmOptions, files: WorkerFiles, *, security: Any, slots: int) -> Any:
    """Start a scheduler here and submit jobs, with dask-jobqueue but for its scripts.

    Its own script takes lines from configuration files and from options without
    quoting them; what is submitted is `floodem.cluster.slurm.job_script`.
    """
    jobqueue = require("dask_jobqueue")
    closed = require("distributed").core.Status.closed

    class Job(jobqueue.slurm.SLURMJob):  # type: ignore[misc,name-defined]
        def job_script(self) -> str:
            return job_script(
                options, scheduler=self.scheduler, name=str(self.name), slots=slots, files=files
            )

        async def close(self) -> None:
            await super().close()
            self.status = closed  # which dask-jobqueue leaves to chance, and Dask asks for

        @contextlib.contextmanager
        def job_file(self) -> Iterator[str]:
            path = files.ca.parent / f"{self.name}.sh"
            path.write_text(self.job_script(), encoding="utf-8")
            yield str(path)

    try:
        return jobqueue.SLURMCluster(
            n_workers=options.workers,
            job_cls=Job,
            cores=options.cores,
            memory="1GB",
            processes=1,
            interface=options.interface,
            security=security,
            protocol="tls://",
            scheduler_options={**scheduler_options(), "interface": options.interface},
            shared_temp_directory=str(files.ca.parent),
            silence_logs=logging.CRITICAL,
            name="floodem",
        )
    except (OSError, RuntimeError, ValueError, TimeoutError) as error:
        raise ResourceError(
            f"the scheduler for jobs of SLURM does not start ({first_line(error)}): see whether "
            f"interface {options.interface!r} is one of this machine's"
        ) from error
