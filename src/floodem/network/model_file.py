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

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as serialise_safetensors
from torch import nn

from floodem.errors import DestinationExistsError, ModelError, VolumeNotFoundError
from floodem.files import making_folders, replacing, storage_error
from floodem.geometry import VoxelSize, Zyx
from floodem.network.named import FETCHABLE, named_model, unknown_model
from floodem.network.registry import build_network

FORMAT_VERSION = 1
METADATA_KEY = "floodem"
TRAINED_MODELS = ("best.safetensors", "latest.safetensors")
"""What `floodem train` calls the models in the folder of a run, first the one to take."""
_HEADER_LENGTH_BYTES = 8


def _float32(value: float) -> np.float32:
    with np.errstate(over="ignore", under="ignore"):
        return np.float32(value)


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
                f"field of view {self.fov} (z,y,x) has no middle voxel: it must be odd and "
                "positive on every axis"
            )
        for step, size in zip(self.deltas, self.fov, strict=True):
            if not 0 <= step <= size // 2:
                raise ModelError(
                    f"deltas {self.deltas} (z,y,x) reach outside the field of view {self.fov}: "
                    "each must lie between 0 and half the field of view"
                )
        # The network computes in float32, which must tell these from 0, 1 and infinity.
        if not np.isfinite(_float32(self.image_mean)):
            raise ModelError(f"image mean {self.image_mean} is not finite: give grey levels")
        stddev = _float32(self.image_stddev)
        if not (np.isfinite(stddev) and stddev > 0):
            raise ModelError(
                f"image standard deviation {self.image_stddev} is not positive and finite: give "
                "grey levels"
            )
        for name in ("pad_value", "move_threshold"):
            value = getattr(self, name)
            if not 0 < _float32(value) < 1:
                raise ModelError(
                    f"{name} {value} is not a probability: give a number between 0 and 1"
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
        if not isinstance(values, Mapping):
            raise ModelError("model description is damaged: it is no JSON object; copy it again")
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
            values["arguments"] = dict(values["arguments"])
            return cls(**values)
        except ModelError:
            raise
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise ModelError(
                f"model description is damaged: {error}; copy the file again"
            ) from error


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
    # On the meta device first, where tensors take no memory: the description may be damaged.
    with torch.device("meta"):
        expected = build_network(description.network, description.arguments).state_dict()
    missing = sorted(expected.keys() - weights.keys())
    unknown = sorted(weights.keys() - expected.keys())
    if missing or unknown:
        raise ModelError(
            f"weights do not fit network {description.network} {dict(description.arguments)}: "
            f"missing {missing[:3]}, unknown {unknown[:3]}; take the description that belongs to "
            "them"
        )
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise ModelError(
                f"weight {name} has shape {tuple(tensor.shape)}; "
                f"expected {tuple(expected[name].shape)}: take the description that belongs to it"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(
                f"weight {name} holds values that are not finite numbers: "
                "training diverged or the file is damaged; take an earlier checkpoint"
            )
    network = build_network(description.network, description.arguments)
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
    require_no_model(path, overwrite=overwrite)
    weights = {name: tensor.contiguous() for name, tensor in model.network.state_dict().items()}
    metadata = {METADATA_KEY: json.dumps(model.description.to_json())}
    data = serialise_safetensors(weights, metadata)
    with making_folders(path.parent), replacing(path) as partial:
        partial.write_bytes(data)


def require_no_model(path: Path, *, overwrite: bool) -> None:
    """Refuse to write a model file where something is.

    Raises
    ------
    DestinationExistsError
        When there is a folder, or a file and `overwrite` is not set.
    """
    if path.is_dir():
        raise DestinationExistsError(f"{path} is a folder: name the model file to write in it")
    if path.exists() and not overwrite:
        raise DestinationExistsError(f"{path} exists already: choose another name or --overwrite")


def load_model(path: Path | str) -> Model:
    """Read a model file, or a network by its name: shipped or fetched (floodem.network.named).

    Raises
    ------
    VolumeNotFoundError
        When there is no such file.
    ModelError
        When the file is damaged, cut short, or no floodem model.
    """
    path = Path(path)
    data = _file_bytes(path)
    try:
        weights = parse_safetensors(data)
        length = int.from_bytes(data[:_HEADER_LENGTH_BYTES], "little")
        header = json.loads(data[_HEADER_LENGTH_BYTES : _HEADER_LENGTH_BYTES + length])
        text = header.get("__metadata__", {}).get(METADATA_KEY)
    except (SafetensorError, ValueError) as error:
        raise ModelError(
            f"{path} is not a whole safetensors file ({error}): copy or download it again, or "
            "import it with `floodem import-model` if it is a TensorFlow checkpoint"
        ) from error
    if text is None:
        raise ModelError(
            f"{path} holds weights but no floodem description: "
            "it was not written by floodem; import it with `floodem import-model`"
        )
    try:
        return make_model(ModelDescription.from_json(json.loads(text)), weights)
    except (ModelError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: {error}") from error


def _file_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        named = named_model(str(path))
        if named is not None:
            return named
        raise VolumeNotFoundError(unknown_model(str(path))) from None
    except OSError as error:
        if not path.is_dir():
            raise storage_error("read", path, error) from error
        named = named_model(str(path))  # a folder of that name holds what `floodem fetch` brought
        if named is not None:
            return named
        raise VolumeNotFoundError(_is_a_folder(path)) from error


def _is_a_folder(path: Path) -> str:
    if str(path) in FETCHABLE:
        return f"{path} is a folder: bring the network of that name with `floodem fetch {path}`"
    trained = [path / name for name in TRAINED_MODELS if (path / name).is_file()]
    if trained:
        return f"{path} is a folder and no model: give {' or '.join(map(str, trained))}"
    return (
        f"{path} is a folder: give the path of one .safetensors model, or make one from a "
        "TensorFlow checkpoint with `floodem import-model`"
    )
