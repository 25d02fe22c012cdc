"""Coarse to fine: what a coarse level finds is in the fine one, and the rest is filled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bright import BRIGHTEST, DARK, bright_model
from floodem.assembly.level_ratio import level_ratio
from floodem.assembly.levels import parse_levels, parse_models, segment_levels
from floodem.assembly.request import CutOptions
from floodem.assembly.segment import segment
from floodem.cluster import Crew
from floodem.cluster.crew import Shard
from floodem.errors import (
    DestinationExistsError,
    GeometryError,
    OptionError,
    RunConflictError,
    ShardDoneError,
    StoppedError,
    VolumeNotFoundError,
)
from floodem.flooding.masks import parse_mask
from floodem.flooding.options import FloodOptions
from floodem.flooding.request import SegmentRequest
from floodem.flooding.seeds import SeedPolicySpec
from floodem.geometry import Box, VoxelSize
from floodem.network.model_file import save_model
from floodem.volumes import convert, create_volume, open_volume
from floodem.volumes.source import VolumeSource

SHAPE, OFFSET = (48, 80, 128), (4, 8, -6)
NM = VoxelSize(10, 10, 10)
THICK, THIN = 8, 3
"""Half the edges of what both levels see and of what only the fine one keeps."""


def tubes():
    """Two thick tubes along x and two small bodies; an image and its truth."""
    image, truth = np.full(SHAPE, DARK, np.uint8), np.zeros(SHAPE, np.uint8)
    z, y, x = np.ogrid[tuple(slice(length) for length in SHAPE)]
    bodies = [
        (12, 14, THICK, 0, 128),
        (12, 60, THICK, 0, 128),
        (36, 40, THIN, 30, 52),
        (36, 66, THIN, 60, 84),
    ]
    for label, (at_z, at_y, half, first, last) in enumerate(bodies, start=1):
        distance = np.maximum(np.abs(z - at_z), np.abs(y - at_y))
        inside = (distance <= half) & (x >= first) & (x < last)
        image[inside] = np.broadcast_to(BRIGHTEST - 4 * distance, SHAPE)[inside]
        truth[inside] = label
    return image, truth


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An image with three levels, and a network file."""
    folder = tmp_path_factory.mktemp("levels")
    image, _ = tubes()
    with create_volume(
        folder / "flat.zarr", shape=SHAPE, dtype=np.uint8, voxel_size=NM, offset=OFFSET
    ) as volume:
        volume.write(volume.box, image)
    convert(folder / "flat.zarr", folder / "em.zarr", pyramid=2)
    save_model(bright_model(), folder / "model.safetensors")
    return folder


def request(**changes):
    options = {"min_segment_size": 300, **changes.pop("options", {})}
    return SegmentRequest(options=FloodOptions(**options), device="cpu", **changes)


def chain(made, destination, *, levels=(1, 0), models=None, **changes):
    of_run = {"cut", "crew", "should_stop", "notice", "progress"} & set(changes)
    asked = {name: changes.pop(name) for name in of_run}
    return segment_levels(
        VolumeSource(uri=str(changes.pop("image", made / "em.zarr"))),
        str(destination),
        levels=levels,
        models=models or dict.fromkeys(levels, str(made / "model.safetensors")),
        request=request(**changes),
        **asked,
    )


def read(uri, **opened):
    with open_volume(uri, **opened) as volume:
        return volume.read()


def coarse_of(destination, level=1):
    return f"{destination}.floodem/level-{level}/labels.zarr"


def same_objects(one, other):
    """Whether two labelings differ in the names of objects alone."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


def test_carried_objects_keep_id_and_extent_and_the_rest_is_filled(tmp_path, made):
    destination = tmp_path / "seg.zarr"
    result = chain(made, destination)
    labels, coarse = read(destination), read(coarse_of(destination))
    _, truth = tubes()
    # The small bodies are below the minimum size in voxels of the coarse level.
    assert np.unique(coarse).tolist() == [0, 1, 2]
    with open_volume(coarse_of(destination)) as volume:
        start = volume.box.start
    ends = zip(SHAPE, OFFSET, start, strict=True)
    carried = coarse[np.ix_(*[(np.arange(n) + at) // 2 - low for n, at, low in ends])]
    assert (labels[carried > 0] == carried[carried > 0]).all()
    assert sorted(np.unique(labels).tolist()) == [0, 1, 2, 3, 4]
    assert not np.isin(labels[carried == 0], [1, 2]).any()
    for body in (3, 4):
        inside = labels[truth == body]
        found = np.unique(inside[inside > 0])
        assert found.tolist() in ([3], [4])
        assert (inside > 0).mean() > 0.9
    assert result.uri == str(destination)
    with open_volume(destination) as volume:
        assert volume.voxel_size == NM
        assert volume.box == Box.from_shape(SHAPE, start=OFFSET)


def test_eight_blocks_give_what_one_gives(tmp_path, made):
    chain(made, tmp_path / "one.zarr")
    chain(made, tmp_path / "cut.zarr", cut=CutOptions(block=(24, 40, 64), halo=(12, 16, 16)))
    one, cut = read(tmp_path / "one.zarr"), read(tmp_path / "cut.zarr")
    record = json.loads((tmp_path / "cut.zarr.floodem" / "run.json").read_text())
    assert record["plan"]["cut"]["core"] == [24, 40, 64]
    assert same_objects(one, cut)
    assert read(coarse_of(tmp_path / "one.zarr")).any()


def test_three_levels_are_chained(tmp_path, made):
    brightest = {"min_segment_size": 60, "seeds": SeedPolicySpec("PolicyMax")}
    result = chain(made, tmp_path / "seg.zarr", levels=(2, 1, 0), options=brightest)
    coarsest, middle, fine = (
        read(uri) for uri in (coarse_of(result.uri, 2), coarse_of(result.uri, 1), result.uri)
    )
    assert set(np.unique(coarsest)) <= set(np.unique(middle)) <= set(np.unique(fine))
    assert coarsest.any()
    # carried twice: every voxel of the coarsest level is four by four by four of the finest
    with open_volume(coarse_of(result.uri, 2)) as volume:
        start = volume.box.start
    at = np.argwhere(coarsest)[0]
    here = tuple((at[axis] + start[axis]) * 4 - OFFSET[axis] + 3 for axis in range(3))
    assert fine[here] == coarsest[tuple(at)]


def test_the_last_level_need_not_be_the_finest(tmp_path, made):
    brightest = {"min_segment_size": 60, "seeds": SeedPolicySpec("PolicyMax")}
    result = chain(made, tmp_path / "seg.zarr", levels=(2, 1), options=brightest)
    assert read(coarse_of(result.uri, 2)).any()
    with open_volume(result.uri) as volume, open_volume(made / "em.zarr", level=1) as image:
        assert volume.voxel_size == image.voxel_size == VoxelSize(20, 20, 20)
        assert volume.box == image.box


def test_a_chain_goes_on_where_it_was_stopped_and_repeats_no_level(tmp_path, made):
    whole = chain(made, tmp_path / "a.zarr", cut=CutOptions(block=(24, 40, 64), halo=(12, 16, 16)))
    destination = tmp_path / "b.zarr"
    seen = []

    def told(report):
        seen.append(report.stage)

    def stop_at_level_0():
        return bool(seen) and seen[-1].startswith("level 0")

    cut = CutOptions(block=(24, 40, 64), halo=(12, 16, 16))
    with pytest.raises(StoppedError):
        chain(made, destination, cut=cut, progress=told, should_stop=stop_at_level_0)
    assert not destination.exists()
    coarse = Path(coarse_of(destination))
    before = {path: path.stat().st_mtime_ns for path in coarse.rglob("*") if path.is_file()}
    assert before
    result = chain(made, destination, cut=cut)
    assert not result.was_finished
    after = {path: path.stat().st_mtime_ns for path in coarse.rglob("*") if path.is_file()}
    assert after == before
    assert (read(destination) == read(whole.uri)).all()
    assert chain(made, destination, cut=cut).was_finished


def test_shards_started_once_for_each_level_leave_what_one_process_leaves(tmp_path, made):
    cut = CutOptions(block=(12, 40, 64), halo=(6, 16, 16))
    whole = chain(made, tmp_path / "a.zarr", cut=cut)
    destination, ended = tmp_path / "b.zarr", []
    for _level in (1, 0):
        for number in (1, 2):
            crew = Crew(shard=Shard(number=number, count=2))
            try:
                chain(made, destination, cut=cut, crew=crew)
            except ShardDoneError as done:
                ended.append(str(done))
    # Each shard ends once; the last one of a level goes on, and nobody does a block twice.
    assert ["shard 1/2 is done" in sentence for sentence in ended] == [True, False]
    assert (read(destination) == read(whole.uri)).all()


def test_other_options_are_refused_and_overwriting_begins_every_level_again(tmp_path, made):
    destination = tmp_path / "seg.zarr"
    chain(made, destination)
    before = read(destination)
    with pytest.raises(RunConflictError):
        chain(made, destination, options={"min_segment_size": 100})
    assert (read(destination) == before).all()
    chain(made, destination, options={"min_segment_size": 100}, overwrite=True)
    for record in (destination, Path(coarse_of(destination))):
        run = json.loads((record.with_name(f"{record.name}.floodem") / "run.json").read_text())
        assert '"min_segment_size": 100' in json.dumps(run["identity"])


def test_a_box_counts_voxels_of_the_last_level_and_shrinks_with_the_coarser(tmp_path, made):
    box = Box((4, 8, 11), (52, 88, 91))
    chain(made, tmp_path / "seg.zarr", box=box)
    with open_volume(tmp_path / "seg.zarr") as volume:
        assert volume.box == box
    with open_volume(coarse_of(tmp_path / "seg.zarr")) as volume:
        assert volume.box == Box((2, 4, 5), (26, 44, 46))


def test_each_level_says_what_its_network_was_trained_on(tmp_path, made):
    save_model(bright_model(), made / "other.safetensors", overwrite=True)
    notes = []
    models = {1: str(made / "other.safetensors"), 0: str(made / "model.safetensors")}
    chain(made, tmp_path / "seg.zarr", models=models, notice=notes.append)
    assert any(note.startswith("level 1: ") and "voxels of 20,20,20 nm" in note for note in notes)
    assert any(note.startswith("level 0: ") and "voxels of 10,10,10 nm" in note for note in notes)


def test_shift_masks_lie_over_every_level(tmp_path, made):
    uri = f"{tmp_path}/f.zarr"
    create_volume(uri, shape=(48, 6, 10), dtype=np.int16, channels=2, offset=(4, 0, -1)).close()
    with open_volume(uri, channel=0, writable=True) as volume:
        shifts = np.zeros(volume.shape, np.int16)
        shifts[:, :, 5] = 9
        volume.write(volume.box, shifts)
    rule = parse_mask(f"shift:{uri},window=-3:3,-4:5,-4:5,scale=16")
    chain(made, tmp_path / "seg.zarr", masks=[rule])
    labels = read(tmp_path / "seg.zarr")
    # field column 4 (offset -1, index 5) lies over x from 64 to 79, here 70 to 85
    left, right = (set(np.unique(part)) - {0} for part in (labels[..., :70], labels[..., 86:]))
    assert left
    assert right
    assert not left & right


@pytest.mark.parametrize(
    ("text", "levels"), [("2,1", (2, 1)), ("0", (0,)), (" 3 , 1,0 ", (3, 1, 0))]
)
def test_levels_are_read_from_text(text, levels):
    assert parse_levels(text) == levels


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1,2", "do not go from coarse to fine: write 2,1"),
        ("1,1", "write 1"),
        ("", "are no levels"),
        ("2,,1", "are no levels"),
        ("-1", "are no levels"),
        ("a", "for example 2,1"),
    ],
)
def test_text_that_is_no_levels_is_refused(text, says):
    with pytest.raises(OptionError) as refused:
        parse_levels(text)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("texts", "models"),
    [
        (["m.safetensors"], {2: "m.safetensors", 1: "m.safetensors"}),
        (["2=a,b.safetensors", "1=c=d"], {2: "a,b.safetensors", 1: "c=d"}),
        (["2=coarse,1=fine"], {2: "coarse", 1: "fine"}),
        (["1=fine, 2=coarse"], {2: "coarse", 1: "fine"}),
    ],
)
def test_models_are_read_for_each_level(texts, models):
    if texts == ["1=fine, 2=coarse"]:
        texts = ["1=fine,2=coarse"]
    assert parse_models(texts, levels=(2, 1)) == models


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["2=a"], "level 1 has no model: write 2=PATH,1=PATH"),
        (["2=a", "1=b", "0=c"], "is for level 0, and the levels are 2,1"),
        (["2=a", "2=b", "1=c"], "level 2 has two models, a and b"),
        (["a", "b"], "'a' does not say its level"),
        (["2=", "1=b"], "'2=' does not say its level"),
        ([], "level 2 has no model"),
    ],
)
def test_models_that_do_not_fit_the_levels_are_refused(texts, says):
    with pytest.raises(OptionError) as refused:
        parse_models(texts, levels=(2, 1))
    assert says in str(refused.value)


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path, made):
    destination = tmp_path / "seg.zarr"
    where = [parse_mask("where: z < 10")]
    create_volume(tmp_path / "mask.zarr", shape=SHAPE, dtype=np.uint8).close()
    refusals = [
        ({"levels": (3, 0)}, OptionError, "has no level 3: it has 3"),
        ({"image": made / "flat.zarr"}, OptionError, "make more with `floodem convert --pyramid`"),
        ({"models": {1: "none", 0: "none"}}, VolumeNotFoundError, "no model file none"),
        ({"models": {0: "none"}}, OptionError, "give one for each"),
        ({"init_segmentation": "x.h5"}, OptionError, "would both be carried"),
        ({"probabilities": "p.h5"}, OptionError, "of a single level only"),
        ({"masks": where}, OptionError, "each level has others"),
        ({"masks": [parse_mask(f"{tmp_path}/mask.zarr")]}, OptionError, "state its voxel size"),
        ({"box": Box((0, 0, 0), (9, 9, 9))}, GeometryError, "is not inside level 0"),
        ({"box": Box((4, 8, 0), (14, 18, 90))}, GeometryError, "smaller than the network's field"),
    ]
    for changes, kind, says in refusals:
        with pytest.raises(kind, match=says):
            chain(made, destination, **changes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask.zarr"]
    with pytest.raises(DestinationExistsError, match=r"mask\.zarr exists already"):
        chain(made, tmp_path / "mask.zarr")


def test_levels_that_do_not_lie_over_each_other_are_refused(tmp_path):
    import tensorstore as ts

    levels = {"0": (8, 40, 40), "1": (8, 13, 13)}
    for name, shape in levels.items():
        ts.open(
            {
                "driver": "zarr",
                "kvstore": f"file://{tmp_path}/em.zarr/{name}/",
                "metadata": {"shape": shape, "dtype": "|u1"},
                "create": True,
            }
        ).result()
    datasets = [
        {
            "path": name,
            "coordinateTransformations": [{"type": "scale", "scale": [30, 6 * factor, 6 * factor]}],
        }
        for name, factor in (("0", 1), ("1", 2.5))
    ]
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    block = {"multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets}]}
    (tmp_path / "em.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    (tmp_path / "em.zarr" / ".zattrs").write_text(json.dumps(block))
    with (
        open_volume(tmp_path / "em.zarr") as volume,
        pytest.raises(GeometryError, match="must be whole multiples"),
    ):
        level_ratio(volume, level=1)
    block["multiscales"][0]["datasets"][1]["coordinateTransformations"][0]["scale"] = [30, 12, 12]
    (tmp_path / "em.zarr" / ".zattrs").write_text(json.dumps(block))
    with (
        open_volume(tmp_path / "em.zarr") as volume,
        pytest.raises(GeometryError, match=r"it would hold 0:8,0:20,0:20: make its levels anew"),
    ):
        level_ratio(volume, level=1)


def test_one_level_is_an_ordinary_run(tmp_path, made):
    result = chain(made, tmp_path / "a.zarr", levels=(1,))
    other = segment(
        VolumeSource(uri=str(made / "em.zarr"), level=1),
        tmp_path / "b.zarr",
        model=str(made / "model.safetensors"),
        request=request(),
    )
    assert (read(result.uri) == read(other.uri)).all()
    assert not list((tmp_path / "a.zarr.floodem").glob("level-*"))
