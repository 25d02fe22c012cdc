"""``floodem train CONFIG.toml``: a configuration in, a network out.

The flags are made from the options themselves, so that every key is one: table,
dot, key, with dashes for underscores (``--optimiser.learning-rate``).
"""

from __future__ import annotations

import dataclasses
import inspect
import shlex
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from floodem.cli.stopping import saving_state
from floodem.counting import counted
from floodem.errors import OptionError, UsageError
from floodem.geometry import Box, VoxelSize
from floodem.training.configuration.options import NetworkOptions, TrainOptions, VolumeOptions
from floodem.training.configuration.tables import (
    annotations_of,
    is_table,
    key_of,
    repeated_table,
    value_of_text,
    without_none,
)

if TYPE_CHECKING:
    from floodem.training.configuration.making import Values
    from floodem.training.runs.trainer import Training

_METAVARS = {str: "TEXT", int: "N", float: "NUMBER", Box: "Z:Z,Y:Y,X:X", VoxelSize: "Z,Y,X"}
_SHORT = {"volume.image": "--image", "volume.labels": "--labels", "network.init": "--init"}
_VOLUME = "volume"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of the configuration as a flag.

    Attributes
    ----------
    path
        Table, dot, key.
    kind
        Annotation of its field.
    text
        Help, with the default.
    is_repeated
        Whether it belongs to a repeated table: given once for each.
    """

    path: str
    kind: Any
    text: str
    is_repeated: bool

    @property
    def parameter(self) -> str:
        """The name that Python calls it by."""
        return self.path.replace(".", "__")

    @property
    def flag(self) -> str:
        """What the user writes."""
        return "--" + self.path.replace("_", "-")


def all_keys(options: Any, *, prefix: str = "", is_repeated: bool = False) -> list[Key]:
    """Return every key of a tree of options, in its order; `options` holds the defaults."""
    kinds = annotations_of(type(options))
    keys: list[Key] = []
    for field in dataclasses.fields(options):
        kind, path = kinds[field.name], f"{prefix}{key_of(field)}"
        table = repeated_table(kind)
        value = getattr(options, field.name)
        if table is not None:
            if table is VolumeOptions:
                keys += all_keys(table(), prefix=f"{path}.", is_repeated=True)
        elif is_table(without_none(kind)):
            if value is not None:
                keys += all_keys(value, prefix=f"{path}.")
        else:
            text = field.metadata.get("help", "").rstrip(".")
            default = "" if value is None or value == "" else f" [{_written(value)}]"
            keys.append(Key(path=path, kind=kind, text=text + default, is_repeated=is_repeated))
    return keys


def _written(value: Any) -> str:
    """Write a default as the user would."""
    if isinstance(value, tuple):
        return ",".join(_written(entry) for entry in value) or "empty"
    if isinstance(value, dict):
        return ",".join(f"{name}={_written(entry)}" for name, entry in value.items())
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _metavar(kind: Any) -> str:
    kind = without_none(kind)
    if kind in _METAVARS:
        return _METAVARS[kind]
    parts = typing.get_args(kind)
    if typing.get_origin(kind) is not tuple:
        return "NAME=VALUE,..."
    return "Z,Y,X" if len(parts) == 3 else "N,N,..."


def _parameter(key: Key) -> inspect.Parameter:
    flags = [key.flag, *([_SHORT[key.path]] if key.path in _SHORT else [])]
    kind = without_none(key.kind)
    if kind is bool and not key.is_repeated:
        flags = [f"{key.flag}/--no-{key.flag[2:]}"]
        annotation: Any = Annotated[bool | None, typer.Option(*flags, help=key.text)]
    else:
        option = typer.Option(*flags, metavar=_metavar(kind), help=key.text)
        annotation = Annotated[list[str] | None if key.is_repeated else str | None, option]
    return inspect.Parameter(
        key.parameter, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def train(config: str | None = None, *, overwrite: bool = False, **given: Any) -> None:
    """Train a flood-filling network, or go on with a run.

    CONFIG is a TOML file; every key of it is also a flag (--table.key), which goes
    first; "none" leaves out what has no default. A volume is --image A --labels B;
    repeat the two for more volumes, and any --volume.KEY with them. The complete
    configuration is kept in the folder of the run (--run), and the same command goes
    on with it, as does --run alone.

    Ctrl-C or SIGTERM saves the state. Several cards: torchrun --nproc-per-node 4 -m --
    floodem train CONFIG; each has --batch-size examples of its own.
    """
    from floodem.training.configuration.making import make_options
    from floodem.training.learning.distributed import is_first
    from floodem.training.runs.trainer import train as run

    values = _values(config, given, overwrite=overwrite)
    options = make_options(values, source=config or "options")
    with saving_state(overwrite=overwrite) as listening:
        made = run(options, overwrite=overwrite, **listening)
    if is_first():
        _print(made, network=options.network.name)


KEYS = all_keys(TrainOptions(network=NetworkOptions()))

train.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        inspect.Parameter(
            "config",
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=None,
            annotation=Annotated[
                str | None, typer.Argument(metavar="CONFIG", help="Configuration in TOML.")
            ],
        ),
        inspect.Parameter(
            "overwrite",
            inspect.Parameter.KEYWORD_ONLY,
            default=False,
            annotation=Annotated[
                bool, typer.Option("--overwrite", help="Begin again, forgetting the run.")
            ],
        ),
        *map(_parameter, KEYS),
    ]
)


def _values(config: str | None, given: dict[str, Any], *, overwrite: bool) -> Values:
    """Return what file and flags say together.

    Without a file and without volumes, a folder that holds a run says what its
    configuration is.
    """
    from floodem.training.configuration.making import merge, read_configuration
    from floodem.training.runs.run_folder import TrainingFolder

    flags = _flags(given)
    volumes = flags.pop(_VOLUME, None)
    folder = TrainingFolder(Path(flags.get("run", TrainOptions().run)))
    if config is not None:
        below = read_configuration(config)
    else:
        goes_on = folder.has_run() and not overwrite and volumes is None
        below = folder.configuration() if goes_on else {}
        if goes_on:
            below["run"] = str(folder.path)
    merged = merge(below, flags)
    if volumes is not None:
        merged[_VOLUME] = _with_volumes(below.get(_VOLUME), volumes)
    if not merged.get(_VOLUME):
        is_meant = config is None and "run" in flags and not folder.has_run()
        holds_none = f"{folder.path} holds no run, and " if is_meant else ""
        raise UsageError(
            f"{holds_none}there is nothing to learn from: give CONFIG, or --image A --labels B, or "
            "the --run of a folder to go on with (floodem train --help)"
        )
    return merged


def _flags(given: dict[str, Any]) -> Values:
    """Return what the flags say, as the tables of a configuration; volumes as lists by key."""
    from floodem.training.configuration.making import merge

    values: Values = {}
    for key in KEYS:
        text = given.get(key.parameter)
        if text is None or text == []:
            continue
        if key.is_repeated:
            value: Any = [value_of_text(key.kind, one, where=key.flag) for one in text]
        elif isinstance(text, bool):
            value = text
        else:
            value = value_of_text(key.kind, text, where=key.flag)
        for name in reversed(key.path.split(".")):
            value = {name: value}
        values = merge(values, value)
    return values


def _with_volumes(below: Any, lists: dict[str, list[Any]]) -> list[Values]:
    """Return volumes: those of the file with what flags say of them, or new ones.

    Raises
    ------
    OptionError
        When a flag is given neither once for all volumes nor once for each.
    """
    count = len(below) if below else max(len(lists.get(k, ())) for k in ("image", "labels"))
    volumes: list[Values] = (
        [dict(volume) for volume in below] if below else [{} for _ in range(count)]
    )
    for name, entries in lists.items():
        once_for_all = len(entries) == 1 and name not in {"name", "image", "labels"}
        if len(entries) != count and not once_for_all:
            raise OptionError(
                f"--volume.{name.replace('_', '-')} is given {counted(len(entries), 'time')} for "
                f"{counted(count, 'volume')}: give it once for each, in their order"
            )
        for number, volume in enumerate(volumes):
            volume[name] = entries[0] if once_for_all else entries[number]
    if count > 1 and not any("name" in volume for volume in volumes):
        for number, volume in enumerate(volumes, start=1):
            volume["name"] = f"volume-{number}"
    return volumes


def _print(made: Training, *, network: str) -> None:
    """Say what there is now, and what to do with it."""
    print(f"{made.folder}: step {made.step:,} after {made.hours:.2f} h ({made.end})")
    if made.best is not None:
        score = made.best_score
        said = (
            "" if score is None else f", adapted Rand error {score.cost:.3f} at step {score.step:,}"
        )
        print(f"best weights: {made.best}{said}")
    print(f"newest weights: {made.latest}")
    words = ["floodem", "segment", "IMAGE", "SEGMENTATION.zarr", "--model"]
    words.append(str(made.best or made.latest))
    if ":" in network:  # a file alone never loads the code of another package
        words += ["--network", network]
    print(f"next: {shlex.join(words)}")
