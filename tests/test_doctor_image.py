"""What the doctor finds in images: planted defects are named, healthy tissue is not blamed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from doctor_cases import CUBES, DEPTH, EDGE, SECTIONS, WIDE, blamed, finding, tissue, write
from floodem.geometry import VoxelSize
from floodem.project.doctor import Level, examine


def look(path, array, **facts):
    return examine(write(path, array, **facts), machine=False)


@pytest.fixture
def image():
    return tissue()[0].copy()


@pytest.mark.parametrize("voxel_size", [SECTIONS, VoxelSize(25, 4, 4)])
@pytest.mark.parametrize("seed", [0, 1])
def test_healthy_sections_are_not_blamed(tmp_path, voxel_size, seed):
    found = look(tmp_path / "em.h5", tissue(edge=WIDE, seed=seed)[0], voxel_size=voxel_size)
    assert blamed(found) == set()
    assert finding(found, "axes").level is Level.OK
    assert finding(found, "alignment").value is not None
    assert found.worst is not Level.PROBLEM


def test_healthy_cubes_are_not_blamed(tmp_path):
    found = look(tmp_path / "em.h5", tissue(80, 96, thick=1.0)[0], voxel_size=CUBES)
    assert blamed(found) == set()


def black(image):
    image[9] = 0


def half_black(image):
    image[9, : EDGE // 2] = 0


def faded(image):
    image[9] = 140 + (image[9].astype(int) - 140) // 10


def blurred(image):
    image[9] = ndimage.gaussian_filter(image[9].astype(float), 1.5)


def repeated(image):
    image[10] = image[9]


def imaged_twice(image):
    noise = np.random.default_rng(3).normal(0, 4, image[9].shape)
    image[10] = np.clip(image[9] + noise, 0, 255)


def bright(image):
    image[9] = np.clip(image[9].astype(int) + 40, 0, 255)


def jumping(image):
    image[9:] = np.roll(image[9:], (11, -7), axis=(1, 2))


def exchanged(image):
    image[9], image[20] = image[20].copy(), image[9].copy()


@pytest.mark.parametrize(
    ("harm", "what", "levels", "sections"),
    [
        (black, "empty sections", {"warning"}, [9]),
        (half_black, "partly empty sections", {"warning"}, [9]),
        (faded, "faded sections", {"warning"}, [9]),
        (blurred, "blurred sections", {"warning"}, [9]),
        (repeated, "repeated sections", {"warning"}, [9]),
        (imaged_twice, "repeated sections", {"note"}, [9]),
        (bright, "brightness", {"warning"}, [9]),
        (exchanged, "unlike neighbours", {"warning"}, [8, 9, 19, 20]),
    ],
)
def test_a_section_that_is_wrong_is_named(tmp_path, image, harm, what, levels, sections):
    harm(image)
    one = finding(look(tmp_path / "em.h5", image), what)
    assert one.level in levels
    assert one.value == sections
    assert str(sections[0]) in one.says


def test_a_jump_of_the_alignment_is_named_with_its_size(tmp_path):
    image = tissue(edge=WIDE)[0].copy()
    jumping(image)
    one = finding(look(tmp_path / "em.h5", image), "alignment jumps")
    assert one.level is Level.WARNING
    (jump,) = one.value
    assert jump["z"] == 8
    assert np.abs(np.subtract(jump["shift_yx"], (11, -7))).max() <= 1
    assert "behind section 8" in one.says


def drifting(image):
    return np.clip(image + np.linspace(-40, 40, DEPTH)[:, None, None], 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "what", "level"),
    [
        (drifting, "contrast drift", "warning"),
        (lambda image: 255 - image, "contrast", "warning"),
        (lambda image: np.clip(image.astype(int) * 3 - 255, 0, 255).astype(np.uint8), "cut off",
         "note"),
        (lambda image: image // 16 * 16, "grey levels", "warning"),
        (lambda image: image.astype(np.uint16), "grey levels", "note"),
        (np.zeros_like, "grey values", "problem"),
        (lambda image: image.astype(np.uint32), "type", "problem"),
        (lambda image: np.where(image > 150, np.nan, image).astype(np.float32), "not finite",
         "problem"),
        (lambda image: np.pad(image, ((0, 0), (60, 60), (60, 60))), "flat areas", "warning"),
        (lambda image: np.pad(image, ((0, 0), (10, 10), (10, 10))), "flat areas", "note"),
    ],
)  # fmt: skip
def test_grey_values_that_are_wrong_are_told(tmp_path, image, change, what, level):
    found = look(tmp_path / "em.h5", change(image))
    assert finding(found, what).level == level


def test_labels_given_as_the_image_are_told(tmp_path):
    found = look(tmp_path / "em.h5", tissue()[1].astype(np.uint8))
    assert finding(found, "flat areas").level is Level.WARNING


@pytest.mark.parametrize(
    ("order", "axis", "names"), [((2, 1, 0), "x", "xyz"), ((1, 0, 2), "y", "yzx")]
)
def test_an_axis_of_sections_that_is_not_z_is_told_with_the_names_to_give(
    tmp_path, image, order, axis, names
):
    found = look(tmp_path / "em.h5", image.transpose(order), voxel_size=CUBES)
    one = finding(found, "axes")
    assert one.level is Level.PROBLEM
    assert f"{axis} seems to be the axis of the sections" in one.says
    assert f"--axes {names}" in one.advice
    # Named so, the axes are right.
    from floodem.volumes.source import VolumeSource

    turned = VolumeSource(uri=str(tmp_path / "em.h5"), axes=names)
    assert finding(examine(turned, machine=False), "axes").level is not Level.PROBLEM


def test_sections_in_the_order_of_letters_are_told(tmp_path):
    image = tissue(48, 96)[0]
    order = sorted(range(48), key=str)
    found = look(tmp_path / "em.h5", image[order])
    one = finding(found, "order")
    assert one.level is Level.PROBLEM
    assert "order of letters" in one.says
    assert ("order", "problem") not in blamed(look(tmp_path / "right.h5", image))


def test_files_without_leading_zeros_are_told_by_which_order_they_are_taken(tmp_path, image):
    from PIL import Image

    (tmp_path / "em").mkdir()
    for z in range(12):
        Image.fromarray(image[z]).save(tmp_path / "em" / f"z{z}.png")
    found = examine(tmp_path / "em", machine=False)
    one = finding(found, "file order")
    assert one.level is Level.NOTE
    assert "section 2 is z2.png; sorted by letters it would be z10.png" in one.says
    (tmp_path / "em" / "z5.png").unlink()
    missing = finding(examine(tmp_path / "em", machine=False), "files")
    assert missing.level is Level.WARNING
    assert "section 5 is missing" in missing.says


def test_sections_of_different_size_are_a_finding_and_no_failure(tmp_path, image):
    from PIL import Image

    (tmp_path / "em").mkdir()
    for z in range(3):
        Image.fromarray(image[z][: EDGE - z]).save(tmp_path / "em" / f"z{z}.png")
    one = finding(examine(tmp_path / "em", machine=False), "opening")
    assert one.level is Level.PROBLEM
    assert "sections of one stack must be of one size" in one.says


@pytest.mark.parametrize(
    ("nm", "level", "says"),
    [
        (None, "warning", "not known"),
        ((1, 1, 1), "warning", "1,1,1"),
        ((0.03, 0.006, 0.006), "problem", "0.03,0.006,0.006"),
        ((6, 6, 30), "warning", "6,6,30"),
        ((6, 30, 6), "warning", "6,30,6"),
        ((40, 4, 4), "ok", "40,4,4"),
        ((8, 8, 8), "ok", "8,8,8"),
    ],
)
def test_a_voxel_size_that_cannot_be_is_told(tmp_path, image, nm, level, says):
    size = None if nm is None else VoxelSize(*nm)
    one = finding(look(tmp_path / "em.h5", image[:8], voxel_size=size), "voxel size")
    assert one.level == level
    assert says in one.says


def test_an_image_smaller_than_the_field_of_view_is_a_problem(tmp_path, image):
    found = look(tmp_path / "em.h5", image[:12])
    assert finding(found, "room").level is Level.PROBLEM


def test_few_sections_are_not_judged_by_each_other(tmp_path, image):
    found = look(tmp_path / "em.h5", image[:3])
    assert finding(found, "count").level is Level.NOTE
