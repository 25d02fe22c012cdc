"""The folder of the old documentation: what is in it, that it runs, that it replaces nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from floodem.errors import FloodemError, OptionError, StorageError, VolumeNotFoundError
from floodem.legacy import storage
from floodem.legacy.layout import FOLDERS, laid_out_files, lay_out
from floodem.legacy.programs import PROGRAM_NAMES
from floodem.legacy.requests.text import parse_text
from floodem.legacy.results import OriginInfo, read_subvolume, subvolume_path, write_subvolume
from floodem.legacy.results.probabilities import quantise, write_probabilities

REPOSITORY = Path(__file__).resolve().parents[1]
INSTALLED_BY = 'pip install ".[notebooks]" -c constraints.txt'
ORIGINS = {3: OriginInfo((0, 0, 1), 5, 1.5), 9: OriginInfo((1, 1, 1), 2, 0.5)}


def python(folder, *words):
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
        check=False,
        timeout=120,
    )


def files_in(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_repository_holds_the_same_folder():
    packaged = {str(name): data for name, data in laid_out_files()}
    top = {
        name: data.replace(b"\r\n", b"\n") for name, data in files_in(REPOSITORY / "legacy").items()
    }
    assert {name: data.replace(b"\r\n", b"\n") for name, data in packaged.items()} == top


def test_the_wheel_is_told_of_every_file():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["floodem"]
    package = REPOSITORY / "src" / "floodem"
    carried = {path for pattern in patterns for path in package.glob(pattern)}
    for name, _ in laid_out_files():
        assert package / "legacy" / "layout" / "files" / name in carried


def test_everything_documented_is_laid_out(tmp_path):
    made = lay_out(tmp_path / "new" / "folder")
    found = files_in(tmp_path / "new" / "folder")
    assert {f"{name}.py" for name in PROGRAM_NAMES} <= set(found)
    comment, requirement = found["requirements.txt"].decode().splitlines()
    assert requirement == "floodem"
    assert comment.startswith("# ")
    assert INSTALLED_BY in comment
    assert {"configs/inference.pbtxt", "configs/inference_training_sample2.pbtxt"} <= set(found)
    assert len(made.written) == len(found)
    assert made.kept == ()
    for folder in FOLDERS:
        assert (tmp_path / "new" / "folder" / folder).is_dir()


def test_nothing_that_is_there_is_changed(tmp_path):
    (tmp_path / "train.py").write_text("mine", encoding="utf-8")
    first = lay_out(tmp_path)
    assert first.kept == (tmp_path / "train.py",)
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in files_in(tmp_path)}
    (tmp_path / "npz_png.py").unlink()
    second = lay_out(tmp_path)
    assert second.written == (tmp_path / "npz_png.py",)
    assert second.kept == first.kept
    assert (tmp_path / "train.py").read_text(encoding="utf-8") == "mine"
    after = {name: (tmp_path / name).stat().st_mtime_ns for name in before if name != "npz_png.py"}
    assert after == {name: before[name] for name in after}


def test_a_file_where_a_folder_should_be_is_named(tmp_path):
    (tmp_path / "configs").write_bytes(b"")
    with pytest.raises(StorageError, match="configs cannot be made, because a file is in the way"):
        lay_out(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="a file is in the way"):
        lay_out(tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "model", "image", "numbers"),
    [
        (
            "inference_training_sample2",
            "models/fib25/model.ckpt-27465036",
            "third_party/neuroproof_examples/training_sample2/grayscale_maps.h5:raw",
            (128, 33, 12, [33, 33, 33], [8, 8, 8]),
        ),
        (
            "inference",
            "training_results/model.ckpt-7000000",
            "preprocessed_files/images_for_inference.h5@raw",
            (131, 62, 9, [33, 33, 17], [8, 8, 4]),
        ),
    ],
)
def test_the_requests_are_those_of_the_documentation(name, model, image, numbers):
    text = (REPOSITORY / "legacy" / "configs" / f"{name}.pbtxt").read_text(encoding="utf-8")
    request = parse_text(text, message="InferenceRequest", source=name)
    assert request.get("image").get("hdf5") == image
    assert request.get("model_checkpoint_path") == model
    arguments = json.loads(request.get("model_args"))
    assert numbers == (
        request.get("image_mean"),
        request.get("image_stddev"),
        arguments["depth"],
        arguments["fov_size"],
        arguments["deltas"],
    )
    options = request.get("inference_options")
    assert [
        options.get(key)
        for key in (
            *("init_activation", "pad_value", "move_threshold"),
            *("segment_threshold", "min_segment_size"),
        )
    ] == [0.95, 0.05, 0.9, 0.6, 1000]
    assert not options.has("disco_seed_threshold")
    assert [options.get("min_boundary_dist").get(axis) for axis in "xyz"] == [1, 1, 1]


@pytest.mark.parametrize("name", ["png_mean_std", "compute_partitions"])
def test_scripts_run_from_any_working_directory(tmp_path, name):
    script = lay_out(tmp_path / "scripts").folders[0].parent / f"{name}.py"
    (tmp_path / "elsewhere").mkdir()
    listed = python(tmp_path / "elsewhere", str(script), "--helpfull")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.startswith(name)
    failed = python(tmp_path / "elsewhere", str(script))
    assert failed.returncode in {2, 3}
    assert failed.stderr.startswith("error: ")
    assert "Traceback" not in failed.stderr


def test_old_snippets_read_results_from_the_folder(tmp_path):
    lay_out(tmp_path)
    labels = np.zeros((2, 3, 4), np.uint8)
    labels[:, :, 0], labels[:, :, 2] = 3, 9
    write_result(tmp_path / "results" / "fib25", labels)
    snippet = (
        "from ffn.inference import storage\n"
        "seg, origins = storage.load_segmentation('results/fib25', (0, 0, 0), split_cc=False)\n"
        "print(seg.dtype, seg.shape, sorted(origins), origins[9].start_zyx)\n"
        "print(storage.OriginInfo is type(origins[9]))\n"
    )
    done = python(tmp_path, "-c", snippet)
    assert done.stdout.splitlines() == ["uint64 (2, 3, 4) [3, 9] (1, 1, 1)", "True"], done.stderr


def test_pickles_with_the_old_class_path_open_with_numpy_in_the_folder(tmp_path):
    lay_out(tmp_path)
    write_result(tmp_path, np.full((1, 1, 1), 3, np.uint8))
    snippet = (
        "import numpy\n"
        "data = numpy.load('0/0/seg-0_0_0.npz', allow_pickle=True)\n"
        "print(data['origins'].item()[9].iters)\n"
    )
    done = python(tmp_path, "-c", snippet)
    assert done.stdout == "2\n", done.stderr


# ffn.inference.storage


def write_result(folder, labels, *, corner=(0, 0, 0), flat=False, probabilities=None):
    path = subvolume_path(folder, corner, flat=flat)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_subvolume(
        path,
        segmentation=labels,
        origins=ORIGINS,
        overlaps={},
        request=b"",
        counters={},
        overwrite=False,
    )
    if probabilities is not None:
        write_probabilities(
            path.with_suffix(".prob"), quantised=quantise(probabilities), overwrite=False
        )


def pieces(labels, *, keep=lambda voxels: True):
    """6-connected pieces numbered by their first voxel, found by walking; and what they were."""
    found, was = np.zeros(labels.shape, np.uint64), {}
    for start in np.ndindex(labels.shape):
        if not labels[start] or found[start]:
            continue
        number = len(was) + 1
        was[number] = int(labels[start])
        waiting = [start]
        found[start] = number
        while waiting:
            voxel = waiting.pop()
            for axis in range(3):
                for step in (-1, 1):
                    near = list(voxel)
                    near[axis] += step
                    near = tuple(near)
                    inside = 0 <= near[axis] < labels.shape[axis]
                    if inside and not found[near] and labels[near] == labels[voxel]:
                        found[near] = number
                        waiting.append(near)
    for number in list(was):
        if not keep(np.count_nonzero(found == number)):
            found[found == number] = 0
            del was[number]
    return found, was


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(
        np.uint8,
        st.tuples(*[st.integers(1, 4)] * 3),
        elements=st.sampled_from([0, 3, 9, 20]),
        fill=st.nothing(),
    ),
    st.integers(0, 4),
    st.booleans(),
    st.booleans(),
)
def test_pieces_small_ones_and_origins_are_those_of_the_old_reader(
    tmp_path_factory, labels, min_size, split, flat
):
    folder = tmp_path_factory.mktemp("results")
    write_result(folder, labels, corner=(4, 5, 6), flat=flat)
    found, origins = storage.load_segmentation(folder, (4, 5, 6), split_cc=split, min_size=min_size)
    if split:
        expected, was = pieces(labels, keep=lambda voxels: voxels >= min_size)
    else:
        ids, voxels = np.unique(labels, return_counts=True)
        expected = np.where(np.isin(labels, ids[voxels >= min_size]), labels, 0)
        was = {int(one): int(one) for one in np.unique(expected) if one}
    assert found.dtype == np.uint64
    assert np.array_equal(found, expected)
    assert origins == {new: ORIGINS[old] for new, old in was.items() if old in ORIGINS}


def test_a_threshold_leaves_out_voxels_of_low_probability(tmp_path):
    labels = np.full((1, 1, 4), 3, np.uint8)
    probabilities = np.array([[[0.7, 0.9, 0.95, np.nan]]], np.float32)
    write_result(tmp_path, labels, probabilities=probabilities)
    found, _ = storage.load_segmentation(tmp_path, (0, 0, 0), threshold=0.8)
    assert found.tolist() == [[[0, 1, 1, 1]]]
    write_result(tmp_path, labels, corner=(0, 0, 8))
    with pytest.raises(VolumeNotFoundError, match="a threshold needs probabilities"):
        storage.load_segmentation(tmp_path, (0, 0, 8), threshold=0.8)


def test_names_and_corners_are_the_old_ones(tmp_path):
    assert Path(storage.segmentation_path(tmp_path, (1, 2, 3))) == (
        tmp_path / "3" / "2" / "seg-3_2_1.npz"
    )
    assert storage.object_prob_path("a", (1, 2, 3)).endswith("seg-3_2_1.prob")
    assert storage.checkpoint_path("a", (1, 2, 3)).endswith("seg-3_2_1.cpoint")
    flat = storage.legacy_subvolume_path(tmp_path, (1, 2, 3), ".npz")
    assert Path(flat) == tmp_path / "seg-3_2_1.npz"
    assert storage.get_corner_from_path(flat) == (1, 2, 3)
    with pytest.raises(OptionError, match="not named like a result"):
        storage.get_corner_from_path("seg.npz")
    write_result(tmp_path, np.ones((1, 1, 1), np.uint8), corner=(1, 2, 3), flat=True)
    write_result(tmp_path, np.ones((1, 1, 1), np.uint8), corner=(0, 0, 0))
    assert storage.get_existing_corners(tmp_path) == [(0, 0, 0), (1, 2, 3)]
    assert storage.get_existing_subvolume_path(tmp_path, (1, 2, 3)) == flat
    assert storage.get_existing_subvolume_path(tmp_path, (9, 9, 9), allow_cpoint=True) is None
    assert storage.load_origins(tmp_path, (0, 0, 0)) == ORIGINS


def test_names_and_positions_of_arguments_are_the_old_ones(tmp_path):
    assert storage.subvolume_path("a", (0, 1, 2), "npz") == str(Path("a/2/1/seg-2_1_0.npz"))
    assert storage.legacy_subvolume_path("a", (0, 1, 2), "prob") == str(Path("a/seg-2_1_0.prob"))
    corner = (1, 2, 3)
    assert storage.legacy_segmentation_path(output_dir="a", corner=corner) == str(
        Path("a/seg-3_2_1.npz")
    )
    assert storage.legacy_object_prob_path(output_dir="a", corner=corner) == str(
        Path("a/seg-3_2_1.prob")
    )
    for path, ending in (
        (storage.segmentation_path, "npz"),
        (storage.object_prob_path, "prob"),
        (storage.checkpoint_path, "cpoint"),
    ):
        assert path(output_dir="a", corner=corner) == str(Path(f"a/3/2/seg-3_2_1.{ending}"))
    labels = np.array([[[3, 3, 0, 9, 3]]], np.uint8)
    probabilities = np.array([[[0.95, 0.95, 0.9, 0.7, 0.9]]], np.float32)
    write_result(tmp_path, labels, corner=corner, probabilities=probabilities)
    found, _ = storage.load_segmentation(tmp_path, corner, False, 0.8, True, 2, None)
    assert found.tolist() == [[[1, 1, 0, 0, 0]]]
    assert storage.get_existing_subvolume_path(tmp_path, corner, True) == (
        storage.segmentation_path(tmp_path, corner)
    )


def test_what_is_not_there_is_a_value_error_as_of_old(tmp_path):
    for read in (storage.load_segmentation, storage.load_origins):
        with pytest.raises(ValueError, match="no result at") as caught:
            read(tmp_path, (1, 2, 3))
        assert isinstance(caught.value, VolumeNotFoundError)
    with pytest.raises(ValueError, match=r"holds no seg-X_Y_Z\.npz"):
        storage.get_existing_corners(tmp_path)
    with pytest.raises(ValueError, match="not named like a result"):
        storage.get_corner_from_path("nope.npz")


def test_a_saved_subvolume_reads_back(tmp_path):
    path = storage.segmentation_path(tmp_path, (1, 2, 3))
    labels = np.array([[[3, 0, 9]]], np.int64)
    storage.save_subvolume(labels, ORIGINS, path)
    storage.save_subvolume(
        labels,
        ORIGINS,
        path,
        request=b"asked",
        counters='{"moves": 7}',
        overlaps={9: np.array([[3], [5]])},
    )
    found = read_subvolume(Path(path))
    assert np.array_equal(found.segmentation, labels)
    assert found.segmentation.dtype == np.uint8
    assert (found.origins, found.overlaps) == (ORIGINS, {9: {3: 5}})
    assert (found.request, found.counters) == (b"asked", {"moves": 7})
    with pytest.raises(OptionError, match="extra has no place"):
        storage.save_subvolume(labels, ORIGINS, path, extra=1)
    with pytest.raises(FloodemError, match="counters are not JSON"):
        storage.save_subvolume(labels, ORIGINS, path, counters="moves")


@pytest.mark.parametrize("name", ["inference", "inference_pb2"])
def test_old_modules_that_are_not_here_say_what_to_use(tmp_path, name):
    lay_out(tmp_path)
    done = python(tmp_path, "-c", f"from ffn.inference import {name}")
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: ffn.inference.{name} is not part of floodem")
    assert "floodem.flood_at" in last
    assert "ffn_inference_demo.ipynb" in last
    plain = "import ffn.inference; print(hasattr(ffn.inference, 'nothing'))"
    assert python(tmp_path, "-c", plain).stdout == "False\n"


def test_what_is_not_there_or_not_served_is_said(tmp_path):
    with pytest.raises(VolumeNotFoundError, match=r"no result at 1,2,3 \(z,y,x\)"):
        storage.load_segmentation(tmp_path, (1, 2, 3))
    with pytest.raises(OptionError, match="is not z, y, x"):
        storage.load_segmentation(tmp_path, (1, 2))
    with pytest.raises(FloodemError, match="mask_config is not served"):
        storage.load_segmentation(tmp_path, (1, 2, 3), mask_config=object())


def test_probabilities_go_to_levels_and_back():
    levels = np.arange(256, dtype=np.uint8)
    back = storage.dequantize_probability(levels)
    assert np.isnan(back[0])
    # 255 levels between 0 and 1 have 254 steps, so that the upper half comes back one lower.
    again = storage.quantize_probability(back)
    assert np.array_equal(again[:129], levels[:129])
    assert np.array_equal(again[129:], levels[129:] - 1)
    assert storage.quantize_probability(np.array([0.0, 1.0, np.nan])).tolist() == [1, 255, 0]


def test_the_published_segmentation_loads_as_of_old(tmp_path, shared_data):
    source = shared_data / "fib25" / "sample-training2.npz"
    shutil.copyfile(source, tmp_path / "seg-0_0_0.npz")
    found, origins = storage.load_segmentation(tmp_path, (0, 0, 0), split_cc=False)
    with np.load(source, allow_pickle=False) as archive:
        assert np.array_equal(found, archive["segmentation"])
    # 254 segments, each with its seed in it.
    assert sorted(origins) == [one for one in np.unique(found).tolist() if one]
    assert all(found[info.start_zyx] == one for one, info in origins.items())
