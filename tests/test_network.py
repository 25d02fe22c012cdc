from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch
from torch.nn import functional

from bright import bright_model
from floodem.errors import DestinationExistsError, ModelError, VolumeNotFoundError
from floodem.geometry import VoxelSize
from floodem.network.conv_stack import Convolution3d, ConvStack
from floodem.network.model_file import (
    TRAINED_MODELS,
    Model,
    ModelDescription,
    load_model,
    make_model,
    save_model,
)
from floodem.network.registry import build_network, network_names
from floodem.training.runs.run_folder import LATEST_MODEL
from floodem.training.validation.background import BEST_MODEL


def description(**changes):
    values = {
        "network": "conv_stack",
        "arguments": {"depth": 2, "features": 3},
        "fov": (5, 7, 7),
        "deltas": (1, 2, 2),
        "image_mean": 131,
        "image_stddev": 62,
        "voxel_size": VoxelSize(30, 6, 6),
    }
    return ModelDescription(**{**values, **changes})


@pytest.fixture
def model():
    torch.manual_seed(3)
    made = description()
    return make_model(made, build_network(made.network, made.arguments).state_dict())


def write_with_metadata(path, source, **changes):
    """Write the model file again with a changed description."""
    data = source.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    text = json.loads(header["__metadata__"]["floodem"])
    header["__metadata__"]["floodem"] = json.dumps({**text, **changes})
    head = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + data[8 + length :])


def convolve(features, layer):
    """3-D convolution tap by tap, in float64."""
    weight = layer.weight.detach().double().numpy()
    pad = weight.shape[-1] // 2
    padded = np.pad(features, ((0, 0), (pad, pad), (pad, pad), (pad, pad)))
    shape = features.shape[1:]
    result = (
        np.zeros((weight.shape[0], *shape))
        + layer.bias.detach().double().numpy()[:, None, None, None]
    )
    for dz, dy, dx in np.ndindex(weight.shape[2:]):
        window = padded[:, dz : dz + shape[0], dy : dy + shape[1], dx : dx + shape[2]]
        result += np.einsum("oi,izyx->ozyx", weight[:, :, dz, dy, dx], window)
    return result


def test_network_is_the_published_stack_of_residual_modules():
    torch.manual_seed(0)
    network = ConvStack(depth=3, features=4).eval()
    inputs = torch.randn(1, 2, 5, 6, 7)
    relu = lambda values: np.maximum(values, 0)  # noqa: E731
    state = inputs[0].double().numpy()
    state = convolve(relu(convolve(state, network.first[0])), network.first[1])
    for module in network.residual:
        state = state + convolve(relu(convolve(relu(state), module[0])), module[1])
    expected = convolve(relu(state), network.last)
    with torch.inference_mode():
        np.testing.assert_allclose(network(inputs)[0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 4, 5), (17, 33, 33), (33, 33, 17)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_fast_convolution_equals_the_plain_one(shape, layout):
    torch.manual_seed(1)
    layer = Convolution3d(4, 3)
    features = torch.randn(1, 4, *shape).to(memory_format=layout)
    expected = functional.conv3d(
        features.double(), layer.weight.double(), layer.bias.double(), padding=1
    )
    torch.testing.assert_close(layer(features).double(), expected, atol=1e-5, rtol=1e-5)


def test_fast_convolution_has_the_plain_gradient():
    torch.manual_seed(2)
    layer = Convolution3d(2, 3)
    features = torch.randn(1, 2, 4, 5, 6, requires_grad=True)
    parameters = (features, layer.weight, layer.bias)
    fast = torch.autograd.grad(layer(features).square().sum(), parameters)
    plain = functional.conv3d(features, layer.weight, layer.bias, padding=1)
    for ours, theirs in zip(
        fast, torch.autograd.grad(plain.square().sum(), parameters), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)


def test_unknown_network_is_refused_with_the_nearest_name():
    assert "conv_stack" in network_names()
    with pytest.raises(ModelError, match="nearest: conv_stack"):
        build_network("convstack", {})


@pytest.mark.parametrize("arguments", [{"deepth": 3}, {"depth": 0}, {"depth": "9"}, {}])
def test_arguments_that_do_not_fit_are_refused(arguments):
    with pytest.raises(ModelError, match="cannot be built"):
        build_network("conv_stack", arguments)


def test_model_file_gives_back_the_model(tmp_path, model):
    save_model(model, tmp_path / "m.safetensors")
    again = load_model(tmp_path / "m.safetensors")
    assert again.description == model.description
    assert again.digest() == model.digest()


def test_digest_sees_weights_and_description(model):
    assert model.digest() != bright_model().digest()
    other = make_model(description(image_mean=130), model.network.state_dict())
    assert other.digest() != model.digest()


def test_existing_model_file_is_kept(tmp_path, model):
    path = tmp_path / "m.safetensors"
    path.write_text("mine")
    with pytest.raises(DestinationExistsError, match=r"m\.safetensors"):
        save_model(model, path)
    assert path.read_text() == "mine"
    save_model(model, path, overwrite=True)
    assert load_model(path).digest() == model.digest()


def test_every_truncated_model_file_is_refused(tmp_path, model):
    whole, cut = tmp_path / "m.safetensors", tmp_path / "cut.safetensors"
    save_model(model, whole)
    data = whole.read_bytes()
    for length in range(0, len(data), max(1, len(data) // 40)):
        cut.write_bytes(data[:length])
        with pytest.raises(ModelError, match=r"cut\.safetensors is not a whole safetensors file"):
            load_model(cut)


def test_missing_model_file_is_named(tmp_path):
    with pytest.raises(VolumeNotFoundError, match="no model file"):
        load_model(tmp_path / "none.safetensors")


def test_of_a_folder_of_a_training_run_its_models_are_named(tmp_path, model):
    assert TRAINED_MODELS == (BEST_MODEL, LATEST_MODEL)
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(VolumeNotFoundError, match="run is a folder: give the path of one .safete"):
        load_model(run)
    save_model(model, run / LATEST_MODEL)
    with pytest.raises(VolumeNotFoundError, match=r"no model: give \S*run.latest.safetensors$"):
        load_model(run)
    save_model(model, run / BEST_MODEL)
    both = r"no model: give \S*run.best.safetensors or \S*run.latest.safetensors$"
    with pytest.raises(VolumeNotFoundError, match=both):
        load_model(run)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path, model, value):
    model.network.last.weight.data[0, 0] = value
    save_model(Model(model.description, model.network), tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match=r"last\.weight holds values that are not finite"):
        load_model(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 99}, "version 99"),
        ({"network": "os.system"}, "no network is called"),
        ({"arguments": {"depth": 4, "features": 3}}, "missing"),
        ({"arguments": {"depth": 2, "features": 5}}, "has shape"),
        ({"fov": [5, 6, 7]}, "odd"),
        ({"fov": "wide"}, "damaged"),
        ({"deltas": [3, 2, 2]}, "reach outside"),
        ({"image_stddev": 0}, "not positive"),
        ({"pad_value": 1.5}, "not a probability"),
        ({"voxel_size": [0, 6, 6]}, "damaged"),
        ({"surprise": 1}, "damaged"),
    ],
)
def test_impossible_descriptions_are_refused(tmp_path, model, changes, message):
    save_model(model, tmp_path / "m.safetensors")
    write_with_metadata(tmp_path / "bad.safetensors", tmp_path / "m.safetensors", **changes)
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / "bad.safetensors")


def test_weights_of_others_are_recognised(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="no floodem description"):
        load_model(tmp_path / "other.safetensors")
