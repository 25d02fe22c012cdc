"""What happens to one example: in, options, seed and number; out, a plan to apply.

The plan is drawn before anything is cut, because it says how large a region has
to be cut: other axes, and more than the patch where it will be warped.
"""

from __future__ import annotations

from dataclasses import dataclass

from floodem.errors import GeometryError
from floodem.geometry import Zyx
from floodem.training.augmentation.draws import draws
from floodem.training.augmentation.geometric import Turn, draw_turn, turn
from floodem.training.augmentation.options import AugmentationOptions
from floodem.training.patch import Patch

_TURN_STREAM = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationPlan:
    """All that is random about one example, drawn.

    Attributes
    ----------
    patch_shape
        Of the result; odd on every axis.
    source_shape
        Of the region to cut around the centre; odd on every axis.
    turn
        Exchange of axes, and flips.
    """

    patch_shape: Zyx
    source_shape: Zyx
    turn: Turn

    def apply(self, patch: Patch) -> Patch:
        """Return the augmented patch; the centre voxel of `patch` stays the centre.

        Raises
        ------
        GeometryError
            When `patch` has not the `source_shape`.
        """
        if patch.shape != self.source_shape:
            raise GeometryError(
                f"patch of {patch.shape} voxels does not fit a plan that starts from "
                f"{self.source_shape}: cut its source_shape"
            )
        return turn(patch, by=self.turn)


def plan_augmentation(
    options: AugmentationOptions, *, patch_shape: Zyx, seed: int, number: int
) -> AugmentationPlan:
    """Draw what happens to example `number`: a pure function of the arguments.

    Raises
    ------
    GeometryError
        When `patch_shape` is not odd and positive on every axis.
    """
    _check_odd(patch_shape)
    by = draw_turn(
        draws(seed, number, stream=_TURN_STREAM),
        reflectable_axes=options.reflectable_axes,
        permutable_axes=options.permutable_axes,
    )
    return AugmentationPlan(
        patch_shape=patch_shape, source_shape=by.source_shape(patch_shape), turn=by
    )


def largest_source_shape(options: AugmentationOptions, *, patch_shape: Zyx) -> Zyx:
    """Return edges that no plan's `source_shape` exceeds: the room an example needs.

    Raises
    ------
    GeometryError
        When `patch_shape` is not odd and positive on every axis.
    """
    _check_odd(patch_shape)
    longest = max((patch_shape[axis] for axis in options.permutable_axes), default=0)
    z, y, x = (
        max(edge, longest) if axis in options.permutable_axes else edge
        for axis, edge in enumerate(patch_shape)
    )
    return (z, y, x)


def _check_odd(patch_shape: Zyx) -> None:
    if any(edge < 1 or edge % 2 == 0 for edge in patch_shape):
        raise GeometryError(f"patch of {patch_shape} voxels has no centre: make its edges odd")
