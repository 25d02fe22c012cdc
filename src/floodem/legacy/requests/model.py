"""The network that a request names: its path, names and JSON in, a `Model` out.

``model_checkpoint_path`` is the prefix of a TensorFlow checkpoint, or of a model file
(``PREFIX.safetensors``, which is what ``train.py`` writes here), or a model file itself.
What the request says about normalisation and field of view goes before what a model file
says, as the old programs had no such file. Triples in ``model_args`` are x, y, z; those in
``movement_policy_args`` z, y, x.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from floodem.errors import ModelError, OptionError, VolumeNotFoundError
from floodem.geometry import VoxelSize, Zyx
from floodem.legacy.checkpoints.tf_bundle import bundle_prefix
from floodem.legacy.requests.message import Message
from floodem.legacy.requests.volumes import json_object

if TYPE_CHECKING:
    from floodem.network.model_file import Model

MODEL_SUFFIX = ".safetensors"
_INDEX_SUFFIX = ".index"

NETWORKS = frozenset({"ConvStack3DFFNModel", "SingleRes3DFFNModel"})
"""Names of the residual conv stack, the second one in requests that Google published."""

MOVEMENT_POLICIES = frozenset({"FaceMaxMovementPolicy"})
_MODEL_ARGS = ("depth", "fov_size", "deltas", "features", "batch_size")
_POLICY_ARGS = ("deltas", "score_threshold")
_LOGIT_TOLERANCE = 1e-5
"""Between a threshold as somebody computed its logit and as float32 has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedModel:
    """What a request says about its network; None where it says nothing.

    Attributes
    ----------
    checkpoint
        As the request names it.
    fov, deltas
        z, y, x.
    depth, features
        Of the conv stack; held against the checkpoint.
    image_mean, image_stddev
        In grey levels.
    pad_value, move_threshold
        Probabilities.
    """

    checkpoint: str
    fov: Zyx | None = None
    deltas: Zyx | None = None
    depth: int | None = None
    features: int | None = None
    image_mean: float | None = None
    image_stddev: float | None = None
    pad_value: float
    move_threshold: float

    def path(self) -> tuple[Path, bool]:
        """Return the model file, or the prefix of the TensorFlow checkpoint and True.

        Raises
        ------
        VolumeNotFoundError
            When neither is there.
        """
        given = Path(self.checkpoint)
        prefix = bundle_prefix(given)
        if prefix.name and prefix.with_name(prefix.name + _INDEX_SUFFIX).is_file():
            return prefix, True
        for candidate in (given, given.parent / f"{given.name}{MODEL_SUFFIX}"):
            if candidate.suffix == MODEL_SUFFIX and candidate.is_file():
                return candidate, False
        raise VolumeNotFoundError(
            f"model_checkpoint_path {self.checkpoint!r}: neither {prefix}{_INDEX_SUFFIX} (of a "
            f"TensorFlow checkpoint) nor {given}{MODEL_SUFFIX} (of a model trained here) is there: "
            "check the path, which is relative to the working directory"
        )

    def load(self, *, voxel_size: VoxelSize) -> tuple[Model, tuple[str, ...]]:
        """Load the network; return it with sentences about what the request changes in it.

        Parameters
        ----------
        voxel_size
            For a TensorFlow checkpoint, which knows none.

        Raises
        ------
        VolumeNotFoundError, ModelError
            When it is not there, damaged, or not the network that the request describes.
        OptionError
            When the request lacks what a TensorFlow checkpoint does not say.
        """
        path, is_bundle = self.path()
        if is_bundle:
            return self._import(path, voxel_size=voxel_size), ()
        from floodem.network.model_file import Model, load_model

        model = load_model(path)
        self._require_same(model.description.arguments, path=path)
        wanted: dict[str, Any] = {
            "fov": self.fov,
            "deltas": self.deltas,
            "image_mean": self.image_mean,
            "image_stddev": self.image_stddev,
        }
        changes = {
            name: value
            for name, value in wanted.items()
            if value is not None and value != getattr(model.description, name)
        }
        notices = tuple(
            f"{path} was trained with {name} {getattr(model.description, name)} and is used with "
            f"{value}, as the request says"
            for name, value in changes.items()
        )
        description = dataclasses.replace(
            model.description,
            **changes,
            pad_value=self.pad_value,
            move_threshold=self.move_threshold,
        )
        return Model(description, model.network), notices

    def _import(self, prefix: Path, *, voxel_size: VoxelSize) -> Model:
        from floodem.legacy.checkpoints.import_model import import_tensorflow_model

        fov, deltas = self.fov, self.deltas
        if fov is None or deltas is None:
            raise OptionError(
                f"{prefix} is a TensorFlow checkpoint, which does not say its field of view: add "
                'model_args: "{\\"depth\\": 12, \\"fov_size\\": [33, 33, 33], '
                '\\"deltas\\": [8, 8, 8]}" with its own numbers'
            )
        if self.image_mean is None or self.image_stddev is None:
            raise OptionError(
                f"{prefix} is a TensorFlow checkpoint, which does not say how its images were "
                "normalised: add image_mean and image_stddev"
            )
        model = import_tensorflow_model(
            prefix,
            fov=fov,
            deltas=deltas,
            image_mean=self.image_mean,
            image_stddev=self.image_stddev,
            voxel_size=voxel_size,
            pad_value=self.pad_value,
            move_threshold=self.move_threshold,
        )
        self._require_same(model.description.arguments, path=prefix)
        return model

    def _require_same(self, arguments: Mapping[str, Any], *, path: Path) -> None:
        for name, wanted in (("depth", self.depth), ("features", self.features)):
            found = arguments.get(name, wanted)
            if wanted is not None and wanted != found:
                raise ModelError(
                    f"model_args says {name} {wanted}, and {path} has {found}: correct the one or "
                    "the other"
                )


def requested_model(request: Message, *, pad_value: float, move_threshold: float) -> RequestedModel:
    """Read what a request says about its network and how it moves.

    Raises
    ------
    OptionError
        When it is incomplete, contradicts itself, or names something that is not served.
    """
    checkpoint = request.get("model_checkpoint_path")
    if not checkpoint:
        raise OptionError(
            "the request names no model_checkpoint_path: give the prefix of a TensorFlow "
            "checkpoint, or the path of a model file"
        )
    _require_name(request, "model_name", known=NETWORKS)
    _require_name(request, "movement_policy_name", known=MOVEMENT_POLICIES)
    args = _arguments(request, "model_args", known=_MODEL_ARGS)
    fov_xyz = _triple(args, "fov_size", field="model_args")
    deltas_xyz = _triple(args, "deltas", field="model_args")
    mean, stddev = request.get("image_mean"), request.get("image_stddev")
    says_normalisation = request.has("image_mean") or request.has("image_stddev")
    return RequestedModel(
        checkpoint=checkpoint,
        fov=fov_xyz and fov_xyz[::-1],
        deltas=_moving_deltas(request, move_threshold=move_threshold)
        or (deltas_xyz and deltas_xyz[::-1]),
        depth=_whole(args, "depth", field="model_args"),
        features=_whole(args, "features", field="model_args"),
        image_mean=mean if says_normalisation else None,
        image_stddev=stddev if says_normalisation else None,
        pad_value=pad_value,
        move_threshold=move_threshold,
    )


def _moving_deltas(request: Message, *, move_threshold: float) -> Zyx | None:
    """Return the steps (z, y, x) that the movement policy is told, if any."""
    from floodem.flooding.options import to_logit

    field = "movement_policy_args"
    args = _arguments(request, field, known=_POLICY_ARGS)
    threshold = args.get("score_threshold")
    if threshold is not None:
        is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
        own = float(to_logit(move_threshold))
        if not is_number or not np.isclose(threshold, own, rtol=0, atol=_LOGIT_TOLERANCE):
            raise OptionError(
                f"{field} has the score_threshold {threshold!r}, and floodem moves from the same "
                f"threshold from which it visits, the logit {own:.6g} of move_threshold "
                f"{move_threshold:g}: leave it out, or change move_threshold"
            )
    return _triple(args, "deltas", field=field)


def _require_name(request: Message, field: str, *, known: frozenset[str]) -> None:
    name = request.get(field)
    if name and name.rpartition(".")[2] not in known:
        raise OptionError(
            f"{field} {name!r} is code that floodem does not have: it has {', '.join(known)}"
        )


def _arguments(request: Message, field: str, *, known: tuple[str, ...]) -> dict[str, Any]:
    args = json_object(request.get(field), field=field)
    for name in args:
        if name not in known:
            nearest = difflib.get_close_matches(name[:80], known, n=1, cutoff=0.5)
            hint = f"did you mean {nearest[0]!r}? " if nearest else ""
            raise OptionError(f"{field} has {name!r}: {hint}known are {', '.join(known)}")
    return args


def _whole(args: Mapping[str, Any], name: str, *, field: str) -> int | None:
    value = args.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise OptionError(f"{field} has {name} {value!r}: give a whole number of at least 1")
    return value


def _triple(args: Mapping[str, Any], name: str, *, field: str) -> Zyx | None:
    value = args.get(name)
    if value is None:
        return None
    is_triple = isinstance(value, list) and len(value) == 3
    if not is_triple or any(isinstance(n, bool) or not isinstance(n, int) for n in value):
        raise OptionError(f"{field} has {name} {value!r}: give three whole numbers in brackets")
    return (value[0], value[1], value[2])
