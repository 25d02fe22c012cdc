"""``floodem synthetic``: what it writes, says and refuses."""

from __future__ import annotations

import numpy as np
import pytest

from floodem.cli.synthetic import synthetic
from floodem.errors import DestinationExistsError, OptionError, StoppedError
from floodem.geometry import VoxelSize
from floodem.volumes import open_volume
from floodem.volumes.synthetic import SyntheticOptions, skeletons, synthesize, write_synthetic

SMALL = SyntheticOptions.preset("fib", seed=4, shape=(40, 48, 44))


def test_the_command_writes_what_the_library_computes(tmp_path, capsys):
    image, labels = str(tmp_path / "em.zarr"), str(tmp_path / "truth.h5")
    swc = tmp_path / "neurites.swc"
    synthetic(image, labels, seed=4, shape="40,48,44", skeletons=swc, chunks="32,32,32")
    made = synthesize(SMALL)
    for uri, array in ((image, made.image), (labels, made.labels)):
        with open_volume(uri) as volume:
            assert np.array_equal(volume.read(), array)
            assert volume.voxel_size == VoxelSize(8, 8, 8)
    out = capsys.readouterr().out
    assert "40 x 48 x 44 uint8" in out
    assert "40 x 48 x 44 uint32" in out
    rows = [line.split() for line in swc.read_text().splitlines() if not line.startswith("#")]
    found = skeletons(SMALL)
    assert len(rows) == sum(len(one.nodes_zyx_nm) for one in found)
    assert sum(row[-1] == "-1" for row in rows) == len(found)
    first = [float(word) for word in rows[0][2:5]]
    assert first == list(found[0].nodes_zyx_nm[0][::-1])


def test_the_command_knows_presets_and_switches(tmp_path):
    image, labels = str(tmp_path / "em.npz"), str(tmp_path / "truth.npz")
    synthetic(image, labels, preset="atum", shape="14,96,90", defects=False, missing=0.5)
    with open_volume(image) as volume:
        array = volume.read()
        assert volume.voxel_size == VoxelSize(30, 6, 6)
    lost = (array == 0).all(axis=(1, 2))
    assert lost.any()
    assert not lost.all()


def test_a_stopped_command_goes_on_to_the_same_voxels(tmp_path):
    image, labels = str(tmp_path / "em.zarr"), str(tmp_path / "truth.zarr")
    wanted = {"image": image, "labels": labels, "chunks": (16, 16, 16), "threads": 1}
    with pytest.raises(StoppedError):
        write_synthetic(SMALL, **wanted, should_stop=lambda: True)
    write_synthetic(SMALL, **wanted)
    with open_volume(image) as volume:
        assert np.array_equal(volume.read(), synthesize(SMALL).image)


def test_the_same_command_again_finds_its_work_done(tmp_path):
    image, labels = str(tmp_path / "em.zarr"), str(tmp_path / "truth.zarr")
    write_synthetic(SMALL, image=image, labels=labels)
    again, _ = write_synthetic(SMALL, image=image, labels=labels)
    assert again.was_finished
    other = SyntheticOptions.preset("fib", seed=5, shape=SMALL.shape)
    with pytest.raises(DestinationExistsError):
        write_synthetic(other, image=image, labels=labels)


def test_bad_commands_are_refused_before_anything_is_written(tmp_path):
    image, labels = str(tmp_path / "em.zarr"), str(tmp_path / "truth.zarr")
    with pytest.raises(OptionError, match="--shape"):
        synthetic(image, labels, shape="4,5")
    with pytest.raises(OptionError, match="no preset 'tem'"):
        synthetic(image, labels, preset="tem")
    with pytest.raises(OptionError, match="two addresses"):
        synthetic(image, image)
    with pytest.raises(OptionError, match="end with .swc"):
        synthetic(image, labels, skeletons=tmp_path / "s.csv")
    (tmp_path / "s.swc").write_text("mine")
    with pytest.raises(DestinationExistsError, match=r"s\.swc exists already"):
        synthetic(image, labels, shape="40,40,40", skeletons=tmp_path / "s.swc")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.swc"]
