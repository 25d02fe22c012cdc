"""Coarse to fine: an image with levels in, one segmentation of the finest asked level out.

A coarse level is segmented first, with a network for its voxels. What it finds is carried
to the next finer one, where it stays as it is, and the rest is filled with new objects::

    level 2 --segment--> DST.floodem/level-2/labels.zarr --carried--> level 1 --fill--> DST

Each level is a run of its own with its own record, so that a chain that was stopped
anywhere goes on there.

References
----------
Januszewski et al. 2018, Nature Methods 15:605, Online Methods, on segmenting at several
resolutions and filling what the coarser one has left.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from floodem.assembly.level_ratio import level_ratio
from floodem.assembly.preparation import FLOOD_SLOTS
from floodem.assembly.request import CutOptions
from floodem.assembly.run_record import RunRecord, is_taken
from floodem.assembly.segment import segment
from floodem.assembly.sources import InitialLabels
from floodem.cluster import ALONE, Crew, keeping_cluster
from floodem.cluster.holding import holding
from floodem.errors import DestinationExistsError, GeometryError, OptionError
from floodem.flooding.job import require_box_holds_fov
from floodem.flooding.masks import CoordinateMask, MaskRule, ShiftMask, VolumeMask
from floodem.flooding.request import Segmentation, SegmentRequest
from floodem.flooding.seeds import SeedPolicySpec
from floodem.geometry import Box, Zyx
from floodem.progress import ProgressListener, named_notice, named_progress
from floodem.volumes import open_volume
from floodem.volumes.pyramid_geometry import level_box
from floodem.volumes.servers.transport import open_store
from floodem.volumes.source import VolumeSource
from floodem.volumes.volume import Volume

if TYPE_CHECKING:
    from typing import Protocol

    class SegmentLevel(Protocol):
        """Segments one level; `floodem.assembly.segment.segment`."""

        def __call__(
            self,
            image: VolumeSource,
            destination: str,
            *,
            model: str,
            request: SegmentRequest,
            cut: CutOptions,
            crew: Crew,
            network: str | None,
            initial: InitialLabels | None,
            progress: ProgressListener | None,
            notice: Callable[[str], None] | None,
            should_stop: Callable[[], bool],
        ) -> Segmentation:
            """Segment a level, or go on with a run that was stopped."""


FILLING = SeedPolicySpec(
    name="SequentialPolicies",
    args={"policies": [["PolicyPeaks", {}], ["PolicyFillEmptySpace", {}]]},
)
"""Seeds of every level but the coarsest: between image edges, and between what is carried.

The latter alone has none in blocks to which nothing is carried, and one where many cells
together are left.
"""

_NAMED = re.compile(r"(\d{1,9})=(.*)", re.DOTALL)
_BETWEEN = re.compile(r",(?=\d{1,9}=)")
_LEVEL = re.compile(r"\d{1,9}")
_LABELS = "labels.zarr"
_REPLACES = "levels/replaces"


def parse_levels(text: str) -> tuple[int, ...]:
    """Read ``"2,1"``: levels of an image from coarse to fine, of which 0 is the finest.

    Raises
    ------
    OptionError
        When it is anything else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(_LEVEL.fullmatch(part) for part in parts):
        raise OptionError(
            f"{text!r} are no levels: write them from coarse to fine, for example 2,1 (0 is the "
            "finest)"
        )
    levels = tuple(int(part) for part in parts)
    if any(coarse <= fine for coarse, fine in pairwise(levels)):
        ordered = ",".join(str(level) for level in sorted(set(levels), reverse=True))
        raise OptionError(f"levels {text} do not go from coarse to fine: write {ordered}")
    return levels


def parse_models(texts: Sequence[str], *, levels: Sequence[int]) -> dict[int, str]:
    """Read which network is for which level.

    Parameters
    ----------
    texts
        ``["2=coarse.safetensors", "1=fine.safetensors"]``, or both in one text with a
        comma between, or one file for all levels.
    levels
        As `parse_levels` gives them.

    Raises
    ------
    OptionError
        When a level has none or two, or is not asked for.
    """
    parts = [part.strip() for text in texts for part in _BETWEEN.split(text)]
    named = [_NAMED.fullmatch(part) for part in parts]
    if len(parts) == 1 and named[0] is None:
        return dict.fromkeys(levels, parts[0])
    example = ",".join(f"{level}=PATH" for level in levels)
    models: dict[int, str] = {}
    for part, match in zip(parts, named, strict=True):
        if match is None or not match[2]:
            raise OptionError(
                f"model {part!r} does not say its level: write {example}, or one for all levels"
            )
        level = int(match[1])
        if level not in levels:
            asked = ",".join(str(one) for one in levels)
            raise OptionError(f"model {part!r} is for level {level}, and the levels are {asked}")
        if level in models:
            raise OptionError(
                f"level {level} has two models, {models[level]} and {match[2]}: give one"
            )
        models[level] = match[2]
    missing = [level for level in levels if level not in models]
    if missing:
        raise OptionError(f"level {missing[0]} has no model: write {example}")
    return models


def segment_levels(
    image: VolumeSource,
    destination: str,
    *,
    levels: Sequence[int],
    models: Mapping[int, str],
    request: SegmentRequest | None = None,
    cut: CutOptions | None = None,
    crew: Crew = ALONE,
    network: str | None = None,
    progress: ProgressListener | None = None,
    notice: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    segment_level: SegmentLevel = segment,
) -> Segmentation:
    """Segment an image level by level, or go on with a chain that was stopped.

    Parameters
    ----------
    image
        Its level is not looked at.
    destination
        Address of the labels of the last level.
    levels
        From coarse to fine; the last one is what the destination holds.
    models
        Network of each level.
    request
        Options of every level, in voxels of that level, except: its box counts voxels of
        the last level, shift masks those of the finest, and its seeds are those of the
        coarsest level, while others are filled (`FILLING`).
    cut
        How every level is cut, in voxels of that level.
    notice
        Called with what is worth knowing, and of which level.

    Returns
    -------
    Segmentation
        Of the last level. Carried objects keep the ids of the coarser level, and new
        ones count on from there.

    Raises
    ------
    FloodemError
        As `floodem.assembly.segment.segment`; when something does not fit a level, before
        anything is written.
    """
    request = SegmentRequest() if request is None else request
    cut = CutOptions() if cut is None else cut
    _require_possible(request, levels=levels, models=models)
    chain = _chain(image, destination, levels=levels, models=models, request=request)
    carried: InitialLabels | None = None
    made: Segmentation | None = None
    record = RunRecord(destination)
    place = f"{record.address.rstrip('/')}/levels"
    with (
        holding(place, crew=crew, what=record.destination, should_stop=should_stop),
        keeping_cluster(replace(crew, slots=FLOOD_SLOTS)),
    ):
        replaces = _begin_again(record, request, crew=crew)
        for number, step in enumerate(chain):
            is_last = number == len(chain) - 1
            made = segment_level(
                step.image,
                step.destination,
                model=step.model,
                request=replace(step.request, overwrite=replaces) if is_last else step.request,
                cut=cut if is_last else replace(cut, levels=0),
                crew=crew,
                network=network,
                initial=carried,
                progress=named_progress(progress, f"level {step.image.level}"),
                notice=named_notice(notice, f"level {step.image.level}"),
                should_stop=should_stop,
            )
            carried = InitialLabels(uri=step.destination, ratio=step.ratio_below)
    assert made is not None
    return made


def _begin_again(record: RunRecord, request: SegmentRequest, *, crew: Crew) -> bool:
    """Forget the last level's earlier run, and tell whether it is still to be begun again.

    The coarser levels come first, and the chain may be stopped there: what was asked for is
    kept until the last level begins.
    """
    store = open_store(record.address)
    if request.overwrite:
        record.clear(crew=crew)
        store.write(_REPLACES, b"")
    return store.read(_REPLACES) is not None and record.read() is None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """One level of a chain.

    `ratio_below` is how much coarser it is than the next one.
    """

    image: VolumeSource
    destination: str
    model: str
    request: SegmentRequest
    ratio_below: Zyx


def _require_possible(
    request: SegmentRequest, *, levels: Sequence[int], models: Mapping[int, str]
) -> None:
    if not levels or set(levels) - set(models):
        raise OptionError(
            f"levels {tuple(levels)} have the models {dict(models)}: give one for each"
        )
    if request.init_segmentation is not None:
        raise OptionError(
            f"the initial segmentation {request.init_segmentation} and coarser levels would both "
            "be carried: give one of them"
        )
    if request.probabilities is not None:
        raise OptionError(
            f"probabilities ({request.probabilities}) are written of a single level only: leave "
            "them out"
        )
    for rule in _rules(request):
        if isinstance(rule, CoordinateMask) and len(levels) > 1:
            raise OptionError(
                f"the mask where: {rule.expression} counts voxels, and each level has others: give "
                "a mask volume"
            )
        if isinstance(rule, VolumeMask) and len(levels) > 1:
            _require_voxel_size(rule)


def _require_voxel_size(rule: VolumeMask) -> None:
    with open_volume(rule.uri, channel=rule.selections[0].channel) as volume:
        if volume.voxel_size is None:
            raise OptionError(
                f"mask {rule.uri} does not state its voxel size, and levels have several: convert "
                "it with --voxel-size"
            )


def _rules(request: SegmentRequest) -> tuple[MaskRule, ...]:
    return (*request.masks, *request.seed_masks, *request.barriers)


def _chain(
    image: VolumeSource,
    destination: str,
    *,
    levels: Sequence[int],
    models: Mapping[int, str],
    request: SegmentRequest,
) -> list[_Step]:
    """Check every level and return what is to be done, coarsest first."""
    from floodem.network.model_file import load_model

    record = RunRecord(destination)
    may_replace = request.overwrite or open_store(record.address).read(_REPLACES) is not None
    if not may_replace and record.read() is None and is_taken(destination):
        raise DestinationExistsError(
            f"{record.destination} exists already and no run of floodem made it: choose another "
            "destination or --overwrite"
        )
    chain: list[_Step] = []
    with replace(image, level=0).open() as volume:
        for level, finer in zip(levels, (*levels[1:], levels[-1]), strict=True):
            box = _box(volume, request.box, level=level, last=levels[-1])
            below = level_ratio(volume, level=level, finer=finer)
            fov = load_model(models[level]).description.fov
            require_box_holds_fov(box, image=volume.levels[level], fov=fov)
            is_last = level == levels[-1]
            chain.append(
                _Step(
                    image=replace(image, level=level),
                    destination=destination
                    if is_last
                    else f"zarr://{record.address.rstrip('/')}/level-{level}/{_LABELS}",
                    model=models[level],
                    request=replace(
                        _at_level(request, level_ratio(volume, level=level)),
                        box=box,
                        options=request.options
                        if level == levels[0]
                        else replace(request.options, seeds=FILLING),
                    ),
                    ratio_below=below,
                )
            )
    return chain


def _box(volume: Volume, asked: Box | None, *, level: int, last: int) -> Box:
    """Return which part of a level lies over the part of the last one that was asked for."""
    ratio = level_ratio(volume, level=level, finer=last)
    finest = volume.levels[last]
    if asked is not None and not finest.box.contains(asked):
        raise GeometryError(
            f"box {asked} is not inside level {last} of {volume.uri}, which holds {finest.box} "
            "(z,y,x): give a part of that"
        )
    box = level_box(asked or finest.box, ratio).intersection(volume.levels[level].box)
    assert box is not None
    return box


def _at_level(request: SegmentRequest, factors: Zyx) -> SegmentRequest:
    """Return a request whose masks lie over a level."""

    def fitted(rules: Sequence[MaskRule]) -> tuple[MaskRule, ...]:
        return tuple(
            rule.at_level(factors) if isinstance(rule, ShiftMask) else rule for rule in rules
        )

    return replace(
        request,
        masks=fitted(request.masks),
        seed_masks=fitted(request.seed_masks),
        barriers=fitted(request.barriers),
    )
