"""Which options fit: voxel size and what was found in, options with their reasons out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from floodem.assembly.agglomeration.points.points import PointOptions
from floodem.assembly.agglomeration.resegmentation.options import ResegmentationOptions
from floodem.assembly.proposals import propose_plan
from floodem.errors import ResourceError
from floodem.flooding.options import FloodOptions
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.project.doctor.centres import useful_thresholds
from floodem.project.doctor.findings import Proposal
from floodem.project.doctor.image import is_anisotropic
from floodem.project.doctor.objects import ObjectSurvey
from floodem.training.configuration.options import DEFAULT_THRESHOLDS, SamplingOptions
from floodem.training.coordinates.partitioning import Partitioning
from floodem.volumes.grey.report import DRIFT_ADVISED

if TYPE_CHECKING:
    from floodem.network.model_file import ModelDescription

LEAST_VIEW_NM = 150.0
"""Field of view along y and x from which a neurite can be seen in it: published networks look at
198 nm (SNEMI3D, 6 nm) to 330 nm (FIB-25, 10 nm)."""

FLAT_CONTRAST = 0.08
"""Standard deviation against the span of grey values that are used (1 % to 99 %); an image whose
contrast is stretched has 0.15 to 0.3."""

MIN_SIZES = (10_000, 5000, 2000, 1000, 500)
"""Smallest sizes of objects that are tried, the reference's first."""

KEPT_SHARE = 0.95
"""Share of the labelled voxels that the smallest size must leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedNetwork:
    """A network that fits voxels.

    Attributes
    ----------
    fov, deltas
        Field of view and steps in voxels, z, y, x.
    depth
        Residual modules.
    reason
        Why these.
    """

    fov: Zyx
    deltas: Zyx
    depth: int
    reason: str

    @property
    def reach(self) -> Zyx:
        """What an example needs around its centre: half a field of view and a step."""
        z, y, x = (view // 2 + step for view, step in zip(self.fov, self.deltas, strict=True))
        return (z, y, x)


def propose_network(size: VoxelSize | None, *, looks_flat: bool) -> ProposedNetwork:
    """Choose field of view, steps and depth.

    Parameters
    ----------
    size
        Voxels of the image; None: not known.
    looks_flat
        Whether sections differ much more than neighbours in them, which decides where the
        size is not known.
    """
    anisotropic = is_anisotropic(size) if size is not None else looks_flat
    if anisotropic:
        view = "" if size is None else _view(size, (17, 33, 33))
        return ProposedNetwork(
            fov=(17, 33, 33),
            deltas=(4, 8, 8),
            depth=9,
            reason=f"sections are thicker than pixels are wide: as on SNEMI3D (30,6,6 nm){view}",
        )
    view = "" if size is None else _view(size, (33, 33, 33))
    return ProposedNetwork(
        fov=(33, 33, 33),
        deltas=(8, 8, 8),
        depth=12,
        reason=f"voxels are cubes, or nearly: as on FIB-25 (10 nm){view}",
    )


def _view(size: VoxelSize, fov: Zyx) -> str:
    z, y, x = (edge * count for edge, count in zip(size.zyx_nm, fov, strict=True))
    small = ""
    if min(y, x) < LEAST_VIEW_NM:
        small = (
            f"; below {LEAST_VIEW_NM:g} nm it sees little of a neurite: a coarser --level may do "
            "better"
        )
    return f"; that is {z:.0f},{y:.0f},{x:.0f} nm{small}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What proposals follow from.

    Attributes
    ----------
    box, voxel_size, itemsize
        Of the image.
    mean, stddev, drift, contrast
        Of its grey values; drift as `floodem.volumes.grey` has it, contrast the deviation
        against the span from 1 % to 99 %.
    is_sampled
        Whether these are of a part of it.
    network
        What would be trained.
    model
        The network that is there.
    objects, centres
        Of the labels, and the voxels of each partition; None without.
    memory
        Bytes that are free; None: not known.
    cards
        Cards that torch can use.
    """

    box: Box
    voxel_size: VoxelSize | None
    mean: float | None
    stddev: float | None
    drift: float
    contrast: float
    is_sampled: bool
    network: ProposedNetwork
    model: ModelDescription | None = None
    objects: ObjectSurvey | None = None
    centres: Mapping[int, int] | None = None
    memory: int | None = None
    cards: int = 0

    @property
    def fov(self) -> Zyx:
        """Field of view of the network that will be used."""
        return self.network.fov if self.model is None else self.model.fov

    @property
    def has_flat_voxels(self) -> bool:
        """Whether what is proposed is for sections thicker than pixels are wide."""
        if self.voxel_size is not None:
            return is_anisotropic(self.voxel_size)
        return self.fov[0] < self.fov[1]


def propose(facts: Facts) -> tuple[Proposal, ...]:
    """Return the options that fit, in the order of the stages."""
    made = [*_preparation(facts)]
    if facts.model is None:
        made += [*_network(facts), *_sampling(facts)]
    return (*made, *_segmentation(facts), *_agglomeration(facts))


def _preparation(facts: Facts) -> Iterator[Proposal]:
    why = []
    if facts.drift > DRIFT_ADVISED:
        why.append(f"brightness drifts by {facts.drift:.2f} standard deviations over the sections")
    if 0 < facts.contrast < FLAT_CONTRAST:
        why.append(f"contrast is flat ({facts.contrast:.2f} of the span)")
    yield Proposal(
        option="image.clahe",
        value=bool(why),
        reason=" and ".join(why)
        if why
        else f"brightness drifts by {facts.drift:.2f} standard deviations over the sections, below "
        f"{DRIFT_ADVISED}; a network needs whatever its training images had",
    )


def _network(facts: Facts) -> Iterator[Proposal]:
    network = facts.network
    yield Proposal(option="train.network.fov", value=list(network.fov), reason=network.reason)
    yield Proposal(
        option="train.network.deltas",
        value=list(network.deltas),
        reason="a quarter of the field of view, as in all published networks",
    )
    yield Proposal(
        option="train.network.arguments",
        value={"depth": network.depth, "features": 32},
        reason=f"{network.depth} modules see {2 * network.depth} voxels to each side, more than "
        f"half of {max(network.fov)}; " + ("12 on FIB-25" if network.depth > 9 else "9 on SNEMI3D"),
    )
    if facts.mean is None or facts.stddev is None:
        return
    sampled = "of what was sampled" if facts.is_sampled else "of the image"
    for name, value in (("image_mean", facts.mean), ("image_stddev", facts.stddev)):
        yield Proposal(
            option=f"train.volume.{name}",
            value=round(value, 4 if facts.stddev < 1 else 1),
            reason=f"{sampled}, sections of one grey value left out",
        )


def _sampling(facts: Facts) -> Iterator[Proposal]:
    usual = SamplingOptions()
    network = facts.network
    radius = [3 * step for step in network.deltas]
    yield Proposal(
        option="train.sampling.lom_radius",
        value=radius,
        reason="three steps of the field of view to each side, as the reference's 24,24,24 and "
        "12,24,24",
    )
    size = min_object_size(facts.objects)
    reason = "the reference's; smaller objects teach little"
    if facts.objects is None:
        reason += "; with --labels it is held against the objects"
    elif size != usual.min_size:
        reason = (
            f"the reference's {usual.min_size:,} would leave out more than "
            f"{1 - KEPT_SHARE:.0%} of the labelled voxels"
        )
    yield Proposal(option="train.sampling.min_size", value=size, reason=reason)
    by = partitioning(network, min_size=size)
    kept: tuple[float, ...] = DEFAULT_THRESHOLDS
    if facts.centres:
        kept = useful_thresholds(facts.centres, by=by)
    yield Proposal(
        option="train.sampling.thresholds",
        value=list(kept),
        reason="the reference's"
        if kept == DEFAULT_THRESHOLDS
        else "the reference's without those between which hardly any voxel lies",
    )
    yield Proposal(
        option="train.sampling.margin",
        value=list(network.reach),
        reason="half a field of view and one step: what an example sees around its centre",
    )


def partitioning(network: ProposedNetwork, *, min_size: int) -> Partitioning:
    """Return how voxels are sorted for a network."""
    z, y, x = (3 * step for step in network.deltas)
    return Partitioning(thresholds=DEFAULT_THRESHOLDS, radius=(z, y, x), min_size=min_size)


def min_object_size(found: ObjectSurvey | None) -> int:
    """Return the smallest size of objects that training centres examples on."""
    if found is None or not found.voxels_of:
        return MIN_SIZES[0]
    voxels = sorted(found.voxels_of.values())
    total = sum(voxels)
    for size in MIN_SIZES:
        if sum(one for one in voxels if one >= size) >= KEPT_SHARE * total:
            return size
    return MIN_SIZES[-1]


def _segmentation(facts: Facts) -> Iterator[Proposal]:
    usual = FloodOptions()
    yield Proposal(
        option="segment.min_boundary_dist",
        value=[1, 2, 2] if facts.has_flat_voxels else [2, 2, 2],
        reason="what the authors of the method use for "
        + ("sections thicker than pixels are wide" if facts.has_flat_voxels else "cubes")
        + "; 1,1,1 fills more, with more seeds",
    )
    small = ""
    if facts.objects is not None and facts.objects.voxels_of:
        sizes = list(facts.objects.voxels_of.values())
        below = sum(one < usual.min_segment_size for one in sizes) / len(sizes)
        small = f"; {below:.0%} of the labelled objects are smaller"
    yield Proposal(
        option="segment.min_segment_size",
        value=usual.min_segment_size,
        reason=f"the authors' for voxels of any size{small}",
    )
    yield Proposal(
        option="segment.init_activation", value=usual.init_activation, reason="as in training"
    )
    yield Proposal(
        option="segment.segment_threshold",
        value=usual.segment_threshold,
        reason="the authors'; higher ones split more and merge less",
    )
    yield from _blocks(facts)
    yield Proposal(
        option="cluster.workers",
        value=max(1, facts.cards),
        reason="one process for each card"
        if facts.cards
        else "on a CPU one process uses all cores",
    )


def _blocks(facts: Facts) -> Iterator[Proposal]:
    """Propose a block where the image does not fit into memory as one."""
    try:
        plan = propose_plan(facts.box, fov=facts.fov, memory_bytes=facts.memory)
    except ResourceError:
        return
    if len(plan) == 1:
        return
    halo = plan.largest_halo
    yield Proposal(
        option="segment.block",
        value=list(plan.core),
        reason=f"{len(plan):,} blocks; with halos of {','.join(map(str, plan.margin))} each has up "
        f"to {math.prod(halo) / 1e6:.3g} M voxels, hours of work and the memory that is free",
    )


def _agglomeration(facts: Facts) -> Iterator[Proposal]:
    size = facts.voxel_size
    if size is None:
        return
    usual = PointOptions().max_distance_nm
    distance = max(usual, 2 * max(size.zyx_nm))
    yield Proposal(
        option="agglomerate.max_distance",
        value=distance,
        reason="nanometres: a membrane and what floods leave beside it"
        + ("" if distance == usual else "; two voxels at least along every axis"),
    )
    floods = ResegmentationOptions.suited(size, fov=facts.fov)
    for name in ("radius", "analysis_radius", "exclusion_radius"):
        yield Proposal(
            option=f"agglomerate.{name}",
            value=list(getattr(floods, name)),
            reason="the reference's, as far in nanometres along every axis",
        )
