"""What may stand behind --cluster, and what a SLURM job's script can hold."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floodem.cluster.addresses import LocalWorkers, SchedulerAddress, parse_cluster
from floodem.cluster.slurm import SlurmOptions, WorkerFiles, job_script, parse_slurm, shared_folder
from floodem.errors import OptionError, VolumeNotFoundError

T = TypeVar("T")

JOB = {"workers": 2, "time": "01:00:00", "memory": "4G"}

FILES = WorkerFiles(
    ca=Path("/home/me/.floodem/certificates-1/ca.pem"),
    certificate=Path("/home/me/.floodem/certificates-1/worker.pem"),
    key=Path("/home/me/.floodem/certificates-1/worker.key"),
    logs=Path("/home/me/.floodem/logs"),
)

SLURM_TOML = """
version = 1
[slurm]
workers = 8
time = "1-12:00:00"
memory = "64G"
cores = 8
gpus = 1
partition = "gpu,long"
constraint = "a100|h100"
interface = "ib0"
scratch = "/scratch/データ"
"""


def write_toml(folder: Path, text: str) -> str:
    path = folder / "cluster.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def script(options: SlurmOptions, *, files: WorkerFiles = FILES, name: str = "floodem-0") -> str:
    return job_script(options, scheduler="tls://10.0.0.1:4000", name=name, slots=2, files=files)


def test_workers_on_this_machine_are_counted():
    assert parse_cluster("local:4") == LocalWorkers(workers=4)


@pytest.mark.parametrize("address", ["tls://node7:8786", "tls://10.0.0.7:1", "tls://[::1]:8786"])
def test_an_encrypted_scheduler_is_named_by_its_address(address):
    assert parse_cluster(address) == SchedulerAddress(address=address)


@pytest.mark.parametrize(
    "text",
    [
        *("", "local", "local:", "local:0", "local:-1", "local:x", "local:4 ", "local:٤", "4"),
        *("tls://host", "tls://host:0", "tls://host:65536", "tls://:80", "tls://host:80/path"),
        *("tls://ho st:80", "tls://host:80\n", "ucx://host:80", "http://host:80", "slurm"),
        *("tls://$(id):80", "tls://host:80;id", "inproc://x", "TLS://host:80"),
    ],
)
def test_what_is_no_cluster_is_refused_with_what_is_possible(text):
    with pytest.raises(OptionError, match="write local:N"):
        parse_cluster(text)


def test_a_password_in_an_address_is_not_repeated():
    with pytest.raises(OptionError) as refusal:
        parse_cluster("tls://me:hunter2@host:80")
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize("toml", [False, True])
def test_a_plain_address_is_refused_but_with_insecure(tmp_path, toml):
    text = "tcp://host:8786"
    if toml:
        text = write_toml(tmp_path, f'version = 1\n[scheduler]\naddress = "{text}"\n')
    with pytest.raises(OptionError, match="--insecure"):
        parse_cluster(text)
    found = parse_cluster(text, is_insecure=True)
    assert found == SchedulerAddress(address="tcp://host:8786")


def test_a_scheduler_file_names_certificates_beside_it(tmp_path):
    for name in ("ca.pem", "me.pem", "me.key"):
        (tmp_path / name).write_text("pem", encoding="ascii")
    text = (
        'version = 1\n[scheduler]\naddress = "tls://host:8786"\nca_file = "ca.pem"\n'
        f'cert_file = "me.pem"\nkey_file = "{tmp_path / "me.key"}"\n'
    )
    assert parse_cluster(write_toml(tmp_path, text)) == SchedulerAddress(
        address="tls://host:8786",
        ca_file=tmp_path / "ca.pem",
        cert_file=tmp_path / "me.pem",
        key_file=tmp_path / "me.key",
    )
    (tmp_path / "me.key").unlink()
    with pytest.raises(VolumeNotFoundError, match="key_file"):
        parse_cluster(str(tmp_path / "cluster.toml"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "version = 1"),
        ("version = 2\n[slurm]\n", "version 2"),
        ("version = 1\n", "one table"),
        ("version = 1\nslurm = 3\n", "one table"),
        ("version = 1\n[slurn]\n", "did you mean slurm"),
        ("version = 1\n[slurm]\n[scheduler]\n", "one table"),
        ("version = 1\n[slurm]\nworkers = 1\n", "time, memory"),
        ('version = 1\n[scheduler]\naddres = "x"\n', "did you mean address"),
        ('version = 1\n[scheduler]\nca_file = "x"\n', "no address"),
        ('version = 1\n[scheduler]\naddress = "tls://h:1"\nca_file = "x"\n', "all of"),
        ("version = 1\n[scheduler]\naddress = 3\n", "write a text"),
        ("version = \n", "not TOML"),
        ("[" * 5000, "not TOML"),
        ("#" * 70_000, "too large"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_a_sentence(tmp_path, text, says):
    with pytest.raises(OptionError, match=re.escape(says)):
        parse_cluster(write_toml(tmp_path, text))


def test_a_file_that_is_no_text_or_not_there_is_named(tmp_path):
    with pytest.raises(VolumeNotFoundError, match="none.toml"):
        parse_cluster(str(tmp_path / "none.toml"))
    (tmp_path / "latin.toml").write_bytes(b"version = 1 # \xe9")
    with pytest.raises(OptionError, match="UTF-8"):
        parse_cluster(str(tmp_path / "latin.toml"))


def test_a_slurm_file_becomes_jobs(tmp_path):
    options = parse_cluster(write_toml(tmp_path, SLURM_TOML))
    assert isinstance(options, SlurmOptions)
    assert (options.workers, options.seconds, options.gpus) == (8, 36 * 3600, 1)
    lines = script(options).splitlines()
    for line in (
        "#SBATCH --time=1-12:00:00",
        "#SBATCH --mem=64G",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --gres=gpu:1",
        "#SBATCH --partition=gpu,long",
        '#SBATCH --constraint="a100|h100"',
        "export OMP_NUM_THREADS=8",
        f"export FLOODEM_WORKER_SECONDS={36 * 3600 - 300}",
    ):
        assert line in lines
    words = shlex.split(lines[-1])
    assert words[:2] == ["exec", sys.executable]
    assert words[words.index("--local-directory") + 1] == "/scratch/データ"
    assert words[words.index("--lifetime") + 1] == f"{36 * 3600 - 100}s"
    assert words[words.index("--resources") + 1] == "GPU=1"
    assert words[words.index("--interface") + 1] == "ib0"


def test_a_worker_of_a_short_job_stops_taking_tasks_before_its_time_is_over():
    options = SlurmOptions(workers=1, time="00:01:00", memory="1G")
    assert options.saving_seconds == 12
    assert "export FLOODEM_WORKER_SECONDS=48" in script(options)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("workers", 0, "from 1 to"),
        ("workers", True, "whole number"),
        ("workers", "2", "whole number"),
        ("cores", 1.5, "whole number"),
        ("gpus", 2, "one GPU for each worker"),
        ("time", "1 hour", "HH:MM:SS"),
        ("time", "00:00:00", "some time"),
        ("time", "٠١:00:00", "HH:MM:SS"),
        ("memory", "4 GB", "64G"),
        ("memory", 4, "64G"),
        ("partition", "gpu; rm -rf /", "names"),
        ("partition", "gpu\n#SBATCH --uid=0", "names"),
        ("account", "$(id)", "name"),
        ("qos", "`id`", "name"),
        ("qos", "--uid=0", "name"),
        ("constraint", 'a"b', "features"),
        ("constraint", "a&&b", "features"),
        ("reservation", "", "name"),
        ("interface", "eth0 --foo", "interface"),
        ("scratch", "scratch", "absolute path"),
        ("scratch", "/with space", "without spaces"),
        ("python", "/bin/py'thon", "quotes"),
        ("shared", "/a%j", "signs"),
        ("shared", "/a\n", "signs"),
    ],
)
def test_a_value_that_is_no_plain_one_is_refused(key, value, says):
    with pytest.raises(OptionError, match=f"{key}.*{re.escape(says)}"):
        parse_slurm({**JOB, key: value}, source="slurm.toml")


def test_an_unknown_key_is_refused_with_the_nearest():
    with pytest.raises(OptionError, match="did you mean partition"):
        parse_slurm({**JOB, "partiton": "gpu"}, source="slurm.toml")
    for key in ("job_script_prologue", "env_extra", "job_extra_directives", "shebang"):
        with pytest.raises(OptionError, match="no key"):
            parse_slurm({**JOB, key: ["id"]}, source="slurm.toml")


def made_or_refused(make: Callable[[], T]) -> T | None:
    """Return what is made; None where it is refused, in a sentence on one line."""
    try:
        return make()
    except OptionError as refusal:
        sentence = str(refusal)
    assert "\n" not in sentence
    return None


LINE_FORMS = [
    r"#!/bin/sh",
    r"#SBATCH --(job-name|nodes|ntasks|cpus-per-task|mem|time|gres|open-mode)=[A-Za-z0-9:-]+",
    r"#SBATCH --(partition|account|qos|reservation)=[A-Za-z0-9][A-Za-z0-9_.@,+-]*",
    r'#SBATCH --output="/[ \w.+,=@~/-]*/floodem-%j\.log"',
    r'#SBATCH --constraint="[A-Za-z0-9_.@+|&,-]+"',
    r"export (OMP_NUM_THREADS|FLOODEM_WORKER_SECONDS)=\d+",
    r"export DASK_DISTRIBUTED__WORKER__HTTP__ROUTES='\[\]'",
    r'export FLOODEM_WORKER_BEGAN="\$\(date \+%s\)"',
]

HOSTILE = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["gpu", "ib0", "/scratch", "/共有", "01:00:00", "4G", "a|b", "x\n", "x;id"]),
    st.from_regex(r"[a-z/]{0,5}[\n'\"$`;&|<>(){}\\ %#\t*?]{0,3}[a-z]{0,5}", fullmatch=True),
)
TEXT_KEYS = sorted(SlurmOptions.patterns)


@given(st.dictionaries(st.sampled_from(TEXT_KEYS), HOSTILE))
def test_whatever_a_file_holds_a_script_has_lines_of_few_forms_and_words_for_one_command(table):
    options = made_or_refused(lambda: parse_slurm({**JOB, **table}, source="slurm.toml"))
    if options is None:
        return
    *lines, command, end = script(options).split("\n")
    assert end == ""
    for line in lines:
        assert any(re.fullmatch(form, line) for form in LINE_FORMS), line
    words = shlex.split(command)
    assert words[:4] == [
        "exec", options.python or sys.executable, "-m", "distributed.cli.dask_worker"
    ]  # fmt: skip
    # Nothing outside of quotes that a shell would understand: quoting the words again is a no-op.
    assert shlex.join(words) == command
    given = {options.interface, options.scratch} - {None}
    assert given <= set(words)


@given(folder=st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=20))
def test_whatever_folders_are_called_they_are_quoted_or_refused(folder):
    path = Path("/home") / folder
    files = WorkerFiles(
        ca=path / "ca.pem", certificate=path / "c.pem", key=path / "c.key", logs=path / "logs"
    )
    made = made_or_refused(lambda: script(SlurmOptions(**JOB), files=files))
    if made is None:
        return
    *lines, command, _ = made.split("\n")
    assert all(any(re.fullmatch(form, line) for form in LINE_FORMS) for line in lines)
    words = shlex.split(command)
    assert words[words.index("--tls-key") + 1] == str(path / "c.key")


def test_an_interpreter_in_a_folder_with_spaces_and_japanese_letters_is_quoted(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/home/私 の/it's $HOME/bin/python")
    assert shlex.split(script(SlurmOptions(**JOB)).splitlines()[-1])[1] == sys.executable
    monkeypatch.setattr(sys, "executable", "/home/a\nb/python")
    with pytest.raises(OptionError, match="control character"):
        script(SlurmOptions(**JOB))


def test_certificates_lie_in_the_home_folder_where_no_folder_is_named(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/my name"))
    assert shared_folder(SlurmOptions(**JOB)) == Path("/home/my name/.floodem")
    assert shared_folder(SlurmOptions(**JOB, shared="/data/共有")) == Path("/data/共有")
    monkeypatch.setattr(Path, "home", lambda: Path('/home/"me"'))
    with pytest.raises(OptionError, match="shared = "):
        shared_folder(SlurmOptions(**JOB))
