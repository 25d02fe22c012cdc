"""A Dask cluster for a run: what ``--cluster`` names comes in, an open cluster goes out."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from floodem.cluster.addresses import LocalWorkers, SchedulerAddress
from floodem.cluster.certificates import make_certificates
from floodem.cluster.dask_clusters import (
    ONLY_HERE,
    PRELOAD,
    Cluster,
    Elsewhere,
    Owned,
    closing,
    distributed_package,
    first_line,
    require,
    scheduler_options,
)
from floodem.cluster.slurm import SlurmOptions
from floodem.cluster.slurm_jobs import submitting
from floodem.cluster.surroundings import visible_cards, worker_environment
from floodem.errors import ResourceError

_SETTINGS = {
    # A task's worker died: floodem.cluster.dask_crew counts, and does the last try alone.
    "distributed.scheduler.allowed-failures": 0,
    # The pages about tasks and logs that are served also without bokeh.
    "distributed.scheduler.http.routes": ["distributed.http.health"],
    "distributed.worker.http.routes": [],
    # A worker that a nanny starts again, on a slow file system, is not lost yet.
    "distributed.deploy.lost-worker-timeout": "120s",
    # Samples of every thread's stack, a hundred a second, which nobody looks at.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.gil.enabled": False,
}


@contextlib.contextmanager
def opening(
    address: LocalWorkers | SchedulerAddress | SlurmOptions, *, slots: int
) -> Iterator[Cluster]:
    """Start a cluster, or find one, and end what was started.

    Parameters
    ----------
    address
        What `floodem.cluster.addresses.parse_cluster` returned.
    slots
        Tasks that a worker holds at once; at an address, that is the worker's own
        number of threads.

    Raises
    ------
    DependencyError
        When dask, or SLURM's commands, are missing.
    ResourceError
        When it does not start.
    """
    # What goes wrong is told by floodem; Dask's own lines would run across the bar.
    silent = distributed_package().utils.silence_logging_cmgr(logging.CRITICAL)
    with silent, require("dask").config.set(_SETTINGS):
        if isinstance(address, SchedulerAddress):
            yield Elsewhere(what=f"the scheduler at {address.address}", address=address)
        elif isinstance(address, LocalWorkers):
            with closing(_start_local(address.workers, slots=slots)) as cluster:
                yield Owned(what="the local cluster", cluster=cluster)
        else:
            with submitting(address, slots=slots) as jobs:
                yield jobs


def _start_local(workers: int, *, slots: int) -> Any:
    distributed = distributed_package()
    security = make_certificates().security()
    same = {
        "host": "127.0.0.1",
        "protocol": "tls://",
        "security": security,
    }
    worker = {
        **same,
        "nthreads": slots,
        # Dask would stop giving tasks to a worker that holds much memory, for ever.
        "memory_limit": None,
        "dashboard": False,
        "dashboard_address": ONLY_HERE,
        "silence_logs": logging.CRITICAL,
        "preload": [PRELOAD],
    }
    cards = visible_cards()
    specs = {}
    for number in range(workers):
        environment = worker_environment(number, workers=workers)
        gpu = {"resources": {"GPU": 1}} if cards else {}
        specs[number] = {"cls": distributed.Nanny, "options": {**worker, **gpu, "env": environment}}
    try:
        return distributed.SpecCluster(
            scheduler={"cls": distributed.Scheduler, "options": {**scheduler_options(), **same}},
            workers=specs,
            security=security,
            silence_logs=logging.CRITICAL,
            name="floodem",
        )
    except (OSError, RuntimeError, TimeoutError) as error:
        raise ResourceError(
            f"{workers} workers do not start ({first_line(error)}): give fewer (local:N)"
        ) from error
