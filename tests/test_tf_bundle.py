from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floodem.errors import ModelError, VolumeNotFoundError
from floodem.geometry import VoxelSize
from floodem.legacy.checkpoints.import_model import import_tensorflow_model
from floodem.legacy.checkpoints.tf_bundle import read_bundle
from reference.tf_bundle import conv_stack_variables, write_bundle

SETTINGS = {
    "fov": (17, 33, 33),
    "deltas": (4, 8, 8),
    "image_mean": 131,
    "image_stddev": 62,
    "voxel_size": VoxelSize(30, 6, 6),
}


@pytest.fixture
def bundle(tmp_path):
    prefix = tmp_path / "model.ckpt-1234"
    write_bundle(prefix, conv_stack_variables(depth=3, features=4))
    return prefix


def test_what_was_written_is_read(bundle):
    expected = conv_stack_variables(depth=3, features=4)
    found = read_bundle(bundle)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("ending", ["", ".index", ".data-00000-of-00001"])
def test_any_file_of_a_bundle_names_it(bundle, ending):
    assert int(read_bundle(f"{bundle}{ending}")["global_step"]) == 1234


def test_import_reads_depth_features_and_step(bundle):
    model = import_tensorflow_model(bundle, **SETTINGS)
    assert dict(model.description.arguments) == {"depth": 3, "features": 4}
    assert model.description.training["step"] == 1234
    kernel = conv_stack_variables(depth=3, features=4)["seed_update/conv1_a/weights"]
    ours = model.network.state_dict()["residual.0.0.weight"].numpy()
    assert ours[2, 1, 0, 1, 2] == kernel[0, 1, 2, 1, 2]


@pytest.mark.parametrize("ending", [".index", ".data-00000-of-00001"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_flipped_bit_is_noticed(tmp_path_factory, ending, data):
    prefix = tmp_path_factory.mktemp("flip") / "model.ckpt-1234"
    write_bundle(prefix, conv_stack_variables(depth=1, features=2))
    path = prefix.with_name(prefix.name + ending)
    content = bytearray(path.read_bytes())
    checked = len(content) - (48 if ending == ".index" else 0)  # the footer has no CRC
    position = data.draw(st.integers(0, checked - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(content))
    if ending == ".index":
        # The metaindex block, which holds nothing, is not read.
        try:
            found = read_bundle(prefix)
        except ModelError:
            return
        assert found.keys() == conv_stack_variables(depth=1, features=2).keys()
    else:
        with pytest.raises(ModelError, match="checksum is wrong"):
            read_bundle(prefix)


@pytest.mark.parametrize("ending", [".index", ".data-00000-of-00001"])
def test_every_truncation_is_refused(bundle, ending):
    path = bundle.with_name(bundle.name + ending)
    content = path.read_bytes()
    for length in range(0, len(content), max(1, len(content) // 50)):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError, match="damaged"):
            read_bundle(bundle)


def test_a_missing_file_is_named(bundle):
    bundle.with_name(bundle.name + ".data-00000-of-00001").unlink()
    with pytest.raises(VolumeNotFoundError, match="data-00000-of-00001"):
        read_bundle(bundle)


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    prefix = tmp_path / "other.ckpt-1"
    write_bundle(prefix, {"dense/kernel": np.zeros((3, 3), np.float32)})
    with pytest.raises(ModelError, match="not a flood-filling network"):
        import_tensorflow_model(prefix, **SETTINGS)


def test_a_missing_layer_is_named(tmp_path):
    prefix = tmp_path / "model.ckpt-1"
    variables = conv_stack_variables(depth=3, features=4)
    del variables["seed_update/conv1_b/biases"]
    write_bundle(prefix, variables)
    with pytest.raises(ModelError, match="conv1_b/biases"):
        import_tensorflow_model(prefix, **SETTINGS)


@pytest.mark.parametrize(
    ("prefix", "depth", "step"),
    [("fib25/model.ckpt-27465036", 12, 27465036), ("snemi3d/model.ckpt-7000000", 9, 7000000)],
)
def test_published_checkpoints_load(shared_data, prefix, depth, step):
    model = import_tensorflow_model(shared_data / prefix, **SETTINGS)
    assert model.description.arguments["depth"] == depth
    assert model.description.training["step"] == step
