"""What the doctor finds about a machine: limits, missing packages, folders and cards."""

from __future__ import annotations

import types

import pytest

from floodem.cards import Card
from floodem.project.doctor import Level, machine, surroundings


def test_every_check_of_the_machine_is_named_once():
    found = [*machine.look_at_machine()]
    names = [one.what for one in found]
    assert names == ["python", "torch", "cores", "number formats", "memory", *["cards"] * (
        len(names) - 5)]  # fmt: skip
    assert all(one.part == "machine" for one in found)


def test_threads_that_the_surroundings_allow_are_told(monkeypatch):
    monkeypatch.setattr(machine, "usable_threads", lambda: 8)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    one = machine._cores()
    assert one.level is Level.NOTE
    assert "OMP_NUM_THREADS=2 holds the network to 2" in one.says
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert machine._cores().level is Level.OK


@pytest.mark.parametrize(
    ("free", "level"), [(None, "note"), (10**9, "warning"), (64 * 10**9, "ok")]
)
def test_little_memory_is_a_warning(monkeypatch, free, level):
    monkeypatch.setattr(machine, "available_memory", lambda: free)
    assert machine._memory().level == level


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("flags\t\t: fpu avx2 amx_bf16 avx512_bf16\n", "computes in bfloat16 (avx2, avx512_bf16"),
        ("flags\t\t: fpu avx2\n", "only imitates bfloat16 (avx2)"),
        ("model name : other\n", "does not tell"),
    ],
)
def test_number_formats_are_read_from_what_the_system_says(monkeypatch, tmp_path, text, says):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    assert says in machine._number_formats().says
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "none")
    assert machine.cpu_flags() is None


def test_a_card_that_lies_idle_is_a_warning_with_the_line_to_type(monkeypatch):
    from floodem.network import device

    monkeypatch.setattr(
        device, "ask_torch",
        lambda: device.Cuda(version="2.13.0+cpu", capabilities=(), architectures=()),
    )  # fmt: skip
    monkeypatch.setattr(
        machine, "find_card", lambda: Card(name="Big Card", capability=(9, 0), driver=600)
    )
    (one,) = machine._cards()
    assert one.level is Level.WARNING
    assert "Big Card" in one.says
    monkeypatch.setattr(machine, "find_card", lambda: None)
    (none,) = machine._cards()
    assert none.level is Level.OK


def test_missing_packages_are_told_with_what_they_are_for(monkeypatch):
    monkeypatch.setattr(
        surroundings, "missing_packages", lambda extra: ["dask"] if extra == "cluster" else []
    )
    one = surroundings._extras()
    assert one.level is Level.NOTE
    assert "cluster (Dask and SLURM)" in one.says
    assert ".[cluster]" in one.advice


def test_packages_of_an_extra_are_looked_up_in_what_is_installed(monkeypatch):
    monkeypatch.setattr(
        "importlib.metadata.requires",
        lambda _: ['no-such-package>=1; extra == "dm"', 'numpy>=2; extra == "dm"', "numpy"],
    )
    assert surroundings.missing_packages("dm") == ["no-such-package"]
    assert surroundings.missing_packages("tiff") == []


def test_a_full_disk_and_short_names_are_warnings(monkeypatch, tmp_path):
    monkeypatch.setattr("shutil.disk_usage", lambda _: types.SimpleNamespace(free=10**6))
    assert surroundings._disk(tmp_path).level is Level.WARNING
    monkeypatch.setattr("os.pathconf", lambda *_: 100, raising=False)
    assert surroundings._names(tmp_path).level is Level.WARNING


def test_a_temporary_folder_that_cannot_be_written_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "gone"))
    assert surroundings._temporary().level is Level.PROBLEM


def test_a_browser_that_is_missing_is_a_note(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr(surroundings, "BROWSER_PLACES", ())
    assert surroundings._browser().level is Level.NOTE


def test_results_may_go_to_a_folder_that_is_not_there_yet(tmp_path):
    found = {one.what: one for one in surroundings.look_around(tmp_path / "a" / "b")}
    assert str(tmp_path) in found["disk"].says
