"""Plans: what happens to one example, drawn from a seed and a number."""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from augmentation_cases import AUGMENTATIONS, always, numbered_patch
from floodem.errors import GeometryError, OptionError
from floodem.geometry import Zyx
from floodem.training.augmentation.geometric import Turn, turn
from floodem.training.augmentation.options import PRESETS, AugmentationOptions
from floodem.training.augmentation.plan import (
    AugmentationPlan,
    largest_source_shape,
    plan_augmentation,
)
from floodem.training.patch import Patch

REPOSITORY = Path(__file__).resolve().parents[1]
SHAPE = (5, 9, 7)

odd = st.integers(0, 6).map(lambda half: 2 * half + 1)
shapes = st.tuples(odd, odd, odd)
axes = st.sets(st.sampled_from([0, 1, 2])).map(lambda chosen: tuple(sorted(chosen)))
seeds = st.integers(0, 2**63 - 1)
numbers = st.integers(0, 2**63 - 1)


def plan(options: AugmentationOptions, number: int, *, shape: Zyx = SHAPE) -> AugmentationPlan:
    return plan_augmentation(options, patch_shape=shape, seed=11, number=number)


def same(one: Patch, other: Patch) -> bool:
    return (
        torch.equal(one.image, other.image)
        and torch.equal(one.labels, other.labels)
        and torch.equal(one.weights, other.weights)
    )


def test_with_everything_off_a_patch_stays_as_it_is():
    patch = numbered_patch(SHAPE)
    for number in range(20):
        drawn = plan(always(), number)
        assert drawn.source_shape == SHAPE
        assert same(drawn.apply(patch), patch)


def test_by_default_patches_are_flipped_and_y_and_x_exchanged_and_nothing_else():
    patch = numbered_patch((5, 9, 9))
    turned = {
        tuple(
            plan(AugmentationOptions(), n, shape=(5, 9, 9)).apply(patch).labels.flatten().tolist()
        )
        for n in range(200)
    }
    assert len(turned) == 16
    grey = dict(zip(patch.labels.flatten().tolist(), patch.image.flatten().tolist(), strict=True))
    result = plan(AugmentationOptions(), 3, shape=(5, 9, 9)).apply(patch)
    assert [grey[label] for label in result.labels.flatten().tolist()] == (
        result.image.flatten().tolist()
    )


def test_axes_that_may_not_turn_never_do():
    options = AugmentationOptions(reflectable_axes=(2,), permutable_axes=(0, 1))
    for number in range(50):
        drawn = plan(options, number).turn
        assert set(drawn.flipped) <= {2}
        assert drawn.permutation[2] == 2


def test_all_orders_of_all_axes_are_drawn_about_equally_often():
    options = AugmentationOptions(permutable_axes=(2, 0, 1))
    drawn = [plan(options, number).turn.permutation for number in range(600)]
    counts = [drawn.count(order) for order in itertools.permutations(range(3))]
    assert sum(counts) == 600
    assert min(counts) > 60


@pytest.mark.parametrize("permutation", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flipped", [(), (0,), (1, 2), (0, 1, 2)])
def test_a_turn_gives_the_asked_shape_and_can_be_undone(permutation, flipped):
    by = Turn(permutation=permutation, flipped=flipped)
    source = numbered_patch(by.source_shape(SHAPE))
    result = turn(source, by=by)
    assert result.shape == SHAPE
    unflipped = turn(result, by=Turn(flipped=flipped))
    inverse = tuple(permutation.index(axis) for axis in range(3))
    assert same(turn(unflipped, by=Turn(permutation=inverse)), source)


@settings(deadline=None, max_examples=150)
@given(
    shape=shapes,
    reflectable=axes,
    permutable=axes,
    preset=st.sampled_from(list(PRESETS)),
    z=st.sampled_from([0.0, 2.0]),
    seed=seeds,
    number=numbers,
)
def test_the_centre_stays_the_centre(shape, reflectable, permutable, preset, z, seed, number):
    """Also: the asked shape, labels that were there, whole weights, and room enough."""
    options = AugmentationOptions(
        preset=preset,
        reflectable_axes=reflectable,
        permutable_axes=permutable,
        elastic_displacement_z=z,
    )
    drawn = plan_augmentation(options, patch_shape=shape, seed=seed, number=number)
    largest = largest_source_shape(options, patch_shape=shape)
    assert all(edge <= most for edge, most in zip(drawn.source_shape, largest, strict=True))
    assert all(edge % 2 == 1 for edge in drawn.source_shape)
    source = numbered_patch(drawn.source_shape)
    result = drawn.apply(source)
    assert result.shape == shape
    assert result.labels[result.centre] == source.labels[source.centre]
    assert set(result.labels.flatten().tolist()) <= set(source.labels.flatten().tolist())
    assert result.labels.dtype == torch.int32
    assert result.weights.min() == 1
    assert result.image.isfinite().all()


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(["affine", "elastic", "slip", "translation"]),
    shape=shapes,
    number=numbers,
)
def test_where_only_geometry_changes_the_centre_keeps_its_grey_level(name, shape, number):
    drawn = plan(always(name, elastic_displacement_z=2.0), number, shape=shape)
    source = numbered_patch(drawn.source_shape)
    result = drawn.apply(source)
    assert result.image[result.centre] == source.image[source.centre]


@pytest.mark.parametrize(
    "name", ["blur", "out_of_focus", "grey", "section_grey", "noise", "missing"]
)
def test_what_changes_the_image_leaves_labels_and_weights(name):
    changed = 0
    for number in range(20):
        drawn = plan(always(name), number)
        source = numbered_patch(drawn.source_shape)
        result = drawn.apply(source)
        changed += not torch.equal(result.image, source.image)
        assert torch.equal(result.labels, source.labels)
        assert torch.equal(result.weights, source.weights)
    assert changed >= 10  # a blur may be too narrow to reach the next voxel


def test_applying_a_plan_leaves_its_source_alone():
    for number in range(30):
        drawn = plan(AugmentationOptions(preset="full"), number)
        source = numbered_patch(drawn.source_shape)
        drawn.apply(source)
        assert same(source, numbered_patch(drawn.source_shape))


def test_the_same_seed_and_number_give_the_same_example_in_any_order():
    options = AugmentationOptions(preset="full")
    forward = [applied(options, number) for number in range(12)]
    backward = [applied(options, number) for number in reversed(range(12))][::-1]
    assert all(same(one, other) for one, other in zip(forward, backward, strict=True))


def applied(options: AugmentationOptions, number: int, *, seed: int = 11) -> Patch:
    drawn = plan_augmentation(options, patch_shape=SHAPE, seed=seed, number=number)
    return drawn.apply(numbered_patch(drawn.source_shape))


def test_other_numbers_and_other_seeds_give_other_examples():
    options = AugmentationOptions(preset="full")
    examples = [applied(options, number, seed=seed) for seed in (0, 1) for number in range(20)]
    assert not any(same(one, other) for one, other in itertools.combinations(examples, 2))


def test_no_random_state_outside_matters_or_changes():
    options = AugmentationOptions(preset="full", noise_probability=1.0)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one = applied(options, 5)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(applied(options, 5), one)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_turning_one_augmentation_on_leaves_the_others_draws(name):
    others = [other for other in AUGMENTATIONS if other != name]
    for number in range(5):
        with_it, without = plan(always(*AUGMENTATIONS), number), plan(always(*others), number)
        fields = {"blur": "blur", "noise": "noise", "grey": "levels", "missing": "missing"}
        for other in fields.keys() - {name}:
            assert getattr(with_it.imaging, fields[other]) == getattr(
                without.imaging, fields[other]
            )
        if name != "affine":
            assert with_it.warp.matrix == without.warp.matrix


def test_augmentations_happen_as_often_as_asked():
    options = always(missing_probability=0.3, affine_probability=0.6)
    plans = [plan(options, number) for number in range(1000)]
    assert 240 < sum(bool(drawn.imaging.missing) for drawn in plans) < 360
    assert 540 < sum(drawn.warp is not None for drawn in plans) < 660


def test_float64_stays_float64_and_agrees_with_float32():
    options = AugmentationOptions(preset="full", noise_probability=0.0)
    for number in range(10):
        drawn = plan(options, number)
        single = drawn.apply(numbered_patch(drawn.source_shape))
        double = drawn.apply(numbered_patch(drawn.source_shape, dtype=torch.float64))
        assert double.image.dtype == double.weights.dtype == torch.float64
        assert (single.image - double.image).abs().max() < 2e-3


def test_no_plan_reads_back_from_the_device():
    """On the meta device a tensor has no values: whatever asks for one fails."""
    options = always(*(set(AUGMENTATIONS) - {"noise"}), reflectable_axes=(0, 1, 2))
    for number in range(5):
        drawn = plan(options, number)
        source = numbered_patch(drawn.source_shape)
        on_device = Patch(
            **{
                field.name: getattr(source, field.name).to("meta")
                for field in dataclasses.fields(Patch)
            }
        )
        assert drawn.apply(on_device).shape == SHAPE


def test_a_patch_of_another_shape_is_refused():
    drawn = plan(AugmentationOptions(permutable_axes=()), 0)
    with pytest.raises(GeometryError, match=r"patch of \(5, 9, 9\) .* cut its source_shape"):
        drawn.apply(numbered_patch((5, 9, 9)))


@pytest.mark.parametrize("shape", [(4, 5, 5), (5, 5, 0), (5, -1, 5)])
def test_a_patch_without_a_centre_is_refused(shape):
    for ask in (plan_augmentation, largest_source_shape):
        numbers = {"seed": 0, "number": 0} if ask is plan_augmentation else {}
        with pytest.raises(GeometryError, match="has no centre: make its edges odd"):
            ask(AugmentationOptions(), patch_shape=shape, **numbers)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preset": "medium"}, "preset 'medium' is not one of none, light, full"),
        ({"reflectable_axes": (0, 3)}, r"reflectable_axes \[0, 3\] are not different axes"),
        ({"permutable_axes": (1, 1)}, r"permutable_axes \[1, 1\] are not different axes"),
        ({"noise_probability": 1.5}, "noise_probability 1.5 is not 0 to 1"),
        ({"slip_probability": -0.1}, "slip_probability -0.1 is not 0 to 1"),
        ({"missing_probability": float("nan")}, "missing_probability nan is not 0 to 1"),
        ({"partial": 2.0}, "partial 2.0 is not 0 to 1"),
        ({"contrast": 1.5}, "contrast 1.5 is not 0 to 1"),
        ({"scale": 2.0}, "scale 2.0 is not 0 to 1"),
        ({"rotation_degrees": 200.0}, "rotation_degrees 200.0 is not 0 to 180"),
        ({"noise": -1.0}, "noise -1.0 is not at least 0"),
        ({"blur": float("inf")}, "blur inf is not at least 0"),
        ({"misalignment": -2}, "misalignment -2 is not at least 0"),
        ({"missing_sections": 0}, "missing_sections 0 is not at least 1"),
        ({"missing_fill": float("nan")}, "missing_fill nan is not a number"),
        ({"elastic_spacing": (0, 8, 8)}, r"elastic_spacing \(0, 8, 8\) is not at least 1"),
        ({"elastic_displacement": 5.0}, "elastic_displacement 5.0 is not 0 to 4 voxels"),
        ({"elastic_displacement_z": 4.5}, "elastic_displacement_z 4.5 is not 0 to 4 voxels"),
    ],
)
def test_impossible_options_are_refused_in_one_sentence(values, message):
    with pytest.raises(OptionError, match=f"augmentation.{message}"):
        AugmentationOptions(**values)


def test_a_preset_fills_in_what_is_not_said():
    options = AugmentationOptions(preset="full", noise_probability=0.0)
    assert options.probability("noise") == 0
    assert options.probability("slip") == PRESETS["full"]["slip_probability"]
    resolved = options.resolved()
    assert resolved.noise_probability == 0
    assert resolved.elastic_probability == PRESETS["full"]["elastic_probability"]
    assert resolved.resolved() == resolved


def test_presets_name_every_probability_and_none_is_off():
    named = {
        field.name
        for field in dataclasses.fields(AugmentationOptions)
        if field.name.endswith("_probability")
    }
    assert all(set(preset) == named for preset in PRESETS.values())
    assert set(PRESETS["none"].values()) == {0.0}


def test_every_option_explains_itself():
    for field in dataclasses.fields(AugmentationOptions):
        assert field.metadata["help"].endswith(".")


def test_the_documentation_has_every_option_with_its_default_and_every_preset():
    page = (REPOSITORY / "docs" / "augmentation.md").read_text(encoding="utf-8")
    rows = {
        cells[1].strip(" `"): [cell.strip() for cell in cells[2:-1]]
        for cells in (line.split("|") for line in page.splitlines() if line.startswith("|"))
    }
    for field in dataclasses.fields(AugmentationOptions):
        assert f"`{field.name}`" in page or f"{field.name} =" in page
        if field.name in PRESETS["none"]:
            assert rows[field.name] == [f"{preset[field.name]:g}" for preset in PRESETS.values()]
        elif field.name not in {"preset", "reflectable_axes", "permutable_axes"}:
            default = field.default if isinstance(field.default, tuple) else (field.default,)
            assert rows[field.name][0] == ", ".join(f"{value:g}" for value in default)


def test_every_picture_of_the_documentation_is_there_and_small():
    page = (REPOSITORY / "docs" / "augmentation.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\(pictures/(.+?)\)", page))
    pictures = {path.name: path for path in (REPOSITORY / "docs" / "pictures").glob("augm*.png")}
    assert named == set(pictures)
    assert max(path.stat().st_size for path in pictures.values()) < 60_000
