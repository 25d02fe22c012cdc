"""`floodem skeletonize`: what it prints, refuses and leaves, and how real neurites come out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from floodem.cli.main import main
from floodem.geometry import VoxelSize
from floodem.shapes.skeletons.folder import SkeletonFolder
from floodem.shapes.skeletons.job import skeletonize
from floodem.shapes.skeletons.request import SkeletonRequest
from floodem.shapes.source import LabelSource
from floodem.volumes import create_volume
from skeleton_cases import is_forest, straight, tubes

SIZE = VoxelSize(10, 10, 10)
PICTURES = Path(__file__).resolve().parents[1] / "build" / "screenshots"


@pytest.fixture
def segmentation(tmp_path) -> Path:
    mask = tubes([straight((130, 120, 125), (0, 0.5, 0.87), 800)], 60, SIZE)
    labels = mask * np.uint32(7)
    labels[0, 0, :3] = 8
    with create_volume(
        tmp_path / "seg.zarr", shape=labels.shape, dtype=labels.dtype, voxel_size=SIZE
    ) as volume:
        volume.write(volume.box, labels)
    return tmp_path / "seg.zarr"


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_one_line_says_what_was_made_and_the_next_run_that_it_is_there(
    segmentation, tmp_path, capsys
):
    command = ["skeletonize", segmentation, tmp_path / "out", "--workers", 1]
    assert run(*command) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{tmp_path / 'out'}: 1 skeleton, 1 left out for their size, 0.8 um of")
    assert run(*command) == 0
    assert "was finished by an earlier run" in capsys.readouterr().out
    assert run(*command, "--scale", 2) == 3
    assert "begun with other labels or options" in capsys.readouterr().err
    assert run(*command, "--scale", 2, "--overwrite") == 0


def test_json_has_the_numbers_and_notes_go_to_stderr(segmentation, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["skeletonize", segmentation, out, "--ids", "7,8,9", "--json", "--workers", 1]
    assert run(*command, "--format", "precomputed,swc", "--swc-unit", "um") == 0
    printed = capsys.readouterr()
    values = json.loads(printed.out)
    assert values["skeletons"] == 2
    assert values["missing"] == [9]
    assert values["length_nm"] == pytest.approx(800 + 20, rel=0.03)
    assert printed.err == "note: no voxel has id 9\n"
    assert sorted(path.name for path in (out / "swc").iterdir()) == ["7.swc", "8.swc"]
    assert SkeletonFolder(out).ids() == [7, 8]


def test_options_reach_the_making(segmentation, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--voxel-size", "20,20,20", "--const", 10, "--soma", 50, "--sharded"]
    assert run("skeletonize", segmentation, out, "--workers", 1, *options) == 0
    capsys.readouterr()
    skeleton = SkeletonFolder(out).read(7)
    assert (out / "0.shard").exists()
    # A soma begins at 50 nm: the deepest place is the root, which is otherwise a tip.
    assert skeleton.radii_nm[0] == skeleton.radii_nm.max()
    assert skeleton.length_nm == pytest.approx(1600, rel=0.2)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--format", "obj"], 2, "obj is not one of precomputed, swc"),
        (["--method", "magic"], 2, "'magic' is not one of teasar, kimimaro"),
        (["--swc-unit", "mm"], 2, "use nm or um"),
        (["--ids", "x"], 2, "'x' is not an id"),
        (["--scale", "-1"], 2, "scale is -1"),
        (["--voxel-size", "1,2"], 2, "--voxel-size"),
        (["--memory", "0"], 2, "bytes of memory"),
        (["--level", "3"], 2, "level 3"),
    ],
)
def test_mistakes_are_told_and_leave_nothing(
    segmentation, tmp_path, capsys, options, code, message
):
    assert run("skeletonize", segmentation, tmp_path / "out", *options) in {code, 3}
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seg.zarr"]


def test_objects_read_coarsely_or_refused_are_noted(tmp_path, capsys):
    labels = np.zeros((40, 160, 160), np.uint8)
    labels[2:38, 2:158, 2:158] = 3
    with create_volume(
        tmp_path / "seg.zarr", shape=labels.shape, dtype=np.uint8, voxel_size=SIZE
    ) as volume:
        volume.write(volume.box, labels)
    command = ["skeletonize", tmp_path / "seg.zarr", "--workers", 1, "--memory", 0.01]
    assert run(*command, tmp_path / "coarse") == 0
    assert "1 object read more coarsely than stored" in capsys.readouterr().err
    assert run(*command, tmp_path / "fixed", "--level", 0) == 0
    assert "1 object too large for the memory at every level (3)" in capsys.readouterr().err


def test_a_command_with_several_processes_runs_from_a_shell(segmentation, tmp_path):
    command = [sys.executable, "-m", "floodem", "skeletonize", segmentation, tmp_path / "out"]
    done = subprocess.run(
        [*command, "--workers", "2"], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert "1 skeleton" in done.stdout


def test_real_neurites_look_right(shared_data, tmp_path):
    file = shared_data / "fib25" / "sample-training2.npz"
    ids = (8, 11, 14)
    made = skeletonize(
        LabelSource(uri=str(file)),
        tmp_path / "out",
        request=SkeletonRequest(ids=ids, voxel_size=SIZE),
    )
    with np.load(file) as archive:
        labels = archive["segmentation"]
    folder = SkeletonFolder(tmp_path / "out")
    shown = []
    for number in ids:
        skeleton, mask = folder.read(number), labels == number
        at = np.floor(skeleton.vertices_zyx_nm / 10).astype(int)
        assert mask[tuple(at.T)].all()
        assert is_forest(skeleton)
        shown.append(drawn(mask, skeleton))
    # Seen by eye when the method was made: lines in the middle, ends in the tips.
    assert made.lengths_nm.tolist() == pytest.approx([12900, 6130, 7620], rel=0.1)
    PICTURES.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (sum(one.width for one in shown), shown[0].height))
    for place, one in enumerate(shown):
        picture.paste(one, (place * one.width, 0))
    picture.save(PICTURES / "skeletons-fib25.png")
    print(PICTURES / "skeletons-fib25.png")


def drawn(mask, skeleton, *, scale=2):
    """The object's depth along z as grey, its skeleton as a line, ends as circles."""
    depth = mask.sum(axis=0) / max(mask.sum(axis=0).max(), 1)
    grey = Image.fromarray((np.sqrt(depth) * 160).astype(np.uint8))
    picture = grey.resize((mask.shape[2] * scale, mask.shape[1] * scale)).convert("RGB")
    pen = ImageDraw.Draw(picture)
    points = skeleton.vertices_zyx_nm[:, :0:-1] / 10 * scale
    for a, b in skeleton.edges:
        pen.line([tuple(points[a]), tuple(points[b])], fill=(255, 90, 0), width=2)
    for x, y in points[skeleton.end_points]:
        pen.ellipse([x - 3, y - 3, x + 3, y + 3], outline=(0, 255, 0))
    return picture
