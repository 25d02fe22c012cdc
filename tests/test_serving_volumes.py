"""Volumes as a page reads them: voxels, levels, what is read for them and what is kept."""

from __future__ import annotations

import gzip
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from array_volume import ArrayVolume
from floodem.errors import LabelError, StorageError
from floodem.geometry import Box, VoxelSize
from floodem.viewer.layers import Kind
from floodem.viewer.serving import Site
from floodem.viewer.serving.blocks import BlockwiseVolume, Cache, CoarserVolume, read_safely
from floodem.viewer.serving.levels import make_levels, served_chunk
from floodem.viewer.serving.volumes import ServedVolume
from floodem.volumes import create_volume, open_volume
from floodem.volumes.conversion.pyramid import downsample
from floodem.volumes.volume import Kind as ValueKind
from serving_cases import ask

neuroglancer = pytest.importorskip("neuroglancer")

IMAGE, SEGMENTATION = Kind.IMAGE, Kind.SEGMENTATION


@pytest.fixture
def site():
    with Site.start() as running:
        yield running


def noise(shape, dtype=np.uint8):
    return np.random.default_rng(7).integers(0, 200, shape).astype(dtype)


def chunk_name(box):
    """Name a box as precomputed volumes do: x, y, z."""
    pairs = list(zip(box.start, box.stop, strict=True))[::-1]
    return "_".join(f"{a}-{b}" for a, b in pairs)


def chunk_boxes(scale):
    """Yield the box (z, y, x) of every chunk of a scale."""
    first, size, edge = (scale[key][::-1] for key in ("voxel_offset", "size", "chunk_sizes_0"))
    whole = Box.from_shape(tuple(size), start=tuple(first))
    for index in np.ndindex(*(-(-s // e) for s, e in zip(size, edge, strict=True))):
        start = tuple(f + i * e for f, i, e in zip(first, index, edge, strict=True))
        yield Box.from_shape(tuple(edge), start=start).intersection(whole)


def scales_of(address):
    scales = ask(f"{address}/info").json["scales"]
    return [scale | {"chunk_sizes_0": scale["chunk_sizes"][0]} for scale in scales]


def whole_scale(address, scale, dtype):
    """Ask for every chunk of a scale and put the array (z, y, x) together."""
    found = np.zeros(scale["size"][::-1], dtype)
    for box in chunk_boxes(scale):
        reply = ask(f"{address}/{scale['key']}/{chunk_name(box)}")
        assert reply.status == 200
        part = np.frombuffer(reply.body, dtype).reshape(box.shape)
        found[box.slices(origin=tuple(scale["voxel_offset"][::-1]))] = part
    return found


def test_served_chunks_hold_the_voxels_of_the_volume_in_its_own_frame(site):
    volume = ArrayVolume(noise((70, 80, 90)), offset=(5, -60, 700), chunks=(16, 64, 64))
    address = site.serve_volume(volume, kind=IMAGE, name="em", voxel_size=VoxelSize(30, 6, 4))
    assert address.startswith(f"precomputed://http://127.0.0.1:{site.port}/d/")
    finest = scales_of(address)[0]
    assert finest["resolution"] == [4, 6, 30]
    assert finest["voxel_offset"] == [700, -60, 5]
    np.testing.assert_array_equal(whole_scale(address, finest, np.uint8), volume.array)


def test_coarser_levels_are_made_on_demand_as_a_pyramid_would_hold_them(site):
    labels = np.repeat(np.repeat(noise((40, 70, 70), np.uint16), 2, axis=1), 2, axis=2)
    volume = ArrayVolume(labels, offset=(3, 5, 7), chunks=(16, 64, 64))
    size = VoxelSize(30, 6, 6)
    address = site.serve_volume(volume, kind=SEGMENTATION, name="labels", voxel_size=size)
    scales = scales_of(address)
    assert [scale["resolution"] for scale in scales] == [[6, 6, 30], [12, 12, 30], [24, 24, 30]]
    expected = labels
    start = volume.offset
    for scale in scales[1:]:
        expected = downsample(expected, start=start, factors=(1, 2, 2), kind=ValueKind.LABELS)
        start = (start[0], start[1] // 2, start[2] // 2)
        assert tuple(scale["voxel_offset"][::-1]) == start
        np.testing.assert_array_equal(whole_scale(address, scale, np.uint32), expected)


def test_stored_levels_are_served_as_they_are(site, tmp_path):
    uri = str(tmp_path / "em.zarr")
    image = noise((60, 128, 128))
    with create_volume(
        uri, shape=image.shape, dtype="uint8", voxel_size=VoxelSize(8, 8, 8), levels=[(2, 2, 2)]
    ) as volume:
        volume.write(volume.box, image)
        # No mean of the finer level, so that one sees where it comes from.
        volume.levels[1].write(volume.levels[1].box, np.full((30, 64, 64), 77, np.uint8))
    with open_volume(uri) as volume:
        address = site.serve_volume(volume, kind=IMAGE, name="em")
        scales = scales_of(address)
        assert [scale["key"] for scale in scales][:2] == ["8_8_8", "16_16_16"]
        assert (whole_scale(address, scales[1], np.uint8) == 77).all()


def test_a_level_that_was_opened_alone_is_the_finest_that_is_served(site, tmp_path):
    uri = str(tmp_path / "em.zarr")
    with create_volume(
        uri, shape=(8, 64, 64), dtype="uint8", voxel_size=VoxelSize(8, 8, 8), levels=[(1, 2, 2)]
    ):
        pass
    with open_volume(uri, level=1) as volume:
        assert scales_of(site.serve_volume(volume, kind=IMAGE, name="em"))[0]["size"] == [32, 32, 8]


@pytest.mark.parametrize(
    ("stored", "kind", "shown"),
    [
        ("uint8", SEGMENTATION, "uint32"),
        ("int16", SEGMENTATION, "uint32"),
        ("uint64", SEGMENTATION, "uint64"),
        ("uint8", IMAGE, "uint8"),
        ("uint16", IMAGE, "uint16"),
        ("float64", IMAGE, "float32"),
        ("uint64", IMAGE, "float32"),
    ],
)
def test_voxels_get_a_type_that_the_client_draws_as_meant(site, stored, kind, shown):
    volume = ArrayVolume(noise((6, 7, 8), stored))
    address = site.serve_volume(volume, kind=kind, name="em")
    info = ask(f"{address}/info").json
    assert (info["data_type"], info["type"]) == (shown, kind.value)
    found = whole_scale(address, scales_of(address)[0], shown)
    np.testing.assert_array_equal(found, volume.array)


def test_floats_are_no_segmentation(site):
    with pytest.raises(LabelError, match="float32 values, which are no labels"):
        site.serve_volume(ArrayVolume(noise((4, 4, 4), "f4")), kind=SEGMENTATION, name="x")


def test_only_what_is_asked_for_is_read(site):
    volume = ArrayVolume(noise((200, 256, 256)), chunks=(64, 64, 64))
    address = site.serve_volume(volume, kind=IMAGE, name="em")
    ask(f"{address}/info")
    assert volume.reads == []
    key = scales_of(address)[0]["key"]
    assert ask(f"{address}/{key}/64-128_0-64_128-192").status == 200
    assert volume.reads == [Box((128, 0, 64), (192, 64, 128))]


def test_several_threads_share_the_blocks_of_one_chunk():
    class Slow(ArrayVolume):
        def _read(self, box):
            time.sleep(0.05)
            return super()._read(box)

    slow = Slow(noise((16, 8, 8)), chunks=(1, 8, 8))
    # Its address says that it may be read by several threads.
    slow.uri = "em.zarr"
    kept = BlockwiseVolume(slow, block=(1, 8, 8), cache=Cache(), owner="a", part="0")
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: kept.read(), range(4)):
            np.testing.assert_array_equal(found, slow.array)
    assert len(slow.reads) == 16
    assert time.monotonic() - began < 0.6  # 0.2 in four threads, 0.8 one after the other


def test_a_section_of_a_stack_is_read_once_for_all_chunks_on_it(site):
    volume = ArrayVolume(noise((70, 200, 300)), chunks=(1, 200, 300))
    address = site.serve_volume(volume, kind=IMAGE, name="em")
    finest = scales_of(address)[0]
    np.testing.assert_array_equal(whole_scale(address, finest, np.uint8), volume.array)
    assert sorted(box.start[0] for box in volume.reads) == list(range(70))


def test_the_same_chunk_asked_for_by_many_at_once_is_read_once(site):
    class Slow(ArrayVolume):
        def _read(self, box):
            time.sleep(0.2)
            return super()._read(box)

    volume = Slow(noise((64, 64, 64)), chunks=(64, 64, 64))
    address = site.serve_volume(volume, kind=IMAGE, name="em")
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: ask(f"{address}/1_1_1/0-64_0-64_0-64"), range(8)))
    assert {reply.body for reply in replies} == {volume.array.tobytes()}
    assert len(volume.reads) == 1


def test_a_volume_that_is_not_safe_for_threads_is_read_by_one_at_a_time(site):
    class Watched(ArrayVolume):
        inside = most = 0

        def _read(self, box):
            self.inside += 1
            self.most = max(self.most, self.inside)
            time.sleep(0.02)
            self.inside -= 1
            return super()._read(box)

    volume = Watched(noise((64, 128, 128)), chunks=(32, 32, 32))
    address = site.serve_volume(volume, kind=IMAGE, name="em")
    boxes = list(chunk_boxes(scales_of(address)[0]))
    with ThreadPoolExecutor(6) as pool:
        beside = pool.submit(lambda: [read_safely(volume, box) for box in boxes])
        for reply in pool.map(lambda box: ask(f"{address}/1_1_1/{chunk_name(box)}"), boxes):
            assert reply.status == 200
        beside.result()
    assert volume.most == 1


def test_a_huge_volume_of_which_nothing_is_stored_opens_at_once(site, tmp_path):
    uri = str(tmp_path / "huge.zarr")
    shape = (4640, 4640, 4640)  # 100 GB
    with create_volume(uri, shape=shape, dtype="uint8", voxel_size=VoxelSize(8, 8, 8)):
        pass
    began = time.monotonic()
    with open_volume(uri) as volume:
        address = site.serve_volume(volume, kind=IMAGE, name="huge")
        keys = [scale["key"] for scale in scales_of(address)]
        assert ask(f"{address}/{keys[0]}/2048-2112_2048-2112_2048-2112").body == bytes(64**3)
        assert ask(f"{address}/{keys[-1]}/256-320_256-320_256-320").body == bytes(64**3)
        assert time.monotonic() - began < 5  # a second without other work on the machine
    # What one chunk of the coarsest level is made of is bounded.
    assert keys == ["8_8_8", "16_16_16", "32_32_32"]


def test_chunks_lie_on_the_grid_of_what_is_stored():
    def chunk(stored, shape=(4096, 4096, 4096)):
        volume = ArrayVolume(np.broadcast_to(np.uint8(0), shape), chunks=stored)
        return served_chunk(volume, cache_bytes=2**29)

    assert chunk((64, 64, 64)) == (64, 64, 64)
    assert chunk((16, 128, 512)) == (64, 64, 64)
    assert chunk((1, 512, 512)) == (64, 64, 64)
    assert chunk((1, 384, 512), shape=(100, 384, 512)) == (16, 128, 128)
    assert chunk((50, 125, 125)) == (50, 64, 64)
    assert chunk((33, 100, 250)) == (33, 50, 50)
    assert chunk((1, 20_000, 20_000), shape=(100, 20_000, 20_000)) == (1, 1024, 1024)
    assert chunk((8, 8, 8), shape=(8, 8, 8)) == (8, 8, 8)


@settings(deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 10**6)] * 3),
    stored=st.tuples(*[st.sampled_from([1, 3, 16, 50, 64, 125, 512, 10**5])] * 3),
    size=st.tuples(*[st.sampled_from([0.5, 4.0, 6.0, 8.0, 30.0, 1000.0])] * 3),
)
def test_volumes_of_any_shape_get_levels_whose_chunks_read_little(shape, stored, size):
    chunks = tuple(min(a, b) for a, b in zip(stored, shape, strict=True))
    volume = ArrayVolume(np.broadcast_to(np.uint8(0), shape), offset=(-3, 0, 5), chunks=chunks)
    levels = make_levels(
        volume,
        kind=ValueKind.IMAGE,
        voxel_size=VoxelSize(*size),
        cache=Cache(most_bytes=2**29),
        owner="a",
    )
    assert len({level.key for level in levels}) == len(levels)
    for level in levels:
        assert np.prod(level.chunk) <= 2**21
        assert all(1 <= a <= b for a, b in zip(level.chunk, level.volume.shape, strict=True))
        coarsening = np.prod(level.size.zyx_nm) / np.prod(size)
        assert coarsening <= 64


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_blocks_from_memory_are_what_the_volume_holds(data):
    edges = st.tuples(*[st.integers(1, 9)] * 3)
    shape, block = data.draw(edges), data.draw(edges)
    offset = data.draw(st.tuples(*[st.integers(-5, 5)] * 3))
    volume = ArrayVolume(noise(shape), offset=offset)
    cache = Cache(most_bytes=data.draw(st.integers(0, 300)))
    kept = BlockwiseVolume(volume, block=block, cache=cache, owner="a", part="0")
    for _ in range(3):
        start = [
            data.draw(st.integers(a, b - 1)) for a, b in zip(offset, volume.box.stop, strict=True)
        ]
        stop = [
            data.draw(st.integers(a + 1, b)) for a, b in zip(start, volume.box.stop, strict=True)
        ]
        box = Box(tuple(start), tuple(stop))
        np.testing.assert_array_equal(kept.read(box), volume.read(box))
        assert cache.kept_bytes <= cache.most_bytes


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_a_coarser_level_does_not_depend_on_where_it_is_read(data):
    shape = data.draw(st.tuples(*[st.integers(1, 12)] * 3))
    offset = data.draw(st.tuples(*[st.integers(-5, 5)] * 3))
    factors = data.draw(st.tuples(*[st.integers(1, 2)] * 3))
    volume = ArrayVolume(noise(shape), offset=offset)
    coarse = CoarserVolume(volume, factors=factors, kind=ValueKind.IMAGE)
    whole = downsample(volume.array, start=offset, factors=factors, kind=ValueKind.IMAGE)
    np.testing.assert_array_equal(coarse.read(), whole)
    start = [
        data.draw(st.integers(a, b - 1))
        for a, b in zip(coarse.box.start, coarse.box.stop, strict=True)
    ]
    part = Box(tuple(start), coarse.box.stop)
    np.testing.assert_array_equal(coarse.read(part), whole[part.slices(origin=coarse.box.start)])


def test_memory_for_blocks_is_bounded_whatever_is_read():
    cache = Cache(most_bytes=2**20)
    volume = ArrayVolume(noise((128, 128, 192)), chunks=(16, 16, 16))
    levels = make_levels(volume, kind=ValueKind.IMAGE, voxel_size=None, cache=cache, owner="a")
    for level in levels:
        level.volume.read()
    assert 2**19 < cache.kept_bytes <= 2**20
    cache.forget("a")
    assert cache.kept_bytes == 0


def test_a_failure_of_one_reader_reaches_all_who_wait_and_is_tried_again():
    cache = Cache()
    begun, go = threading.Event(), threading.Event()

    def fail():
        begun.set()
        go.wait(10)
        raise StorageError("gone")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, ("a", "0", 1), fail, size=len)
        begun.wait(10)
        second = pool.submit(cache.get, ("a", "0", 1), fail, size=len)
        time.sleep(0.1)
        go.set()
        for waiting in (first, second):
            with pytest.raises(StorageError, match="gone"):
                waiting.result(10)
    assert cache.get(("a", "0", 1), lambda: b"x", size=len) == b"x"


def test_a_read_that_fails_is_told_in_a_sentence_and_logged_once(site, caplog):
    class Broken(ArrayVolume):
        def _read(self, box):
            raise StorageError("cannot read em.h5: Input/output error")

    address = site.serve_volume(Broken(noise((64, 64, 128))), kind=IMAGE, name="em")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            reply = ask(f"{address}/1_1_1/0-64_0-64_0-64")
            assert reply.status == 500
            assert reply.body == b"cannot read em.h5: Input/output error\n"
            assert reply.headers["content-type"].startswith("text/plain")
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "cannot show array: cannot read em.h5" in caplog.text


def test_negative_labels_are_told_in_a_sentence(site):
    volume = ArrayVolume(-noise((8, 8, 8), np.int64) - 1)
    address = site.serve_volume(volume, kind=SEGMENTATION, name="em")
    reply = ask(f"{address}/1_1_1/0-8_0-8_0-8")
    assert (reply.status, b"do not fit" in reply.body) == (500, True)


def test_labels_travel_packed_and_noise_as_it_is(site):
    labels = ArrayVolume(np.repeat(noise((16, 64, 4), np.uint32), 16, axis=2))
    image = ArrayVolume(noise((16, 64, 64)))
    takes = {"Accept-Encoding": "gzip, deflate"}
    packed = ask(
        site.serve_volume(labels, kind=SEGMENTATION, name="a") + "/1_1_1/0-64_0-64_0-16",
        headers=takes,
    )
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == labels.array.tobytes()
    assert len(packed.body) < len(labels.array.tobytes()) / 4
    raw = ask(
        site.serve_volume(image, kind=IMAGE, name="b") + "/1_1_1/0-64_0-64_0-16", headers=takes
    )
    assert "content-encoding" not in raw.headers
    assert raw.body == image.array.tobytes()


def test_a_chunk_that_is_known_is_not_sent_again(site):
    volume = ArrayVolume(noise((16, 64, 64)))
    address = site.serve_volume(volume, kind=IMAGE, name="em") + "/1_1_1/0-64_0-64_0-16"
    first = ask(address)
    assert "immutable" in first.headers["cache-control"]
    reads = len(volume.reads)
    again = ask(address, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body, len(volume.reads)) == (304, b"", reads)
    assert ask(address, headers={"If-None-Match": '"other"'}).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "nothing",
        "1_1_1",
        "1_1_1/",
        "2_2_3/0-8_0-8_0-8",
        "1_1_1/0-8_0-8",
        "1_1_1/0-9_0-8_0-8",
        "1_1_1/1-8_0-8_0-8",
        "1_1_1/-8-0_0-8_0-8",
        "1_1_1/0-99999999999999999999999_0-8_0-8",
        "1_1_1/٠-8_0-8_0-8",
        "mesh/info",
        "mesh/1:0",
        "../em/info",
        "info/",
    ],
)
def test_what_is_no_chunk_is_not_there(site, path):
    address = site.serve_volume(ArrayVolume(noise((8, 8, 8))), kind=IMAGE, name="em")
    assert ask(f"{address}/{quote(path)}").status == 404


def test_meshes_are_made_when_they_are_asked_for(site):
    asked = []

    def mesh_of(label):
        asked.append(label)
        return None if label == 9 else b"mesh of %d" % label

    volume = ArrayVolume(noise((8, 8, 8)))
    address = site.serve_volume(volume, kind=SEGMENTATION, name="s", mesh_of=mesh_of)
    assert ask(f"{address}/info").json["mesh"] == "mesh"
    assert ask(f"{address}/mesh/info").json == {"@type": "neuroglancer_legacy_mesh"}
    assert asked == []
    names = ask(f"{address}/mesh/7:0").json["fragments"]
    assert ask(f"{address}/mesh/{names[0]}").body == b"mesh of 7"
    assert ask(f"{address}/mesh/9:0").json == {"fragments": []}
    assert asked == [7, 9], "the mesh that was made for the list of fragments is kept"
    assert ask(f"{address}/mesh/{2**64}:0").status == 404


def test_a_volume_reads_back_through_cloudvolume(site):
    cloudvolume = pytest.importorskip("cloudvolume")
    volume = ArrayVolume(noise((40, 70, 90)), offset=(5, 6, 7), chunks=(16, 32, 32))
    size = VoxelSize(30, 6, 4)
    address = site.serve_volume(volume, kind=IMAGE, name="em", voxel_size=size)
    found = cloudvolume.CloudVolume(address, progress=False, parallel=1, use_https=True)
    assert tuple(found.resolution) == (4, 6, 30)
    np.testing.assert_array_equal(found[:][..., 0].T, volume.array)


def test_published_voxels_are_served_from_hdf5_and_png(site, shared_data):
    for place in ("fib25/grayscale_maps.h5", "snemi3d/images"):
        with open_volume(str(shared_data / place)) as volume:
            address = site.serve_volume(volume, kind=IMAGE, name=place)
            box = next(chunk_boxes(scales_of(address)[0]))
            reply = ask(f"{address}/1_1_1/{chunk_name(box)}")
            assert reply.body == volume.read(box).tobytes()


def test_a_served_volume_forgets_its_blocks_when_it_is_closed():
    cache = Cache()
    volume = ArrayVolume(noise((16, 16, 16)))
    source = ServedVolume(volume, kind=IMAGE, voxel_size=None, cache=cache)
    source.levels[0].volume.read()
    assert cache.kept_bytes == 16**3
    source.close()
    assert cache.kept_bytes == 0
