"""A project file read: TOML in, a checked `Project` out, or all that is wrong with it at once."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from floodem.cluster import Crew
from floodem.counting import counted
from floodem.errors import OptionError, VolumeNotFoundError
from floodem.files import storage_error
from floodem.project.pipeline.addresses import resolved
from floodem.project.pipeline.checking import Problems, checked, made_of
from floodem.project.pipeline.flood_tables import (
    AGGLOMERATE,
    AgglomerateTable,
    SegmentTable,
    flood_options,
    mask_rules,
)
from floodem.project.pipeline.inputs import look_for_inputs
from floodem.project.pipeline.lines import line_of, lines_of_keys
from floodem.project.pipeline.tables import (
    BEST,
    NEWEST,
    TABLES,
    ClusterTable,
    EvaluateTable,
    ImageTable,
    LabelsTable,
    MeshTable,
    ModelTable,
    ProjectTable,
    SceneTable,
)
from floodem.training.configuration.making import merge, read_configuration
from floodem.training.configuration.options import TrainOptions
from floodem.training.configuration.tables import require_known
from floodem.volumes.parallel import usable_threads

FORMAT_VERSION = 1
_VERSION = "version"
TRAIN = "train"
_TRAIN_FILE, _TRAIN_USE = "file", "use"
_MOST_BYTES = 2**22
_OWN_TRAIN_KEYS = (_TRAIN_FILE, _TRAIN_USE)
_UNREAL = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainTable:
    """How a network is trained. Table ``train``.

    Attributes
    ----------
    values
        As `floodem.training.configuration` takes them; paths as the user wrote them.
    options
        The same, checked; volumes may still be left out.
    use
        Which weights go on: ``best`` by validation, where there is one, or ``newest``.
    """

    values: Mapping[str, Any]
    options: TrainOptions
    use: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What a project file says.

    Attributes
    ----------
    path, base
        The file, and the folder that its relative paths begin at.
    folder
        Where all results go.
    name
        Of pages.
    lines
        Line of each key, for messages.
    """

    path: Path
    folder: Path
    name: str
    image: ImageTable
    labels: LabelsTable | None = None
    train: TrainTable | None = None
    model: ModelTable | None = None
    segment: SegmentTable | None = None
    agglomerate: AgglomerateTable | None = None
    evaluate: EvaluateTable | None = None
    mesh: MeshTable | None = None
    scene: SceneTable | None = None
    cluster: ClusterTable = field(default_factory=ClusterTable)
    lines: Mapping[str, int] = field(default_factory=dict)

    @property
    def base(self) -> Path:
        """The folder of the file."""
        return self.path.parent

    def resolved(self, address: str) -> str:
        """Return an address of the file as it is meant everywhere."""
        return resolved(address, base=self.base)

    def place(self, key: str) -> str:
        """Return where a key or table stands, for messages: ``project.toml line 7``."""
        line = line_of(dict(self.lines), key)
        return f"{self.path.name} line {line}" if line else self.path.name

    @property
    def crew(self) -> Crew:
        """Who does tasks."""
        cluster = self.cluster.cluster
        if cluster is not None and cluster.endswith(".toml"):
            cluster = self.resolved(cluster)
        return Crew(
            workers=1 if cluster is not None else usable_threads(self.cluster.workers),
            cluster=cluster,
            is_insecure=self.cluster.insecure,
        )


def read_project(path: Path | str, *, look: bool = False) -> Project:
    """Return what a project file says.

    Parameters
    ----------
    path
        The file.
    look
        Whether files and networks that it names must be there.

    Raises
    ------
    VolumeNotFoundError
        When there is no such file, or nothing but files that it names are missing.
    OptionError
        When it is no TOML, of another version, or naming all that is wrong in it.
    """
    path = Path(path).absolute()
    text = _text_of(path)
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise OptionError(f"{path} is not TOML ({error}): correct that line") from error
    version = values.pop(_VERSION, None)
    if version != FORMAT_VERSION:
        raise OptionError(
            f"{path} has version {version!r}; this floodem reads version = {FORMAT_VERSION}, which "
            "stands in the first line of a project file"
        )
    lines = lines_of_keys(text)
    problems = Problems()
    project = _made(path, values, lines=lines, problems=problems, look=look)
    if project is None or problems.found:
        is_missing = all(one.is_missing for one in problems.found)
        refusal = VolumeNotFoundError if is_missing else OptionError
        raise refusal(_told(path, problems, lines))
    return project


def _text_of(path: Path) -> str:
    try:
        if path.is_file() and path.stat().st_size > _MOST_BYTES:
            raise OptionError(f"{path} is larger than a project file can be: give the right path")
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise VolumeNotFoundError(
            f"no project file {path}: give the path of one, or write one with "
            f"`floodem run --init {path.name} --image IMAGE`"
        ) from None
    except OSError as error:
        raise storage_error("read", path, error) from error
    except UnicodeDecodeError as error:
        raise OptionError(f"{path} is not a text in UTF-8 ({error}): save it as UTF-8") from error


def _told(path: Path, problems: Problems, lines: dict[str, int]) -> str:
    sentences = []
    for problem in sorted(problems.found, key=lambda one: line_of(lines, one.key) or 0):
        line = line_of(lines, problem.key)
        sentences.append(f"line {line}: {problem.sentence}" if line else problem.sentence)
    mistakes = counted(len(sentences), "mistake")
    if len(sentences) == 1:
        return f"{path} has {mistakes}: {sentences[0]}"
    return "\n  ".join([f"{path} has {mistakes}:", *sentences])


def _made(
    path: Path,
    values: dict[str, Any],
    *,
    lines: dict[str, int],
    problems: Problems,
    look: bool,
) -> Project | None:
    known = dict.fromkeys(sorted({*TABLES, TRAIN}))
    for name in values:
        try:
            require_known({name: None}, known, where="")
        except OptionError as error:
            problems.add(name, str(error))
    tables: dict[str, Any] = {
        name: checked(cls, values[name], where=name, problems=problems)
        for name, cls in TABLES.items()
        if name in values
    }
    if TRAIN in values:
        tables[TRAIN] = _train_table(values[TRAIN], base=path.parent, problems=problems)
    about_itself = tables.pop("project", None) or ProjectTable()
    tables = {name: table for name, table in tables.items() if table is not None}
    _check_together(values, tables, base=path.parent, problems=problems)
    if look:
        look_for_inputs(tables, base=path.parent, problems=problems)
    if problems.found:
        return None
    folder = Path(resolved(about_itself.folder or path.stem, base=path.parent))
    if folder in (path, path.parent):
        problems.add("project.folder", f"project.folder {folder} is no folder of its own")
        return None
    return Project(
        path=path,
        folder=folder,
        name=about_itself.name or path.stem,
        lines=lines,
        **tables,
    )


def _train_table(values: Any, *, base: Path, problems: Problems) -> TrainTable | None:
    if not isinstance(values, Mapping):
        problems.add(TRAIN, "train is not a table: write it as [train]")
        return None
    own = {name: values[name] for name in _OWN_TRAIN_KEYS if name in values}
    rest = {name: value for name, value in values.items() if name not in own}
    use = own.get(_TRAIN_USE, BEST)
    if use not in (BEST, NEWEST):
        problems.add(f"{TRAIN}.{_TRAIN_USE}", f"train.use is {use!r}: write {BEST} or {NEWEST}")
    if "run" in rest:
        problems.add(
            f"{TRAIN}.run", "train.run cannot be chosen: the run lies in the project's folder"
        )
    file = own.get(_TRAIN_FILE)
    if file is not None:
        below = problems.trying(
            f"{TRAIN}.{_TRAIN_FILE}", lambda: read_configuration(resolved(str(file), base=base))
        )
        below = {name: value for name, value in (below or {}).items() if name != "run"}
        rest = merge(below, rest)
    options = checked(TrainOptions, rest, where="", problems=_Within(problems, TRAIN))
    return None if options is None else TrainTable(values=rest, options=options, use=str(use))


class _Within(Problems):
    """Problems of a table whose keys are told without the table's name."""

    def __init__(self, above: Problems, table: str) -> None:
        super().__init__()
        self._above, self._table = above, table

    def add(self, key: str, sentence: str, *, is_missing: bool = False) -> None:
        super().add(key, sentence, is_missing=is_missing)
        whole = f"{self._table}.{key}" if key else self._table
        self._above.add(whole, f"[train] {sentence}", is_missing=is_missing)


def _check_together(
    values: Mapping[str, Any], tables: Mapping[str, Any], *, base: Path, problems: Problems
) -> None:
    """Keep what tables say that does not go together."""
    image, labels, evaluate = (tables.get(name) for name in ("image", "labels", "evaluate"))
    if "image" not in values or (image is not None and not image.source):
        problems.add("image", "[image] has no source: write source = ADDRESS below [image]")
    if labels is not None and not labels.source:
        problems.add("labels", "[labels] has no source: write source = ADDRESS below [labels]")
    model = tables.get("model")
    if model is not None and (model.name is None) == (model.file is None):
        problems.add("model", "[model] names no network, or two: write either name or file")
    if "model" in values and TRAIN in values:
        problems.add(
            "model",
            "[model] and [train] are both there: leave one out (to train on from a model, name it "
            "as init below [train.network])",
        )
    segment = tables.get("segment")
    if "segment" in values and "model" not in values and TRAIN not in values:
        problems.add("segment", "[segment] has no network: add [model] or [train]")
    for name in (AGGLOMERATE, "evaluate", "mesh"):
        if name in values and "segment" not in values:
            problems.add(name, f"[{name}] has nothing to work on: add [segment]")
    train = tables.get(TRAIN)
    if train is not None and not train.options.volumes and "labels" not in values:
        problems.add(TRAIN, "[train] has nothing to learn from: add [labels] or [[train.volume]]")
    if evaluate is not None and evaluate.truth is None and "labels" not in values:
        problems.add("evaluate", "[evaluate] has no truth: write truth = ADDRESS, or add [labels]")
    if segment is not None:
        made_of(
            {one.name: getattr(segment, one.name) for one in fields(segment)},
            lambda **given: flood_options(SegmentTable(**given), base=base),
            where="segment",
            problems=problems,
        )
        problems.trying("segment.mask", lambda: mask_rules(segment.mask, base=base))
        problems.trying("segment.seed_mask", lambda: mask_rules(segment.seed_mask, base=base))
    _check_crew(tables, problems)


def _check_crew(tables: Mapping[str, Any], problems: Problems) -> None:
    segment, cluster = tables.get("segment"), tables.get("cluster")
    if segment is None or cluster is None or segment.block is not None:
        return
    if cluster.cluster is not None:
        problems.add(
            "cluster.cluster",
            "cluster.cluster cuts the volume into blocks, which decide the result: say which, "
            "with block = [z, y, x] below [segment]",
        )
