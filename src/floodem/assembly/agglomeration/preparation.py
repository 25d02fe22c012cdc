"""A request to agglomerate becomes checked facts: nothing of it is computed or written yet.

In: addresses of a segmentation, its image and a network, and options. Out: what all
decision points have in common, and the identities by which a later call knows whether it
may go on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from floodem.assembly.agglomeration.graph.rule import MergeRule
from floodem.assembly.agglomeration.points.points import PointOptions
from floodem.assembly.agglomeration.resegmentation.options import ResegmentationOptions
from floodem.assembly.agglomeration.resegmentation.tasks import ScoreTask
from floodem.assembly.run_record import MOST_FILES
from floodem.errors import GeometryError, LabelError
from floodem.flooding.options import FloodOptions
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.network.device import choose_device, choose_dtype
from floodem.shapes.source import LabelSource
from floodem.volumes.conversion.fingerprint import fingerprint
from floodem.volumes.kinds import looks_like_labels
from floodem.volumes.location import parse_location
from floodem.volumes.servers.addresses import without_secrets
from floodem.volumes.source import VolumeSource
from floodem.volumes.volume import Volume

if TYPE_CHECKING:
    from floodem.network.model_file import Model

_METHOD = 1
"""Of finding and scoring points: those of another method are not mixed with this one's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgglomerationOptions:
    """What a user may choose about an agglomeration.

    Attributes
    ----------
    points
        Where decisions are made.
    resegmentation
        Fields of `ResegmentationOptions` that differ from what suits the voxels and the
        network.
    both_sides
        Flood from both sides in any case. Otherwise the smaller segment is flooded first, and
        the other one where that flood covers both: the careful rule needs no more, and it
        takes a fraction of the calls.
    floods
        Options of every flood; seeds, sizes and distances to segments have no meaning.
    rule
        What the graph takes for merges at first; it can be changed afterwards.
    box
        Only decision points in this part of the segmentation; None: all.
    block
        Edges (z, y, x) of the blocks in which points are looked for; None: proposed. They
        change nothing about the result.
    device, dtype
        Names, see `floodem.network.device`.
    """

    points: PointOptions = field(default_factory=PointOptions)
    resegmentation: Mapping[str, Any] = field(default_factory=dict)
    both_sides: bool = False
    floods: FloodOptions = field(default_factory=FloodOptions)
    rule: MergeRule = field(default_factory=MergeRule)
    box: Box | None = None
    block: Zyx | None = None
    device: str = "auto"
    dtype: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A segmentation ready to be agglomerated.

    Attributes
    ----------
    voxel_size
        Of the segmentation, or else of the image or the network.
    points
        Which places are decision points.
    box
        In which points are looked for.
    common
        The task of all points, without any.
    identity
        What decides the scores, as JSON values.
    about
        What a reader of the graph wants to know besides.
    """

    voxel_size: VoxelSize
    points: PointOptions
    box: Box
    common: ScoreTask
    identity: Mapping[str, Any]
    about: Mapping[str, Any]


def prepare(
    segmentation: LabelSource,
    image: VolumeSource,
    *,
    model: str,
    loaded: Model,
    network: str | None,
    options: AgglomerationOptions,
) -> Prepared:
    """Check that labels, image and network fit each other.

    Parameters
    ----------
    model
        The network's file or name.
    loaded
        The same network.
    network
        Code of another package that the model names, or None.

    Raises
    ------
    LabelError
        When the segmentation holds no labels.
    GeometryError
        When the two lie apart, or have other voxel sizes.
    FloodemError
        When something cannot be opened, or an option does not fit.
    """
    description = loaded.description
    with segmentation.open() as labels, image.open() as grey:
        _require_fitting(labels, grey)
        voxel_size = labels.voxel_size or grey.voxel_size or description.voxel_size
        box = _chosen_box(labels, grey, asked=options.box)
        known = segmentation.identity(labels)
        seen = fingerprint(grey, most_files=MOST_FILES)
    device = choose_device(options.device).device
    dtype = str(choose_dtype(options.dtype, device)).removeprefix("torch.")
    common = ScoreTask(
        image=replace(image, uri=parse_location(image.uri).absolute),
        segmentation=replace(segmentation, uri=parse_location(segmentation.uri).absolute),
        voxel_size=voxel_size,
        model=os.path.abspath(model) if os.path.exists(model) else model,
        model_digest=loaded.digest(),
        options=_resegmentation(options, voxel_size=voxel_size, fov=description.fov),
        flood=options.floods.completed(
            pad_value=description.pad_value, move_threshold=description.move_threshold
        ),
        points=(),
        # Workers elsewhere compute on what was chosen here, or say that they cannot.
        device=device.type if options.device == "auto" else options.device,
        dtype=dtype,
        network=network,
    )
    chosen = {
        "points": options.points.to_json(),
        "resegmentation": common.options.to_json(),
        "floods": common.flood.to_json(),
        "computes_on": f"{device.type} in {dtype}",
    }
    return Prepared(
        voxel_size=voxel_size,
        points=options.points,
        box=box,
        common=common,
        identity={
            "method": _METHOD,
            "segmentation": {name: value for name, value in known.items() if name != "uri"},
            "voxel_size_nm_zyx": list(voxel_size.zyx_nm),
            "box": str(box),
            "image": {**seen, "level": image.level, "channel": image.channel, "axes": image.axes},
            "model": common.model_digest,
            **chosen,
        },
        about={
            "image": without_secrets(common.image.uri),
            "model": {"digest": common.model_digest, **description.to_json()},
            **chosen,
        },
    )


def _resegmentation(
    options: AgglomerationOptions, *, voxel_size: VoxelSize, fov: Zyx
) -> ResegmentationOptions:
    early = {"terminate_early": not options.both_sides, "smaller_first": not options.both_sides}
    found = ResegmentationOptions.suited(
        voxel_size, fov=fov, **early | dict(options.resegmentation)
    )
    found.require_room(fov)
    return found


def _require_fitting(labels: Volume, grey: Volume) -> None:
    if labels.dtype.kind not in "ui":
        raise LabelError(
            f"{labels.uri} holds {labels.dtype}, not labels: give the segmentation first and its "
            "image second"
        )
    if looks_like_labels(grey) and not looks_like_labels(labels):
        raise LabelError(
            f"{labels.uri} ({labels.dtype}) looks like an image and {grey.uri} ({grey.dtype}) like "
            "labels: give the segmentation first and its image second"
        )
    ours, theirs = labels.voxel_size, grey.voxel_size
    if ours is not None and theirs is not None and not ours.is_close(theirs):
        raise GeometryError(
            f"{labels.uri} has voxels of {ours} nm and {grey.uri} of {theirs} nm (z,y,x): "
            "give the image on the level that was segmented, as in em.zarr@1"
        )


def _chosen_box(labels: Volume, grey: Volume, *, asked: Box | None) -> Box:
    common = labels.box.intersection(grey.box)
    if common is None:
        raise GeometryError(
            f"{labels.uri} holds {labels.box} (z,y,x) and {grey.uri} {grey.box}, which have no "
            "voxel in common: give the image that was segmented"
        )
    if asked is None:
        return common
    if not common.contains(asked):
        raise GeometryError(
            f"box {asked} (z,y,x) is not inside {common}, which segmentation and image have in "
            "common: choose a part of it"
        )
    return asked
