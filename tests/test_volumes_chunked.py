"""Chunked stores: their metadata as others write and read them, groups, and writing in place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chunked_stores import ARRAY, FORMATS, METADATA, SHAPE, attributes, opened, write
from floodem.errors import (
    DestinationExistsError,
    FloodemError,
    OptionError,
    ResourceError,
    StorageError,
    UnsafeFileError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.geometry import Box, VoxelSize
from floodem.volumes import convert, create_volume, open_volume

BLOCK = {"version": 1, "voxel_size_nm_zyx": [30, 6, 4], "offset_zyx": [10, 20, 30]}


def test_a_zarr_store_keeps_what_is_documented(tmp_path: Path) -> None:
    write(tmp_path / "em.zarr")
    found = attributes(tmp_path / "em.zarr" / ".zattrs")
    assert found == {"_ARRAY_DIMENSIONS": ["z", "y", "x"], "floodem": BLOCK}
    metadata = attributes(tmp_path / "em.zarr" / ".zarray")
    assert (metadata["shape"], metadata["chunks"]) == ([5, 6, 7], [2, 3, 4])
    np.testing.assert_array_equal(opened("zarr", tmp_path / "em.zarr").read().result(), ARRAY)


def test_a_zarr3_store_keeps_what_is_documented(tmp_path: Path) -> None:
    write(f"zarr3://{tmp_path / 'em'}")
    metadata = attributes(tmp_path / "em" / "zarr.json")
    assert metadata["attributes"] == {"floodem": BLOCK}
    assert metadata["dimension_names"] == ["z", "y", "x"]
    np.testing.assert_array_equal(opened("zarr3", tmp_path / "em").read().result(), ARRAY)


def test_an_n5_store_is_xyz_with_resolution_and_offset_in_nm(tmp_path: Path) -> None:
    write(tmp_path / "em.n5")
    metadata = attributes(tmp_path / "em.n5" / "attributes.json")
    assert metadata["dimensions"] == [7, 6, 5]
    assert metadata["blockSize"] == [4, 3, 2]
    assert metadata["axes"] == ["x", "y", "z"]
    assert metadata["units"] == ["nm", "nm", "nm"]
    assert metadata["resolution"] == [4, 6, 30]
    assert metadata["offset"] == [30 * 4, 20 * 6, 10 * 30]
    assert metadata["floodem"] == BLOCK
    np.testing.assert_array_equal(opened("n5", tmp_path / "em.n5").read().result(), ARRAY.T)


@pytest.mark.parametrize(
    ("dtype", "kind", "encoding"),
    [
        ("uint32", "segmentation", "compressed_segmentation"),
        ("uint64", "segmentation", "compressed_segmentation"),
        ("uint8", "image", "raw"),
        ("float32", "image", "raw"),
    ],
)
def test_precomputed_is_xyz_with_resolution_and_voxel_offset(
    tmp_path: Path, dtype: str, kind: str, encoding: str
) -> None:
    write(f"precomputed://{tmp_path / 'em'}", ARRAY.astype(dtype))
    info = attributes(tmp_path / "em" / "info")
    (scale,) = info["scales"]
    assert (info["type"], info["data_type"], scale["encoding"]) == (kind, dtype, encoding)
    assert scale["size"] == [7, 6, 5]
    assert scale["voxel_offset"] == [30, 20, 10]
    assert scale["resolution"] == [4, 6, 30]
    assert scale["chunk_sizes"] == [[4, 3, 2]]
    store = opened("neuroglancer_precomputed", tmp_path / "em")
    np.testing.assert_array_equal(store[..., 0].read().result(), ARRAY.T)


# --- stores of other programs -------------------------------------------------------------


def test_an_n5_store_of_another_program_tells_its_place_in_its_units(tmp_path: Path) -> None:
    store = opened(
        "n5",
        tmp_path / "em.n5",
        create=True,
        metadata={
            "dimensions": [7, 6, 5],
            "dataType": "uint8",
            "resolution": [0.004, 0.006, 0.03],
            "units": ["um", "um", "um"],
            "offset": [0.12, 0.12, -0.3],
        },
    )
    store.write(np.ones((7, 6, 5), np.uint8)).result()
    with open_volume(tmp_path / "em.n5") as volume:
        assert volume.offset == (-10, 20, 30)
        assert volume.voxel_size is not None
        assert volume.voxel_size.zyx_nm == pytest.approx((30, 6, 4))


def test_an_n5_offset_between_voxels_is_rounded_with_a_notice(tmp_path: Path) -> None:
    metadata = {
        "dimensions": [7, 6, 5],
        "dataType": "uint8",
        "resolution": [4, 6, 30],
        "offset": [5, 0, 0],
    }
    opened("n5", tmp_path / "em.n5", create=True, metadata=metadata)
    with open_volume(tmp_path / "em.n5") as volume:
        assert volume.offset == (0, 0, 1)
        assert "begins between voxels, at 1.25, 0, 0 (x,y,z)" in volume.notices[0]


def test_stores_without_our_attributes_have_no_voxel_size(tmp_path: Path) -> None:
    for driver, name in (("zarr", "em.zarr"), ("zarr3", "em.zarr3")):
        opened(
            driver,
            tmp_path / name,
            create=True,
            schema={"dtype": "uint8", "domain": {"shape": [5, 6, 7]}},
        )
        with open_volume(tmp_path / name) as volume:
            assert volume.voxel_size is None
            assert volume.box == Box((0, 0, 0), (5, 6, 7))


def test_a_channel_axis_goes_first_in_zarr_and_last_in_n5_and_precomputed(tmp_path: Path) -> None:
    czyx = np.stack([ARRAY, ARRAY + 1000])
    shapes = {"zarr": (2, 5, 6, 7), "zarr3": (2, 5, 6, 7), "n5": (7, 6, 5, 2)}
    for driver, shape in shapes.items():
        store = opened(
            driver,
            tmp_path / driver,
            create=True,
            schema={"dtype": "uint32", "domain": {"shape": list(shape)}},
        )
        store.write(czyx if driver != "n5" else czyx.T).result()
    store = opened(
        "neuroglancer_precomputed",
        tmp_path / "precomputed",
        create=True,
        multiscale_metadata={"type": "image", "data_type": "uint32", "num_channels": 2},
        scale_metadata={"size": [7, 6, 5], "resolution": [4, 6, 30], "encoding": "raw"},
    )
    store.write(czyx.T).result()
    for name in FORMATS:
        with pytest.raises(OptionError, match="has 2 channels"):
            open_volume(tmp_path / name)
        for channel in (0, 1):
            with open_volume(tmp_path / name, channel=channel) as volume:
                np.testing.assert_array_equal(volume.read(), czyx[channel])


# --- groups ------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["zarr", "n5"])
def test_arrays_in_a_group_are_named(tmp_path: Path, ending: str) -> None:
    root = tmp_path / f"store.{ending}"
    root.mkdir()
    if ending == "zarr":
        (root / ".zgroup").write_text('{"zarr_format": 2}', encoding="utf-8")
    else:
        (root / "attributes.json").write_text('{"n5": "2.0.0"}', encoding="utf-8")
    with pytest.raises(FloodemError, match="holds no arrays"):
        open_volume(root)
    write(f"{root}@raw")
    with open_volume(root) as volume:
        np.testing.assert_array_equal(volume.read(), ARRAY)
    write(f"{root}@labels")
    with pytest.raises(VolumeFormatError, match=r"holds labels, raw: name one, as in .*@labels"):
        open_volume(root)
    with pytest.raises(VolumeNotFoundError, match="holds labels, raw"):
        open_volume(f"{root}@row")
    with pytest.raises(DestinationExistsError, match="a folder with other contents"):
        create_volume(root, shape=SHAPE, dtype="uint8", overwrite=True)
    with open_volume(f"{root}@labels") as volume:
        np.testing.assert_array_equal(volume.read(), ARRAY)


def test_the_wrong_prefix_names_the_right_one(tmp_path: Path) -> None:
    write(f"zarr3://{tmp_path / 'em'}")
    with pytest.raises(
        VolumeFormatError, match=r"is a zarr3 volume, not zarr: open it as zarr3://"
    ):
        open_volume(f"zarr://{tmp_path / 'em'}")


def test_a_zarr3_store_named_zarr_is_opened_as_what_it_is(tmp_path: Path) -> None:
    write(f"zarr3://{tmp_path / 'em.zarr'}")
    with open_volume(tmp_path / "em.zarr") as volume:
        np.testing.assert_array_equal(volume.read(), ARRAY)


def test_a_folder_with_other_contents_is_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "home.zarr"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years", encoding="utf-8")
    for uri in (folder, f"zarr3://{folder}", f"precomputed://{folder}"):
        with pytest.raises(DestinationExistsError, match="other contents"):
            create_volume(
                uri, shape=SHAPE, dtype="uint8", voxel_size=VoxelSize(1, 1, 1), overwrite=True
            )
    assert [entry.name for entry in tmp_path.iterdir()] == ["home.zarr"]
    assert (folder / "thesis.tex").read_text(encoding="utf-8") == "years"


def test_an_empty_folder_may_be_filled_when_asked(tmp_path: Path) -> None:
    (tmp_path / "em.zarr").mkdir()
    write(tmp_path / "em.zarr", overwrite=True)
    with open_volume(tmp_path / "em.zarr") as volume:
        np.testing.assert_array_equal(volume.read(), ARRAY)


# --- writing in place --------------------------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
def test_a_closed_store_is_filled_in_place(tmp_path: Path, format_: str) -> None:
    uri = f"{format_}://{tmp_path / 'em'}"
    create_volume(
        uri,
        shape=SHAPE,
        dtype="uint32",
        voxel_size=VoxelSize(30, 6, 4),
        offset=(10, 20, 30),
        chunks=(2, 3, 4),
    ).close()
    upper, lower = Box((10, 20, 30), (12, 26, 37)), Box((12, 20, 30), (15, 26, 37))
    for box in (lower, upper):
        with open_volume(uri, writable=True) as volume:
            volume.write(box, ARRAY[box.slices(origin=(10, 20, 30))])
    with open_volume(uri, writable=True) as volume:
        np.testing.assert_array_equal(volume.read(), ARRAY)


def test_discarding_a_store_opened_in_place_keeps_it(tmp_path: Path) -> None:
    write(tmp_path / "em.zarr")
    volume = open_volume(tmp_path / "em.zarr", writable=True)
    volume.write(volume.box, ARRAY + 1)
    volume.discard()
    with open_volume(tmp_path / "em.zarr") as volume:
        np.testing.assert_array_equal(volume.read(), ARRAY + 1)


FILL = """
import sys
import numpy as np
from floodem.geometry import Box
from floodem.volumes import open_volume
z = int(sys.argv[2])
with open_volume(sys.argv[1], writable=True) as volume:
    for x in range(0, 32, 8):
        box = Box((z, 0, x), (z + 8, 32, x + 8))
        volume.write(box, np.full(box.shape, z * 100 + x + 1, np.uint32))
"""


def test_processes_fill_one_store_together(tmp_path: Path) -> None:
    uri = f"zarr3://{tmp_path / 'em'}"
    create_volume(uri, shape=(32, 32, 32), dtype="uint32", chunks=(8, 8, 8)).close()
    workers = [subprocess.Popen([sys.executable, "-c", FILL, uri, str(z)]) for z in range(0, 32, 8)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0, 0]
    z, x = np.arange(32) // 8 * 8, np.arange(32) // 8 * 8
    expected = (z[:, None, None] * 100 + x[None, None, :] + 1) * np.ones((1, 32, 1), int)
    with open_volume(uri) as volume:
        np.testing.assert_array_equal(volume.read(), expected)


# --- addresses ---------------------------------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
def test_relative_paths_may_go_up(
    tmp_path: Path, format_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    uri = f"{format_}://../data/em"
    write(uri)
    with open_volume(uri, writable=True) as volume:
        volume.write(volume.box, ARRAY + 1)
    convert(uri, f"{format_}://../copies/../copies/em")
    for folder in ("data", "copies"):
        with open_volume(f"{format_}://{tmp_path / folder / 'em'}") as volume:
            np.testing.assert_array_equal(volume.read(), ARRAY + 1)


@pytest.mark.skipif(sys.platform == "win32", reason="there .. undoes a link, not a folder")
def test_going_up_from_a_link_leads_where_the_system_says(tmp_path: Path) -> None:
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deep")
    write(tmp_path / "far" / "em.zarr")
    with open_volume(tmp_path / "link" / ".." / "em.zarr") as volume:
        np.testing.assert_array_equal(volume.read(), ARRAY)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ('Error parsing "kvstore": Invalid file path: "/a/../b/"', 'Invalid file path: "/a/../b/"'),
        (
            """PERMISSION_DENIED: Failed to open: "/a/b": Permission denied [os_error_code='13']""",
            "Permission denied",
        ),
    ],
)
def test_the_reason_of_a_refusal_is_kept(said: str, kept: str) -> None:
    from floodem.volumes.chunked.access import sentence

    sentence = str(sentence("open", "em.zarr", ValueError(said)))
    assert sentence.startswith(f"cannot open em.zarr: {kept}; check the address")


# --- damage ------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_metadata_cut_short_give_one_sentence(tmp_path: Path, format_: str, kept: float) -> None:
    write(f"{format_}://{tmp_path / 'em'}")
    metadata = tmp_path / "em" / METADATA[format_]
    whole = metadata.read_bytes()
    metadata.write_bytes(whole[: int(kept * len(whole))])
    for uri in (tmp_path / "em", f"{format_}://{tmp_path / 'em'}"):
        with pytest.raises(VolumeFormatError, match="damaged") as caught:
            open_volume(uri)
        assert "\n" not in str(caught.value)
        assert "tensorstore_spec" not in str(caught.value)


@pytest.mark.parametrize("format_", FORMATS)
def test_empty_metadata_give_one_sentence(tmp_path: Path, format_: str) -> None:
    write(f"{format_}://{tmp_path / 'em'}")
    (tmp_path / "em" / METADATA[format_]).write_bytes(b"")
    with pytest.raises(FloodemError) as caught:
        open_volume(f"{format_}://{tmp_path / 'em'}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_chunk_cut_short_gives_one_sentence(tmp_path: Path, format_: str) -> None:
    array = np.random.default_rng(0).integers(1, 2**31, (20, 20, 20), np.uint32)
    write(f"{format_}://{tmp_path / '生 em'}", array, chunks=(20, 20, 20), offset=(0, 0, 0))
    (chunk,) = (
        path
        for path in (tmp_path / "生 em").rglob("*")
        if path.is_file() and path.stat().st_size > 5000
    )
    chunk.write_bytes(chunk.read_bytes()[:3000])
    with (
        open_volume(f"{format_}://{tmp_path / '生 em'}") as volume,
        pytest.raises(VolumeFormatError, match="damaged") as caught,
    ):
        volume.read()
    assert "生 em" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_zarr_attributes_give_one_sentence(tmp_path: Path) -> None:
    write(tmp_path / "em.zarr")
    (tmp_path / "em.zarr" / ".zattrs").write_text("{", encoding="utf-8")
    with pytest.raises(VolumeFormatError, match=r"damaged attributes \(\.zattrs\)"):
        open_volume(tmp_path / "em.zarr")


def test_an_absurd_shape_is_refused_only_when_too_much_is_read(tmp_path: Path) -> None:
    metadata = {"shape": [2**40, 2**40, 2**40], "chunks": [64, 64, 64], "dtype": "<u8"}
    opened("zarr", tmp_path / "em.zarr", create=True, metadata=metadata)
    with open_volume(tmp_path / "em.zarr") as volume:
        assert not volume.read(Box((2**30,) * 3, (2**30 + 2,) * 3)).any()
        with pytest.raises(ResourceError, match="read a smaller box"):
            volume.read()


def test_absurd_chunks_are_refused(tmp_path: Path) -> None:
    metadata = {"shape": [2**20] * 3, "chunks": [2**20, 2**20, 1], "dtype": "<u8"}
    opened("zarr", tmp_path / "em.zarr", create=True, metadata=metadata)
    with pytest.raises(UnsafeFileError, match="declares chunks of"):
        open_volume(tmp_path / "em.zarr")


def test_an_interrupted_write_does_not_go_on_behind_the_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What tensorstore writes after a failure would bring a discarded folder back."""
    from floodem.volumes.chunked import volume as chunked_volume

    folder = tmp_path / "work"
    array = np.random.default_rng(0).integers(0, 255, (64, 64, 64), np.uint8)
    original = chunked_volume.ChunkedVolume._pieces

    def broken(volume: Any, box: Box) -> Any:
        pieces = list(original(volume, box))
        blocked = volume._staged.path / "0" / "0"
        blocked.parent.mkdir(exist_ok=True)
        blocked.write_bytes(b"a file where a folder should go")
        return pieces

    monkeypatch.setattr(chunked_volume.ChunkedVolume, "_pieces", broken)
    with (
        pytest.raises(StorageError, match="check the address"),
        create_volume(
            folder / "em.zarr", shape=(64, 64, 64), dtype="uint8", chunks=(8, 8, 8)
        ) as volume,
    ):
        volume.write(volume.box, array)
    assert not folder.exists()


def test_a_remote_address_that_is_not_there_gives_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLOODEM_REMOTE_DEADLINE", "1")
    with pytest.raises(FloodemError) as caught:
        open_volume("zarr://http://127.0.0.1:9/em.zarr")
    assert "\n" not in str(caught.value)


def test_a_store_is_read_over_http(tmp_path: Path) -> None:
    import functools
    import http.server
    import threading

    write(tmp_path / "em.zarr")
    write(f"precomputed://{tmp_path / 'pre'}")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_port}"
            for uri in (f"{address}/em.zarr", f"precomputed://{address}/pre"):
                with open_volume(uri) as volume:
                    assert volume.box == Box((10, 20, 30), (15, 26, 37))
                    np.testing.assert_array_equal(volume.read(), ARRAY)
        finally:
            server.shutdown()
            thread.join()


ASCII_ONLY = """
import sys
from floodem.volumes import convert, create_volume, open_volume
from floodem.volumes.volume import Kind
assert sys.getfilesystemencoding() == "ascii"
for uri in sys.argv[1:]:
    create_volume(uri, shape=(1, 2, 3), dtype="uint8").close()
    with open_volume(uri) as volume:
        assert volume.shape == (1, 2, 3)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows always has Unicode paths")
@pytest.mark.skipif(
    not f"{sys.prefix}{__file__}".isascii(),
    reason="from such a folder Python itself does not start where it knows only ASCII",
)
def test_non_ascii_paths_work_where_python_knows_only_ascii(tmp_path: Path) -> None:
    uris = [str(tmp_path / f"生体 {name}") for name in ("em.zarr", "em.n5", "em.h5", "em.npz")]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", ASCII_ONLY, *uris], env=environment, check=True)
    for uri in uris:
        with open_volume(uri) as volume:
            assert volume.shape == (1, 2, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_a_path_that_is_no_text_gives_one_sentence(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path / "em") + b"\xff.zarr")
    with pytest.raises(VolumeFormatError, match="not written in UTF-8"):
        create_volume(path, shape=SHAPE, dtype="uint8")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format_", FORMATS)
def test_metadata_nested_without_end_give_one_sentence(tmp_path: Path, format_: str) -> None:
    write(f"{format_}://{tmp_path / 'em'}")
    (tmp_path / "em" / METADATA[format_]).write_text('{"a":' * 100_000, encoding="utf-8")
    with pytest.raises(VolumeFormatError, match="no readable JSON object; the volume is damaged"):
        open_volume(f"{format_}://{tmp_path / 'em'}")


@pytest.mark.parametrize("format_", FORMATS)
def test_metadata_as_large_as_a_volume_are_not_read(tmp_path: Path, format_: str) -> None:
    write(f"{format_}://{tmp_path / 'em'}")
    with open(tmp_path / "em" / METADATA[format_], "r+b") as file:
        file.truncate(2**34)  # takes no room on the disk
    with pytest.raises(FloodemError, match=r"no readable JSON object|is no precomputed array"):
        open_volume(f"{format_}://{tmp_path / 'em'}")
