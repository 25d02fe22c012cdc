"""What ``segment --plan`` says: a request in, how it would be cut and what it takes out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from floodem.assembly.destination import LabelDestination
from floodem.assembly.estimate import Estimate, estimate, time_calls
from floodem.assembly.preparation import FLOOD_SLOTS, Prepared
from floodem.assembly.request import CutOptions
from floodem.assembly.segment import is_cut, prepare_cut
from floodem.assembly.sources import InitialLabels
from floodem.cluster import ALONE, Crew
from floodem.flooding.request import SegmentRequest
from floodem.volumes.source import VolumeSource
from floodem.volumes.volume import Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """How a run would be cut.

    Attributes
    ----------
    prepared
        The plan and all that was checked.
    estimate
        What it takes.
    is_cut
        Whether the volume would be cut; otherwise the plan has one block.
    """

    prepared: Prepared
    estimate: Estimate
    is_cut: bool

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "is_cut": self.is_cut,
            "plan": self.prepared.plan.to_json(),
            "notices": list(self.prepared.notices),
            **self.estimate.to_json(),
        }


def planned(
    image: str | Path | Volume | VolumeSource,
    destination: str | Path,
    *,
    model: str | Path,
    request: SegmentRequest,
    cut: CutOptions,
    crew: Crew = ALONE,
    network: str | None = None,
    initial: InitialLabels | None = None,
) -> Planned:
    """Check a request and say what it would take; nothing is written.

    Network calls are timed on this machine, for some seconds.

    Raises
    ------
    FloodemError
        When anything is refused.
    """
    will_cut = is_cut(image, destination, request=request, cut=cut, crew=crew, initial=initial)
    prepared = prepare_cut(
        image,
        destination,
        model=model,
        # How an uncut run was begun does not matter to a plan of it.
        request=replace(request, probabilities=None, overwrite=request.overwrite or not will_cut),
        cut=cut if will_cut else replace(cut, block=_whole(image, request)),
        crew=crew,
        network=network,
        initial=initial,
    )
    loaded, description = prepared.model, prepared.model.description
    place = LabelDestination.choose(
        str(destination),
        plan=prepared.plan,
        voxel_size=prepared.voxel_size,
        levels=cut.levels if will_cut else 0,
    )
    source = prepared.common.image
    with source.open() as volume:
        image_bytes = volume.dtype.itemsize
    found = estimate(
        prepared.plan,
        fov=description.fov,
        deltas=description.deltas,
        image_bytes=image_bytes,
        chunks=place.chunks,
        request=request,
        voxel_size=prepared.voxel_size,
        timed=time_calls(loaded, device=request.device, dtype=request.dtype),
        slots=FLOOD_SLOTS if will_cut else 1,
        level_factors=place.factors,
    )
    return Planned(prepared=prepared, estimate=found, is_cut=will_cut)


def _whole(
    image: str | Path | Volume | VolumeSource, request: SegmentRequest
) -> tuple[int, int, int]:
    """Return the edges of all that is segmented."""
    if request.box is not None:
        return request.box.shape
    if isinstance(image, Volume):
        return image.shape
    source = image if isinstance(image, VolumeSource) else VolumeSource(uri=str(image))
    with source.open() as volume:
        return volume.shape
