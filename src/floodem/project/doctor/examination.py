"""An examination: addresses of image, labels and model in, findings and proposals out.

machine ------------------------------------------+
image --> sampled once --> survey --> grey, ...   +--> findings, proposals, commands
labels --> a box --> pieces, sizes, fit           |
model ---------------------------------------------+
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floodem.errors import (
    StorageError,
    UnsafeFileError,
    UsageError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from floodem.progress import ProgressListener
from floodem.project.doctor.commands import commands_for
from floodem.project.doctor.findings import Finding, Level, Proposal
from floodem.project.doctor.look import Look
from floodem.project.doctor.machine import look_at_machine
from floodem.project.doctor.proposals import propose
from floodem.project.doctor.surroundings import look_around
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

    Of volumes of any size samples are read (`floodem.project.doctor.sampling`).

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
    if image is None and (labels is not None or model is not None):
        raise UsageError("labels and a model are held against an image: give the image, too")
    findings: list[Finding] = []
    if machine:
        findings += [*look_at_machine(), *look_around(Path(destination))]
    asked = _Asked(
        image=None if image is None else _source(image),
        labels=None if labels is None else _source(labels),
        model=None if model is None else str(model),
    )
    if asked.image is None:
        return _concluded(asked, findings)
    loaded = None
    if asked.model is not None:
        from floodem.network.model_file import load_model

        loaded = load_model(Path(asked.model))
    with ExitStack() as opened:
        volume = _opened(asked.image, part="image")
        if isinstance(volume, Finding):
            return _concluded(asked, [*findings, volume])
        opened.enter_context(volume)
        look = Look(image=volume, model=loaded, thorough=thorough, progress=progress)
        findings += look.at_image()
        if asked.labels is not None:
            truth = _opened(asked.labels, part="labels")
            if isinstance(truth, Finding):
                findings.append(truth)
            else:
                opened.enter_context(truth)
                findings += look.at_labels(truth)
        findings += look.at_model()
        return _concluded(asked, findings, look=look)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What is to be looked at."""

    image: VolumeSource | None
    labels: VolumeSource | None
    model: str | None


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


def _concluded(asked: _Asked, findings: list[Finding], *, look: Look | None = None) -> Examination:
    image, labels = (None if one is None else one.uri for one in (asked.image, asked.labels))
    proposals = () if look is None else propose(look.facts())
    commands: tuple[str, ...] = ()
    if look is not None and image is not None:
        commands = commands_for(
            image,
            labels=labels,
            model=asked.model,
            knows_voxel_size=look.image.voxel_size is not None,
            proposals=proposals,
        )
    return Examination(
        image=image,
        labels=labels,
        model=asked.model,
        sampled="" if look is None else look.sampling.says(),
        findings=tuple(findings),
        proposals=proposals,
        commands=commands,
    )
