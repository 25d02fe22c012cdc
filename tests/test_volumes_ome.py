"""OME-Zarr 0.4 and 0.5: what others write is read, and what we write others read."""

from __future__ import annotations

import functools
import http.server
import json
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tensorstore as ts

from floodem.errors import (
    DestinationExistsError,
    FloodemError,
    OptionError,
    UnsafeFileError,
    VolumeFormatError,
)
from floodem.geometry import Box, VoxelSize
from floodem.volumes import create_volume, open_volume
from floodem.volumes.volume import Kind

SHAPE = (5, 6, 7)
ARRAY = np.arange(210, dtype=np.uint32).reshape(SHAPE)
FORMATS = ("zarr", "zarr3")
ZYX = [{"name": letter, "type": "space", "unit": "nanometer"} for letter in "zyx"]


def imported(name: str) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


def scale(*values: float) -> dict[str, Any]:
    return {"type": "scale", "scale": list(values)}


def translation(*values: float) -> dict[str, Any]:
    return {"type": "translation", "translation": list(values)}


def foreign(
    folder: Path, format_: str, arrays: dict[str, np.ndarray], attributes: dict[str, Any]
) -> str:
    """Write arrays and a group as another program does, without our blocks."""
    for path, array in arrays.items():
        ts.open(
            {"driver": format_, "kvstore": {"driver": "file", "path": f"{folder / path}/"}},
            create=True,
            dtype=array.dtype,
            shape=array.shape,
        ).result().write(array).result()
    if format_ == "zarr":
        files = {".zgroup": {"zarr_format": 2}, ".zattrs": attributes}
    else:
        group = {"zarr_format": 3, "node_type": "group"}
        files = {"zarr.json": {**group, "attributes": {"ome": {"version": "0.5", **attributes}}}}
    for name, document in files.items():
        (folder / name).write_text(json.dumps(document), encoding="utf-8")
    return str(folder)


def image(*datasets: list[dict[str, Any]], axes: Any = ZYX, **more: Any) -> dict[str, Any]:
    listed = [
        {"path": str(at), "coordinateTransformations": steps} for at, steps in enumerate(datasets)
    ]
    return {"multiscales": [{"axes": axes, "datasets": listed, **more}]}


# --- reading ------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
def test_every_level_of_a_foreign_pyramid_opens_where_it_lies(tmp_path: Path, format_: str) -> None:
    coarse = ARRAY[:, ::2, ::2]
    uri = foreign(
        tmp_path / "em.ome.zarr",
        format_,
        {"0": ARRAY, "1": coarse},
        image(
            [scale(30, 6, 4), translation(300, 120, -40)],
            [scale(30, 12, 8), translation(300, 123, -38)],
        ),
    )
    with open_volume(uri) as volume:
        assert volume.voxel_size == VoxelSize(30, 6, 4)
        assert volume.offset == (10, 20, -10)
        assert volume.notices == ()
        np.testing.assert_array_equal(volume.read(), ARRAY)
        fine, second = volume.levels
        assert fine is volume
        assert second.voxel_size == VoxelSize(30, 12, 8)
        assert second.offset == (10, 10, -5)
        np.testing.assert_array_equal(second.read(), coarse)
        assert second.levels == volume.levels
    with open_volume(uri, level=1) as volume:
        assert volume.box == second.box
        assert volume.levels[1] is volume
        np.testing.assert_array_equal(volume.read(), coarse)
    with pytest.raises(OptionError, match="has no level 2: it has 2, counted from 0"):
        open_volume(uri, level=2)


def test_a_level_whose_translation_leaves_out_the_half_voxel_is_understood(
    tmp_path: Path,
) -> None:
    steps = (
        [scale(30, 6, 4), translation(300, 120, 40)],
        [scale(30, 12, 8), translation(300, 120, 40)],
    )
    uri = foreign(tmp_path / "em.zarr", "zarr", {"0": ARRAY, "1": ARRAY}, image(*steps))
    with open_volume(uri, level=1) as volume:
        assert volume.offset == (10, 10, 5)


def test_a_translation_between_voxels_is_rounded_with_a_notice(tmp_path: Path) -> None:
    steps = [scale(30, 6, 4)], [scale(30, 12, 8), translation(0, 29, 0)]
    uri = foreign(tmp_path / "em.zarr", "zarr", {"0": ARRAY, "1": ARRAY}, image(*steps))
    with open_volume(uri) as volume:
        assert volume.notices == ()
        assert volume.offset == (0, 0, 0)
    with open_volume(uri, level=1) as volume:
        (notice,) = volume.notices
        assert "begins between voxels" in notice
        assert volume.offset == (0, 2, 0)


@pytest.mark.parametrize("names", ["tczyx", "czyx", "xyz", "yxzc", "zcyx"])
def test_axes_may_come_in_any_order(tmp_path: Path, names: str) -> None:
    sizes = {"t": (1.0, 0.0), "c": (1.0, 0.0), "z": (30, 300), "y": (6, 120), "x": (4, -40)}
    types = {"t": "time", "c": "channel"}
    axes = [{"name": n, "type": types.get(n, "space"), "unit": "nanometer"} for n in names]
    stored = np.stack([ARRAY, ARRAY + 1000])[None]  # t, c, z, y, x
    stored = stored if "t" in names else stored[0]
    if "c" not in names:
        stored = stored[1]
    have = [letter for letter in "tczyx" if letter in names]
    stored = np.ascontiguousarray(stored.transpose([have.index(n) for n in names]))
    steps = [scale(*(sizes[n][0] for n in names)), translation(*(sizes[n][1] for n in names))]
    uri = foreign(tmp_path / "em.zarr", "zarr", {"0": stored}, image(steps, axes=axes))
    with open_volume(uri, channel=1 if "c" in names else None) as volume:
        assert (volume.voxel_size, volume.offset) == (VoxelSize(30, 6, 4), (10, 20, -10))
        np.testing.assert_array_equal(volume.read(), ARRAY + 1000)


@pytest.mark.parametrize(
    ("unit", "in_nm"),
    [("micrometer", 1e3), ("millimeter", 1e6), ("angstrom", 0.1), ("nanometer", 1.0), ("µm", 1e3)],
)
def test_units_become_nanometres(tmp_path: Path, unit: str, in_nm: float) -> None:
    axes = [{"name": letter, "type": "space", "unit": unit} for letter in "zyx"]
    steps = [scale(30 / in_nm, 6 / in_nm, 4 / in_nm), translation(60 / in_nm, 0, -40 / in_nm)]
    uri = foreign(tmp_path / "em.zarr", "zarr", {"0": ARRAY}, image(steps, axes=axes))
    with open_volume(uri) as volume:
        assert volume.voxel_size == VoxelSize(30, 6, 4)
        assert volume.offset == (2, 0, -10)


def test_scales_without_a_unit_leave_the_voxel_size_unknown_and_say_so(tmp_path: Path) -> None:
    axes = [{"name": letter, "type": "space"} for letter in "zyx"]
    uri = foreign(tmp_path / "em.zarr", "zarr", {"0": ARRAY}, image([scale(1, 1, 1)], axes=axes))
    with open_volume(uri) as volume:
        assert volume.voxel_size is None
        (notice,) = volume.notices
        assert "states no unit of length" in notice


def test_transformations_of_the_whole_image_follow_those_of_its_levels(tmp_path: Path) -> None:
    attributes = image(
        [scale(1, 1, 1), translation(2, 0, 0)],
        coordinateTransformations=[scale(30, 6, 4), translation(30, 0, 8)],
    )
    uri = foreign(tmp_path / "em.zarr", "zarr", {"0": ARRAY}, attributes)
    with open_volume(uri) as volume:
        assert volume.voxel_size == VoxelSize(30, 6, 4)
        assert volume.offset == (3, 0, 2)


@pytest.mark.parametrize("axes", [None, ["t", "c", "z", "y", "x"]], ids=["0.2", "0.3"])
def test_earlier_versions_are_read_without_a_position(tmp_path: Path, axes: Any) -> None:
    attributes = image([], axes=axes)
    uri = foreign(tmp_path / "em.zarr", "zarr", {"0": ARRAY[None, None]}, attributes)
    with open_volume(uri) as volume:
        assert volume.voxel_size is None
        np.testing.assert_array_equal(volume.read(), ARRAY)


@pytest.mark.parametrize("format_", FORMATS)
def test_one_array_of_a_group_finds_its_place_in_the_group(tmp_path: Path, format_: str) -> None:
    steps = [scale(30, 6, 4)], [scale(30, 12, 8), translation(30, 3, 2)]
    folder = tmp_path / "em.zarr"
    foreign(folder, format_, {"0": ARRAY, "1": ARRAY}, {**image(*steps), "image-label": {}})
    for uri in (f"{folder}@1", f"{format_}://{folder / '1'}"):
        with open_volume(uri) as volume:
            assert volume.voxel_size == VoxelSize(30, 12, 8)
            assert volume.offset == (1, 0, 0)
            assert volume.kind is Kind.LABELS
            assert volume.levels == (volume,)


def test_a_pyramid_inside_another_group_is_opened_by_its_name(tmp_path: Path) -> None:
    root = tmp_path / "em.zarr"
    root.mkdir()
    (root / ".zgroup").write_text('{"zarr_format": 2}', encoding="utf-8")
    foreign(root / "raw", "zarr", {"0": ARRAY}, image([scale(30, 6, 4)]))
    with open_volume(root) as volume:
        assert volume.voxel_size == VoxelSize(30, 6, 4)
    labels = {**image([scale(30, 6, 4)]), "image-label": {"version": "0.4"}}
    foreign(root / "labels", "zarr", {"0": ARRAY}, labels)
    with open_volume(f"{root}@labels") as volume:
        assert volume.kind is Kind.LABELS
    with pytest.raises(VolumeFormatError, match="holds labels, raw: name one"):
        open_volume(root)


@pytest.mark.parametrize("names", [["y", "x"], ["c", "y", "x"]])
def test_an_image_without_z_is_refused(tmp_path: Path, names: list[str]) -> None:
    array = ARRAY[0] if len(names) == 2 else ARRAY
    axes = [{"name": name, "type": "space"} for name in names]
    attributes = image([scale(*[1] * len(names))], axes=axes)
    uri = foreign(tmp_path / "em.zarr", "zarr", {"0": array}, attributes)
    with pytest.raises(VolumeFormatError, match=r"a volume needs z, y and x.*--axes"):
        open_volume(uri)
    if len(names) == 3:
        with open_volume(uri, axes="zyx") as volume:
            np.testing.assert_array_equal(volume.read(), ARRAY)


@pytest.mark.parametrize("path", ["../other", "/etc", "a/../../b", "C:/x", "..\\x", ""])
def test_a_level_outside_the_group_is_refused(tmp_path: Path, path: str) -> None:
    attributes = image([scale(1, 1, 1)])
    attributes["multiscales"][0]["datasets"][0]["path"] = path
    uri = foreign(tmp_path / "em.zarr", "zarr", {"0": ARRAY}, attributes)
    with pytest.raises(UnsafeFileError, match="which is not inside it"):
        open_volume(uri)


@pytest.mark.parametrize(
    "damage",
    [
        {"multiscales": [7]},
        {"multiscales": "0"},
        {"multiscales": [{"axes": ZYX, "datasets": []}]},
        {"multiscales": [{"axes": ZYX, "datasets": [{"path": 0}]}]},
        {"multiscales": [{"axes": 3, "datasets": [{"path": "0"}]}]},
        image([scale(30, 6)]),
        image([scale(30, 6, 0)]),
        image([scale(30, 6, float("nan"))]),
        image([scale(30, 6, "4 nm")]),
        image([{"type": "scale", "path": "elsewhere"}]),
        image([{"type": "affine", "affine": [[1]]}]),
        image([{"scale": [1, 1, 1]}]),
        image([scale(1, 1, 1), translation(0, 0, 1e300)]),
    ],
    ids=str,
)
def test_damaged_metadata_give_one_sentence(tmp_path: Path, damage: dict[str, Any]) -> None:
    uri = foreign(tmp_path / "em.zarr", "zarr", {"0": ARRAY}, damage)
    with pytest.raises(FloodemError) as caught:
        open_volume(uri)
    assert "\n" not in str(caught.value)
    with pytest.raises(FloodemError):
        open_volume(f"{uri}@0")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("format_", FORMATS)
def test_a_pyramid_is_read_over_http(tmp_path: Path, served: str, format_: str) -> None:
    steps = [scale(30, 6, 4)], [scale(30, 12, 8), translation(30, 3, 2)]
    foreign(tmp_path / "em", format_, {"0": ARRAY, "1": ARRAY + 1}, image(*steps))
    with open_volume(f"{format_}://{served}/em") as volume:
        assert volume.levels[1].offset == (1, 0, 0)
        np.testing.assert_array_equal(volume.levels[1].read(), ARRAY + 1)
    with open_volume(f"{format_}://{served}/em/1") as volume:
        assert volume.voxel_size == VoxelSize(30, 12, 8)


# --- writing ------------------------------------------------------------------------------

LEVELS = ((1, 2, 2), (2, 4, 4))


def write_pyramid(uri: str, **facts: Any) -> list[np.ndarray]:
    facts = {"voxel_size": VoxelSize(30, 6, 4), "offset": (10, 21, 30), "levels": LEVELS} | facts
    written = []
    with create_volume(uri, shape=SHAPE, dtype="uint32", chunks=(2, 3, 4), **facts) as volume:
        for number, level in enumerate(volume.levels):
            written.append(np.full(level.shape, number + 1, np.uint32))
            level.write(level.box, written[-1])
    return written


def uri_of(folder: Path, format_: str) -> str:
    return f"{format_}://{folder / 'em.ome.zarr'}"


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("kind", [None, Kind.IMAGE, Kind.LABELS])
def test_a_pyramid_that_we_wrote_comes_back(
    tmp_path: Path, format_: str, kind: Kind | None
) -> None:
    written = write_pyramid(uri_of(tmp_path, format_), kind=kind)
    assert [entry.name for entry in tmp_path.iterdir()] == ["em.ome.zarr"]
    with open_volume(uri_of(tmp_path, format_)) as volume:
        boxes = [level.box for level in volume.levels]
        assert boxes == [
            Box((10, 21, 30), (15, 27, 37)),
            Box((10, 10, 15), (15, 14, 19)),
            Box((5, 5, 7), (8, 7, 10)),
        ]
        sizes = [level.voxel_size for level in volume.levels]
        assert sizes == [VoxelSize(30, 6, 4), VoxelSize(30, 12, 8), VoxelSize(60, 24, 16)]
        assert {level.kind for level in volume.levels} == {kind}
        for level, array in zip(volume.levels, written, strict=True):
            np.testing.assert_array_equal(level.read(), array)


@pytest.mark.parametrize("format_", FORMATS)
def test_the_groups_metadata_say_the_same_as_our_own_blocks(tmp_path: Path, format_: str) -> None:
    """Without our blocks, as after a foreign copy, every level still lies where it did."""
    write_pyramid(uri_of(tmp_path, format_), kind=Kind.LABELS)
    with open_volume(uri_of(tmp_path, format_)) as volume:
        before = [(level.box, level.voxel_size, level.kind) for level in volume.levels]
    name = ".zattrs" if format_ == "zarr" else "zarr.json"
    for number in range(3):
        path = tmp_path / "em.ome.zarr" / str(number) / name
        document = json.loads(path.read_text(encoding="utf-8"))
        (document if format_ == "zarr" else document["attributes"]).pop("floodem")
        path.write_text(json.dumps(document), encoding="utf-8")
    with open_volume(uri_of(tmp_path, format_)) as volume:
        assert [(level.box, level.voxel_size, level.kind) for level in volume.levels] == before


def models(format_: str) -> tuple[Any, Any]:
    """The validators of images and labels, completed with the types they were written with."""
    version, of_zarr = ("v04", "v2") if format_ == "zarr" else ("v05", "v3")
    package = imported(f"ome_zarr_models.{version}")
    types = vars(imported(f"pydantic_zarr.{of_zarr}"))
    for model in (package.Image, package.ImageLabel):
        model.model_rebuild(_types_namespace=types)
    return package.Image, package.ImageLabel


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("voxel_size", [VoxelSize(30.5, 6, 4), None])
def test_the_validator_accepts_what_we_write(
    tmp_path: Path, format_: str, voxel_size: VoxelSize | None
) -> None:
    zarr = imported("zarr")
    image_model, labels_model = models(format_)
    write_pyramid(uri_of(tmp_path, format_), kind=Kind.LABELS, voxel_size=voxel_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        group = zarr.open_group(tmp_path / "em.ome.zarr", mode="r")
        found = image_model.from_zarr(group)
        labels_model.from_zarr(group)
    attributes = getattr(found.attributes, "ome", found.attributes)
    assert [d.path for d in attributes.multiscales[0].datasets] == ["0", "1", "2"]


@pytest.mark.parametrize("format_", FORMATS)
def test_zarr_python_reads_what_we_write(tmp_path: Path, format_: str) -> None:
    zarr = imported("zarr")
    shards = {"shards": (4, 6, 8)} if format_ == "zarr3" else {}
    written = write_pyramid(uri_of(tmp_path, format_), **shards)
    group = zarr.open_group(tmp_path / "em.ome.zarr", mode="r")
    for number, array in enumerate(written):
        np.testing.assert_array_equal(group[str(number)][:], array)
    if shards:
        assert group["0"].shards == (4, 6, 8)
        assert group["0"].chunks == (2, 3, 4)


def test_an_unknown_voxel_size_stays_unknown_in_every_level(tmp_path: Path) -> None:
    write_pyramid(uri_of(tmp_path, "zarr"), voxel_size=None)
    with open_volume(uri_of(tmp_path, "zarr")) as volume:
        assert [level.voxel_size for level in volume.levels] == [None] * 3
        assert volume.levels[2].offset == (5, 5, 7)
        assert volume.notices == ()


@pytest.mark.parametrize("format_", FORMATS)
def test_a_group_is_replaced_when_asked_unless_it_holds_more(tmp_path: Path, format_: str) -> None:
    uri = uri_of(tmp_path, format_)
    write_pyramid(uri)
    with pytest.raises(DestinationExistsError, match="exists already"):
        write_pyramid(uri)
    write_pyramid(uri, overwrite=True, levels=())
    with open_volume(uri) as volume:
        assert len(volume.levels) == 1
    (tmp_path / "em.ome.zarr" / "labels").mkdir()
    with pytest.raises(DestinationExistsError, match="a folder with other contents"):
        write_pyramid(uri, overwrite=True)
    assert (tmp_path / "em.ome.zarr" / "labels").is_dir()
