"""How a finished folder takes its place, with and without the system's help."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from floodem.errors import DestinationExistsError, StorageError
from floodem.volumes import staging
from floodem.volumes.staging import Staged, exchange


@pytest.fixture
def two_folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"in {name}").write_text(name, encoding="utf-8")
    return tmp_path / "a", tmp_path / "b"


@pytest.mark.skipif(sys.platform not in {"linux", "darwin"}, reason="no such call here")
def test_two_folders_change_places(two_folders: tuple[Path, Path]) -> None:
    first, second = two_folders
    if not exchange(first, second):
        pytest.skip("this file system cannot exchange")
    assert [entry.name for entry in first.iterdir()] == ["in b"]
    assert [entry.name for entry in second.iterdir()] == ["in a"]


def test_a_folder_does_not_change_places_with_nothing(two_folders: tuple[Path, Path]) -> None:
    first, _ = two_folders
    assert not exchange(first, first.with_name("nothing"))
    assert [entry.name for entry in first.iterdir()] == ["in a"]


def begin(folder: Path) -> Staged:
    staged = Staged(folder, uri=str(folder), overwrite=True, folder=True)
    (staged.path / "new").write_text("new", encoding="utf-8")
    return staged


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_is_replaced_and_nothing_stays_beside(
    two_folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    first, second = two_folders
    if not exchanges:
        monkeypatch.setattr(staging, "exchange", lambda *_: False)
    begin(first).commit()
    assert [entry.name for entry in first.iterdir()] == ["new"]
    assert sorted(first.parent.iterdir()) == [first, second]


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(
    two_folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two_folders
    staged = begin(first)
    monkeypatch.setattr(staging, "exchange", lambda *_: False)
    original = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path == staged.path:
            raise PermissionError(13, "Permission denied")
        return original(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(StorageError, match="Permission denied"):
        staged.commit()
    assert [entry.name for entry in first.iterdir()] == ["in a"]
    assert sorted(first.parent.iterdir()) == [first, second]


def test_what_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    staged = Staged(tmp_path / "em.npy", uri="em.npy", overwrite=False, folder=False)
    (tmp_path / "em.npy").write_bytes(b"another's")
    with pytest.raises(DestinationExistsError):
        staged.commit()
    assert (tmp_path / "em.npy").read_bytes() == b"another's"
    assert [entry.name for entry in tmp_path.iterdir()] == ["em.npy"]


def test_folders_made_on_the_way_go_again(tmp_path: Path) -> None:
    staged = Staged(tmp_path / "a" / "b" / "em.npy", uri="em.npy", overwrite=False, folder=False)
    assert staged.path.parent == tmp_path / "a" / "b"
    staged.discard()
    assert not list(tmp_path.iterdir())
