"""The old programs that prepare data: what they wrote, what they printed, what they stand for."""

from __future__ import annotations

import gzip
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from floodem.cli.main import main
from floodem.errors import FloodemError, OptionError, UsageError, VolumeNotFoundError
from floodem.legacy.programs import PROGRAM_NAMES, Console, find_program
from floodem.legacy.programs.compute_partitions import parse_spheres
from floodem.training.coordinates.partitioning import Sphere
from reference import partitions as twin

THRESHOLDS = "0.025,0.05,0.075,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9"
PREPARING = ("png_to_h5", "png_mean_std", "compute_partitions", "build_coordinates")


def translated(name, *words):
    program = find_program(name)
    return program.translation(program.parse(words))


def run(name, *words):
    """Run an old program here; give what it says, and what it notes."""
    said, noted = [], []
    console = Console(
        say=said.append, notice=noted.append, progress=None, should_stop=lambda: False
    )
    translation = translated(name, *words)
    noted += translation.notes
    translation.work(console)
    return said, noted


def typed(command):
    """Run a floodem command line in this process."""
    assert command[0] == "floodem"
    with pytest.raises(SystemExit) as ended:
        main(list(command[1:]))
    assert ended.value.code == 0


def write_h5(path, array, dataset="stack"):
    with h5py.File(path, "a") as file:
        file.create_dataset(dataset, data=array)
    return array


def read_h5(path, dataset="af"):
    with h5py.File(path) as file:
        return file[dataset][()], dict(file[dataset].attrs)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cubes(shape=(14, 15, 16)):
    """Objects of several sizes, and background."""
    labels = np.zeros(shape, np.int64)
    labels[:, :, :7] = 3
    labels[:, 2:9, 8:] = 7
    labels[5:8, 10:, 10:] = 2**40
    labels[0, 0, 15] = 9
    return labels


@pytest.mark.parametrize("name", PREPARING)
def test_programs_are_found_with_and_without_their_ending(name):
    assert find_program(f"{name}.py") is find_program(name)
    assert find_program(name).name == name


def test_an_unknown_program_is_named_with_the_nearest():
    with pytest.raises(UsageError, match=r"no old program 'trian': did you mean train\?"):
        find_program("trian")
    assert len(PROGRAM_NAMES) == 9


@pytest.mark.parametrize("name", PREPARING)
def test_every_flag_has_a_sentence_of_help(name):
    text = list(find_program(name).help_lines())
    assert find_program(name).summary in text
    for flag in find_program(name).flags:
        assert flag.help.endswith(".")


@pytest.mark.parametrize("name", PROGRAM_NAMES)
def test_flags_that_the_old_program_had_not_are_all_called_the_same(name):
    lines = " ".join(line.strip() for line in find_program(name).help_lines())
    assert "(floodem's own)" in lines
    assert "(new)" not in lines


# png_to_h5, png_mean_std


def write_images(folder, values, *, names):
    for value, name in zip(values, names, strict=True):
        Image.fromarray(value).save(folder / name)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_images_become_one_dataset_in_natural_order(here, dtype):
    values = (np.arange(3 * 4 * 5).reshape(3, 4, 5) * 4).astype(dtype)
    write_images(here, values, names=["z10.png", "z2.png", "z1.png"])
    said, noted = run("png_to_h5", "out.h5")
    assert said == [f"out.h5@raw: 3 sections of 4 x 5 (y,x), {np.dtype(dtype)}"]
    with h5py.File(here / "out.h5") as file:
        assert list(file) == ["raw"]
        assert file["raw"].dtype == dtype
        assert file["raw"].compression == "gzip"
        assert np.array_equal(file["raw"], values[::-1])
    assert not any("replaced" in note for note in noted)


def test_images_replace_the_dataset_of_an_earlier_run_and_say_so(here):
    write_images(here, np.full((1, 2, 2), 9, np.uint8), names=["a.png"])
    write_h5(here / "out.h5", np.zeros((2, 2, 2)), "raw")
    write_h5(here / "out.h5", np.ones((2, 2, 2)), "other")
    _, noted = run("png_to_h5", "out.h5")
    assert any("a dataset raw in it is replaced" in note for note in noted)
    assert (read_h5(here / "out.h5", "raw")[0] == 9).all()
    assert (read_h5(here / "out.h5", "other")[0] == 1).all()


def test_nothing_but_the_file_is_left_and_a_second_run_speaks_of_no_other(here):
    write_images(here, np.full((1, 2, 2), 9, np.uint8), names=["a.png"])
    _, first = run("png_to_h5", "out.h5")
    assert sorted(one.name for one in here.iterdir()) == ["a.png", "out.h5"]
    write_h5(here / "out.h5", np.ones((2, 2, 2)), "other")
    _, second = run("png_to_h5", "out.h5")
    assert not any("other files" in note for note in (*first, *second))
    assert sorted(one.name for one in here.iterdir()) == ["a.png", "out.h5"]


def test_what_others_keep_in_the_folder_of_the_record_stays(here):
    write_images(here, np.full((1, 2, 2), 9, np.uint8), names=["a.png"])
    (here / "out.h5@raw.floodem").mkdir()
    (here / "out.h5@raw.floodem" / "mine.txt").write_text("mine", encoding="utf-8")
    run("png_to_h5", "out.h5")
    left = {one.name for one in (here / "out.h5@raw.floodem").iterdir()}
    assert left - {"lock"} == {"mine.txt"}


def test_a_file_without_a_known_ending_is_hdf5_as_well(here):
    write_images(here, np.full((1, 2, 2), 9, np.uint8), names=["a.png"])
    run("png_to_h5", "images")
    assert (read_h5(here / "images", "raw")[0] == 9).all()


def test_colour_images_want_a_channel(here):
    write_images(here, np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3), names=["a.png"])
    with pytest.raises(FloodemError, match="--channel"):
        run("png_to_h5", "out.h5")
    assert not (here / "out.h5").exists()
    run("png_to_h5", "out.h5", "--channel=1")
    assert read_h5(here / "out.h5", "raw")[0][0, 0].tolist() == [1, 4, 7, 10]


def test_a_folder_without_images_is_refused(here):
    with pytest.raises(FloodemError, match="holds no png sections"):
        run("png_mean_std")
    with pytest.raises(UsageError, match=r"png_to_h5 needs OUT\.h5"):
        run("png_to_h5")
    with pytest.raises(UsageError, match="no use for 'b'"):
        run("png_to_h5", "a", "b")


def test_mean_and_deviation_are_rounded_as_numpy_rounds_them(here):
    values = np.random.default_rng(0).integers(0, 256, (3, 7, 5)).astype(np.uint8)
    write_images(here, values, names=["0.png", "1.png", "2.png"])
    said, _ = run("png_mean_std")
    assert said == [
        f"Mean:  {np.round(values.mean()).astype(int)}",
        f"Std :  {np.round(values.std()).astype(int)}",
    ]


def test_the_shared_images_have_the_documented_mean_and_deviation(shared_data, monkeypatch):
    monkeypatch.chdir(shared_data / "snemi3d" / "images")
    assert run("png_mean_std")[0] == ["Mean:  132", "Std :  61"]


# compute_partitions


@pytest.mark.parametrize("separator", ":@")
@pytest.mark.parametrize("radius_xyz", ["24,24,24", "24,24,12"])
def test_the_golden_partitions_come_out(here, shared_data, separator, radius_xyz):
    golden = shared_data / "golden"
    with h5py.File(golden / "partitions-labels.h5") as file:
        (name,) = file
    run(
        "compute_partitions",
        "--input_volume",
        f"{golden / 'partitions-labels.h5'}{separator}{name}",
        "--output_volume",
        f"made{separator}af/af.h5{separator}af" if separator == "@" else "af.h5:af",
        "--thresholds",
        THRESHOLDS,
        "--lom_radius",
        radius_xyz,
        "--min_size",
        "10000",
    )
    made, attributes = read_h5(here / "made@af" / "af.h5" if separator == "@" else here / "af.h5")
    expected, wanted = read_h5(golden / f"partitions-{radius_xyz.replace(',', '-')}.h5")
    assert made.dtype == expected.dtype
    assert np.array_equal(made, expected)
    assert sorted(attributes) == sorted(wanted)
    for key, value in wanted.items():
        assert np.array_equal(attributes[key], value)
    with h5py.File(here / "made@af" / "af.h5" if separator == "@" else here / "af.h5") as file:
        assert (file["af"].fillvalue, file["af"].compression) == (255, "gzip")


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (("--min_size=1",), {"min_size": 1}),
        (("--min_size=0",), {"min_size": 1}),
        (("--min_size=100", "--id_whitelist=7,1099511627776"), {"ids": {7, 2**40}}),
        (("--min_size=100", "--exclusion_regions=2:7:5:3"), {"spheres": [(5, 7, 2, 3)]}),
        (("--min_size=100", "--exclusion_regions=2,7,5,3"), {"spheres": [(5, 7, 2, 3)]}),
        (
            ("--min_size=100", "--exclusion_regions=2:7:5:3,12:3:3:2.5"),
            {"spheres": [(5, 7, 2, 3), (3, 3, 12, 2.5)]},
        ),
    ],
)
def test_every_flag_does_what_its_name_says(here, words, options):
    labels = write_h5(here / "gt.h5", cubes())
    run(
        "compute_partitions",
        *("--input_volume=gt.h5:stack", "--output_volume=af.h5:af"),
        *("--thresholds=0.3,0.6", "--lom_radius=3,2,1", *words),
    )
    wanted = {"min_size": 100, **options}
    expected = twin.partitions(labels, thresholds=(0.3, 0.6), radius=(1, 2, 3), **wanted)
    assert np.array_equal(read_h5(here / "af.h5")[0], expected)


MASKS = {
    "masks { coordinate_expression { expression: 'x + 0 * y + 0 * z > 12' } }": (
        lambda mask, z, y, x: x > 12
    ),
    "masks { coordinate_expression { expression: 'z < 4' } invert: true }": (
        lambda mask, z, y, x: z >= 4
    ),
    "masks { volume { mask { hdf5: 'mask.h5:m' } channels { channel: 0 values: 2 } } }": (
        lambda mask, z, y, x: mask == 2
    ),
    "masks { volume { mask { hdf5: 'mask.h5@m' } "
    "channels { channel: 0 min_value: 1 max_value: 2 invert: true } } }": (
        lambda mask, z, y, x: (mask < 1) | (mask > 2)
    ),
    "masks { coordinate_expression { expression: 'z < 4' } } "
    "masks { volume { mask { hdf5: 'mask.h5:m' } channels { channel: 0 values: 2 } } }": (
        lambda mask, z, y, x: (z < 4) | (mask == 2)
    ),
    "masks { volume { mask { hdf5: 'mask.h5:m' } "
    "channels { channel: 0 values: 2 } channels { channel: 0 values: 0 } } invert: true }": (
        lambda mask, z, y, x: mask == 1
    ),
}


@pytest.mark.parametrize("as_file", [False, True])
@pytest.mark.parametrize("text", MASKS)
def test_masks_of_a_message_exclude_what_is_near_them(here, text, as_file):
    labels = write_h5(here / "gt.h5", cubes())
    values = np.ones(labels.shape, np.uint8)
    values[8:, 3:5, 4:6] = 2
    values[0, 0, 0] = 0
    write_h5(here / "mask.h5", values, "m")
    if as_file:
        (here / "masks.txt").write_text(text, encoding="utf-8")
    words = (
        *("--input_volume=gt.h5:stack", "--output_volume=af.h5:af", "--min_size=100"),
        *("--thresholds=0.3,0.6", "--lom_radius=2,1,1"),
        *("--mask_configs", "masks.txt" if as_file else text),
    )
    _, noted = run("compute_partitions", *words)
    expected = twin.partitions(
        labels,
        thresholds=(0.3, 0.6),
        radius=(1, 1, 2),
        min_size=100,
        mask=MASKS[text](values, *np.indices(labels.shape)),
    )
    assert np.array_equal(read_h5(here / "af.h5")[0], expected)
    assert not any("mask" in note for note in noted)
    remarks = translated("compute_partitions", *words).remarks
    assert any("no --mask of floodem" in remark for remark in remarks) == ("values: 0" in text)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"--lom_radius": "24,24"}, "--lom_radius '24,24' is not three whole numbers: write x,y,z"),
        ({"--lom_radius": "24,24,2.5"}, "--lom_radius: '2.5' is no whole number"),
        ({"--thresholds": "0.025,...,0.9"}, r"--thresholds: '\.\.\.' is no number"),
        ({"--thresholds": "0.5,0.1"}, "do not ascend"),
        ({"--id_whitelist": "3,x"}, "--id_whitelist: 'x' is no whole number"),
        ({"--exclusion_regions": "1,2,3"}, "1:2:3 is no sphere"),
        ({"--exclusion_regions": "1:2:3:4,5"}, "5 is no sphere"),
        ({"--exclusion_regions": "1:2:3:r"}, "'r' is no number"),
        ({"--mask_configs": "masks { nonsense: 1 }"}, "--mask_configs.*nonsense"),
        ({"--mask_configs": "masks { image { channels { values: 1 } } }"}, "looks at an image"),
        ({"--output_volume": "gt.h5:stack"}, "would replace them"),
        ({"--input_volume": "missing.h5:stack"}, r"no missing\.h5"),
        ({"--input_volume": "gt.h5:nope"}, "nope"),
    ],
)
def test_bad_input_is_named_and_what_was_written_before_stays(here, changed, says):
    write_h5(here / "gt.h5", cubes())
    (here / "af.h5").write_bytes(before := (here / "gt.h5").read_bytes())
    flags = {
        "--input_volume": "gt.h5:stack",
        "--output_volume": "af.h5:af",
        "--thresholds": "0.3",
        "--lom_radius": "1,1,1",
        "--min_size": "1",
    }
    words = [word for pair in {**flags, **changed}.items() for word in pair]
    with pytest.raises(FloodemError, match=says):
        run("compute_partitions", *words)
    assert (here / "af.h5").read_bytes() == before


def test_all_missing_flags_of_partitions_are_named():
    with pytest.raises(UsageError, match="--input_volume and --output_volume and --thresholds"):
        translated("compute_partitions", "--lom_radius=1,1,1")


def test_spheres_are_turned_to_z_y_x():
    assert parse_spheres(["1:2:3:4"]) == (Sphere(centre=(3, 2, 1), radius=4),)
    assert parse_spheres(["1", "2", "3", "4", "5", "6", "7", "8"]) == (
        Sphere(centre=(3, 2, 1), radius=4),
        Sphere(centre=(7, 6, 5), radius=8),
    )
    assert parse_spheres([]) == ()
    with pytest.raises(OptionError, match="radius below 0"):
        parse_spheres(["1:2:3:-4"])


def test_the_partition_command_it_stands_for_does_the_same(here):
    write_h5(here / "gt.h5", cubes())
    write_h5(here / "mask.h5", (cubes() == 3).astype(np.uint8), "m")
    masks = (
        "masks { volume { mask { hdf5: 'mask.h5:m' } channels { channel: 0 values: 1 } } } "
        "masks { coordinate_expression { expression: 'z < 4' } invert: false }"
    )
    words = (
        *("--input_volume=gt.h5:stack", "--output_volume=af.h5:af", "--min_size=100"),
        *("--thresholds=0.3,0.6", "--lom_radius=2,1,1", "--id_whitelist=3,7"),
        *("--exclusion_regions=2:7:5:3,12:3:3:2.5", "--mask_configs", masks),
    )
    run("compute_partitions", *words)
    expected = read_h5(here / "af.h5")[0]
    (here / "af.h5").unlink()
    for command in translated("compute_partitions", *words).commands:
        typed(command)
    assert np.array_equal(read_h5(here / "af.h5")[0], expected)


# build_coordinates


def records(path):
    """(name, (x, y, z)) of each record, told by the bytes of the historic message alone."""
    data, at, found = gzip.decompress(Path(path).read_bytes()), 0, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 8], "little")
        record = data[at + 12 : at + 12 + size]
        at += size + 16
        found.append(_record(record))
    return found


def _record(record):
    # Example { features { feature { key, value { int64_list | bytes_list } } } }
    values = {}
    for _, entry in _fields(_one(record)):
        pair = dict(_fields(entry))
        ((kind, held),) = _fields(pair[2])
        ((_, inner),) = _fields(held)
        values[pair[1].decode()] = inner.decode() if kind == 1 else _varints(inner)
    return values["label_volume_name"], tuple(values["center"])


def _one(message):
    ((_, inner),) = _fields(message)
    return inner


def _varints(data):
    found, value, shift = [], 0, 0
    for byte in data:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            found.append(value)
            value = shift = 0
    return found


def _fields(message):
    at = 0
    while at < len(message):
        ends = at
        while message[ends] > 127:
            ends += 1
        (key,) = _varints(message[at : ends + 1])
        at = ends = ends + 1
        while message[ends] > 127:
            ends += 1
        (length,) = _varints(message[at : ends + 1])
        at = ends + 1
        yield key >> 3, message[at : at + length]
        at += length


def write_partitions(path):
    partitions = np.zeros((6, 7, 8), np.uint8)
    partitions[2:, :, :] = 1
    partitions[4, 3:5, 3:6] = 2
    partitions[:, :, 0] = 255
    return write_h5(path, partitions, "af")


@pytest.mark.parametrize("margin_zyx", [(0, 0, 0), (1, 2, 3)])
@pytest.mark.parametrize("background", [False, True])
def test_centres_are_those_of_the_partitions_in_balance(here, margin_zyx, background):
    partitions = write_partitions(here / "af.h5")
    _, noted = run(
        "build_coordinates",
        *("--partition_volumes", "validation1@af.h5@af", "--coordinate_output", "coords"),
        *("--margin", ",".join(map(str, margin_zyx))),
        *(("--legacy-background",) if background else ()),
    )
    found = records(here / "coords")
    inside = np.zeros(partitions.shape, bool)
    (mz, my, mx), (nz, ny, nx) = margin_zyx, partitions.shape
    inside[mz : nz - mz, my : ny - my, mx : nx - mx] = True
    kept = (0, 1, 2) if background else (1, 2)
    expected = {value: np.argwhere((partitions == value) & inside) for value in kept}
    largest = max(len(places) for places in expected.values())
    assert len(found) == largest * len(kept)
    assert {name for name, _ in found} == {"validation1"}
    by_value = {value: [] for value in kept}
    for _, (x, y, z) in found:
        by_value[int(partitions[z, y, x])].append((z, y, x))
    for value, places in expected.items():
        assert {*by_value[value]} == {tuple(one) for one in places.tolist()}
        assert len(by_value[value]) == largest
    assert sum("background centres" in note for note in noted) == 1


def test_volumes_of_a_list_keep_their_names(here):
    write_partitions(here / "af.h5")
    write_partitions(here / "b.h5")
    run(
        "build_coordinates",
        *("--partition_volumes=a:af.h5:af,b@b.h5:af", "--coordinate_output=out/coords"),
        "--margin=0",
    )
    assert {name for name, _ in records(here / "out" / "coords")} == {"a", "b"}


def test_the_file_of_an_earlier_run_is_replaced_and_it_is_said(here):
    write_partitions(here / "af.h5")
    (here / "coords").write_bytes(b"old")
    words = ("--partition_volumes=a:af.h5:af", "--coordinate_output=coords", "--margin=0,0,0")
    _, noted = run("build_coordinates", *words)
    assert any("coords is there: it is replaced" in note for note in noted)
    assert records(here / "coords")


@pytest.mark.parametrize(
    ("shape", "margin", "is_said"),
    [
        ((100, 384, 512), "24,24,24", True),
        ((100, 200, 200), "13", True),
        ((100, 199, 512), "24,24,24", False),
        ((520, 520, 520), "24,24,24", False),
        ((100, 384, 512), "12,24,24", False),
        ((100, 384, 512), "12,12,12", False),
        ((100, 384, 512), "16,24,24", False),
    ],
)
def test_the_margin_that_is_too_deep_for_thick_sections_is_said_once(here, shape, margin, is_said):
    with h5py.File(here / "af.h5", "w") as file:
        file.create_dataset("af", shape=shape, dtype=np.uint8, chunks=True)
    words = ("--partition_volumes=a:af.h5:af,b:af.h5:af", "--coordinate_output=coords")
    notes = translated("build_coordinates", *words, "--margin", margin).notes
    assert sum("more than a field of view 17 deep needs" in note for note in notes) == is_said


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (("--margin=1,2",), OptionError, "write z,y,x"),
        (("--margin=9,9,9",), FloodemError, "margin"),
        (("--margin=0", "--partition_volumes=af.h5:af"), UsageError, "is not a named volume"),
        (("--margin=0", "--partition_volumes="), UsageError, "is empty"),
        (("--margin=0", "--partition_volumes=a:no.h5:af"), VolumeNotFoundError, r"no no\.h5"),
    ],
)
def test_bad_coordinates_are_refused_and_the_old_file_stays(here, words, error, says):
    write_partitions(here / "af.h5")
    (here / "coords").write_bytes(b"old")
    given = ("--partition_volumes=a:af.h5:af", "--coordinate_output=coords")
    with pytest.raises(error, match=says):
        run("build_coordinates", *given, *words)
    assert (here / "coords").read_bytes() == b"old"


@pytest.mark.parametrize("background", [False, True])
def test_the_sample_command_it_stands_for_does_the_same(here, background):
    write_partitions(here / "af.h5")
    words = (
        *("--partition_volumes=a:af.h5:af", "--coordinate_output=coords", "--margin=1,1,1"),
        *(("--legacy_background",) if background else ()),
    )
    run("build_coordinates", *words)
    expected = records(here / "coords")
    (here / "coords").unlink()
    for command in translated("build_coordinates", *words).commands:
        typed(command)
    assert records(here / "coords") == expected
