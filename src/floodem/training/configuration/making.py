"""The configuration of a run: a TOML file and flags come in, `TrainOptions` go out.

Plain values are merged first (file, then flags), completed from the model that a
fine-tuning starts from, and only then checked, so that a default is known from
what the user gave.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from floodem.errors import OptionError, VolumeNotFoundError
from floodem.files import storage_error
from floodem.training.configuration.options import FORMAT_VERSION, NetworkOptions, TrainOptions
from floodem.training.configuration.tables import from_plain, to_plain
from floodem.training.configuration.toml import write_toml

CHANGEABLE = frozenset(
    {
        *("run", "max_steps", "max_hours", "checkpoint_minutes", "keep_checkpoints", "log_steps"),
        *("picture_minutes", "threads", "device", "compile", "validation.every_minutes"),
        *("validation.threads", "validation.device", "validation.stop_when_flat"),
        *("volume.voxel_size", "licence", "source"),
    }
)
"""Keys that may differ when a run goes on: they decide how long and where, not what is learned."""

_ENTRY = re.compile(r"\[\d+\]", re.ASCII)
"""Number of an entry of a repeated table, as `flatten` writes it."""

_NORMALISATION = frozenset({"image_mean", "image_stddev"})

DEFAULT_NETWORK = NetworkOptions().name

HEADER = "# Complete configuration of a run of floodem train; triples are z, y, x."
"""By which a run knows its own file."""

Values = dict[str, Any]


def read_configuration(path: Path | str) -> Values:
    """Return what a TOML file says, as plain values.

    Raises
    ------
    VolumeNotFoundError
        When there is no such file.
    OptionError
        When it is not TOML, or of another version.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise VolumeNotFoundError(
            f"no configuration {path}: give the path of a TOML file (floodem train --help)"
        ) from None
    except OSError as error:
        raise storage_error("read", path, error) from error
    except UnicodeDecodeError as error:
        raise OptionError(f"{path} is not a text in UTF-8 ({error}): save it as UTF-8") from error
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise OptionError(f"{path} is not TOML ({error}): correct that line") from error
    version = values.pop("version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise OptionError(
            f"{path} has version {version!r}; this floodem reads {FORMAT_VERSION}: install a newer "
            "floodem"
        )
    return values


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Values:
    """Return the values of both, those of `above` where both have one; tables key by key.

    The arguments of a network are one value: those of another network do not mix.
    """
    merged = dict(below)
    for name, value in above.items():
        before = merged.get(name)
        both = isinstance(value, Mapping) and isinstance(before, Mapping) and name != "arguments"
        merged[name] = merge(before, value) if both else value  # type: ignore[arg-type]
    return merged


def make_options(values: Mapping[str, Any], *, source: str = "configuration") -> TrainOptions:
    """Return checked options, completed from the model that ``network.init`` names.

    Parameters
    ----------
    values
        Plain values, as a TOML file gives them.
    source
        What they come from, for messages.

    Raises
    ------
    OptionError
        Naming the key that is unknown or wrong.
    """
    try:
        from_plain(TrainOptions, values)  # wrong keys are refused before a model is looked for
        completed = completed_from_model(values)
        network = completed.get("network", {})
        if network.get("name", DEFAULT_NETWORK) != DEFAULT_NETWORK:
            # The defaults are those of the default network.
            completed = merge({"network": {"arguments": {}}}, completed)
        return from_plain(TrainOptions, completed)
    except OptionError as error:
        raise OptionError(f"{source}: {error}") from error


def completed_from_model(values: Mapping[str, Any]) -> Values:
    """Fill in what fine-tuning takes from its model, where the user said nothing else.

    Network, field of view, deltas, pad value, move threshold, and the
    normalisation of volumes that have none of their own. The configuration that a
    run keeps is complete, so that it goes on also when the model has gone.
    """
    network = values.get("network", {})
    if network.get("init") is None or _is_complete(values):
        return dict(values)
    from floodem.network.model_file import load_model
    from floodem.network.registry import register_network

    if network.get("name") is not None:
        register_network(network["name"])
    model = load_model(network["init"]).description
    below: Values = {
        "network": {"fov": list(model.fov), "deltas": list(model.deltas)},
        "movement": {"pad": model.pad_value, "threshold": model.move_threshold},
    }
    if network.get("name", model.network) == model.network:
        below["network"] |= {"name": model.network, "arguments": dict(model.arguments)}
    normalisation = dict(
        zip(sorted(_NORMALISATION), (model.image_mean, model.image_stddev), strict=True)
    )
    completed = merge(below, values)
    completed["volume"] = [
        volume if _NORMALISATION & volume.keys() else {**volume, **normalisation}
        for volume in values.get("volume", ())
    ]
    return completed


def _is_complete(values: Mapping[str, Any]) -> bool:
    """Tell whether nothing is left that a model could say."""
    wanted = {"network": ("name", "arguments", "fov", "deltas"), "movement": ("pad", "threshold")}
    return all(
        key in values.get(table, {}) for table, keys in wanted.items() for key in keys
    ) and all(_NORMALISATION & volume.keys() for volume in values.get("volume", ()))


def to_toml(options: TrainOptions) -> str:
    """Return the complete configuration as TOML, each key with its explanation."""
    return f"{HEADER}\n{write_toml(options, version=FORMAT_VERSION)}"


def differences(before: TrainOptions, now: TrainOptions) -> list[tuple[str, Any, Any]]:
    """Return key, earlier and present value of what decides the result and is not the same."""
    flat_before, flat_now = flatten(to_plain(before)), flatten(to_plain(now))
    return [
        (name, flat_before.get(name), flat_now.get(name))
        for name in sorted({*flat_before, *flat_now})
        if _ENTRY.sub("", name) not in CHANGEABLE and flat_before.get(name) != flat_now.get(name)
    ]


def flatten(values: Any, *, prefix: str = "") -> Values:
    """Return nested tables as one, with dotted keys; the entries of repeated ones are counted."""
    flat: Values = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, prefix=f"{prefix}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for number, entry in enumerate(value):
                flat |= flatten(entry, prefix=f"{prefix}{name}[{number}].")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
