"""What happens to one example: in, options, seed and number; out, a plan to apply.

The plan is drawn before anything is cut, because it says how large a region has to
be cut. All its numbers are drawn on the host; only noise is made on the device.
The order follows what happens to tissue: it is bent and sections are misaligned,
then the microscope blurs, changes grey levels, adds noise and loses sections, and
at last the example is turned. Sections are planes of equal z of the source.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from floodem.errors import GeometryError
from floodem.geometry import Zyx
from floodem.training.augmentation.draws import Stream, chosen_draws, draws
from floodem.training.augmentation.geometric import Turn, draw_turn, turn
from floodem.training.augmentation.imaging import Imaging, draw_imaging, image_again
from floodem.training.augmentation.options import AugmentationOptions
from floodem.training.augmentation.resampling import warp
from floodem.training.augmentation.warps import (
    IDENTITY,
    Shift,
    Warp,
    add_shifts,
    draw_bending,
    draw_matrix,
    draw_shift,
    largest_halves,
    odd_edges,
    slip,
    translation,
)
from floodem.training.patch import Patch


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationPlan:
    """All that is random about one example, drawn.

    Attributes
    ----------
    patch_shape
        Of the result; odd on every axis.
    source_shape
        Of the region to cut around the centre; odd on every axis.
    warp
        Where voxels come from, before the turn; None: from where they are.
    imaging
        Grey levels and defects of sections, before the turn.
    turn
        Exchange of axes, and flips.
    """

    patch_shape: Zyx
    source_shape: Zyx
    warp: Warp | None
    imaging: Imaging
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
        warped = patch if self.warp is None else warp(patch, by=self.warp)
        return turn(image_again(warped, by=self.imaging), by=self.turn)


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
        draws(seed, number, stream=Stream.TURN),
        reflectable_axes=options.reflectable_axes,
        permutable_axes=options.permutable_axes,
    )
    shape = by.source_shape(patch_shape)
    drawn = _draw_warp(options, shape=shape, seed=seed, number=number)
    return AugmentationPlan(
        patch_shape=patch_shape,
        source_shape=shape if drawn is None else drawn.source_shape(),
        warp=drawn,
        imaging=draw_imaging(options, shape=shape, seed=seed, number=number),
        turn=by,
    )


def largest_source_shape(options: AugmentationOptions, *, patch_shape: Zyx) -> Zyx:
    """Return edges that no plan's `source_shape` exceeds: the room an example needs.

    Raises
    ------
    GeometryError
        When `patch_shape` is not odd and positive on every axis.
    """
    _check_odd(patch_shape)
    is_bent = options.probability("elastic") > 0
    bending = options.elastic_displacement if is_bent else 0.0
    bending_z = options.elastic_displacement_z if is_bent else 0.0
    shift = options.misalignment * sum(
        options.probability(name) > 0 for name in ("slip", "translation")
    )
    is_affine = options.probability("affine") > 0
    shapes = []
    for order in itertools.permutations(sorted(options.permutable_axes)):
        axes = dict(zip(sorted(options.permutable_axes), order, strict=True))
        half_z, half_y, half_x = (patch_shape[axes.get(axis, axis)] // 2 for axis in range(3))
        reach_y, reach_x = largest_halves(
            half_y,
            half_x,
            rotation_degrees=options.rotation_degrees if is_affine else 0.0,
            scale=options.scale if is_affine else 0.0,
            shear=options.shear if is_affine else 0.0,
        )
        shapes.append(
            odd_edges(half_z + bending_z, reach_y + bending + shift, reach_x + bending + shift)
        )
    z, y, x = (max(edges) for edges in zip(*shapes, strict=True))
    return (z, y, x)


def _check_odd(patch_shape: Zyx) -> None:
    if any(edge < 1 or edge % 2 == 0 for edge in patch_shape):
        raise GeometryError(f"patch of {patch_shape} voxels has no centre: make its edges odd")


def _draw_warp(options: AugmentationOptions, *, shape: Zyx, seed: int, number: int) -> Warp | None:
    matrix, bending = IDENTITY, None
    if generator := chosen_draws(options, "affine", seed=seed, number=number):
        matrix = draw_matrix(
            generator,
            rotation_degrees=options.rotation_degrees,
            scale=options.scale,
            shear=options.shear,
        )
    if generator := chosen_draws(options, "elastic", seed=seed, number=number):
        bending = draw_bending(
            generator,
            shape=shape,
            spacing=options.elastic_spacing,
            largest=options.elastic_displacement,
            largest_z=options.elastic_displacement_z,
        )
    shifts = _draw_shifts(options, depth=shape[0], seed=seed, number=number)
    if matrix == IDENTITY and bending is None and not shifts:
        return None
    return Warp(shape=shape, matrix=matrix, bending=bending, shifts=shifts)


def _draw_shifts(
    options: AugmentationOptions, *, depth: int, seed: int, number: int
) -> tuple[Shift, ...]:
    shifts: tuple[Shift, ...] = ()
    for name, kind in (("slip", slip), ("translation", translation)):
        generator = chosen_draws(options, name, seed=seed, number=number)
        if generator is None:
            continue
        drawn = draw_shift(generator, depth=depth, largest=options.misalignment)
        if drawn is not None:
            section, by = drawn
            shifts = add_shifts(shifts, kind(depth, section=section, by=by))
    return shifts
