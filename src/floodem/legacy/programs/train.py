"""``train.py``: a network is trained on centres from TFRecord files.

| old | floodem |
|---|---|
| ``--train_coords`` | ``floodem sample COORDS LIST --from-tfrecord``, and that LIST |
| ``--train_dir`` | ``--run DIR/floodem-run``; model files go into DIR itself |
| a TensorFlow checkpoint in it | ``floodem import-model``; ``--network.init`` |
| the other flags | `floodem.legacy.training.options` |
| ``--master --task --ps_tasks`` and so on | no effect |
| | ``--overwrite``, ``--device``, ``--voxel_size`` are floodem's own |

The same command goes on where it was stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from floodem.errors import StoppedError, UsageError
from floodem.geometry import UNKNOWN_VOXEL_SIZE
from floodem.legacy.flags import Flag, Flags
from floodem.legacy.programs import Console, Program, Translation
from floodem.legacy.training.options import run_values
from floodem.legacy.training.start import (
    CENTRES,
    RUN_FOLDER,
    Start,
    find_start,
    steps_left,
)
from floodem.legacy.values import written
from floodem.progress import Progress

_ONE_PROCESS = (
    "one process trains here; floodem train with torchrun trains on several cards of one machine"
)
_CONSTANT_RATE = (
    "the learning rate stays as it is, as in the old program; floodem train has "
    "--optimiser.schedule"
)
_MEASURED = (
    "no flag says mean and standard deviation of every image, so they are measured; the model "
    "files say which"
)
_TMP = "/tmp"  # noqa: S108 - the old program's default


def _translate(flags: Flags, words: Sequence[str]) -> Translation:
    from floodem.legacy.training.words import train_words

    train_dir = Path(flags["train_dir"])
    start = find_start(train_dir, overwrite=flags["overwrite"])
    centres = train_dir / CENTRES
    values = run_values(flags, run=str(train_dir / RUN_FOLDER), coordinates=str(centres))
    values["max_steps"] = steps_left(flags["max_steps"], start)
    if start.init is not None:
        values["network"]["init"] = str(start.init)
    coordinates: str = flags["train_coords"]
    overwrite = ("--overwrite",) if flags["overwrite"] else ()

    def work(console: Console) -> None:
        _train(values, start, coordinates=coordinates, flags=flags, console=console)

    return Translation(
        commands=(
            ("floodem", "sample", coordinates, str(centres), "--from-tfrecord", "--overwrite"),
            *_import_words(start, values),
            (*train_words(values), *overwrite),
        ),
        notes=tuple(_notes(values, start)),
        work=work,
    )


def _notes(values: Mapping[str, Any], start: Start) -> list[str]:
    notes = [] if start.sentence is None else [start.sentence]
    if any("image_mean" not in volume for volume in values["volume"]):
        notes.append(_MEASURED)
    return notes


def _import_words(start: Start, values: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Return the command that makes a model file of a TensorFlow checkpoint, if that is wanted."""
    if start.bundle is None:
        return ()
    network, movement = values["network"], values["movement"]
    mean, stddev = _normalisation(start, values)
    options = {
        "--fov": written(network["fov"]),
        "--deltas": written(network["deltas"]),
        "--image-mean": f"{mean:g}",
        "--image-stddev": f"{stddev:g}",
        "--voxel-size": ",".join(f"{size:g}" for size in _voxel_size(values)),
        "--pad": f"{movement['pad']:g}",
        "--move-threshold": f"{movement['threshold']:g}",
    }
    words = (word for option in options.items() for word in option)
    return (("floodem", "import-model", str(start.bundle), str(start.init), *words),)


def _normalisation(start: Start, values: Mapping[str, Any]) -> tuple[float, float]:
    first = values["volume"][0]
    if first.get("image_mean") is None or first.get("image_stddev") is None:
        raise UsageError(
            f"training goes on from {start.bundle}, whose weights expect a certain normalisation: "
            "give --image_mean and --image_stddev as they were"
        )
    return first["image_mean"], first["image_stddev"]


def _voxel_size(values: Mapping[str, Any]) -> Sequence[float]:
    size: Sequence[float] = values["volume"][0].get("voxel_size", UNKNOWN_VOXEL_SIZE.zyx_nm)
    return size


def _train(
    values: Mapping[str, Any],
    start: Start,
    *,
    coordinates: str,
    flags: Flags,
    console: Console,
) -> None:
    """Make what training begins with, train, and say what there is."""
    from floodem.files import making_folders
    from floodem.legacy.training.beforehand import require_volumes
    from floodem.legacy.training.model_files import ModelFiles
    from floodem.legacy.training.old_words import in_old_words, speaking_old_words
    from floodem.legacy.training.traps import traps
    from floodem.training.configuration.making import make_options
    from floodem.training.runs.trainer import train

    train_dir = Path(flags["train_dir"])
    words: dict[str, Any] = {"train_dir": train_dir, "steps": start.steps}
    with speaking_old_words(**words), making_folders(train_dir):
        options = make_options(values, source="train.py")
        require_volumes(options)
        if start.bundle is not None:
            _import(start, values)
        names = tuple(volume.name for volume in options.volumes)
        centres = _centres(coordinates, train_dir / CENTRES, volumes=names, console=console)
        for sentence in () if start.goes_on else traps(centres, options):
            console.notice(sentence)
        files = ModelFiles(train_dir, first=start.steps)
        made = train(
            options,
            overwrite=flags["overwrite"],
            progress=console.progress,
            notice=lambda sentence: console.notice(in_old_words(sentence, **words)),
            should_stop=console.should_stop,
            saved=files.save,
        )
        newest = files.path(made.step)
        if not newest.exists():
            files.save(made.step, made.latest)
    console.say(f"{train_dir}: step {start.steps + made.step:,} after {made.hours:.2f} h")
    console.say(f"newest weights: {newest} (model_checkpoint_path: {newest.with_suffix('')})")


def _import(start: Start, values: Mapping[str, Any]) -> None:
    """Make a model file of a TensorFlow checkpoint, beside it."""
    from floodem.geometry import VoxelSize
    from floodem.legacy.checkpoints.import_model import import_tensorflow_model
    from floodem.network.model_file import save_model

    assert start.bundle is not None
    assert start.init is not None
    network, movement = values["network"], values["movement"]
    mean, stddev = _normalisation(start, values)
    model = import_tensorflow_model(
        start.bundle,
        fov=tuple(network["fov"]),
        deltas=tuple(network["deltas"]),
        image_mean=mean,
        image_stddev=stddev,
        voxel_size=VoxelSize(*_voxel_size(values)),
        pad_value=movement["pad"],
        move_threshold=movement["threshold"],
    )
    save_model(model, start.init)


def _centres(coordinates: str, path: Path, *, volumes: Sequence[str], console: Console) -> Any:
    """Return the list of the centres, which is made once."""
    from floodem.legacy.records.listing import list_centres, list_of

    def listen(report: Progress) -> None:
        if console.should_stop():
            raise StoppedError("stopped before the first step: run the same command again")
        if console.progress is not None:
            console.progress(report)

    known = list_of(coordinates, path)
    if known is not None:
        return known
    return list_centres(coordinates, path, volumes=volumes, overwrite=True, progress=listen)


def _required(name: str, help_: str, *, is_list: bool = False) -> Flag:
    return Flag(name=name, kind="list" if is_list else "text", is_required=True, help=help_)


PROGRAM = Program(
    name="train",
    summary="Train a flood-filling network, or go on where the same command was stopped.",
    flags=(
        _required("train_coords", "TFRecord files: a glob, PATH@N, or several by commas."),
        _required("data_volumes", "Images, each NAME:FILE:DATASET.", is_list=True),
        _required("label_volumes", "Labels, each NAME:FILE:DATASET.", is_list=True),
        _required("model_name", "convstack_3d.ConvStack3DFFNModel."),
        _required("model_args", "JSON: depth, fov_size x,y,z, deltas x,y,z, features, batch_size."),
        Flag(name="train_dir", kind="text", default=_TMP, help="Where model files go."),
        Flag(name="max_steps", kind="integer", default=10_000, help="Steps of the optimiser."),
        Flag(name="batch_size", kind="integer", default=4, help="Examples in flight."),
        Flag(name="seed_pad", kind="number", default=0.05, help="Probability of untouched voxels."),
        Flag(
            name="threshold",
            kind="number",
            default=0.9,
            help="Probability from which the field of view moves on.",
        ),
        Flag(
            name="fov_policy",
            kind="text",
            default="fixed",
            choices=("fixed", "max_pred_moves"),
            help="How the field of view moves.",
        ),
        Flag(name="fov_moves", kind="integer", default=1, help="Moves in each direction."),
        Flag(
            name="shuffle_moves",
            kind="boolean",
            default=True,
            help="Shuffle the moves of the fixed policy, once.",
        ),
        Flag(name="image_mean", kind="number", help="Mean of the images' grey levels."),
        Flag(name="image_stddev", kind="number", help="Their standard deviation."),
        Flag(
            name="image_offset_scale_map",
            kind="list",
            help="Both of single volumes, each NAME:MEAN:STDDEV.",
        ),
        Flag(
            name="permutable_axes",
            kind="list",
            default=("1", "2"),
            help="Axes exchanged at random: 0 z, 1 y, 2 x.",
        ),
        Flag(
            name="reflectable_axes",
            kind="list",
            default=("0", "1", "2"),
            help="Axes reflected at random.",
        ),
        Flag(
            name="optimizer",
            kind="text",
            default="sgd",
            choices=("sgd", "momentum", "adagrad", "adam", "rmsprop"),
            help="How weights follow gradients.",
        ),
        Flag(name="learning_rate", kind="number", default=0.001, help="Step size."),
        Flag(name="momentum", kind="number", default=0.9, help="Of momentum and rmsprop."),
        Flag(name="rmsprop_decay", kind="number", default=0.9, help="Of rmsprop."),
        Flag(name="adam_beta1", kind="number", default=0.9, help="Of adam."),
        Flag(name="adam_beta2", kind="number", default=0.999, help="Of adam."),
        Flag(name="epsilon", kind="number", default=1e-8, help="Of adam and rmsprop."),
        Flag(
            name="summary_rate_secs",
            kind="integer",
            default=120,
            help="Seconds between two pictures of examples.",
        ),
        Flag(name="master", kind="text", default="", no_effect=_ONE_PROCESS),
        Flag(name="task", kind="integer", default=0, no_effect=_ONE_PROCESS),
        Flag(name="ps_tasks", kind="integer", default=0, no_effect=_ONE_PROCESS),
        Flag(name="replica_step_delay", kind="integer", default=300, no_effect=_ONE_PROCESS),
        Flag(name="sync_sgd", kind="boolean", default=False, no_effect=_ONE_PROCESS),
        Flag(name="replicas_to_aggregate", kind="integer", no_effect=_ONE_PROCESS),
        Flag(name="total_replicas", kind="integer", no_effect=_ONE_PROCESS),
        Flag(
            name="learning_rate_decay_factor",
            kind="number",
            default=0.94,
            no_effect=_CONSTANT_RATE,
        ),
        Flag(name="decay_steps", kind="integer", no_effect=_CONSTANT_RATE),
        Flag(name="num_epochs_per_decay", kind="number", default=2.0, no_effect=_CONSTANT_RATE),
        Flag(
            name="overwrite",
            kind="boolean",
            default=False,
            help="Begin again from random weights (floodem's own).",
        ),
        Flag(
            name="device",
            kind="text",
            default="auto",
            help="auto, cpu, cuda or cuda:N (floodem's own).",
        ),
        Flag(
            name="voxel_size",
            kind="list",
            help="Voxel size z,y,x in nm, for the model files (floodem's own).",
        ),
    ),
    translate=_translate,
    resumes=True,
)
