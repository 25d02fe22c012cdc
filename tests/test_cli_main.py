"""The command line starts fast, ends with the right code, and prints on any console."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from floodem import errors
from floodem.cli import main as cli
from floodem.cli.progress import LINE_EVERY_S, QUIET_S, duration, progress_bar, short
from floodem.progress import Progress

HEAVY = ("torch", "dask", "neuroglancer", "tensorstore", "numpy", "scipy", "h5py", "rich")


def run_floodem(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "floodem", *arguments],
        capture_output=True,
        env={**os.environ, **environment},
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    "code",
    [
        "import floodem",
        "import floodem.cli.main as m\ntry: m.main(['--help'])\nexcept SystemExit: 0",
    ],
    ids=["import", "help"],
)
def test_starting_loads_nothing_heavy(code):
    script = f"import sys\n{code}\nprint([name for name in {HEAVY} if name in sys.modules])"
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True, timeout=60
    ).stdout
    assert printed.splitlines()[-1] == "[]"


def test_help_lists_every_command_and_ends_with_0():
    done = run_floodem("--help")
    assert done.returncode == 0
    listed = done.stdout.decode().split("Commands:")[1]
    assert re.findall(r"^  ([a-z-]+) ", listed, re.MULTILINE) == list(cli.COMMANDS)
    assert done.stderr == b""


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself_as_the_list_does(name):
    function = cli.load_command(name)
    assert cli.help_text(function).splitlines()[0] == cli.COMMANDS[name]
    done = run_floodem(name, "--help")
    assert done.returncode == 0, done.stderr.decode()
    assert "----" not in done.stdout.decode(), "numpydoc sections belong into the code"


def test_version_is_printed():
    assert run_floodem("--version").stdout.decode().startswith("floodem 0.")


def test_an_unknown_command_is_a_usage_error():
    done = run_floodem("segmnt")
    assert done.returncode == errors.EXIT_USAGE
    assert b"segmnt" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (errors.UsageError("no"), 2),
        (errors.OptionError("no"), 2),
        (errors.VolumeNotFoundError("no"), 3),
        (errors.DeviceError("no"), 3),
        (errors.StorageError("no"), 3),
        (errors.StoppedError("no"), 4),
        (MemoryError(), 3),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(32, "Broken pipe"), 141),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_each_ending_has_its_code_and_no_traceback(raised, code, capfd, monkeypatch):
    monkeypatch.setattr(cli, "_leave_closed_pipe", lambda: sys.exit(cli.EXIT_PIPE_CLOSED))
    with pytest.raises(SystemExit) as stop, cli.reporting():
        raise raised
    assert stop.value.code == code
    printed = capfd.readouterr()
    assert "Traceback" not in printed.err
    assert printed.out == ""


def test_an_error_is_one_line_on_stderr(capfd):
    with pytest.raises(SystemExit), cli.reporting():
        raise errors.VolumeNotFoundError("em.zarr is not there\nlook for it")
    assert capfd.readouterr().err == "error: em.zarr is not there look for it\n"


def test_a_bug_shows_its_traceback_and_asks_for_a_report(capfd):
    with pytest.raises(SystemExit) as stop, cli.reporting():
        raise ZeroDivisionError("oops")
    assert stop.value.code == 1
    printed = capfd.readouterr().err
    assert "ZeroDivisionError: oops" in printed
    assert printed.splitlines()[-1] == cli.BUG_SENTENCE


def test_help_text_ends_where_numpydoc_begins():
    def command():
        """Do it.

        At once.

        Raises
        ------
        ValueError
            Never.
        """

    assert cli.help_text(command).split() == ["Do", "it.", "At", "once."]


def test_a_reader_that_goes_away_is_no_error():
    script = (
        "import sys, subprocess\n"
        "from floodem.cli.main import main, reporting\n"
        "with reporting():\n"
        "    for _ in range(100000): print('x' * 100)\n"
        "    sys.stdout.flush()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        complaint = process.stderr.read()
        assert process.wait(timeout=60) == cli.EXIT_PIPE_CLOSED
    assert complaint == b""


def test_errors_print_on_a_console_that_lacks_their_letters():
    script = (
        "from floodem.cli.main import make_output_safe, reporting\n"
        "from floodem.errors import VolumeNotFoundError\n"
        "make_output_safe()\n"
        "print('\\u2713 生体')\n"
        "with reporting(): raise VolumeNotFoundError('生体 \\U0001f9e0 \\u00b5m')\n"
    )
    settings = {**os.environ, "PYTHONIOENCODING": "cp932", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, env=settings, check=False, timeout=60
    )
    assert done.returncode == 3
    assert done.stdout.decode("cp932").split() == ["\\u2713", "生体"]
    assert done.stderr.decode("cp932").rstrip() == "error: 生体 \\U0001f9e0 \\xb5m"


def test_help_prints_on_a_cp932_console():
    done = run_floodem("--help", PYTHONIOENCODING="cp932", PYTHONUTF8="0")
    assert done.returncode == 0
    assert "Commands:" in done.stdout.decode("cp932")


@pytest.mark.parametrize("encoding", ["cp932", "ascii"])
def test_commands_work_in_a_folder_that_the_console_may_not_spell(tmp_path, encoding):
    folder = tmp_path / "生体 データ"
    folder.mkdir()
    np.save(folder / "標識.npy", np.arange(60, dtype=np.uint32).reshape(3, 4, 5))
    console = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    copy, labels = str(folder / "写し.zarr"), str(folder / "標識.npy")
    done = run_floodem("convert", labels, copy, "--voxel-size", "30,6,6", **console)
    assert (done.returncode, done.stderr) == (0, b"")
    assert run_floodem("evaluate", copy, copy, **console).returncode == 0
    missing = run_floodem("convert", str(folder / "無い.npy"), copy, **console)
    assert missing.returncode == errors.EXIT_INPUT_REFUSED
    shown = "無い.npy".encode(encoding, "backslashreplace").decode(encoding)
    assert shown in missing.stderr.decode(encoding)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def report(done, total=100, note=""):
    return Progress(stage="flood", done=done, total=total, unit="voxels", note=note)


def test_short_work_shows_nothing():
    stream, clock = io.StringIO(), Clock()
    with progress_bar(stream=stream, is_terminal=False, clock=clock) as listen:
        for done in range(100):
            clock.now = done / 100 * QUIET_S
            listen(report(done))
    assert stream.getvalue() == ""


def test_a_log_gets_one_line_a_minute_with_rate_and_time_left():
    stream, clock = io.StringIO(), Clock()
    with progress_bar(stream=stream, is_terminal=False, clock=clock) as listen:
        for second in range(200):
            clock.now = float(second)
            listen(report(second, total=800, note="3 objects"))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1 + int((199 - QUIET_S) // LINE_EVERY_S)
    assert lines[1] == "flood: 62 of 800 voxels (7.8%); 1/s, 12 min 18 s left; 3 objects"


def test_work_done_before_a_resumed_run_is_not_counted_as_speed():
    stream, clock = io.StringIO(), Clock()
    with progress_bar(stream=stream, is_terminal=False, clock=clock) as listen:
        listen(report(1000, total=2000))
        clock.now = 10.0
        listen(report(1100, total=2000))
        clock.now = 100.0
        listen(report(1500, total=2000))
    soon, later = stream.getvalue().splitlines()
    assert soon.endswith("10/s")  # too soon to say how long
    assert later.endswith("5/s, 1 min 40 s left")


def test_an_unknown_end_shows_count_and_rate_only():
    stream, clock = io.StringIO(), Clock()
    with progress_bar(stream=stream, is_terminal=False, clock=clock) as listen:
        listen(report(0, total=None))
        clock.now = 4.0
        listen(report(8000, total=None))
    assert stream.getvalue() == "flood: 8 k voxels; 2 k/s\n"


@pytest.mark.parametrize("encoding", ["utf-8", "cp932", "ascii"])
def test_the_bar_draws_on_any_console(encoding, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    raw, clock = io.BytesIO(), Clock()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="strict")
    with progress_bar(stream=stream, is_terminal=True, clock=clock) as listen:
        listen(report(0))
        for done in (50, 100):
            clock.now += 30.0
            listen(report(done, note="ok"))
    stream.flush()
    drawn = raw.getvalue().decode(encoding)
    assert "flood" in drawn
    assert "100.0 %" in drawn


def test_the_bar_goes_away_when_the_work_fails():
    stream, clock = io.StringIO(), Clock()

    def fail():
        with progress_bar(stream=stream, is_terminal=True, clock=clock) as listen:
            clock.now = 5.0
            listen(report(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    time.sleep(0.2)
    before = stream.getvalue()
    time.sleep(0.3)
    assert stream.getvalue() == before, "a thread still draws"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3900, "1 h 05 min"),
        (2e6, "23 d 03 h"),
    ],
)
def test_durations_are_written_in_two_units(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(7, "7"), (999, "999"), (1234, "1.23 k"), (5e6, "5 M"), (2.5e9, "2.5 G")]
)
def test_counts_are_written_with_three_digits(number, text):
    assert short(number) == text
