"""The flags of ``train.py`` as a configuration of floodem: parsed flags in, plain values out.

| old | floodem |
|---|---|
| ``--data_volumes``, ``--label_volumes`` | ``volume.name``, ``.image``, ``.labels`` |
| ``--image_mean``, ``--image_stddev`` | ``volume.image_mean``, ``.image_stddev`` |
| ``--image_offset_scale_map`` | the same, of single volumes |
| ``--model_args`` depth, features | ``network.arguments`` |
| ``--model_args`` fov_size, deltas **x,y,z** | ``network.fov``, ``.deltas`` **z,y,x** |
| ``--fov_policy``, ``--fov_moves`` | ``movement.policy``, ``.moves`` |
| ``--shuffle_moves`` | ``movement.shuffle`` run or none |
| ``--seed_pad``, ``--threshold`` | ``movement.pad``, ``.threshold`` |
| ``--permutable_axes``, ``--reflectable_axes`` | ``augmentation``, by the same names |
| ``--optimizer`` and its numbers | ``optimiser`` |
| ``--summary_rate_secs`` | ``picture_minutes`` |

What has no flag keeps floodem's default, which is the old program's: softened targets,
seeds of 0.95, gradients clipped to 0.7 an element.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from floodem.errors import OptionError, UsageError
from floodem.legacy.addresses import NamedAddress, named_addresses
from floodem.legacy.flags import Flags
from floodem.legacy.requests.volumes import json_object
from floodem.legacy.values import numbers, whole_numbers

NETWORK = "ConvStack3DFFNModel"
_MODULES = ("", "convstack_3d.", "ffn.training.models.convstack_3d.")

_MODEL_ARGS = ("depth", "fov_size", "deltas", "features", "batch_size")
_DEFAULT_DEPTH, _DEFAULT_FEATURES = 9, 32
"""Of the old network's code."""

_CHECKPOINT_MINUTES = 5.0
"""The old program saved every 300 s."""

_SCALE_PARTS = 3


def run_values(flags: Flags, *, run: str, coordinates: str) -> dict[str, Any]:
    """Return the configuration that the flags stand for, as plain values.

    Parameters
    ----------
    run
        Folder of the run.
    coordinates
        List of the centres.

    Raises
    ------
    UsageError, OptionError
        When flags contradict each other, or ask for what floodem has not.
    """
    arguments = model_arguments(flags["model_args"])
    require_network(flags["model_name"])
    return {
        "run": run,
        "network": {
            "name": "conv_stack",
            "arguments": {
                "depth": arguments.get("depth", _DEFAULT_DEPTH),
                "features": arguments.get("features", _DEFAULT_FEATURES),
            },
            "fov": arguments["fov_size"][::-1],
            "deltas": arguments["deltas"][::-1],
        },
        "volume": _volumes(flags),
        "sampling": {
            "coordinates": coordinates,
            "sampler": "listed",
            # What a patch misses beside the volume does not count in the loss.
            "out_of_volume": "pad",
        },
        "movement": {
            "policy": flags["fov_policy"],
            "moves": flags["fov_moves"],
            "shuffle": "run" if flags["shuffle_moves"] else "none",
            "threshold": flags["threshold"],
            "pad": flags["seed_pad"],
        },
        "augmentation": {
            name: list(whole_numbers(name, flags[name]))
            for name in ("reflectable_axes", "permutable_axes")
        },
        "optimiser": {
            "name": flags["optimizer"],
            "learning_rate": flags["learning_rate"],
            "momentum": flags["momentum"],
            "rmsprop_decay": flags["rmsprop_decay"],
            "beta1": flags["adam_beta1"],
            "beta2": flags["adam_beta2"],
            "epsilon": flags["epsilon"],
        },
        "batch_size": _batch_size(flags, arguments),
        "max_steps": flags["max_steps"],
        "checkpoint_minutes": _CHECKPOINT_MINUTES,
        "picture_minutes": flags["summary_rate_secs"] / 60,
        "device": flags["device"],
    }


def require_network(name: str) -> None:
    """Refuse a ``--model_name`` that is not the residual conv stack.

    Raises
    ------
    OptionError
        When it is not.
    """
    if name not in {f"{module}{NETWORK}" for module in _MODULES}:
        raise OptionError(
            f"--model_name {name!r} is not known here: only convstack_3d.{NETWORK} is; floodem "
            "train takes networks of your own"
        )


def model_arguments(text: str) -> dict[str, Any]:
    """Read ``--model_args``: depth, fov_size and deltas (x, y, z), features, batch_size.

    Raises
    ------
    OptionError
        When it is no JSON object, names what the network has not, or lacks a size.
    """
    values = json_object(text, field="--model_args")
    for name, value in values.items():
        if name not in _MODEL_ARGS:
            nearest = difflib.get_close_matches(name, _MODEL_ARGS, n=1)
            hint = (
                f"did you mean {nearest[0]}" if nearest else f"known are {', '.join(_MODEL_ARGS)}"
            )
            raise OptionError(f"--model_args has no {name!r}: {hint}")
        if name in ("fov_size", "deltas"):
            if not (isinstance(value, list) and len(value) == 3 and all(map(_is_whole, value))):
                raise OptionError(
                    f"--model_args {name} {value!r} is not three whole numbers: write x,y,z, as in "
                    '"fov_size": [33, 33, 17]'
                )
        elif not _is_whole(value) or value < 1:
            raise OptionError(f"--model_args {name} {value!r} is not a whole number from 1 on")
    for name in ("fov_size", "deltas"):
        if name not in values:
            raise OptionError(f'--model_args lacks {name}: write x,y,z, as in "{name}": [8, 8, 8]')
    return values


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _batch_size(flags: Flags, arguments: Mapping[str, Any]) -> int:
    given: int = arguments.get("batch_size", flags["batch_size"])
    if "batch_size" in flags.given and flags["batch_size"] != given:
        raise OptionError(
            f"--batch_size is {flags['batch_size']}, and --model_args has a batch_size of {given}: "
            "give one of them"
        )
    return given


def _volumes(flags: Flags) -> list[dict[str, Any]]:
    images, labels = (
        {one.name: one for one in named_addresses(flags[name])}
        for name in ("data_volumes", "label_volumes")
    )
    if not images:
        raise UsageError("--data_volumes is empty: write NAME:FILE:DATASET")
    for name in sorted(images.keys() ^ labels.keys()):
        there, missing = ("data", "label") if name in images else ("label", "data")
        raise UsageError(
            f"volume {name!r} is among --{there}_volumes and not among --{missing}_volumes: name "
            "it in both"
        )
    scales = _scales(flags["image_offset_scale_map"] or (), names=tuple(images))
    return [
        _volume(image, labels[name], scale=scales.get(name), flags=flags)
        for name, image in images.items()
    ]


def _volume(
    image: NamedAddress,
    labels: NamedAddress,
    *,
    scale: tuple[float, float] | None,
    flags: Flags,
) -> dict[str, Any]:
    mean, stddev = scale or (flags["image_mean"], flags["image_stddev"])
    values = {
        "name": image.name,
        "image": image.address,
        "labels": labels.address,
        "image_mean": mean,
        "image_stddev": stddev,
        "voxel_size": _voxel_size(flags["voxel_size"] or ()),
    }
    return {name: value for name, value in values.items() if value is not None}


def _voxel_size(entries: Sequence[str]) -> list[float] | None:
    return list(numbers("voxel_size", entries)) or None


def _scales(entries: Sequence[str], *, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Read ``name:mean:stddev`` entries."""
    found = {}
    for entry in entries:
        parts = entry.replace("@", ":").split(":")
        if len(parts) != _SCALE_PARTS:
            raise OptionError(
                f"--image_offset_scale_map: {entry!r} is not NAME:MEAN:STDDEV, for example "
                f"{names[0]}:128:33"
            )
        if parts[0] not in names:
            raise OptionError(
                f"--image_offset_scale_map names volume {parts[0]!r}, and the volumes are "
                f"{', '.join(names)}: name one of them"
            )
        mean, stddev = numbers("image_offset_scale_map", parts[1:])
        found[parts[0]] = (mean, stddev)
    return found
