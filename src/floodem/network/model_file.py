"""One file holds a trained network and all that is needed to run it.

The file is safetensors: the weights, and under the metadata key ``floodem`` one
JSON text with what `ModelDescription` lists. Nothing in it is executed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as serialise_safetensors
from torch import nn

from floodem.errors import DestinationExistsError, ModelError, VolumeNotFoundError
from floodem.files import replacing, storage_error
from floodem.geometry import VoxelSize, Zyx
from floodem.network.registry import build_network

FORMAT_VERSION = 1
METADATA_KEY = "floodem"
_HEADER_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """What a network is and how it was trained, without its weights.

    Attributes
    ----------
    network, arguments
        Registered name and keyword arguments of the network.
    fov
        Field of view in voxels, ordered z, y, x; odd on every axis.
    deltas
        Step of the field of view in voxels, ordered z, y, x.
    image_mean, image_stddev
        Grey levels are normalised as (v - mean) / stddev.
    voxel_size
        Of the training images.
    pad_value, move_threshold
        Probability of an untouched voxel and probability from which the field
        of view moves on, both as in training.
    training
        Free facts: step, digest of the configuration, and so on.
    licence, source
        Of the weights and of the training data.
    """

    network: str
    arguments: Mapping[str, int | float | str | bool]
    fov: Zyx
    deltas: Zyx
    image_mean: float
    image_stddev: float
    voxel_size: VoxelSize
    pad_value: float = 0.05
    move_threshold: float = 0.9
    training: Mapping[str, int | float | str] = field(default_factory=dict)
    licence: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if any(size < 1 or size % 2 == 0 for size in self.fov):
            raise ModelError(
                f"field of view {self.fov} (z,y,x) must be odd and positive on every axis"
            )
        for step, size in zip(self.deltas, self.fov, strict=True):
            if not 0 <= step <= size // 2:
                raise ModelError(
                    f"deltas {self.deltas} (z,y,x) reach outside the field of view {self.fov}: "
                    "each must lie between 0 and half the field of view"
                )
        if not self.image_stddev > 0:
            raise ModelError(f"image standard deviation {self.image_stddev} is not positive")
        for name in ("pad_value", "move_threshold"):
            if not 0 < getattr(self, name) < 1:
                raise ModelError(
                    f"{name} {getattr(self, name)} is not a probability between 0 and 1"
                )

    def to_json(self) -> dict[str, Any]:
        """Return plain values, ready for `json.dumps`."""
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        values["voxel_size"] = [float(size) for size in self.voxel_size.zyx_nm]
        for name in ("image_mean", "image_stddev", "pad_value", "move_threshold"):
            values[name] = float(values[name])
        values["arguments"] = dict(self.arguments)
        values["training"] = dict(self.training)
        return {"version": FORMAT_VERSION, **values}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ModelDescription:
        """Rebuild a description.

        Raises
        ------
        ModelError
            When the version is newer than ours, or a value is missing or wrong.
        """
        values = dict(values)
        version = values.pop("version", None)
        if version != FORMAT_VERSION:
            raise ModelError(
                f"model file has format version {version!r}; this floodem reads "
                f"{FORMAT_VERSION}: install a newer floodem"
            )
        try:
            values["voxel_size"] = VoxelSize(*(float(size) for size in values["voxel_size"]))
            for name in ("fov", "deltas"):
                z, y, x = (int(size) for size in values[name])
                values[name] = (z, y, x)
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"model description is damaged: {error}") from error


@dataclass(frozen=True, slots=True)
class Model:
    """A trained network: its description and the module with its weights (float32)."""

    description: ModelDescription
    network: nn.Module

    def digest(self) -> str:
        """Return the SHA-256 of description and weights: equal models, equal digest."""
        total = hashlib.sha256(json.dumps(self.description.to_json(), sort_keys=True).encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            total.update(name.encode())
            total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return total.hexdigest()


def make_model(description: ModelDescription, weights: Mapping[str, torch.Tensor]) -> Model:
    """Build the network and fill in its weights.

    Raises
    ------
    ModelError
        When names or shapes differ, or a weight is not a finite number.
    """
    network = build_network(description.network, description.arguments)
    expected = network.state_dict()
    missing = sorted(expected.keys() - weights.keys())
    unknown = sorted(weights.keys() - expected.keys())
    if missing or unknown:
        raise ModelError(
            f"weights do not fit network {description.network} {dict(description.arguments)}: "
            f"missing {missing[:3]}, unknown {unknown[:3]}"
        )
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise ModelError(
                f"weight {name} has shape {tuple(tensor.shape)}; "
                f"expected {tuple(expected[name].shape)}"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(
                f"weight {name} holds values that are not finite numbers: "
                "training diverged or the file is damaged; take an earlier checkpoint"
            )
    network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    network.eval().requires_grad_(False)
    return Model(description, network)


def save_model(model: Model, path: Path | str, *, overwrite: bool = False) -> None:
    """Write a model file in one piece.

    Raises
    ------
    DestinationExistsError
        When there is a file already and `overwrite` is not set.
    StorageError
        When the file system refuses.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise DestinationExistsError(f"{path} exists already: choose another name or --overwrite")
    weights = {name: tensor.contiguous() for name, tensor in model.network.state_dict().items()}
    metadata = {METADATA_KEY: json.dumps(model.description.to_json())}
    data = serialise_safetensors(weights, metadata)
    with replacing(path) as partial:
        partial.write_bytes(data)


def load_model(path: Path | str) -> Model:
    """Read a model file.

    Raises
    ------
    VolumeNotFoundError
        When there is no such file.
    ModelError
        When the file is damaged, cut short, or no floodem model.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise VolumeNotFoundError(
            f"no model file {path}: give the path of a .safetensors model, or make one from a "
            "TensorFlow checkpoint with `floodem import-model`"
        ) from None
    except OSError as error:
        raise storage_error("read", path, error) from error
    try:
        weights = parse_safetensors(data)
        length = int.from_bytes(data[:_HEADER_LENGTH_BYTES], "little")
        header = json.loads(data[_HEADER_LENGTH_BYTES : _HEADER_LENGTH_BYTES + length])
        text = header.get("__metadata__", {}).get(METADATA_KEY)
    except (SafetensorError, ValueError) as error:
        raise ModelError(
            f"{path} is not a whole safetensors file ({error}): copy or download it again"
        ) from error
    if text is None:
        raise ModelError(
            f"{path} holds weights but no floodem description: "
            "it was not written by floodem; import it with `floodem import-model`"
        )
    try:
        return make_model(ModelDescription.from_json(json.loads(text)), weights)
    except (ModelError, ValueError) as error:
        raise ModelError(f"{path}: {error}") from error
