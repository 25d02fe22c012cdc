"""Centres of examples: the index keeps every voxel, and draws are balanced, pure and checked."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from array_volume import ArrayVolume
from floodem.cli.sample import parse_volumes, parse_weights
from floodem.cli.sample import sample as sample_command
from floodem.errors import (
    DestinationExistsError,
    GeometryError,
    LabelError,
    OptionError,
    UsageError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.geometry import Box
from floodem.training.configuration.options import SamplingOptions
from floodem.training.coordinates import pages
from floodem.training.coordinates.index import CoordinateIndex, IndexedVolume
from floodem.training.coordinates.indexing import IndexBuilder, index_labels, index_partitions
from floodem.training.coordinates.narrowing import narrowed
from floodem.training.coordinates.partitioning import PartitionedLabels, Partitioning
from floodem.training.coordinates.samplers import Draw, make_sampler, random_words
from floodem.training.coordinates.sampling import sample
from floodem.volumes import create_volume

PAGE = pages.PAGE_SHAPE


def some_partitions(shape, *, seed=0, values=(0, 1, 2, 3, 255)):
    """Partitions in clumps, as real ones are."""
    random = np.random.default_rng(seed)
    coarse = random.choice(np.array(values, np.uint8), [-(-size // 4) for size in shape])
    fine = coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2)
    return np.ascontiguousarray(fine[: shape[0], : shape[1], : shape[2]])


def index_of(*arrays, margin=(0, 0, 0), offset=(0, 0, 0), background=True, **options):
    volumes = [
        (
            IndexedVolume(name=f"v{n}", box=Box.from_shape(array.shape, start=offset)),
            ArrayVolume(array, offset=offset),
        )
        for n, array in enumerate(arrays)
    ]
    return index_partitions(volumes, margin=margin, background=background, **options)


def drawn(index, name="balanced", *, count, seed=0, weights=None, background=False):
    sampler = make_sampler(name, index, seed=seed, weights=weights or {}, background=background)
    return [sampler(number) for number in range(count)]


def stored(path, array, **options):
    with create_volume(f"{path}@af", shape=array.shape, dtype=array.dtype, **options) as volume:
        volume.write(volume.box, array)
    return f"{path}@af"


@settings(deadline=None, max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 130), st.integers(1, 140), st.integers(1, 140)),
    margin=st.tuples(*[st.integers(0, 5)] * 3),
    offset=st.tuples(*[st.integers(-300, 300)] * 3),
    seed=st.integers(0, 5),
    data=st.data(),
)
def test_the_index_holds_every_voxel_of_every_partition_once(shape, margin, offset, seed, data):
    array = some_partitions(shape, seed=seed)
    array.flat[0] = 1
    if any(size <= 2 * less for size, less in zip(shape, margin, strict=True)):
        with pytest.raises(GeometryError, match="leaves nothing of volume 'v0'"):
            index_of(array, margin=margin, offset=offset)
        return
    inner = np.full(shape, 255, np.uint8)
    free = Box.from_shape(shape).grow(tuple(-less for less in margin)).slices()
    inner[free] = array[free]
    if not np.isin(inner, [1, 2, 3]).any():
        return
    index = index_of(array, margin=margin, offset=offset)
    assert index.partitions("v0") == tuple(np.unique(inner[inner < 255]).tolist())
    for partition in index.partitions("v0"):
        found = np.concatenate(list(index.centres("v0", partition))) - offset
        assert index.count("v0", partition) == len(found)
        wanted = np.argwhere(inner == partition)
        assert np.array_equal(found[np.lexsort(found.T[::-1])], wanted)
        rank = data.draw(st.integers(0, len(found) - 1))
        assert index.centre("v0", partition, rank=rank) == tuple((found[rank] + offset).tolist())


@settings(deadline=None, max_examples=15)
@given(
    starts=st.tuples(*[st.integers(-10, 100)] * 3),
    sizes=st.tuples(st.integers(1, 90), st.integers(1, 150), st.integers(1, 150)),
    offset=st.tuples(*[st.integers(-300, 300)] * 3),
)
def test_a_narrowed_index_holds_the_voxels_of_the_part_and_no_others(starts, sizes, offset):
    arrays = [some_partitions((80, 150, 140), seed=1), some_partitions((9, 30, 20), seed=2)]
    index = index_of(*arrays, margin=(1, 2, 3), offset=offset)
    wanted = Box.from_shape(sizes, start=starts).translate(offset)
    part = wanted.intersection(index.free_box("v0"))
    if part is None:
        return
    fewer = narrowed(index, {"v0": part})
    inner = np.full_like(arrays[0], 255)
    place = part.slices(origin=offset)
    inner[place] = arrays[0][place]
    assert fewer.partitions("v0") == tuple(np.unique(inner[inner < 255]).tolist())
    for partition in fewer.partitions("v0"):
        found = np.concatenate(list(fewer.centres("v0", partition))) - offset
        assert np.array_equal(found[np.lexsort(found.T[::-1])], np.argwhere(inner == partition))
        last = fewer.centre("v0", partition, rank=len(found) - 1)
        assert last == tuple((found[-1] + offset).tolist())
    fewer.require_volumes({"v0": part, "v1": index.volume("v1").box}, margin=(0, 0, 0))
    for partition in index.partitions("v1"):
        assert fewer.count("v1", partition) == index.count("v1", partition)


def test_long_runs_are_cut_and_none_is_lost():
    array = np.full((70, 130, 260), 9, np.uint8)
    index = index_of(array)
    assert index.count("v0", 9) == array.size
    assert index.centre("v0", 9, rank=array.size - 1) == (69, 129, 259)


def test_background_is_left_out_unless_asked_for():
    array = some_partitions((20, 20, 20))
    assert index_of(array, background=False).partitions("v0") == (1, 2, 3)
    kept = index_of(array, background=True)
    assert kept.partitions("v0") == (0, 1, 2, 3)
    assert all(array[draw.centre] != 0 for draw in drawn(kept, count=300))
    assert any(array[draw.centre] == 0 for draw in drawn(kept, count=300, background=True))


def test_an_index_comes_back_from_its_file_as_it_was(tmp_path):
    arrays = [some_partitions((70, 130, 40), seed=1), some_partitions((9, 30, 20), seed=2)]
    index = index_of(*arrays, margin=(1, 2, 3), offset=(-4, 5, 6))
    index.save(tmp_path / "index.npz")
    read = CoordinateIndex.load(tmp_path / "index.npz")
    assert read.volumes == index.volumes
    assert read.margin == (1, 2, 3)
    assert np.array_equal(read.segments, index.segments)
    assert np.array_equal(read.words, index.words)
    assert drawn(read, count=50) == drawn(index, count=50)
    with np.load(tmp_path / "index.npz", allow_pickle=False) as plain:
        assert plain["words"].dtype == np.uint32
        assert json.loads(plain["description"].tobytes())["version"] == 1


def test_runs_may_wait_in_a_file(tmp_path):
    array = some_partitions((70, 130, 140))
    with open(tmp_path / "spill", "w+b") as spill:
        index = index_of(array, spill=spill)
        assert isinstance(index.words, np.memmap)
        assert np.array_equal(index.words, index_of(array).words)


def test_an_index_takes_far_fewer_bytes_than_its_voxels():
    array = some_partitions((64, 128, 128))
    index = index_of(array, background=False)
    voxels = sum(index.count("v0", one) for one in index.partitions("v0"))
    # Clumps are four voxels wide, so a run of four bytes stands for four voxels or more.
    assert index.words.nbytes + index.segments.nbytes <= 1.1 * voxels


def test_draws_depend_on_seed_and_number_alone():
    index = index_of(some_partitions((40, 60, 60)), some_partitions((20, 20, 20), seed=4))
    for name in ("balanced", "uniform"):
        first = drawn(index, name, count=60, seed=5)
        sampler = make_sampler(name, index, seed=5, weights={}, background=False)
        backwards = [sampler(number) for number in reversed(range(60))]
        assert backwards[::-1] == first
        assert drawn(index, name, count=60, seed=6) != first
        assert sampler(2**62) == sampler(2**62)
        assert all(isinstance(draw, Draw) for draw in first)


def test_every_partition_is_drawn_alike_however_large_it_is():
    array = np.full((40, 60, 60), 1, np.uint8)
    array[:2] = 2
    array[5, 5, :7] = 3
    draws = drawn(index_of(array), count=6000)
    counts = np.bincount([array[draw.centre] for draw in draws])[1:]
    # Standard deviation of each is 37.
    assert np.all(np.abs(counts - 2000) < 150)
    rare = [draw.centre for draw in draws if array[draw.centre] == 3]
    assert len(set(rare)) == 7
    assert min(rare.count(voxel) for voxel in set(rare)) > 200


def test_volumes_are_drawn_by_their_weights():
    large, small = some_partitions((40, 60, 60)), some_partitions((12, 12, 12), seed=3)
    index = index_of(large, small)
    alike = [draw.volume for draw in drawn(index, count=4000)]
    assert abs(alike.count("v1") - 2000) < 160
    weighed = [draw.volume for draw in drawn(index, count=4000, weights={"v0": 1, "v1": 3})]
    assert abs(weighed.count("v1") - 3000) < 140
    uniform = [draw.volume for draw in drawn(index, "uniform", count=4000)]
    share = np.isin(small, [1, 2, 3]).sum() / sum(
        np.isin(array, [1, 2, 3]).sum() for array in (large, small)
    )
    assert abs(uniform.count("v1") - 4000 * share) < 5 * np.sqrt(4000 * share)


def test_uniform_draws_every_voxel_alike():
    array = np.full((16, 16, 16), 1, np.uint8)
    array[:4] = 2
    draws = drawn(index_of(array), "uniform", count=4000)
    assert abs(sum(array[draw.centre] == 2 for draw in draws) - 1000) < 130
    zs = np.bincount([draw.centre[0] for draw in draws], minlength=16)
    assert np.all(np.abs(zs - 250) < 80)


def test_neighbouring_numbers_seeds_and_slots_have_nothing_in_common():
    words = np.array(
        [[random_words(seed, number) for number in range(1500)] for seed in range(3)], float
    )
    values = (words / 2**64 - 0.5) * np.sqrt(12)
    numbers = values[0]
    series = [
        (numbers[:-1], numbers[1:]),  # neighbours
        (numbers[:-8], numbers[8:]),  # the same slot of eight, one example later
        (numbers[:, :3], numbers[:, 1:]),  # words of one draw
        (values[0], values[1]),  # neighbouring seeds
        (values[1][1:], values[2][:-1]),
    ]
    for a, b in series:
        assert abs(np.mean(a * b)) < 4.5 / np.sqrt(a.size)
    assert len(np.unique(words)) == words.size


def test_a_sampler_of_another_package_is_found_by_its_address(tmp_path, monkeypatch):
    (tmp_path / "my_samplers.py").write_text(
        "from floodem.training.coordinates.samplers import Draw\n"
        "def first(index, *, seed, weights, background):\n"
        "    name = index.volume_names[0]\n"
        "    centre = index.centre(name, index.partitions(name)[0], rank=seed)\n"
        "    return lambda number: Draw(volume=name, centre=centre)\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    index = index_of(some_partitions((20, 20, 20)), background=False)
    found = drawn(index, "my_samplers:first", count=2, seed=3)
    assert found == [Draw(volume="v0", centre=index.centre("v0", 1, rank=3))] * 2
    with pytest.raises(OptionError, match="no sampler is called 'balance'"):
        drawn(index, "balance", count=1)


def test_labels_become_the_index_of_their_partitions():
    labels = np.zeros((30, 40, 50), np.uint64)
    labels[:, :, :20] = 2**40
    labels[:, 20:, 25:] = 7
    sampling = SamplingOptions(thresholds=(0.4, 0.7), lom_radius=(2, 4, 4), min_size=100)
    box = Box((10, 0, 0), (40, 40, 45))
    volume = ArrayVolume(labels, offset=(10, 0, 0))
    index = index_labels({"a": volume}, sampling=sampling, margin=(3, 6, 2), boxes={"a": box})
    assert index.volume("a").box == box
    by = Partitioning(thresholds=(0.4, 0.7), radius=(2, 4, 4), min_size=100)
    blocks = list(PartitionedLabels(volume, by=by, box=box).blocks())
    assert len(blocks) == 1
    inner = blocks[0][1][3:-3, 6:-6, 2:-2]
    assert index.partitions("a") == (1, 2, 3)
    for partition in (1, 2, 3):
        assert index.count("a", partition) == np.count_nonzero(inner == partition)
    for draw in drawn(index, count=100):
        z, y, x = draw.centre
        assert labels[z - 10, y, x] > 0
    whole = index_labels({"a": volume}, sampling=sampling, margin=(3, 6, 2), boxes={})
    assert whole.volume("a").box == volume.box


def test_what_leaves_nothing_to_draw_is_refused_by_name():
    labels = np.zeros((30, 40, 50), np.uint16)
    labels[:, :, :5] = 1
    sampling = SamplingOptions(thresholds=(0.5,), lom_radius=(2, 2, 2), min_size=10)
    volume = ArrayVolume(labels)
    with pytest.raises(LabelError, match="no voxel of volume 'a' .array. may be the centre"):
        index_labels({"a": volume}, sampling=sampling, margin=(5, 5, 5), boxes={})
    with pytest.raises(GeometryError, match="margin 5,20,5 leaves nothing of volume 'a'"):
        index_labels({"a": volume}, sampling=sampling, margin=(5, 20, 5), boxes={})
    with pytest.raises(OptionError, match="is negative"):
        index_labels({"a": volume}, sampling=sampling, margin=(-1, 2, 5), boxes={})
    empty = np.zeros((9, 9, 9), np.uint8)
    with pytest.raises(LabelError, match="array has no voxel of an object"):
        index_of(empty)
    with pytest.raises(VolumeFormatError, match="array holds uint16, and partitions are uint8"):
        index_of(empty.astype(np.uint16))


def test_samplers_refuse_what_does_not_belong_to_the_index():
    index = index_of(some_partitions((20, 20, 20)), some_partitions((20, 20, 20)))
    with pytest.raises(OptionError, match="has no volume 'b', only v0, v1"):
        drawn(index, count=1, weights={"b": 1})
    with pytest.raises(OptionError, match="volume 'v1' of the index has no weight"):
        drawn(index, count=1, weights={"v0": 1})
    for bad in (0, -1, float("nan"), float("inf")):
        with pytest.raises(OptionError, match="of volume 'v1' is not positive"):
            drawn(index, count=1, weights={"v0": 1, "v1": bad})
    with pytest.raises(OptionError, match="seed -1 is negative"):
        drawn(index, count=1, seed=-1)
    builder = IndexBuilder(margin=(0, 0, 0))
    builder.begin(IndexedVolume(name="a", box=Box.from_shape((4, 4, 4))))
    builder.add(Box.from_shape((4, 4, 4)), np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(OptionError, match="volume 'a' has no centre to draw.*only background"):
        drawn(builder.index(), count=1)
    with pytest.raises(OptionError, match="two volumes are called 'a'"):
        builder.begin(IndexedVolume(name="a", box=Box.from_shape((4, 4, 4))))


def test_an_index_of_other_volumes_is_refused():
    index = index_of(some_partitions((20, 20, 20)), margin=(2, 3, 4))
    box = Box.from_shape((20, 20, 20))
    index.require_volumes({"v0": box}, margin=(2, 3, 4))
    index.require_volumes({"v0": box.grow((5, 5, 5))}, margin=(7, 8, 9))
    with pytest.raises(UsageError, match="centres in volume 'v0', which is not among"):
        index.require_volumes({"w": box}, margin=(0, 0, 0))
    with pytest.raises(OptionError, match="has no volume 'w'"):
        index.require_volumes({"v0": box, "w": box}, margin=(0, 0, 0))
    with pytest.raises(GeometryError, match="of 'v0' at 0:20,0:20,0:20.*--box 0:20,0:20,0:19"):
        index.require_volumes({"v0": Box.from_shape((20, 20, 19))}, margin=(0, 0, 0))
    with pytest.raises(GeometryError, match="--margin 2,4,4 or more"):
        index.require_volumes({"v0": box}, margin=(2, 4, 4))


def rewritten(path, change):
    """Write the arrays of an index again, after `change` has had them."""
    with np.load(path) as archive:
        arrays = {name: archive[name].copy() for name in archive.files}
    change(arrays)
    np.savez(path, **arrays)


def described(change):
    def apply(arrays):
        told = json.loads(arrays["description"].tobytes())
        change(told)
        arrays["description"] = np.frombuffer(json.dumps(told).encode(), np.uint8)

    return apply


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda a: a.pop("words"), "not an index of coordinates, or a damaged one"),
        (lambda a: a.update(words=a["words"][:-1].copy()), "runs do not fit its volumes"),
        (lambda a: a.update(words=a["words"].astype(np.int64)), "another kind"),
        (lambda a: a["segments"].__setitem__((0, 0), 5), "runs do not fit its volumes"),
        (lambda a: a["segments"].__setitem__((0, 1), -1), "runs do not fit its volumes"),
        (lambda a: a["segments"].__setitem__((0, 2), 255), "runs do not fit its volumes"),
        (lambda a: a.update(description=np.zeros(9, np.uint8)), "not an index of coordinates"),
        (described(lambda t: t.update(format="else")), "not marked as one"),
        (described(lambda t: t.update(version=2)), "version 2, and this floodem reads up to 1"),
        (described(lambda t: t.update(page_shape_zyx=[1, 2, 3])), "another shape"),
        (described(lambda t: t["volumes"][0].update(weight=-1)), "is not positive"),
        (described(lambda t: t.pop("margin_zyx")), "not an index of coordinates"),
    ],
)
def test_a_damaged_index_is_refused_when_it_is_opened(tmp_path, change, sentence):
    index_of(some_partitions((20, 20, 20))).save(tmp_path / "index.npz")
    CoordinateIndex.load(tmp_path / "index.npz")
    rewritten(tmp_path / "index.npz", change)
    with pytest.raises(VolumeFormatError, match=sentence):
        CoordinateIndex.load(tmp_path / "index.npz")


def test_a_run_that_leads_outside_is_refused_when_it_is_drawn(tmp_path):
    array = np.ones((20, 20, 20), np.uint8)
    index_of(array).save(tmp_path / "index.npz")
    rewritten(tmp_path / "index.npz", lambda a: a["words"].__iadd__(np.uint32(30 << 12 | 0)))
    index = CoordinateIndex.load(tmp_path / "index.npz")
    with pytest.raises(VolumeFormatError, match="is damaged, its runs do not fit"):
        drawn(index, count=50)
    with pytest.raises(VolumeFormatError, match="is damaged, its runs do not fit"):
        list(index.centres("v0", 1))


def test_files_that_are_no_index_are_refused(tmp_path):
    with pytest.raises(VolumeNotFoundError, match="make them with `floodem sample`"):
        CoordinateIndex.load(tmp_path / "none.npz")
    index_of(some_partitions((20, 20, 20))).save(tmp_path / "index.npz")
    whole = (tmp_path / "index.npz").read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        with pytest.raises(VolumeFormatError, match="not an index of coordinates"):
            CoordinateIndex.load(tmp_path / "cut.npz")
    with np.load(tmp_path / "index.npz") as arrays:
        np.savez_compressed(tmp_path / "small.npz", **arrays)
    with pytest.raises(VolumeFormatError, match="description is compressed"):
        CoordinateIndex.load(tmp_path / "small.npz")
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, description=np.array([{}], object), allow_pickle=True)
    with pytest.raises(VolumeFormatError, match="not an index of coordinates"):
        CoordinateIndex.load(pickled)
    assert zipfile.is_zipfile(pickled)


def test_sampling_addresses_equals_sampling_in_memory(tmp_path):
    arrays = [some_partitions((40, 50, 60)), some_partitions((20, 20, 20), seed=2)]
    uris = {f"v{n}": stored(tmp_path / f"{n}.h5", array) for n, array in enumerate(arrays)}
    index = sample(uris, tmp_path / "new" / "index.npz", margin=(1, 1, 1), weights={"v1": 2.0})
    wanted = index_of(*arrays, margin=(1, 1, 1), background=False)
    assert np.array_equal(index.words, wanted.words)
    assert np.array_equal(index.segments, wanted.segments)
    assert [volume.weight for volume in index.volumes] == [1.0, 2.0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.h5", "1.h5", "new"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["index.npz"]


def test_a_refused_sample_leaves_what_was_there(tmp_path):
    uri = stored(tmp_path / "0.h5", some_partitions((20, 20, 20)))
    target = tmp_path / "index.npz"
    target.write_text("old", encoding="utf-8")
    with pytest.raises(DestinationExistsError):
        sample({"a": uri}, target, margin=(0, 0, 0))
    with pytest.raises(GeometryError, match="margin 10,0,0 leaves nothing of volume 'a'"):
        sample({"a": uri}, target, margin=(10, 0, 0), overwrite=True)
    with pytest.raises(OptionError, match="a weight is given to volume 'b'"):
        sample({"a": uri}, target, margin=(0, 0, 0), weights={"b": 2}, overwrite=True)
    with pytest.raises(VolumeNotFoundError):
        sample({"a": tmp_path / "no.h5"}, tmp_path / "sub" / "i.npz", margin=(0, 0, 0))
    assert target.read_text(encoding="utf-8") == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.h5", "index.npz"]


def test_the_command_prints_what_each_volume_holds(tmp_path, capsys):
    array = some_partitions((20, 20, 20))
    uri = stored(tmp_path / "0.h5", array)
    target = str(tmp_path / "index.npz")
    sample_command([f"train={uri}"], target, margin="1,1,1", weights="train=2")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{target}: centres in 1 volume"
    assert lines[1] == "train, weight 2, in 1:19,1:19,1:19 (z,y,x)"
    inner = array[1:-1, 1:-1, 1:-1]
    assert [line.split() for line in lines[2:]] == [
        [str(one), f"{np.count_nonzero(inner == one):,}"] for one in (1, 2, 3)
    ]
    sample_command(
        [f"a={uri}"], target, margin="0,0,0", background=True, overwrite=True, as_json=True
    )
    told = json.loads(capsys.readouterr().out)
    assert told["volumes"]["a"]["voxels"]["0"] == np.count_nonzero(array == 0)


def test_what_the_command_cannot_read_is_refused(tmp_path):
    for text in ("af.h5@af", "=af.h5", "a="):
        with pytest.raises(UsageError, match="is not a named volume"):
            parse_volumes([text])
    assert parse_volumes(["a=b=c.h5"]) == {"a": "b=c.h5"}
    with pytest.raises(UsageError, match="two volumes are called 'a'"):
        parse_volumes(["a=1", "a=2"])
    with pytest.raises(OptionError, match="no volume is called 'c': the names are a, b"):
        parse_weights("c=1", names=["a", "b"])
    for text in ("a", "a=x", "a=0", "a=inf"):
        with pytest.raises(OptionError, match="--weights 'a"):
            parse_weights(text, names=["a"])
    with pytest.raises(OptionError, match="are of the index, not of --tfrecord"):
        sample_command(["a=b.h5"], "c", margin="0,0,0", tfrecord=True, background=True)
    with pytest.raises(OptionError, match="are of --tfrecord: add it"):
        sample_command(["a=b.h5"], "c", margin="0,0,0", shards=3)
    with pytest.raises(OptionError, match="--margin"):
        sample_command(["a=b.h5"], "c", margin="0,0")
