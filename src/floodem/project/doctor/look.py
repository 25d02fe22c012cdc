"""One image, with its labels and network, looked at once: open volumes in, findings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from floodem.errors import GeometryError, LabelError
from floodem.geometry import Box, Zyx
from floodem.memory import available_memory
from floodem.progress import ProgressListener
from floodem.project.doctor import alignment, axes, centres, grey, labels, overlay, sections
from floodem.project.doctor.findings import Finding, Level
from floodem.project.doctor.image import (
    look_at_description,
    look_at_memory,
    look_at_room,
    look_at_voxel_size,
)
from floodem.project.doctor.model import look_at_model
from floodem.project.doctor.objects import ObjectSurvey, label_boxes, survey_objects
from floodem.project.doctor.proposals import (
    Facts,
    ProposedNetwork,
    min_object_size,
    partitioning,
    propose_network,
)
from floodem.project.doctor.run_time import look_at_time
from floodem.project.doctor.sampling import choose_sampling
from floodem.project.doctor.survey import Survey, survey
from floodem.volumes.volume import Volume

if TYPE_CHECKING:
    from floodem.network.model_file import Model


class Look:
    """A look at one image and what belongs to it.

    Attributes
    ----------
    image
        Open.
    sampling
        Which of its voxels are read.
    """

    def __init__(
        self,
        *,
        image: Volume,
        model: Model | None = None,
        thorough: bool = False,
        progress: ProgressListener | None = None,
    ) -> None:
        self.image = image
        self.sampling = choose_sampling(
            image.box, chunks=image.chunks, itemsize=image.dtype.itemsize, thorough=thorough
        )
        self._model = model
        self._thorough = thorough
        self._progress = progress
        self._survey = Survey()
        self._objects: ObjectSurvey | None = None
        self._centres: Mapping[int, int] | None = None
        self._memory = available_memory()

    def at_image(self) -> Iterator[Finding]:
        """Yield what is found about the image and its sections."""
        yield from look_at_description(self.image)
        yield look_at_memory(self.image.shape, free=self._memory)
        self._survey = survey(self.image.read, self.sampling, progress=self._progress)
        yield look_at_room(self.image.shape, fov=self._fov)
        yield from grey.look_at_grey(self._survey, dtype=self.image.dtype)
        yield from axes.look_at_axes(self._survey, voxel_size=self.image.voxel_size)
        yield from sections.look_at_sections(self._survey, has_all=self.sampling.has_all_sections)
        likeness = self._survey.correlations()
        most = len(likeness)
        if not self._thorough:
            affordable = self.sampling.affordable_pairs(
                chunks=self.image.chunks, itemsize=self.image.dtype.itemsize
            )
            most = min(alignment.MOST_PAIRS, affordable)
        if not alignment.can_measure(self.sampling.windows[0]):
            yield alignment.too_small(self.image.shape)
            return
        pairs = alignment.measure_pairs(
            self.image.read,
            self.sampling.windows[len(self.sampling.windows) // 2],
            alignment.chosen_pairs(likeness, most=most),
            progress=self._progress,
        )
        yield from alignment.look_at_alignment(pairs, total=self.image.shape[0] - 1)

    def at_labels(self, truth: Volume) -> Iterator[Finding]:
        """Yield what is found about labels of the image."""
        paired = list(labels.look_at_pair(self.image, truth))
        yield from paired
        if truth.dtype.kind not in "ui":
            return
        if truth.voxel_size is not None:
            yield from look_at_voxel_size(truth.voxel_size, part=labels.PART)
        boxes = label_boxes(truth.box, chunks=truth.chunks, thorough=self._thorough)
        size = self.image.voxel_size or truth.voxel_size
        try:
            self._objects = survey_objects(
                truth.read, boxes, whole=truth.box, voxel_size=size, progress=self._progress
            )
        except LabelError as error:
            yield Finding(level=Level.PROBLEM, part=labels.PART, what="ids", says=str(error))
            return
        yield from labels.look_at_objects(
            self._objects, dtype=truth.dtype, voxel_size=size, is_taught=self._model is None
        )
        if not self._objects.voxels_of:
            return
        if self.image.dtype.kind in "uif":
            yield from overlay.look_at_overlay(self.image, truth)
        if self._model is None:
            yield from self._at_centres(truth, boxes[0])

    def _at_centres(self, truth: Volume, box: Box) -> Iterator[Finding]:
        network = self._network
        by = partitioning(network, min_size=min_object_size(self._objects))
        try:
            self._centres = centres.count_centres(
                truth, box, by=by, margin=network.reach, progress=self._progress
            )
        except GeometryError as error:
            yield Finding(
                level=Level.PROBLEM,
                part=labels.PART,
                what="centres",
                says=f"no example can be centred on these labels: {error}",
                advice="take more labels, or --sampling.out-of-volume pad",
            )
            return
        assert self._objects is not None
        yield from centres.look_at_centres(
            self._centres, by=by, margin=network.reach, is_all=self._objects.is_all
        )

    def at_model(self) -> Iterator[Finding]:
        """Yield what is found about the network, and how long it will take."""
        if self._model is None:
            return
        yield from look_at_model(
            self._model.description,
            self._survey,
            dtype=self.image.dtype,
            voxel_size=self.image.voxel_size,
        )
        yield from look_at_time(self._model, self.image, memory=self._memory)

    def facts(self) -> Facts:
        """Return what proposals follow from."""
        whole = self._survey.whole()
        pictured = self._survey.pictured()
        has_picture = whole.count > 0 and whole.stddev > 0
        drift = contrast = 0.0
        if has_picture:
            drift = float(np.std([self._survey.mean(z) for z in pictured])) / whole.stddev
            low, high = np.quantile(self._survey.values, (0.01, 0.99))
            contrast = whole.stddev / float(high - low) if high > low else 0.0
        return Facts(
            box=self.image.box,
            voxel_size=self.image.voxel_size,
            mean=whole.mean if has_picture else None,
            stddev=whole.stddev if has_picture else None,
            drift=drift,
            contrast=contrast,
            is_sampled=not self.sampling.is_all,
            network=self._network,
            model=None if self._model is None else self._model.description,
            objects=self._objects,
            centres=self._centres,
            memory=self._memory,
            cards=_cards(),
        )

    @property
    def _network(self) -> ProposedNetwork:
        return propose_network(
            self.image.voxel_size, looks_flat=axes.has_thick_sections(self._survey)
        )

    @property
    def _fov(self) -> Zyx:
        return self._network.fov if self._model is None else self._model.description.fov


def _cards() -> int:
    from floodem.network.device import ask_torch, runs_on

    cuda = ask_torch()
    return sum(runs_on(cuda.architectures, capability=one) for one in cuda.capabilities)
