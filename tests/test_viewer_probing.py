"""A quick look at servers before the page reads them."""

from __future__ import annotations

import time
from contextlib import ExitStack

import numpy as np
import pytest

from floodem.errors import VolumeNotFoundError
from floodem.geometry import Box, VoxelSize
from floodem.viewer import Kind, Layer, RemoteLayer
from floodem.viewer.opening import open_layers
from floodem.viewer.probing import Probe, probe, probe_format
from floodem.volumes import create_volume
from servers.base import STALL, Fault
from servers.files import FileServer
from viewer_cases import noise, two_objects

SIZE = VoxelSize(30, 6, 6)


@pytest.fixture
def server(tmp_path):
    made = {
        "precomputed://seg": two_objects(np.uint32),
        "zarr3://em.zarr": noise(np.uint16),
        "zarr3://named": noise(np.uint8),
        "hdf5://em.h5@raw": noise(np.uint8),
    }
    for uri, array in made.items():
        format_, name = uri.split("://")
        levels = [(1, 2, 2)] if name == "named" else None
        with create_volume(
            f"{format_}://{tmp_path / name}",
            shape=array.shape,
            dtype=array.dtype,
            voxel_size=SIZE,
            **({"levels": levels} if levels else {}),
        ) as volume:
            volume.write(volume.box, array)
    with FileServer(tmp_path) as running:
        yield running


def test_kind_place_voxel_size_and_grey_values_are_found_out(server):
    found = probe(f"precomputed://{server.address}/seg")
    assert found == Probe(kind=Kind.SEGMENTATION, box=Box((0, 0, 0), (20, 30, 40)), voxel_size=SIZE)
    image = probe(f"zarr3://{server.address}/named")
    assert (image.kind, image.better) == (Kind.IMAGE, None)
    low, high = image.shown_range
    assert 40 <= low < high <= 210


def test_what_the_user_says_goes_before_what_is_found(server):
    assert probe(f"precomputed://{server.address}/seg", kind=Kind.IMAGE).kind is Kind.IMAGE


def test_zarr_means_both_versions_and_plain_arrays_are_better_served_here(server):
    found = probe(f"zarr://{server.address}/em.zarr")
    assert found.better == f"zarr3://{server.address}/em.zarr"
    assert found.voxel_size == SIZE


def test_nothing_at_an_address_is_said(server):
    with pytest.raises(VolumeNotFoundError):
        probe(f"precomputed://{server.address}/gone")
    with pytest.raises(VolumeNotFoundError, match="no volume at"):
        probe_format(f"{server.address}/gone")


def test_a_server_that_does_not_answer_is_left_to_the_page(server):
    server.faults.append(Fault(STALL, times=1000))
    begin = time.monotonic()
    assert probe(f"precomputed://{server.address}/seg", within_s=0.3) == Probe()
    assert probe_format(f"{server.address}/seg", within_s=0.3) is None
    assert time.monotonic() - begin < 5


def opened(*uris):
    with ExitStack() as stack:
        return open_layers([(None, uri) for uri in uris], stack)


def test_the_page_reads_what_it_can_and_floodem_the_rest(server):
    shown = opened(
        f"{server.address}/seg",
        f"{server.address}/named",
        f"{server.address}/em.zarr",
        f"{server.address}/em.h5@raw",
        f"precomputed://{server.address}/seg?token=abc",
    )
    assert [type(layer) for layer in shown] == [RemoteLayer, RemoteLayer, Layer, Layer, Layer]
    assert [layer.source for layer in shown[:2]] == [
        f"precomputed://{server.address}/seg",
        f"zarr3://{server.address}/named",
    ]
    assert [layer.name for layer in shown] == ["seg", "named", "em.zarr", "em.h5@raw", "seg (2)"]
    assert "abc" not in str([layer.name for layer in shown])
