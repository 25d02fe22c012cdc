"""A SLURM cluster of this one machine: its own configuration, munge and daemons."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dask_programs import free_port, wait_until

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel")

CONFIGURATION = """
ClusterName=floodem
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=2,batch_sched_delay=1
MinJobAge=10
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=2000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@dataclass
class SlurmPrograms:
    """munged, slurmctld and slurmd, in a folder of their own."""

    folder: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        host = socket.gethostname()
        (self.folder / "slurm.conf").write_text(
            CONFIGURATION.format(
                host=host,
                folder=self.folder,
                controller_port=free_port(),
                node_port=free_port(),
                cpus=os.cpu_count(),
            ),
            encoding="ascii",
        )
        files = [
            f"--{name}={self.folder}/{file}"
            for name, file in {
                "key-file": "munge.key",
                "socket": "munge.socket",
                "pid-file": "munged.pid",
                "log-file": "munged.log",
                "seed-file": "munged.seed",
            }.items()
        ]
        # it may run as root and in a folder below /tmp: --force
        self._start("munged", "--foreground", "--force", *files)
        wait_until((self.folder / "munge.socket").exists, what="munged")
        self._start("slurmctld", "-D", "-c")
        self._start("slurmd", "-D", "-N", host)
        wait_until(lambda: "idle" in self.say("sinfo", "--noheader", "--format=%T"), what="SLURM")

    def _start(self, *words: str) -> None:
        with open(self.folder / f"{words[0]}.out", "ab") as log:
            self.running.append(
                subprocess.Popen(words, env=self.environment, stdout=log, stderr=log)
            )

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def say(self, *words: str) -> str:
        done = subprocess.run(
            words,
            check=False,
            env=self.environment,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )
        return done.stdout

    def jobs(self) -> list[str]:
        return self.say("squeue", "--noheader", "--format=%A %T").splitlines()

    def end(self) -> None:
        if len(self.running) > 1:
            self.say("scancel", "--user=root", "--full")
            with contextlib.suppress(TimeoutError):
                wait_until(lambda: not self.jobs(), what="the end of all jobs")
        for program in reversed(self.running):
            program.terminate()
        for program in self.running:
            try:
                program.wait(timeout=10)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()


@contextlib.contextmanager
def slurm_here() -> Iterator[SlurmPrograms]:
    """Start SLURM and end it; skip where it cannot be."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("a SLURM cluster needs Linux and root")
    if missing:
        pytest.skip(f"no {', '.join(missing)} here: apt-get install slurm-wlm munge")
    # a short path, as that of a socket is bounded
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        programs = SlurmPrograms(Path(folder))
        try:
            programs.start()
            yield programs
        finally:
            programs.end()
            time.sleep(0.5)  # steps of jobs write their last line there
