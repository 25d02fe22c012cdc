"""An examination: addresses of image, labels and model in, findings and proposals out.

machine ------------------------------------------+
image --> sampled once --> survey --> grey, ...   +--> findings, proposals, commands
labels --> a box --> pieces, sizes, fit           |
model ---------------------------------------------+
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floodem.errors import StorageError, UnsafeFileError, VolumeFormatError, VolumeNotFoundError
from floodem.memory import available_memory
from floodem.progress import ProgressListener
from floodem.project.doctor import alignment, axes, grey, sections
from floodem.project.doctor.findings import Finding, Level, Proposal
from floodem.project.doctor.image import look_at_description, look_at_memory
from floodem.project.doctor.machine import look_at_machine
from floodem.project.doctor.sampling import choose_sampling
from floodem.project.doctor.surroundings import look_around
from floodem.project.doctor.survey import Survey, survey
from floodem.volumes.source import VolumeSource
from floodem.volumes.volume import Volume

FORMAT_VERSION = 1
"""Of the JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What was found.

    Attributes
    ----------
    image, labels, model
        What was looked at, as given.
    sampled
        What was looked at of the image, in words; empty without one.
    findings
        In the order in which they were made.
    proposals
        Options that fit; none without an image.
    commands
        Ready to copy, with the proposed options.
    """

    image: str | None
    labels: str | None
    model: str | None
    sampled: str
    findings: tuple[Finding, ...]
    proposals: tuple[Proposal, ...] = ()
    commands: tuple[str, ...] = ()

    @property
    def worst(self) -> Level:
        """The gravest level of all findings."""
        return max((one.level for one in self.findings), key=lambda level: level.weight)

    def by_gravity(self) -> tuple[Finding, ...]:
        """Return the findings, problems first."""
        return tuple(sorted(self.findings, key=lambda one: -one.level.weight))

    def to_json(self) -> dict[str, Any]:
        """Return plain values, ready for `json.dumps`."""
        return {
            "version": FORMAT_VERSION,
            "image": self.image,
            "labels": self.labels,
            "model": self.model,
            "sampled": self.sampled,
            "worst": str(self.worst),
            "findings": [one.to_json() for one in self.findings],
            "proposals": [one.to_json() for one in self.proposals],
            "commands": list(self.commands),
        }


def examine(
    image: str | Path | VolumeSource | None = None,
    *,
    labels: str | Path | VolumeSource | None = None,
    model: str | Path | None = None,
    destination: str | Path = ".",
    thorough: bool = False,
    machine: bool = True,
    progress: ProgressListener | None = None,
) -> Examination:
    """Look at machine, image, labels and model before any work, and propose options.

    Bounded: of volumes of any size about `SAMPLED_BYTES` are read, in whole chunks.

    Parameters
    ----------
    image
        Grey values; None: the machine alone.
    labels
        True objects of the same place.
    model
        Model file, or a network's name.
    destination
        A folder where results will go; it need not exist.
    thorough
        Read everything.
    machine
        Whether to look at the machine as well.
    progress
        Called now and then.

    Raises
    ------
    UsageError
        When labels or a model are given without an image, or the image has no such
        channel, level or axes.
    VolumeNotFoundError
        When there is nothing at an address. What is there and cannot be opened is a finding.
    ModelError
        When the model file is damaged.
    """
    findings: list[Finding] = []
    if machine:
        findings += [*look_at_machine(), *look_around(Path(destination))]
    sources = [None if one is None else _source(one) for one in (image, labels)]
    named = None if model is None else str(model)
    if sources[0] is None:
        return _concluded(sources, named, findings=findings)
    opened = _opened(sources[0], part="image")
    if isinstance(opened, Finding):
        return _concluded(sources, named, findings=[*findings, opened])
    with opened as volume:
        looked = _Look(volume=volume, thorough=thorough, progress=progress)
        findings += looked.at_image(fov=(17, 33, 33))
    return _concluded(sources, named, findings=findings, sampled=looked.sampling.says())


def _source(one: str | Path | VolumeSource) -> VolumeSource:
    return one if isinstance(one, VolumeSource) else VolumeSource(uri=str(one))


def _opened(source: VolumeSource, *, part: str) -> Volume | Finding:
    """Open a volume, or say in a finding why it cannot be read."""
    try:
        return source.open()
    except VolumeNotFoundError:
        raise
    except (VolumeFormatError, UnsafeFileError, StorageError) as error:
        return Finding(
            level=Level.PROBLEM, part=part, what="opening", says=str(error), value=source.uri
        )


def _concluded(
    sources: list[VolumeSource | None],
    model: str | None,
    *,
    findings: list[Finding],
    sampled: str = "",
) -> Examination:
    image, labels = (None if one is None else one.uri for one in sources)
    return Examination(
        image=image, labels=labels, model=model, sampled=sampled, findings=tuple(findings)
    )


class _Look:
    """One image, looked at once."""

    def __init__(
        self, *, volume: Volume, thorough: bool, progress: ProgressListener | None
    ) -> None:
        self.volume = volume
        self.sampling = choose_sampling(
            volume.box,
            chunks=volume.chunks,
            itemsize=volume.dtype.itemsize,
            thorough=thorough,
        )
        self.survey = Survey()
        self._thorough = thorough
        self._progress = progress

    def at_image(self, *, fov: tuple[int, int, int]) -> Iterator[Finding]:
        """Yield what is found about the image."""
        yield from look_at_description(self.volume, fov=fov)
        yield look_at_memory(self.volume.shape, free=available_memory())
        self.survey = survey(self.volume.read, self.sampling, progress=self._progress)
        yield from grey.look_at_grey(self.survey, dtype=self.volume.dtype)
        yield from axes.look_at_axes(self.survey, voxel_size=self.volume.voxel_size)
        yield from sections.look_at_sections(self.survey, has_all=self.sampling.has_all_sections)
        yield from self._alignment()

    def _alignment(self) -> Iterator[Finding]:
        likeness = self.survey.correlations()
        most = len(likeness) if self._thorough else alignment.MOST_PAIRS
        pairs = alignment.measure_pairs(
            self.volume.read,
            self.sampling.windows[len(self.sampling.windows) // 2],
            alignment.chosen_pairs(likeness, most=most),
            progress=self._progress,
        )
        yield from alignment.look_at_alignment(pairs, total=self.volume.shape[0] - 1)
