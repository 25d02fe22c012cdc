"""New volumes with several channels: what is written to each comes back from each."""

from __future__ import annotations

import numpy as np
import pytest

from floodem.errors import OptionError, VolumeFormatError
from floodem.geometry import VoxelSize
from floodem.volumes import create_volume, open_volume

SHAPE, OFFSET, NM = (3, 10, 12), (5, 2, 1), VoxelSize(30, 48, 48)


@pytest.mark.parametrize(
    "address",
    ["f.zarr", "zarr3://f.zarr", "f.ome.zarr", "zarr3://f3.ome.zarr", "precomputed://f"],
)
def test_each_channel_keeps_its_own_values_and_the_place_of_all(tmp_path, monkeypatch, address):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    fields = rng.integers(-300, 300, (2, *SHAPE), np.int16)
    facts = {"shape": SHAPE, "dtype": np.int16, "voxel_size": NM, "offset": OFFSET}
    create_volume(address, **facts, chunks=(1, 4, 4), channels=2).close()
    for channel, field in enumerate(fields):
        with open_volume(address, channel=channel, writable=True) as volume:
            assert (volume.offset, volume.voxel_size) == (OFFSET, NM)
            assert volume.chunks == (1, 4, 4)
            volume.write(volume.box, field)
    for channel, field in enumerate(fields):
        with open_volume(address, channel=channel) as volume:
            np.testing.assert_array_equal(volume.read(), field)
    with pytest.raises(OptionError, match="has 2 channels: choose one"):
        open_volume(address)


def test_channels_of_pyramids_and_shards_are_stored_too(tmp_path):
    address = f"zarr3://{tmp_path}/f.zarr"
    with create_volume(
        address,
        shape=(4, 16, 16),
        dtype=np.uint8,
        chunks=(2, 4, 4),
        shards=(4, 8, 8),
        levels=[(1, 2, 2)],
        channels=3,
    ) as volume:
        assert [level.shape for level in volume.levels] == [(4, 16, 16), (4, 8, 8)]
    with open_volume(address, channel=2, level=1, writable=True) as volume:
        volume.write(volume.box, np.full(volume.shape, 7, np.uint8))
    with open_volume(address, channel=2, level=1) as volume:
        assert (volume.read() == 7).all()
    with open_volume(address, channel=1, level=1) as volume:
        assert not volume.read().any()


def test_formats_without_channels_say_so(tmp_path):
    with pytest.raises(VolumeFormatError, match="hdf5 volumes have no channels"):
        create_volume(tmp_path / "f.h5", shape=SHAPE, dtype=np.int16, channels=2)
    with pytest.raises(OptionError, match="0 channels hold nothing"):
        create_volume(tmp_path / "f.zarr", shape=SHAPE, dtype=np.int16, channels=0)
