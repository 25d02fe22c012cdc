"""Synthetic electron microscopy: exact, repeatable, and the same in every box."""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from floodem.errors import GeometryError, OptionError
from floodem.geometry import Box, VoxelSize, tiles
from floodem.volumes.synthetic import (
    SectionOptions,
    SyntheticOptions,
    SyntheticVolume,
    skeletons,
    synthesize,
)
from floodem.volumes.synthetic.noise import hashed, make_key, noise_at, noise_over, normal, uniform
from floodem.volumes.synthetic.painting import membrane_profile
from floodem.volumes.synthetic.synthesis import tissue_of
from floodem.volumes.volume import Kind

FIB = SyntheticOptions.preset("fib", seed=3, shape=(64, 70, 66))
ATUM = SyntheticOptions.preset("atum", seed=3, shape=(18, 110, 120))
EVERYWHERE = np.ones((3, 3, 3))

LABELS_OF_SEED_7 = 1461274505
IMAGE_OF_SEED_7 = 2385626859


@pytest.fixture(scope="module", params=[FIB, ATUM], ids=["fib", "atum"])
def made(request):
    return request.param, synthesize(request.param)


def pieces(labels, label):
    return ndimage.label(labels == label, EVERYWHERE)[1]


def neurites(options, labels):
    ids = np.unique(labels)
    return ids[(ids > 0) & (ids <= tissue_of(options).tubes.forest.nodes)]


def voxels_of(options, skeleton):
    places = np.floor(skeleton.nodes_zyx_nm / options.voxel_size.zyx_nm).astype(int)
    return tuple(places.T)


def test_blocks_computed_alone_equal_the_whole_in_any_order(made):
    options, whole = made
    for tile in reversed(list(tiles(options.box, core=(35, 57, 61)))):
        part = synthesize(options, tile.core)
        assert np.array_equal(part.image, whole.image[tile.core.slices()])
        assert np.array_equal(part.labels, whole.labels[tile.core.slices()])


@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_any_box_of_a_volume_is_that_part_of_it(data):
    whole = volume_once()
    ranges = [
        sorted((data.draw(st.integers(0, n - 1)), data.draw(st.integers(1, n)))) for n in FIB.shape
    ]
    start, stop = zip(*((a, max(b, a + 1)) for a, b in ranges), strict=True)
    box = Box(start, stop)
    assert np.array_equal(SyntheticVolume(FIB, part="labels").read(box), whole[box.slices()])


_once = {}


def volume_once():
    if not _once:
        _once["labels"] = SyntheticVolume(FIB, part="labels").read()
    return _once["labels"]


def test_a_seed_gives_the_same_voxels_on_every_machine():
    options = SyntheticOptions(seed=7, shape=(32, 32, 32))
    made = synthesize(options)
    assert zlib.crc32(made.labels.tobytes()) == LABELS_OF_SEED_7
    assert zlib.crc32(made.image.tobytes()) == IMAGE_OF_SEED_7


def test_another_seed_gives_other_tissue():
    one = synthesize(SyntheticOptions(seed=1, shape=(32, 32, 32)))
    other = synthesize(SyntheticOptions(seed=2, shape=(32, 32, 32)))
    assert (one.labels != other.labels).mean() > 0.5
    assert (one.image != other.image).mean() > 0.5


def test_every_neurite_of_an_isotropic_volume_is_one_piece():
    for seed in (3, 12):
        options = dataclasses.replace(FIB, seed=seed)
        labels = synthesize(options).labels
        for label in neurites(options, labels):
            assert pieces(labels, label) == 1


def test_neurites_in_thick_sections_lose_no_more_than_crumbs():
    aligned = dataclasses.replace(ATUM, sections=SectionOptions())
    labels = synthesize(aligned).labels
    crumbs = 0
    for label in neurites(aligned, labels):
        found, count = ndimage.label(labels == label, EVERYWHERE)
        if count > 1:
            crumbs += int((found > 0).sum() - np.bincount(found.reshape(-1))[1:].max())
    assert crumbs <= 1e-4 * labels.size


def test_skeletons_are_trees_inside_their_own_labels(made):
    options, whole = made
    found = skeletons(options)
    assert [one.label for one in found] == list(neurites(options, whole.labels))
    for one in found:
        nodes = len(one.nodes_zyx_nm)
        assert set(whole.labels[voxels_of(options, one)]) == {one.label}
        assert len(one.edges) == nodes - 1
        graph = coo_matrix((np.ones(len(one.edges)), one.edges.T), shape=(nodes, nodes))
        assert connected_components(graph, directed=False)[0] == 1
        assert (one.radius_nm > 0).all()


@pytest.mark.parametrize("seed", [100, 110, 124])
def test_no_sheet_of_glia_covers_a_skeleton_node(seed):
    options = SyntheticOptions(seed=seed, shape=(72, 72, 72), glia=2.0)
    labels = synthesize(options).labels
    for one in skeletons(options):
        assert set(labels[voxels_of(options, one)]) == {one.label}


def test_some_neurites_branch_and_calibres_vary():
    options = SyntheticOptions(seed=1, shape=(96, 96, 96))
    found = skeletons(options)
    children = [np.bincount(one.edges[:, 1]).max() for one in found if len(one.edges)]
    assert max(children) > 1
    radii = np.concatenate([one.radius_nm for one in found])
    low, high = np.quantile(radii, [0.05, 0.95])
    assert high > 2.5 * low
    even = dataclasses.replace(options, calibre=0)
    means = np.array([np.mean(one.radius_nm) for one in found])
    means_even = np.array([np.mean(one.radius_nm) for one in skeletons(even)])
    assert means.std() > means_even.std()


def test_skeletons_of_a_box_are_those_nodes_of_the_whole():
    box = Box((10, 20, 30), (50, 60, 64))
    inside = {
        (one.label, node)
        for one in skeletons(FIB)
        for node in zip(*voxels_of(FIB, one), strict=True)
        if box.contains_point(tuple(int(n) for n in node))
    }
    part = {
        (one.label, node)
        for one in skeletons(FIB, box)
        for node in zip(*voxels_of(FIB, one), strict=True)
    }
    assert part == inside


def test_label_zero_is_thin_and_between_objects(made):
    _, whole = made
    background = whole.labels == 0
    assert 0.03 < background.mean() < 0.2
    shape = (3, 3, 3)
    high = ndimage.maximum_filter(whole.labels, size=shape)
    big = np.where(background, np.iinfo(whole.labels.dtype).max, whole.labels)
    low = ndimage.minimum_filter(big, size=shape)
    assert (high[background] > low[background]).mean() > 0.6


def test_membranes_are_darker_than_cytoplasm(made):
    _, whole = made
    inside = ndimage.minimum_filter(whole.labels, 5) > 0
    assert whole.image[whole.labels == 0].mean() < whole.image[inside].mean() - 30


def test_membranes_that_lie_flat_in_a_section_are_smeared():
    distance = np.array([0, 12, 24], np.float32)
    steep = np.ones(3, np.float32)
    upright = membrane_profile(distance, 0 * steep, width_nm=20, section_nm=30)
    flat = membrane_profile(distance, steep, width_nm=20, section_nm=30)
    assert upright[0] > flat[0]
    assert upright[2] < flat[2]
    fine = np.linspace(-60, 60, 2401, dtype=np.float32)
    band = membrane_profile(fine, 0 * fine, width_nm=20, section_nm=30)
    mean = ndimage.uniform_filter1d(band, 600)  # 30 nm in steps of 0.05 nm
    assert np.allclose(
        membrane_profile(fine, np.ones_like(fine), width_nm=20, section_nm=30)[700:1700],
        mean[700:1700],
        atol=0.01,
    )


@pytest.mark.parametrize("part", ["mitochondria", "vesicles"])
def test_organelles_change_the_image_and_not_the_labels(part):
    options = SyntheticOptions(seed=1, shape=(64, 64, 64), **{part: 3.0})
    without = dataclasses.replace(options, **{part: 0.0})
    one, other = synthesize(options), synthesize(without)
    assert np.array_equal(one.labels, other.labels)
    changed = one.image != other.image
    assert 0.001 < changed.mean() < 0.5
    assert one.image[changed].mean() < other.image[changed].mean()


def test_glia_is_sheets_of_its_own_label_and_can_be_left_out():
    options = SyntheticOptions(seed=11, shape=(80, 80, 80), glia=2.0)
    first = tissue_of(options).tubes.forest.nodes
    glia = synthesize(options).labels > first
    assert 0.005 < glia.mean() < 0.3
    # Sheets: nothing is left when four voxels are taken from every side.
    assert ndimage.binary_erosion(glia, iterations=5).sum() < 0.01 * glia.sum()
    assert (synthesize(dataclasses.replace(options, glia=0.0)).labels <= first).all()


def test_missing_sections_are_black_and_labels_go_on():
    options = dataclasses.replace(ATUM, sections=SectionOptions(missing=0.3))
    made = synthesize(options)
    lost = (made.image == 0).all(axis=(1, 2))
    assert 0 < lost.sum() < len(lost)
    assert (made.labels[lost] > 0).mean() > 0.7
    assert not (synthesize(dataclasses.replace(FIB)).image == 0).all(axis=(1, 2)).any()


def test_contrast_changes_from_section_to_section_where_asked():
    changing = SectionOptions(contrast=0.1, brightness=10)
    means = synthesize(dataclasses.replace(ATUM, sections=changing)).image.mean(axis=(1, 2))
    steady = dataclasses.replace(ATUM, sections=SectionOptions())
    assert np.diff(means).std() > 3 * np.diff(synthesize(steady).image.mean(axis=(1, 2))).std()


def test_folds_darken_bands_of_the_sections_that_have_them():
    clean = dataclasses.replace(ATUM, sections=SectionOptions())
    folded = dataclasses.replace(ATUM, sections=SectionOptions(folded=0.4))
    one, other = synthesize(folded), synthesize(clean)
    assert np.array_equal(one.labels, other.labels)
    darker = (one.image < other.image).mean(axis=(1, 2))
    assert (darker == 0).any()
    assert 0.02 < darker.max() < 0.6


def test_misaligned_sections_move_image_labels_and_skeletons_together():
    options = dataclasses.replace(
        ATUM, sections=SectionOptions(slips=0.3, slip_nm=60), wobble=0.0, bend=0.0
    )
    steady = dataclasses.replace(options, sections=SectionOptions())
    made, still = synthesize(options), synthesize(steady)
    agreement = (made.labels == still.labels).mean(axis=(1, 2))
    assert agreement.min() < agreement.max()
    for one in skeletons(options):
        assert set(made.labels[voxels_of(options, one)]) == {one.label}


def test_volumes_say_what_they_are():
    image, labels = (SyntheticVolume(ATUM, part=part) for part in ("image", "labels"))
    assert (image.kind, labels.kind) == (Kind.IMAGE, Kind.LABELS)
    assert (image.dtype, labels.dtype) == (np.uint8, np.uint32)
    assert image.voxel_size == VoxelSize(30, 6, 6)
    assert image.shape == ATUM.shape


def test_a_corner_of_a_huge_volume_needs_no_more_than_itself():
    huge = SyntheticOptions(shape=(20_000, 30_000, 30_000))
    volume = SyntheticVolume(huge, part="labels")
    assert volume.dtype == np.uint64
    box = Box.from_shape((32, 32, 32), start=(19_900, 12_345, 7))
    labels = volume.read(box)
    assert len(np.unique(labels)) > 3
    assert set(np.unique(labels)) - {0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed -1 is not"),
        ({"shape": (10, 128, 128)}, "narrower than two neurites"),
        ({"spacing_nm": 30.0}, "less than 8 voxels"),
        ({"noise": -1.0}, "noise is -1: choose a number from 0 to 100"),
        ({"wobble": float("nan")}, "wobble is nan"),
        ({"bend": 9.0}, "bend is 9"),
        ({"glai": 1.0}, "no option 'glai'.*did you mean glia"),
    ],
)
def test_options_that_make_no_tissue_are_refused_in_one_sentence(changes, message):
    with pytest.raises(OptionError, match=message):
        SyntheticOptions.preset("fib", **changes)


def test_unknown_presets_and_shares_beyond_one_are_refused():
    with pytest.raises(OptionError, match="no preset 'fibs': did you mean fib"):
        SyntheticOptions.preset("fibs")
    with pytest.raises(OptionError, match="sections.missing is 2"):
        SectionOptions(missing=2)


@pytest.mark.parametrize("box", [Box((0, 0, 0), (0, 5, 5)), Box((0, 0, 0), (65, 5, 5))])
def test_boxes_outside_or_empty_are_refused(box):
    with pytest.raises(GeometryError, match="is empty or not inside the synthetic volume"):
        synthesize(FIB, box)
    with pytest.raises(GeometryError, match="is empty or not inside"):
        skeletons(FIB, box)


def test_hashes_are_even_and_unlike_for_neighbours():
    words = hashed(make_key(0, "test"), np.arange(100)[:, None], np.arange(-50, 50))
    numbers = uniform(words)
    assert abs(numbers.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(numbers[1:].reshape(-1), numbers[:-1].reshape(-1))[0, 1]) < 0.05
    assert abs(normal(words).std() - 1) < 0.03
    assert len(np.unique(words)) == words.size


@given(start=st.tuples(*[st.integers(-1000, 1000)] * 3), length=st.floats(2, 40))
@settings(max_examples=20, deadline=None)
def test_noise_over_a_box_is_that_at_its_points(start, length):
    box = Box.from_shape((3, 4, 5), start=start)
    field = noise_over(5, box, wavelength=(length, 2 * length, length))
    grid = np.meshgrid(
        *(np.arange(a, b) for a, b in zip(box.start, box.stop, strict=True)), indexing="ij"
    )
    z, y, x = ((axis.reshape(-1) + 0.5) for axis in grid)
    points = noise_at(5, z / length, y / (2 * length), x / length)
    assert np.allclose(field.reshape(-1), points, atol=1e-5)
    assert np.abs(field).max() <= 1 + 1e-6
