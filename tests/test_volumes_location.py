"""Addresses of volumes: every spelling, and what is said about the wrong ones."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from floodem.errors import (
    DependencyError,
    FloodemError,
    StorageError,
    UsageError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.volumes import create_volume, open_volume
from floodem.volumes.location import Location, parse_location
from floodem.volumes.registry import formats


@pytest.mark.parametrize(
    ("uri", "path", "format_", "dataset"),
    [
        ("em.h5@raw", "em.h5", "hdf5", "raw"),
        ("em.h5:raw", "em.h5", "hdf5", "raw"),
        ("em.h5", "em.h5", "hdf5", None),
        ("em.HDF5@raw", "em.HDF5", "hdf5", "raw"),
        ("em.h5@volumes/labels/ids", "em.h5", "hdf5", "volumes/labels/ids"),
        ("em.h5:/raw", "em.h5", "hdf5", "/raw"),
        ("em.h5@a:b", "em.h5", "hdf5", "a:b"),
        (r"C:\data\em.h5@raw", r"C:\data\em.h5", "hdf5", "raw"),
        (r"C:\data\em.h5:raw", r"C:\data\em.h5", "hdf5", "raw"),
        ("C:/data/em.h5:raw", "C:/data/em.h5", "hdf5", "raw"),
        ("C:em.h5@raw", "C:em.h5", "hdf5", "raw"),
        (r"C:\data\em.h5", r"C:\data\em.h5", "hdf5", None),
        (r"\\server\share\em.h5:raw", r"\\server\share\em.h5", "hdf5", "raw"),
        (r"D:\生体 データ\seg.npz@segmentation", r"D:\生体 データ\seg.npz", "npz", "segmentation"),
        (r"zarr://C:\data\em", r"C:\data\em", "zarr", None),
        ("me@lab/em.h5@raw", "me@lab/em.h5", "hdf5", "raw"),
        ("run:2/em.zarr", "run:2/em.zarr", "zarr", None),
        ("em.zarr@raw", "em.zarr", "zarr", "raw"),
        ("em.n5:volumes/raw", "em.n5", "n5", "volumes/raw"),
        ("em.zarr/", "em.zarr/", "zarr", None),
        ("em.npy", "em.npy", "npy", None),
        ("em.tif", "em.tif", "tiff", None),
        ("em.TIFF", "em.TIFF", "tiff", None),
        ("zarr3://out/labels", "out/labels", "zarr3", None),
        ("ZARR3://out/labels", "out/labels", "zarr3", None),
        ("n5://out", "out", "n5", None),
        ("png://out", "out", "png", None),
        ("hdf5://em.h5@raw", "em.h5", "hdf5", "raw"),
        ("precomputed://https://host/path@2", "https://host/path@2", "precomputed", None),
        ("zarr://gs://bucket/em", "gs://bucket/em", "zarr", None),
        ("zarr3://s3://bucket/em", "s3://bucket/em", "zarr3", None),
        ("https://host/em.zarr", "https://host/em.zarr", "zarr", None),
        ("file:///data/a%20b.zarr", "/data/a b.zarr", "zarr", None),
        ("file:///C:/data/em.zarr", "C:/data/em.zarr", "zarr", None),
        ("n5://file:///data/em", "/data/em", "n5", None),
        ("file://localhost/data/em.n5", "/data/em.n5", "n5", None),
        ("file://server/share/em.zarr", "//server/share/em.zarr", "zarr", None),
        # Windows: network shares, long paths, drives
        (r"\\server\share\em.h5@raw", r"\\server\share\em.h5", "hdf5", "raw"),
        (r"\\server\share\em.zarr", r"\\server\share\em.zarr", "zarr", None),
        (r"\\server@SSL@8443\share\em.h5:raw", r"\\server@SSL@8443\share\em.h5", "hdf5", "raw"),
        ("//server/share/em.zarr", "//server/share/em.zarr", "zarr", None),
        ("//server/share/em.h5@raw", "//server/share/em.h5", "hdf5", "raw"),
        (r"zarr3://\\server\share\em", r"\\server\share\em", "zarr3", None),
        (r"\\?\C:\data\em.h5:raw", r"\\?\C:\data\em.h5", "hdf5", "raw"),
        (r"\\?\UNC\server\share\em.n5@a/b", r"\\?\UNC\server\share\em.n5", "n5", "a/b"),
        (r"d:\em.npy", r"d:\em.npy", "npy", None),
        ("C:/me@lab/em.zarr:raw", "C:/me@lab/em.zarr", "zarr", "raw"),
        # servers: users, ports and buckets are no datasets
        ("https://host/em.h5@raw", "https://host/em.h5", "hdf5", "raw"),
        ("https://host/em.h5:a/raw", "https://host/em.h5", "hdf5", "a/raw"),
        ("https://host:8443/em.h5@raw", "https://host:8443/em.h5", "hdf5", "raw"),
        ("http://h5.h5:80/em.npz", "http://h5.h5:80/em.npz", "npz", None),
        ("https://host/me@lab:2/em.h5", "https://host/me@lab:2/em.h5", "hdf5", None),
        ("https://host/em.zarr@a%20b/1", "https://host/em.zarr", "zarr", "a b/1"),
        ("s3://bucket/em.n5:volumes/raw", "s3://bucket/em.n5", "n5", "volumes/raw"),
        ("gs://bucket.h5/em@2/raw", "gs://bucket.h5/em@2/raw", None, None),
        ("HTTPS://host/em.H5@raw", "https://host/em.H5", "hdf5", "raw"),
        ("hdf5://https://host/files/123@raw", "https://host/files/123", "hdf5", "raw"),
        ("zarr://https://host/em@2", "https://host/em@2", "zarr", None),
        ("https://host/files/123", "https://host/files/123", None, None),
        ("https://host/em.tif", "https://host/em.tif", "tiff", None),
        ("https://host/em.zarr/", "https://host/em.zarr/", "zarr", None),
    ],
)
def test_every_spelling_of_an_address_is_understood(
    uri: str, path: str, format_: str, dataset: str | None
) -> None:
    assert parse_location(uri) == Location(uri, path, format_, dataset)


@pytest.mark.parametrize(
    ("uri", "is_remote"),
    [
        ("precomputed://gs://b/x", True),
        ("https://h/x.n5", True),
        ("x.n5", False),
        ("C:/x.n5", False),
    ],
)
def test_remote_addresses_are_known(uri: str, is_remote: bool) -> None:
    assert parse_location(uri).is_remote == is_remote


@pytest.mark.parametrize(
    ("uri", "path", "dataset"),
    [
        ("em.h5?Signature=a%2Fb", "em.h5?Signature=a%2Fb", None),
        ("em.h5@raw?Signature=a%2Fb", "em.h5?Signature=a%2Fb", "raw"),
        ("em.h5?Signature=a%2Fb@raw", "em.h5?Signature=a%2Fb", "raw"),
        ("em.tif?se=2030-01-01T00:00:00Z", "em.tif?se=2030-01-01T00:00:00Z", None),
    ],
)
def test_a_signed_query_belongs_to_the_path_and_to_no_message(
    uri: str, path: str, dataset: str | None
) -> None:
    location = parse_location(f"https://me:secret@host/{uri}")
    assert (location.path, location.dataset) == (f"https://me:secret@host/{path}", dataset)
    for text in (location.uri, location.shown):
        assert text.startswith("https://host/em.")
        assert "?" not in text
        assert "secret" not in text


def test_a_dataset_at_a_server_has_a_name() -> None:
    for uri in ("https://host/em.h5@", "s3://bucket/em.zarr:", "https://host/em.h5?a=b@"):
        with pytest.raises(UsageError, match="names none"):
            parse_location(uri)


def test_nobody_looks_at_a_server_to_understand_an_address() -> None:
    # Port 9 answers nobody; a look would take seconds and fail.
    assert parse_location("http://127.0.0.1:9/em").format is None


def test_a_path_longer_than_windows_likes_is_written_and_read(tmp_path: Path) -> None:
    folder = tmp_path
    while len(str(folder)) < 300:
        folder /= "生体 データ and forty more letters or so"
    for name in ("em.zarr", "em.h5@raw", "em.npy", "em.n5"):
        try:
            with create_volume(folder / name, shape=(2, 3, 4), dtype="uint8") as volume:
                volume.write(volume.box, np.full((2, 3, 4), 7))
        except FloodemError:
            if sys.platform != "win32":
                raise
            # Windows may not allow long paths; that is a sentence then, and nothing more.
            continue
        with open_volume(folder / name) as volume:
            assert (volume.read() == 7).all()


@pytest.mark.parametrize("name", ["em.zarr", "em.h5@raw", "em.npy"])
def test_a_folder_that_may_only_be_read_is_read(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "read only"
    create_volume(folder / name, shape=(2, 3, 4), dtype="uint8").close()
    folder.chmod(0o500)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("rights do not bind this user")
        with open_volume(folder / name) as volume:
            assert volume.read().shape == (2, 3, 4)
        with pytest.raises(StorageError, match="check the address, the rights"):
            create_volume(folder / f"other-{name}", shape=(2, 3, 4), dtype="uint8")
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize("name", ["em.zarr", "em.n5", "em.h5", "em.npz"])
def test_a_folder_that_goes_away_is_one_sentence_or_background(tmp_path: Path, name: str) -> None:
    """As a network folder does whose server is gone."""
    with create_volume(tmp_path / "share" / name, shape=(2, 3, 4), dtype="uint8") as volume:
        volume.write(volume.box, np.full((2, 3, 4), 7))
    with open_volume(tmp_path / "share" / name) as volume:
        try:
            (tmp_path / "share").rename(tmp_path / "gone")
        except OSError:
            pytest.skip("an open file keeps its folder here")
        # An open file is still there, a chunk that is missing is background.
        with contextlib.suppress(FloodemError):
            assert set(np.unique(volume.read())) <= {0, 7}
    with pytest.raises(VolumeNotFoundError, match="does not exist either"):
        open_volume(tmp_path / "share" / name)


hosts = st.sampled_from(
    ["http://host", "https://me:pw@host.h5:8443", "gs://b.h5", "s3://bucket.zarr"]
)
words = st.text(
    alphabet=st.characters(categories=("L", "N"), include_characters=" _-.~"),
    min_size=1,
    max_size=8,
).filter(lambda word: not word.endswith((".", " ")) and word.strip(".") != "")


@given(
    st.sampled_from(["", "/", "C:\\", "D:/", "\\\\host\\share\\"]),
    st.lists(words, max_size=2),
    words,
    st.sampled_from([".h5", ".hdf5", ".npz", ".zarr", ".n5"]),
    st.sampled_from("@:"),
    st.lists(words, min_size=1, max_size=2).map("/".join),
)
def test_path_and_dataset_come_apart_where_they_were_joined(
    root: str, folders: list[str], name: str, ending: str, separator: str, dataset: str
) -> None:
    path = root + "/".join([*folders, name + ending])
    location = parse_location(f"{path}{separator}{dataset}")
    assert (location.path, location.dataset) == (path, dataset)
    assert location.format == parse_location(path).format
    assert parse_location(path).dataset is None


@given(
    hosts,
    st.lists(st.text(alphabet="ab1@:.", min_size=1, max_size=6), max_size=3),
    st.sampled_from(["em.h5", "em.zarr", "em.npz"]),
    st.sampled_from("@:"),
    st.lists(st.text(alphabet="ab1 ", min_size=1), min_size=1, max_size=2).map("/".join),
)
def test_path_and_dataset_at_a_server_come_apart_where_they_were_joined(
    host: str, folders: list[str], name: str, separator: str, dataset: str
) -> None:
    path = "/".join([host, *folders, name])
    location = parse_location(f"{path}{separator}{dataset}")
    assert (location.path, location.dataset) == (path, dataset)
    assert parse_location(path).dataset is None


@given(st.text(alphabet="abc/\\:@.h5zarn0 é", max_size=20))
def test_any_text_is_parsed_or_refused_in_words(text: str) -> None:
    with contextlib.suppress(FloodemError):
        assert parse_location(text).path in text


def test_an_unknown_prefix_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"did you mean zarr3://"):
        parse_location("zar3://em")


@pytest.mark.parametrize("uri", ["", "em.h5@", "em.h5:", "zarr://"])
def test_incomplete_addresses_are_refused(uri: str) -> None:
    with pytest.raises(UsageError):
        parse_location(uri)


def test_an_address_without_a_format_lists_the_formats(tmp_path: Path) -> None:
    with pytest.raises(VolumeFormatError, match=r"cannot tell the format.*zarr3://"):
        create_volume(tmp_path / "out", shape=(1, 1, 1), dtype="uint8")
    assert not list(tmp_path.iterdir())


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    create_volume(tmp_path / "images.npy", shape=(1, 2, 3), dtype="uint8").close()
    with pytest.raises(VolumeNotFoundError, match=r"nearest there are images\.npy"):
        open_volume(tmp_path / "image.npy")
    with pytest.raises(VolumeNotFoundError, match="does not exist either"):
        open_volume(tmp_path / "nowhere" / "image.npy")


@pytest.mark.parametrize("format_", ["zarr", "zarr3", "n5", "precomputed", "png", "tiff"])
def test_a_folder_is_recognised_by_what_is_in_it(tmp_path: Path, format_: str) -> None:
    from floodem.geometry import VoxelSize

    folder = tmp_path / "no ending"
    create_volume(
        f"{format_}://{folder}", shape=(2, 3, 4), dtype="uint8", voxel_size=VoxelSize(1, 1, 1)
    ).close()
    assert parse_location(folder).format == format_
    with open_volume(folder) as volume:
        assert volume.shape == (2, 3, 4)


@pytest.mark.parametrize("name", ["em.h5", "em.npz", "em.npy", "em.tif"])
def test_a_file_with_another_ending_is_recognised_by_its_first_bytes(
    tmp_path: Path, name: str
) -> None:
    create_volume(tmp_path / name, shape=(2, 3, 4), dtype="uint16").close()
    (tmp_path / name).rename(tmp_path / "em.data")
    with open_volume(tmp_path / "em.data") as volume:
        assert (volume.shape, volume.dtype) == ((2, 3, 4), np.uint16)


def test_a_dataset_in_a_file_with_another_ending_is_found(tmp_path: Path) -> None:
    create_volume(f"{tmp_path / 'em.h5'}@raw", shape=(2, 3, 4), dtype="uint8").close()
    (tmp_path / "em.h5").rename(tmp_path / "em.mat")
    with open_volume(f"{tmp_path / 'em.mat'}@raw") as volume:
        assert volume.shape == (2, 3, 4)


def test_a_file_whose_name_looks_like_file_and_dataset_is_opened_itself(tmp_path: Path) -> None:
    name = tmp_path / "em.npz@2.npy"
    np.save(name, np.ones((2, 3, 4), np.uint8))
    with open_volume(name) as volume:
        assert volume.shape == (2, 3, 4)


def test_a_folder_of_two_kinds_asks_which(tmp_path: Path) -> None:
    create_volume(f"png://{tmp_path / 'both'}", shape=(1, 2, 3), dtype="uint8").close()
    create_volume(f"tiff://{tmp_path / 'other'}", shape=(2, 2, 3), dtype="uint8").close()
    for section in (tmp_path / "other").iterdir():
        section.rename(tmp_path / "both" / section.name)
    with pytest.raises(VolumeFormatError, match=r"png or tiff: put the format in front"):
        open_volume(tmp_path / "both")
    with open_volume(f"tiff://{tmp_path / 'both'}") as volume:
        assert volume.shape == (2, 2, 3)


def test_every_format_says_what_it_is() -> None:
    for name, record in formats().items():
        assert record.name == name
        assert record.summary
        assert all(ending == ending.lower() and ending[0] == "." for ending in record.extensions)


class _Point:
    """An entry point of another package."""

    name = "extra"
    value = "other.package:FORMAT"

    def __init__(self, record: object) -> None:
        self._record = record

    def load(self) -> object:
        if isinstance(self._record, Exception):
            raise self._record
        return self._record


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch):
    """Let a test stand for another package that brings a format."""

    def plug(record: object) -> None:
        formats.cache_clear()
        monkeypatch.setattr(
            "floodem.volumes.registry.entry_points", lambda *, group: [_Point(record)]
        )

    yield plug
    formats.cache_clear()


def test_another_package_can_bring_a_format(plugged, tmp_path: Path) -> None:
    from dataclasses import replace

    plugged(replace(formats()["npy"], name="extra", extensions=(".extra",)))
    np.save(tmp_path / "em.npy", np.ones((2, 3, 4), np.uint8))
    (tmp_path / "em.npy").rename(tmp_path / "em.extra")
    assert parse_location(tmp_path / "em.extra").format == "extra"
    with open_volume(tmp_path / "em.extra") as volume:
        assert volume.read().sum() == 24


def test_a_broken_format_of_another_package_is_named_and_left_out(plugged) -> None:
    plugged(ImportError("no module"))
    with pytest.warns(RuntimeWarning, match="'extra'.*cannot be loaded: no module"):
        assert "extra" not in formats()


def test_two_formats_of_one_name_are_refused(plugged) -> None:
    plugged(formats()["npy"])
    with pytest.raises(VolumeFormatError, match="'npy'"):
        formats()


@pytest.mark.parametrize(
    ("uri", "package"),
    [("em.zarr", "tensorstore"), ("png://sections", "pillow"), ("em.tif", "tifffile")],
)
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, package: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("tensorstore", "PIL.PngImagePlugin", "PIL.Image", "tifffile"):
        monkeypatch.setitem(sys.modules, name, None)
    with (
        pytest.raises(DependencyError, match=f"pip install {package}"),
        create_volume(uri, shape=(1, 2, 3), dtype="uint8") as volume,
    ):
        volume.write(volume.box, np.zeros((1, 2, 3), np.uint8))
    assert not list(tmp_path.iterdir())
    create_volume("em.h5", shape=(1, 2, 3), dtype="uint8").close()
    with open_volume("em.h5") as volume:
        assert volume.shape == (1, 2, 3)


def test_a_folder_that_is_no_volume_says_what_is_in_it(tmp_path: Path) -> None:
    def said() -> str:
        with pytest.raises(VolumeFormatError) as refusal:
            open_volume(tmp_path)
        return str(refusal.value).removeprefix(os.path.join(tmp_path, ""))

    assert said() == " is an empty folder, no volume: check the address"
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    assert said().startswith(" is a folder in which there is no volume that floodem knows (1 ")
    for name in ("a.npy", "b.npz", "c.zarr"):
        create_volume(tmp_path / name, shape=(2, 3, 4), dtype="uint8").close()
    assert said() == (
        " is a folder and no volume itself, but holds a.npy, b.npz, c.zarr: give one of them, as "
        f"in {tmp_path / 'a.npy'}"
    )
    create_volume(f"n5://{tmp_path / 'd'}", shape=(2, 3, 4), dtype="uint8").close()
    assert "holds a.npy, b.npz, c.zarr and more: give one" in said()


@pytest.mark.parametrize("name", ["em.zarr", "em.h5@raw", "sections", "zarr3://em", "em.npy"])
def test_an_absolute_address_means_the_same_from_every_folder(tmp_path, monkeypatch, name):
    array = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    made = f"png://{name}" if name == "sections" else name
    with create_volume(made, shape=array.shape, dtype=array.dtype) as volume:
        volume.write(volume.box, array)
    absolute = parse_location(name).absolute
    monkeypatch.chdir(tmp_path / "there")
    with open_volume(absolute) as volume:
        np.testing.assert_array_equal(volume.read(), array)
