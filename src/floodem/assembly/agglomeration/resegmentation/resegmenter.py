"""One decision point flooded again: image, segmentation and network in, scores out.

The network is put on its device once, and the volumes stay open; every point reads one box of
each. How the floods go is in floodem.assembly.agglomeration.resegmentation.floods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from floodem.assembly.agglomeration.resegmentation.options import ResegmentationOptions
from floodem.assembly.agglomeration.resegmentation.scores import PointScores
from floodem.errors import GeometryError, LabelError
from floodem.geometry import Box, VoxelSize, Zyx
from floodem.volumes.volume import Volume

if TYPE_CHECKING:
    from floodem.assembly.agglomeration.resegmentation.floods import PointCanvas
    from floodem.flooding.options import FloodOptions
    from floodem.network.model_file import Model

__all__ = ["ResegmentationOptions", "Resegmenter"]


class Resegmenter:
    """Floods decision points of one segmentation again. Not to be used by two threads at once.

    Parameters
    ----------
    image
        Open, z, y, x; it stays open as long as points are asked for.
    segmentation
        Open labels in the image's frame, which may be a part of it. Floods go as far as both.
    model
        The network.
    options
        None: `ResegmentationOptions.suited` to the voxels and the network.
    flood
        As of `floodem.segment`; its seeds, `min_segment_size` and `min_boundary_dist` have no
        meaning here.
    device, dtype
        Names, as `choose_device` and `choose_dtype` of floodem.network.device take them.
    voxel_size
        None: the segmentation's, or the image's, or the model's.

    Raises
    ------
    LabelError
        When the segmentation holds no labels.
    GeometryError
        When the volumes do not overlap, or the radius does not hold the field of view.
    OptionError, DeviceError
        When there is no such device or number format.
    """

    def __init__(
        self,
        image: Volume,
        segmentation: Volume,
        *,
        model: Model,
        options: ResegmentationOptions | None = None,
        flood: FloodOptions | None = None,
        device: str = "auto",
        dtype: str = "auto",
        voxel_size: VoxelSize | None = None,
    ) -> None:
        from floodem.flooding.options import FloodOptions
        from floodem.flooding.predictor import Predictor
        from floodem.network.device import choose_device, choose_dtype

        if segmentation.dtype.kind not in "ui":
            raise LabelError(
                f"{segmentation.uri} holds {segmentation.dtype}, not labels: give an integer "
                "segmentation"
            )
        reach = image.box.intersection(segmentation.box)
        if reach is None:
            raise GeometryError(
                f"{image.uri} holds {image.box} (z,y,x) and {segmentation.uri} {segmentation.box}, "
                "which have no voxel in common: give the image that was segmented"
            )
        description = model.description
        self.image, self.segmentation, self.model = image, segmentation, model
        self.voxel_size = (
            voxel_size or segmentation.voxel_size or image.voxel_size or description.voxel_size
        )
        self.options = options or ResegmentationOptions.suited(self.voxel_size, fov=description.fov)
        self.options.require_room(description.fov)
        self.flood = (flood or FloodOptions()).completed(
            pad_value=description.pad_value, move_threshold=description.move_threshold
        )
        self.reach = reach
        chosen = choose_device(device).device
        self._predictor = Predictor(model, device=chosen, dtype=choose_dtype(dtype, chosen))

    @property
    def computes_on(self) -> str:
        """Device and number format, which decide the last digits: ``cpu in float32``."""
        predictor = self._predictor
        return f"{predictor.device.type} in {str(predictor.dtype).removeprefix('torch.')}"

    def score(
        self,
        id_a: int,
        id_b: int,
        position: Zyx,
        *,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> PointScores:
        """Flood a decision point from both of its segments, and compare.

        The two segments are erased and all others stay, which floods go around. What comes out
        depends on the voxels around the point, the network and the options alone.

        Parameters
        ----------
        id_a, id_b
            The segments. One that has no voxel near the point is not flooded.
        position
            The point, z, y, x in the frame of the segmentation. Where its surroundings reach
            over the border of image or segmentation they are cut; where they no longer hold a
            field of view no flood begins.
        should_stop
            Asked after each network call.

        Raises
        ------
        LabelError
            When the ids are no two segments.
        GeometryError
            When the position is outside of image or segmentation.
        StoppedError
            When told to stop.
        VolumeFormatError, StorageError
            When a volume cannot be read.
        """
        from floodem.assembly.agglomeration.resegmentation.floods import SideFlood, covers
        from floodem.assembly.agglomeration.resegmentation.scoring import point_scores

        if id_a == id_b or min(id_a, id_b) < 1:
            raise LabelError(
                f"{id_a} and {id_b} are no two segments: give two different ids from 1 on"
            )
        canvas = self.canvas_at(position)
        segments = canvas.labels == id_a, canvas.labels == id_b
        canvas.keep_as_context((canvas.labels != 0) & ~(segments[0] | segments[1]))
        near = [canvas.in_analysis(segment) for segment in segments]
        first = int(self.options.smaller_first and near[1].sum() < near[0].sum())
        second = 1 - first
        found = canvas.flood_from(segments[first], should_stop=should_stop)
        fraction = self.options.recovery_fraction
        goes_on = found.is_recovered and covers(found.accepted, near[second], fraction=fraction)
        if goes_on or not self.options.terminate_early:
            other = canvas.flood_from(segments[second], should_stop=should_stop)
        else:
            other = SideFlood.untried(near[second].shape)
        a, b = (other, found) if first else (found, other)
        return point_scores(a, b, segment_a=near[0], segment_b=near[1], voxel_size=self.voxel_size)

    def canvas_at(self, position: Zyx) -> PointCanvas:
        """Read the surroundings of a point, and show the network its image.

        Raises
        ------
        GeometryError
            When the position is outside of image or segmentation.
        """
        from floodem.assembly.agglomeration.resegmentation.floods import PointCanvas
        from floodem.flooding.job import normalised_image

        around = Box.from_shape((1, 1, 1), start=position).grow(self.options.radius)
        box = around.intersection(self.reach)
        if box is None or not self.reach.contains_point(position):
            raise GeometryError(
                f"decision point {position} (z,y,x) is outside of {self.reach}, which "
                f"{self.image.uri} and {self.segmentation.uri} have in common: give points of "
                "this segmentation"
            )
        description = self.model.description
        raw = self.image.read(box)
        return PointCanvas(
            normalised_image(raw, description, uri=self.image.uri, corner=box.start),
            self.segmentation.read(box),
            box=box,
            position=position,
            predictor=self._predictor,
            deltas=description.deltas,
            flood=self.flood,
            options=self.options,
            voxel_size=self.voxel_size,
        )
