"""A request becomes a plan: everything opened and checked, nothing written yet.

In: image, model, request and how to cut. Out: what all blocks have in common, and the
identity by which a later call knows whether it may go on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import floodem
from floodem.assembly.agreement import JoinRule
from floodem.assembly.block_store import BlockStore
from floodem.assembly.blocks import BlockPlan
from floodem.assembly.floods import FloodTask, floods_identity
from floodem.assembly.pairs import require_zones
from floodem.assembly.proposals import propose_plan
from floodem.assembly.request import CutOptions
from floodem.assembly.run_record import MOST_FILES, image_identity
from floodem.assembly.sources import InitialLabels
from floodem.cluster import Crew, Task
from floodem.cluster.addresses import LocalWorkers, parse_cluster
from floodem.cluster.slurm import SlurmOptions
from floodem.errors import OptionError
from floodem.flooding.job import require_box_holds_fov, voxel_size_notice
from floodem.flooding.masks import MaskRule, check_masks
from floodem.flooding.masks.rules import VolumeMask
from floodem.flooding.masks.shift import ShiftMask
from floodem.flooding.request import SegmentRequest
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.memory import available_memory
from floodem.volumes import open_volume
from floodem.volumes.conversion.fingerprint import fingerprint
from floodem.volumes.location import parse_location
from floodem.volumes.servers.addresses import is_remote
from floodem.volumes.source import VolumeSource

if TYPE_CHECKING:
    from floodem.network.model_file import Model

FLOOD_SLOTS = 2
"""Blocks that a worker holds: one floods while the other reads, finds seeds or writes."""

_METHOD = 1
"""Of cutting and joining: blocks of another method are not mixed with this one's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A volume ready to be flooded in blocks.

    Attributes
    ----------
    model
        The network.
    plan
        How it is cut.
    rule
        When two blocks' segments are one.
    voxel_size
        Of the labels.
    common
        The first block's task; the others differ in the block alone.
    floods, joins
        What decides the blocks' labels, and what is made of them, as JSON values.
    about
        What a reader of the record wants to know besides.
    notices
        Sentences that a user may want to read before hours of flooding.
    """

    model: Model
    plan: BlockPlan
    rule: JoinRule
    voxel_size: VoxelSize
    common: FloodTask
    floods: Mapping[str, Any]
    joins: Mapping[str, Any]
    about: Mapping[str, Any]
    notices: tuple[str, ...]

    @property
    def store(self) -> BlockStore:
        """Where the blocks' labels go."""
        return self.common.store

    def flood_tasks(self) -> list[Task]:
        """Return one task for each block, in the order of the blocks."""
        return [Task(key=block.key, argument=self.common.of(block)) for block in self.plan]


def prepare(
    image: VolumeSource,
    model: str,
    *,
    loaded: Model,
    work: str,
    request: SegmentRequest,
    cut: CutOptions,
    crew: Crew,
    network: str | None = None,
    initial: InitialLabels | None = None,
    earlier: BlockPlan | None = None,
) -> Prepared:
    """Check a request and decide how the volume is cut.

    Parameters
    ----------
    loaded
        The network that `model` names.
    work
        Address of the run's folder.
    earlier
        How an earlier start of the same run has cut it; memory that is free now does not
        change that.

    Raises
    ------
    FloodemError
        When anything is missing, damaged, or does not fit.
    """
    description = loaded.description
    if request.probabilities is not None:
        raise OptionError(
            f"probabilities ({request.probabilities}) are written for uncut volumes only: leave "
            "them out, or segment a --box that fits in memory"
        )
    with image.open() as volume:
        require_box_holds_fov(request.box, image=volume, fov=description.fov)
        box = volume.box if request.box is None else request.box
        voxel_size = volume.voxel_size or description.voxel_size
        seen = image_identity(volume, box=box, voxel_size=volume.voxel_size)
        shown = seen.pop("uri")
        stated = volume.voxel_size
        notice = voxel_size_notice(volume, description)
    rules = [*request.masks, *request.seed_masks, *request.barriers]
    check_masks(rules, box=box, voxel_size=voxel_size)
    plan = _plan(box, cut=cut, crew=crew, fov=description.fov, earlier=earlier)
    rule = cut.rule(description.fov)
    require_zones(plan, trim=rule.trim)
    common = FloodTask(
        image=replace(image, uri=_anywhere(image.uri)),
        voxel_size=stated,
        model=os.path.abspath(model) if os.path.exists(model) else model,
        model_digest=loaded.digest(),
        request=_request_anywhere(request),
        store=BlockStore(address=work if is_remote(work) else os.path.abspath(work), plan=plan),
        block=plan.block(0),
        initial=initial,
        network=network,
        time_limit_s=cut.block_seconds,
    )
    labels = common.initial_labels()
    if labels is not None:
        labels.require_usable(box)
    floods = {
        "method": _METHOD,
        "image": {**seen, "level": image.level, "channel": image.channel, "axes": image.axes},
        "beside": _beside(request, labels),
        **floods_identity(common),
    }
    return Prepared(
        model=loaded,
        plan=plan,
        rule=rule,
        voxel_size=voxel_size,
        common=common,
        floods=floods,
        joins={"trim": list(rule.trim), **cut.to_json()},
        about={
            "floodem": floodem.__version__,
            "image": shown,
            "model": description.to_json(),
            "voxel_size_nm_zyx": list(voxel_size.zyx_nm),
        },
        notices=() if notice is None else (notice,),
    )


def memory_for_each_worker(crew: Crew) -> int | None:
    """Return the bytes that a worker may take, or None where nobody says.

    Workers of a scheduler that somebody else started are taken to have as much as this
    machine.
    """
    free = available_memory()
    if crew.cluster is None:
        return None if free is None else free // crew.workers
    address = parse_cluster(crew.cluster, is_insecure=crew.is_insecure)
    if isinstance(address, SlurmOptions):
        return address.memory_bytes
    workers = address.workers if isinstance(address, LocalWorkers) else 1
    return None if free is None else free // workers


def _plan(
    box: Box, *, cut: CutOptions, crew: Crew, fov: Zyx, earlier: BlockPlan | None
) -> BlockPlan:
    if (
        earlier is not None
        and earlier.box == box
        and cut.block in {None, earlier.core}
        and cut.halo in {None, earlier.margin}
    ):
        return earlier
    if crew.shard is not None and cut.block is None:
        raise OptionError(
            f"shard {crew.shard} cannot know how others cut the volume, since blocks are proposed "
            "from the memory that is free: give --block to all of them"
        )
    free = memory_for_each_worker(crew)
    return propose_plan(
        box,
        fov=fov,
        memory_bytes=None if free is None else free // FLOOD_SLOTS,
        core=cut.block,
        halo=cut.halo,
    )


def _beside(request: SegmentRequest, labels: InitialLabels | None) -> dict[str, Any]:
    """Return by what the volumes beside the image are known, in the order of the rules."""
    rules = (*request.masks, *request.seed_masks, *request.barriers)
    return {
        "masks": [
            _seen(rule.uri, 0 if isinstance(rule, ShiftMask) else rule.selections[0].channel)
            for rule in rules
            if isinstance(rule, VolumeMask | ShiftMask)
        ],
        "initial": None if labels is None else _seen(labels.uri, None),
    }


def _anywhere(uri: str) -> str:
    """Return an address that workers understand, which may work in other folders."""
    return parse_location(uri).absolute


def _request_anywhere(request: SegmentRequest) -> SegmentRequest:
    def named(rules: Sequence[MaskRule]) -> tuple[MaskRule, ...]:
        return tuple(
            replace(rule, uri=_anywhere(rule.uri))
            if isinstance(rule, VolumeMask | ShiftMask)
            else rule
            for rule in rules
        )

    initial = request.init_segmentation
    return replace(
        request,
        masks=named(request.masks),
        seed_masks=named(request.seed_masks),
        barriers=named(request.barriers),
        init_segmentation=None if initial is None else _anywhere(str(initial)),
    )


def _seen(uri: str, channel: int | None) -> dict[str, Any]:
    with open_volume(uri, channel=channel) as volume:
        return fingerprint(volume, most_files=MOST_FILES)
