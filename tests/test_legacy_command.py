"""``floodem legacy``: words passed on untouched, explanations, notes once, exit codes."""

from __future__ import annotations

import shlex
import subprocess
import sys

import h5py
import numpy as np
import pytest
from PIL import Image

from floodem.cli import legacy as command
from floodem.cli.legacy import as_typed
from floodem.cli.main import main
from floodem.errors import StoppedError
from floodem.legacy import programs
from floodem.legacy.flags import Flag
from floodem.legacy.programs import PROGRAM_NAMES, Program, Translation


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def floodem(capsys):
    """Run a command in this process: its exit code, its lines, and its lines on stderr."""

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main(words)
        printed = capsys.readouterr()
        return ended.value.code, printed.out.splitlines(), printed.err.splitlines()

    return run


@pytest.fixture
def echo(monkeypatch):
    """An old program that gives back its words, in the place of png_mean_std."""
    worked = []

    def translate(flags, words):
        def work(console):
            console.say("a result")
            console.notice("a remark")
            worked.append((dict(flags), words, console))
            if flags["stop"]:
                raise StoppedError("stopped halfway: run it again")
            if flags["interrupt"]:
                raise KeyboardInterrupt

        return Translation(
            commands=(("floodem", "stats", "a b", "--x={1}"),), notes=("a trap",), work=work
        )

    def make(**more):
        program = Program(
            name="png_mean_std",
            summary="Give back.",
            flags=(
                Flag(name="layout", kind="text", help="A name that floodem legacy has too."),
                Flag(name="list", kind="boolean", default=False),
                Flag(name="master", kind="text", default="", no_effect="one process does all"),
                Flag(name="stop", kind="boolean", default=False),
                Flag(name="interrupt", kind="boolean", default=False),
            ),
            positional=("[WORD]", "[WORD]"),
            translate=translate,
            **more,
        )
        monkeypatch.setattr(programs, "find_program", lambda name: program)
        return worked

    return make


def test_all_words_behind_the_name_go_to_the_program(floodem, echo):
    worked = echo()
    code, out, _ = floodem(
        *("legacy", "png_mean_std", "--layout", "here", "--list", "-master=x", "word", "--"),
        "--explain",
    )
    assert code == 0
    ((flags, words, _),) = worked
    assert (flags["layout"], flags["list"], flags["master"]) == ("here", True, "x")
    assert tuple(words) == ("word", "--explain")
    assert out == ["a result"]


def test_notes_are_said_once_each_on_stderr(floodem, echo):
    echo()
    code, out, err = floodem("legacy", "png_mean_std", "--master=a", "--master=b")
    assert (code, out) == (0, ["a result"])
    assert err == [
        "note: --master has no effect here: one process does all",
        "note: a trap",
        "note: a remark",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("png_mean_std", "--explain", "--master=a"),
        ("--explain", "png_mean_std", "--master=a"),
        ("png_mean_std", "--master=a", "--explain"),
    ],
)
def test_explain_prints_the_commands_and_does_nothing(floodem, echo, words):
    worked = echo()
    code, out, err = floodem("legacy", *words)
    assert code == 0
    assert out == [as_typed(["floodem", "stats", "a b", "--x={1}"])]
    assert len(err) == 2
    assert worked == []


@pytest.mark.parametrize("word", ["--help", "--helpfull", "--helpshort", "-help"])
def test_help_behind_the_name_is_the_programs(floodem, echo, word):
    echo()
    code, out, err = floodem("legacy", "png_mean_std", word)
    assert (code, err) == (0, [])
    assert out[:2] == ["png_mean_std [WORD] [WORD] --flag=value ...", "Give back."]
    assert any(line.startswith("  --[no]explain") for line in out)
    assert any("--flagfile" in line for line in out)


def test_help_before_the_name_is_floodems(floodem):
    code, out, _ = floodem("legacy", "--help")
    assert code == 0
    assert any("Run an old program's command line as it stands." in line for line in out)
    assert any("--layout" in line for line in out)


def test_a_stopped_program_ends_with_4_and_ctrl_c_with_130(floodem, echo):
    echo()
    code, _, err = floodem("legacy", "png_mean_std", "--stop")
    assert (code, err[-1]) == (4, "stopped halfway: run it again")
    code, _, err = floodem("legacy", "png_mean_std", "--interrupt")
    assert (code, err[-1]) == (
        130,
        "stopped by Ctrl-C; run the same command again to start over",
    )


def test_a_program_that_goes_on_is_asked_politely(floodem, echo):
    worked = echo(resumes=True)
    code, _, err = floodem("legacy", "png_mean_std", "--interrupt")
    assert code == 4
    assert "run the same command again to go on" in err[-1]
    assert worked[0][2].should_stop() is False


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "no old program is named"),
        (("trian",), "did you mean train?"),
        (("png_to_h5",), "png_to_h5 needs OUT.h5"),
        (("compute_partitions", "--input_volum=x"), "did you mean --input_volume?"),
        (("compute_partitions",), "needs --input_volume and --output_volume"),
        (("--explian", "train"), "floodem legacy --help"),
        (("--list", "train"), "stand alone"),
        (("--list", "--layout", "x"), "stand alone"),
        (("--layout",), "floodem legacy --help"),
    ],
)
def test_mistakes_end_with_2_and_one_sentence(floodem, here, words, says):
    code, out, err = floodem("legacy", *words)
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0].startswith("error: ")
    assert says in err[0]
    assert list(here.iterdir()) == []


def test_refused_input_ends_with_3(floodem, here):
    code, _, err = floodem("legacy", "npz_png")
    assert code == 3
    assert "no ./seg-0_0_0.npz" in err[-1]


def test_the_list_names_every_program(floodem):
    code, out, _ = floodem("legacy", "--list")
    assert code == 0
    assert [line.split()[0] for line in out] == list(PROGRAM_NAMES)


@pytest.mark.parametrize("name", PROGRAM_NAMES)
def test_every_program_lists_its_flags_without_doing_anything(floodem, here, name):
    code, out, err = floodem("legacy", name, "--helpfull")
    assert (code, err) == (0, [])
    assert out[0].startswith(name)
    for flag in programs.find_program(name).flags:
        assert any(flag.name in line for line in out)
    assert list(here.iterdir()) == []


def test_the_folder_of_the_documentation_is_laid_out(floodem, here):
    code, out, err = floodem("legacy", "--layout", "work")
    assert (code, err) == (0, [])
    assert str(here.name) not in out[0]
    assert len(out) == len([one for one in (here / "work").rglob("*") if one.is_file()])
    all_is_there = ["work holds all of it already: nothing was written"]
    assert floodem("legacy", "--layout", "work") == (0, all_is_there, [])
    (here / "work" / "train.py").write_text("mine", encoding="utf-8")
    code, out, err = floodem("legacy", "--layout", "work")
    assert (code, out, len(err)) == (0, all_is_there, 1)
    assert "train.py is there with other contents and was left as it is" in err[0]


def test_commands_are_written_as_the_shell_takes_them(monkeypatch):
    words = ["floodem", "segment", "a b", 'C:\\x "y"', "{1}"]
    monkeypatch.setattr(command.sys, "platform", "linux")
    assert shlex.split(as_typed(words)) == words
    monkeypatch.setattr(command.sys, "platform", "win32")
    assert as_typed(words) == 'floodem segment "a b" "C:\\x \\"y\\"" {1}'


def test_a_script_with_the_old_name_does_the_same(here):
    (here / "png_to_h5.py").write_text(
        "from floodem.cli.legacy import run_program\n\n"
        'if __name__ == "__main__":\n    run_program("png_to_h5")\n',
        encoding="utf-8",
    )
    for number in range(3):
        Image.fromarray(np.full((2, 3), number, np.uint8)).save(here / f"{number}.png")
    done = subprocess.run(
        [sys.executable, "png_to_h5.py", "images.h5"],
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("images.h5@raw: 3 sections of 2 x 3 (y,x), uint8")
    with h5py.File(here / "images.h5") as file:
        assert file["raw"][:, 0, 0].tolist() == [0, 1, 2]
