"""What a TOML file says about a SLURM cluster: a table comes in, the script of one job goes out.

A job is one worker. The script has lines of a few fixed forms and no others
(`job_script`): every value of the file matches a strict pattern, so that none of them
reaches a shell, and the paths of this machine are quoted.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from floodem.errors import OptionError

_MOST_CORES = 4096
_MOST_JOBS = 10_000
_LONGEST_PATH = 1024
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,127}"
_PATH = rf"/[\w.+,=@~/-]{{0,{_LONGEST_PATH}}}"
"""Letters of any script, but nothing that a shell or SLURM could understand."""
_OWN_PATH = rf"/[ \w.+,=@~/-]{{0,{_LONGEST_PATH}}}"
"""A folder of this machine, which is quoted, may have spaces in its name."""
_TIME = re.compile(r"(?:([0-9]{1,3})-)?([0-9]{1,2}):([0-5][0-9]):([0-5][0-9])")

SAVING_S = 300
"""Before a job's time is over its task is told to stop, and has so long to save its state."""
_SAVING_SHARE = 0.2
"""Of short jobs, this part of their time."""
_DEATH_TIMEOUT_S = 120
"""A worker that finds no scheduler for so long gives its job back."""

_WORKER_MODULE = "distributed.cli.dask_worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmOptions:
    """What a job asks SLURM for; one job is one worker.

    Attributes
    ----------
    workers
        How many jobs.
    time
        Of one job, ``HH:MM:SS`` or ``D-HH:MM:SS``. Jobs that end are followed by
        others until the work is done.
    memory
        Of one job: ``64G``.
    cores
        Of one job.
    gpus
        0, or 1 for a card of each job's own (``--gres=gpu:1``).
    partition, account, qos, constraint, reservation
        As sbatch takes them; None: not named.
    interface
        Network between the nodes, ``ib0``; None: the one that the host's name leads to.
    scratch
        Fast folder of a node for what workers put aside; None: its temporary folder.
    python
        Interpreter of the workers, with the same floodem; None: this one.
    shared
        Folder that all nodes see, for certificates (mode 0700) and the jobs' logs; None:
        ``.floodem`` in the home folder.
    """

    workers: int
    time: str
    memory: str
    cores: int = 1
    gpus: int = 0
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    interface: str | None = None
    scratch: str | None = None
    python: str | None = None
    shared: str | None = None

    patterns: ClassVar[Mapping[str, tuple[str, str]]] = {
        "time": (_TIME.pattern, "HH:MM:SS or D-HH:MM:SS"),
        "memory": (r"[1-9][0-9]{0,6}[KMGT]", "a number and a unit, for example 64G"),
        "partition": (rf"{_NAME}(,{_NAME})*", "names with a comma between them"),
        "account": (_NAME, "a name"),
        "qos": (_NAME, "a name"),
        "constraint": (rf"{_NAME}([&|,]{_NAME})*", "features with & or | between them"),
        "reservation": (_NAME, "a name"),
        "interface": (r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}", "a network interface such as ib0"),
        "scratch": (_PATH, "an absolute path without spaces, quotes or other signs"),
        "python": (_PATH, "an absolute path without spaces, quotes or other signs"),
        "shared": (_PATH, "an absolute path without spaces, quotes or other signs"),
    }
    """What each text must look like, for `re` and for a reader."""

    ranges: ClassVar[Mapping[str, tuple[int, int]]] = {
        "workers": (1, _MOST_JOBS),
        "cores": (1, _MOST_CORES),
        "gpus": (0, 1),
    }

    def __post_init__(self) -> None:
        for name, (low, high) in self.ranges.items():
            number = getattr(self, name)
            if type(number) is not int or not low <= number <= high:
                raise OptionError(
                    f"{name} is {number!r}: write a whole number from {low} to {high}"
                    + (" (one GPU for each worker; ask for more workers)" * (name == "gpus"))
                )
        for name, (pattern, words) in self.patterns.items():
            text = getattr(self, name)
            if text is None and name not in {"time", "memory"}:
                continue
            if not isinstance(text, str) or not re.fullmatch(pattern, text):
                raise OptionError(f"{name} is {_shown(text)}: write {words}")
        if self.seconds == 0:
            raise OptionError(f"time is {self.time!r}: give jobs some time")

    @property
    def memory_bytes(self) -> int:
        """What a job may take."""
        return int(self.memory[:-1]) << (10 * ("KMGT".index(self.memory[-1]) + 1))

    @property
    def seconds(self) -> int:
        """Time of a job."""
        match = _TIME.fullmatch(self.time)
        assert match is not None
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds

    @property
    def saving_seconds(self) -> int:
        """How long before its end a job's task is told to stop.

        After two thirds of it a worker that is still there ends itself, so that SLURM need
        not kill it.
        """
        return int(min(SAVING_S, self.seconds * _SAVING_SHARE))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFiles:
    """Where a job finds its certificates, and writes its log.

    Attributes
    ----------
    ca, certificate, key
        PEM files on a folder that the nodes share.
    logs
        Folder of the jobs' output.
    """

    ca: Path
    certificate: Path
    key: Path
    logs: Path


def parse_slurm(table: Mapping[str, Any], *, source: str) -> SlurmOptions:
    """Return the options of a ``[slurm]`` table.

    Parameters
    ----------
    table
        Plain values, as a TOML file gives them.
    source
        What they come from, for messages.

    Raises
    ------
    OptionError
        Naming the key that is unknown, missing or wrong.
    """
    fields = dataclasses.fields(SlurmOptions)
    known = [field.name for field in fields]
    for key in table:
        if key not in known:
            raise OptionError(f"{source}: [slurm] has no key {_shown(key)}{nearest(key, known)}")
    needed = [field.name for field in fields if field.default is dataclasses.MISSING]
    missing = [name for name in needed if name not in table]
    if missing:
        raise OptionError(f"{source}: [slurm] says nothing of {', '.join(missing)}: add it")
    try:
        return SlurmOptions(**table)
    except OptionError as error:
        raise OptionError(f"{source}: [slurm] {error}") from error


def nearest(wrong: str, known: list[str]) -> str:
    """End a sentence about an unknown name with the nearest known one, or all of them."""
    close = difflib.get_close_matches(wrong, known, n=1)
    return f": did you mean {close[0]}?" if close else f": choose among {', '.join(known)}"


def shared_folder(options: SlurmOptions) -> Path:
    """Return the folder that all nodes see.

    Raises
    ------
    OptionError
        When the home folder has a name that SLURM would not take as it is.
    """
    if options.shared is not None:
        return Path(options.shared)
    folder = Path.home() / ".floodem"
    if not re.fullmatch(_OWN_PATH, str(folder)):
        raise OptionError(
            f"{_shown(str(folder))} has signs in its name that SLURM interprets: name another "
            "folder that all nodes see, with shared = ... in [slurm]"
        )
    return folder


def job_script(
    options: SlurmOptions, *, scheduler: str, name: str, slots: int, files: WorkerFiles
) -> str:
    """Return the batch script of one worker.

    Parameters
    ----------
    options
        Of the job.
    scheduler
        Address, ``tls://10.0.0.1:40123``.
    name
        Of the worker.
    slots
        Tasks that it holds at once.
    files
        Certificates, log.

    Raises
    ------
    OptionError
        When a path of this machine has a control character in its name.
    """
    lines = ["#!/bin/sh", *_directives(options, files), *_exports(options)]
    words = [options.python or sys.executable, "-m", _WORKER_MODULE, scheduler]
    words += ["--name", name, "--nthreads", str(slots), "--nworkers", "1", "--nanny"]
    words += ["--memory-limit", "0", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    words += ["--death-timeout", str(_DEATH_TIMEOUT_S)]
    words += ["--lifetime", f"{options.seconds - options.saving_seconds // 3}s"]
    words += ["--preload", "floodem.cluster.dask_worker", "--protocol", "tls"]
    words += ["--tls-ca-file", str(files.ca), "--tls-cert", str(files.certificate)]
    words += ["--tls-key", str(files.key)]
    if options.interface is not None:
        words += ["--interface", options.interface]
    if options.scratch is not None:
        words += ["--local-directory", options.scratch]
    if options.gpus:
        words += ["--resources", f"GPU={options.gpus}"]
    for word in words:
        if not word.isprintable():
            raise OptionError(f"{_shown(word)} has a control character in it: rename that folder")
    return "\n".join([*lines, f"exec {shlex.join(words)}", ""])


def _directives(options: SlurmOptions, files: WorkerFiles) -> list[str]:
    logs = str(files.logs)
    if not re.fullmatch(_OWN_PATH, logs):
        raise OptionError(f"{_shown(logs)} has signs in its name that SLURM interprets: rename it")
    asked = {
        "job-name": "floodem",
        "output": f'"{logs}/floodem-%j.log"',
        "open-mode": "append",
        "nodes": 1,
        "ntasks": 1,
        "cpus-per-task": options.cores,
        "mem": options.memory,
        "time": options.time,
        "gres": f"gpu:{options.gpus}" if options.gpus else None,
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "constraint": f'"{options.constraint}"' if options.constraint else None,
        "reservation": options.reservation,
    }
    return [f"#SBATCH --{key}={value}" for key, value in asked.items() if value is not None]


def _exports(options: SlurmOptions) -> list[str]:
    """Return what the worker finds in its environment: plain numbers, and its own beginning."""
    return [
        f"export OMP_NUM_THREADS={options.cores}",
        "export DASK_DISTRIBUTED__WORKER__HTTP__ROUTES='[]'",
        f"export FLOODEM_WORKER_SECONDS={options.seconds - options.saving_seconds}",
        'export FLOODEM_WORKER_BEGAN="$(date +%s)"',
    ]


def _shown(value: object) -> str:
    """Return a value of a file for a message: short, on one line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
