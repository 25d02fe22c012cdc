"""What a project file names that is not there: its tables in, one problem for each out.

Only names and paths of this machine are looked at; what lies on servers, or is in a
file, is told by the stage that opens it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from floodem.errors import OptionError, UsageError, VolumeNotFoundError
from floodem.network.named import named_model, unknown_model
from floodem.project.pipeline.addresses import looks_like_path, resolved
from floodem.project.pipeline.checking import Problems
from floodem.project.pipeline.flood_tables import CSV, REVERSE_SEEDS, SEGMENT, SegmentTable
from floodem.training.configuration.options import TrainOptions
from floodem.volumes.location import parse_location

_TRAIN = "train"
_PATTERN = frozenset("*?%[{")
"""In an address of many files, which need not be the name of any."""


def look_for_inputs(tables: Mapping[str, Any], *, base: Path, problems: Problems) -> None:
    """Keep what tables name that is not there.

    Parameters
    ----------
    tables
        Those that are right by themselves, by name.
    base
        Folder that relative paths begin at.
    problems
        Where each goes, with its key.
    """
    for key, address in _addresses(tables):
        problems.trying(key, lambda key=key, address=address: _require(key, address, base=base))  # type: ignore[misc]
    model, segment = tables.get("model"), tables.get(SEGMENT)
    if model is not None:
        for name, given in (("name", model.name), ("file", model.file)):
            if given:
                where = given if name == "name" else resolved(given, base=base)
                problems.trying(f"model.{name}", lambda where=where: _require_model(where))  # type: ignore[misc]
    if segment is not None and segment.consensus not in (None, REVERSE_SEEDS):
        problems.trying(f"{SEGMENT}.consensus", lambda: _require_second(segment, base=base))


def _addresses(tables: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield key and address of each volume and file that is not a network."""
    named = [
        (f"{table}.{name}", getattr(tables.get(table), name, None))
        for table, name in (
            ("image", "source"),
            ("labels", "source"),
            (SEGMENT, "init_segmentation"),
            ("evaluate", "truth"),
            ("evaluate", "skeletons"),
        )
    ]
    segment, train = tables.get(SEGMENT), tables.get(_TRAIN)
    if segment is not None and segment.seeds.strip().lower().endswith(CSV):
        named.append((f"{SEGMENT}.seeds", segment.seeds.strip()))
    if train is not None:
        named += _learned_from(train.options)
    yield from ((key, address) for key, address in named if address)


def _learned_from(options: TrainOptions) -> Iterator[tuple[str, str | None]]:
    for volume in options.volumes:
        for name in ("image", "labels", "loss_mask"):
            yield f"{_TRAIN}.volume.{name}", getattr(volume, name)
    yield f"{_TRAIN}.validation.image", options.validation.image
    yield f"{_TRAIN}.validation.labels", options.validation.labels
    for key, file in (
        ("network.init", options.network.init),
        ("sampling.coordinates", options.sampling.coordinates),
    ):
        yield f"{_TRAIN}.{key}", None if file is None else str(file)


def _require(key: str, address: str, *, base: Path) -> None:
    try:
        location = parse_location(resolved(address, base=base))
    except UsageError as error:
        raise OptionError(f"{key}: {error}") from error
    if location.is_remote or _PATTERN & {*location.path} or location.local.exists():
        return
    raise VolumeNotFoundError(
        f"{key} is {address!r}, and there is no {location.path}: correct the path, which begins "
        "at the folder of the project file"
    )


def _require_model(model: str) -> None:
    if not _is_model(model):
        raise VolumeNotFoundError(unknown_model(model))


def _require_second(segment: SegmentTable, *, base: Path) -> None:
    second = str(segment.consensus)
    if not _is_model(resolved(second, base=base) if looks_like_path(second) else second):
        raise OptionError(
            f'{SEGMENT}.consensus is {second!r}: write "{REVERSE_SEEDS}", or the name or file of '
            "another network that is there"
        )


def _is_model(model: str) -> bool:
    if Path(model).is_file():
        return True
    return not looks_like_path(model) and named_model(model) is not None
