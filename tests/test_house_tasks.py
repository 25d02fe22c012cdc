"""tasks.py takes a bare checkout to a finished task, or says what is missing."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from floodem.cards import Card

REPOSITORY = Path(__file__).resolve().parents[1]
ADA = Card(name="NVIDIA GeForce RTX 4090", capability=(8, 9), driver=580)


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """tasks.py as a module that works on a copy of what it reads, and runs nothing."""
    spec = importlib.util.spec_from_file_location("tasks", REPOSITORY / "tasks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((REPOSITORY / name).read_text(encoding="utf-8"), "utf-8")
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(module, "ROOT", str(tmp_path))
    monkeypatch.setattr(module, "VENV", str(tmp_path / ".venv"))
    monkeypatch.setattr(module, "STAMP", str(tmp_path / ".venv" / "stamp.json"))
    module.ran = []

    def run(command, **options):
        module.ran.append(command)
        return 0

    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return module


@pytest.fixture
def with_card(tasks, monkeypatch):
    """A machine with a card under a torch that does not see it."""
    from floodem import cards

    monkeypatch.setattr(cards, "find_card", lambda: ADA)
    monkeypatch.setattr(cards, "run_quietly", lambda command: "False 2.13.0+cpu\n")
    monkeypatch.setattr(cards, "advise", lambda card: cards._build("cu130"))
    return tasks


def test_an_old_python_can_read_it():
    tree = ast.parse((REPOSITORY / "tasks.py").read_text(encoding="utf-8"))
    newer = (ast.JoinedStr, ast.NamedExpr, ast.AnnAssign, ast.Match, ast.AsyncFunctionDef)
    found = [node for node in ast.walk(tree) if isinstance(node, newer)]
    annotated = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.returns
    ]
    assert found == annotated == []


def test_it_imports_only_the_standard_library():
    tree = ast.parse((REPOSITORY / "tasks.py").read_text(encoding="utf-8"))
    names = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert names <= set(sys.stdlib_module_names)


def test_an_old_python_is_refused(tasks, monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    assert tasks.main(["test"]) == 3
    assert "needs Python 3.11 or newer and this is 3.9" in capsys.readouterr().err


def test_a_python_without_venv_names_the_debian_package(tasks, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ensurepip" else find(name)
    )
    assert tasks.main(["test"]) == 3
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert f"apt install python{version}-venv" in capsys.readouterr().err
    assert tasks.ran == []


def test_no_task_or_an_unknown_one_shows_the_usage():
    for arguments, code in (([], 2), (["fly"], 2), (["test", "check"], 2), (["--help"], 0)):
        done = subprocess.run(
            [sys.executable, REPOSITORY / "tasks.py", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code
        assert "usage: python3 tasks.py" in done.stderr


def test_installing_happens_once_and_again_when_the_pins_change(tasks, tmp_path):
    tasks.install(["labels", "view"])
    assert tasks.ran[-1][-4:] == ["-e", ".[labels,view]", "-c", "constraints.txt"]
    tasks.install(["labels"])
    assert len(tasks.ran) == 1
    tasks.install(["dev"])
    assert tasks.ran[-1][-3] == ".[dev,docs,labels,test,view]"
    tasks.install(["test"])
    assert len(tasks.ran) == 2
    with (tmp_path / "constraints.txt").open("a", encoding="utf-8") as pins:
        pins.write("# changed\n")
    tasks.install(["test"])
    assert len(tasks.ran) == 3


def test_a_failed_installation_is_not_remembered(tasks, monkeypatch):
    monkeypatch.setattr(tasks, "run", lambda command: 1)
    with pytest.raises(tasks.Refusal, match="installation failed"):
        tasks.install(["test"])
    assert tasks.installed() == ("", set())


def test_a_damaged_stamp_means_installing_again(tasks):
    Path(tasks.STAMP).write_text("{", encoding="utf-8")
    assert tasks.installed() == ("", set())


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("demo", ["-m", "floodem", "demo", "-x"]),
        ("test", ["-m", "pytest", "-x"]),
        ("docs", ["-m", "sphinx", "-W", "--keep-going", "-x"]),
    ],
)
def test_what_follows_the_dashes_goes_to_the_program(tasks, task, words):
    command = tasks.commands(task, ["-x"])[0]
    assert command[1 : len(words)] == words[:-1]
    assert command[-1] == "-x" or task == "docs"
    assert "-x" in command


def test_the_suite_is_spread_over_processes_unless_told_otherwise(tasks):
    command = tasks.commands("test", ["-n", "0"])[0]
    assert command.index("auto") < len(command) - 2
    assert command[-2:] == ["-n", "0"]


def test_check_runs_all_four_checkers_and_reports_the_first_failure(tasks, monkeypatch):
    ran = []

    def run(command):
        ran.append(command)
        return 7 if "mypy" in command else 0

    monkeypatch.setattr(tasks, "run", run)
    for quiet in ("make_venv", "install", "look_for_card"):
        monkeypatch.setattr(tasks, quiet, lambda *arguments: None)
    assert tasks.main(["check"]) == 7
    assert len(ran) == 4


def test_programs_are_found_in_both_layouts_of_a_virtual_environment(tasks, monkeypatch):
    assert Path(tasks.in_venv("python")).parent.name == (
        "Scripts" if sys.platform == "win32" else "bin"
    )
    monkeypatch.setattr(tasks.os, "name", "nt")
    windows = tasks.in_venv("python")
    monkeypatch.undo()
    assert windows.endswith(("Scripts\\python.exe", "Scripts/python.exe"))


def test_an_idle_card_is_mentioned_with_the_line_to_type(with_card, capsys):
    with_card.look_for_card(False)
    printed = capsys.readouterr().out
    assert "NVIDIA GeForce RTX 4090" in printed
    assert "torch==2.13.0+cu130" in printed
    assert with_card.ran == []


def test_gpu_installs_the_torch_for_the_card(with_card):
    with_card.look_for_card(True)
    assert with_card.ran[0][3] == "install"
    assert with_card.ran[0][4].startswith("torch==")


def test_gpu_without_a_card_is_refused(tasks, monkeypatch):
    from floodem import cards

    monkeypatch.setattr(cards, "find_card", lambda: None)
    tasks.look_for_card(False)
    with pytest.raises(tasks.Refusal, match="no NVIDIA card"):
        tasks.look_for_card(True)


def test_commands_are_shown_on_a_console_that_lacks_their_letters():
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import tasks; tasks.say('\\u2713 \\u751f\\u4f53')\n"
        "print(tasks.environment()['PYTHONIOENCODING'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(REPOSITORY)],
        capture_output=True,
        check=True,
        env={"PYTHONIOENCODING": "cp932", "PYTHONUTF8": "0", **_needed_to_start()},
    )
    assert done.stdout.decode("cp932").split() == ["\\u2713", "生体", "cp932:backslashreplace"]


def _needed_to_start():
    return {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to a console only")
def test_ctrl_c_lets_the_command_save_its_work_and_keeps_its_code():
    saving = (
        "import sys, time\n"
        "try:\n"
        "    print('ready', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    time.sleep(1); print('saved', flush=True); sys.exit(4)\n"
    )
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import tasks; tasks.run([sys.executable, '-c', sys.argv[2]])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(REPOSITORY), saving],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        while process.stdout.readline() != "ready\n":
            pass
        os.killpg(process.pid, signal.SIGINT)
        assert "saved" in process.stdout.read()
        assert process.wait(timeout=30) == 4


def test_the_stamp_is_plain_json(tasks):
    tasks.install(["view"])
    known = json.loads(Path(tasks.STAMP).read_text(encoding="utf-8"))
    assert known["extras"] == ["view"]
