"""Which augmentations an example goes through, how often, and how strong they are.

In: the table ``augmentation`` of a configuration. Out: probabilities and strengths
that floodem.training.augmentation.plan draws from. Nothing here needs torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from floodem.errors import OptionError
from floodem.geometry import Zyx

AXES = (0, 1, 2)
"""z, y, x."""

FOLD_LIMIT = 0.25
"""Largest elastic displacement in control point distances.

In 300 draws no voxel shrank below 0.4 of its size at 0.25, and some turned inside out
at 0.5.
"""

PRESETS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "none": MappingProxyType(
            {
                "affine_probability": 0.0,
                "elastic_probability": 0.0,
                "slip_probability": 0.0,
                "translation_probability": 0.0,
                "blur_probability": 0.0,
                "out_of_focus_probability": 0.0,
                "grey_probability": 0.0,
                "section_grey_probability": 0.0,
                "noise_probability": 0.0,
                "missing_probability": 0.0,
            }
        ),
        "light": MappingProxyType(
            {
                "affine_probability": 0.0,
                "elastic_probability": 0.0,
                "slip_probability": 0.0,
                "translation_probability": 0.0,
                "blur_probability": 0.1,
                "out_of_focus_probability": 0.05,
                "grey_probability": 0.5,
                "section_grey_probability": 0.25,
                "noise_probability": 0.25,
                "missing_probability": 0.05,
            }
        ),
        "full": MappingProxyType(
            {
                "affine_probability": 0.5,
                "elastic_probability": 0.5,
                "slip_probability": 0.1,
                "translation_probability": 0.1,
                "blur_probability": 0.1,
                "out_of_focus_probability": 0.2,
                "grey_probability": 0.8,
                "section_grey_probability": 0.5,
                "noise_probability": 0.5,
                "missing_probability": 0.2,
            }
        ),
    }
)
"""How often each augmentation happens; floodem's own choice, by what it costs and risks."""


def _key(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


def _probability(of: str) -> Any:
    return _key(None, f"How often examples {of}; default: the preset's.")


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationOptions:
    """Table ``augmentation``: a preset, and whatever is said otherwise.

    A probability that is left out comes from the preset (`PRESETS`); strengths are
    the same in all presets, and matter where the probability is not 0. Voxels are
    counted in the plane, grey levels in standard deviations of the image.
    """

    preset: str = _key("none", "Probabilities not given: none, light (grey levels) or full.")
    reflectable_axes: tuple[int, ...] = _key(
        (0, 1, 2), "Axes along which half of the examples are flipped: 0 z, 1 y, 2 x."
    )
    permutable_axes: tuple[int, ...] = _key(
        (1, 2), "Axes that are exchanged at random; leave out z where it is coarser."
    )
    affine_probability: float | None = _probability("are rotated, scaled and sheared")
    rotation_degrees: float = _key(45.0, "Largest rotation in the plane, both ways.")
    scale: float = _key(0.1, "Largest growth in the plane, as a fraction; shrinks by as much.")
    shear: float = _key(0.1, "Largest shear in the plane, both ways.")
    elastic_probability: float | None = _probability("are bent smoothly")
    elastic_displacement: float = _key(3.0, "Largest displacement in the plane, in voxels.")
    elastic_displacement_z: float = _key(
        0.0, "Largest displacement along z, in voxels; only where z is as fine as the plane."
    )
    elastic_spacing: Zyx = field(
        default=(16, 16, 16),
        metadata={"help": "Voxels between the control points of the bending."},
    )
    slip_probability: float | None = _probability("have one section shifted")
    translation_probability: float | None = _probability(
        "have all sections from one on, away from the centre, shifted"
    )
    misalignment: int = _key(8, "Largest shift of a slip or translation, in voxels.")
    blur_probability: float | None = _probability("are blurred in the plane")
    blur: float = _key(1.0, "Largest standard deviation of the blur, in voxels.")
    out_of_focus_probability: float | None = _probability("have sections out of focus")
    out_of_focus: float = _key(
        3.0, "Largest standard deviation of an out-of-focus section's blur, in voxels."
    )
    out_of_focus_sections: int = _key(3, "Most sections of an example that are out of focus.")
    grey_probability: float | None = _probability("have other grey levels")
    section_grey_probability: float | None = _probability("have other grey levels in every section")
    contrast: float = _key(0.25, "Largest change of contrast, as a fraction.")
    brightness: float = _key(0.5, "Largest change of brightness, in standard deviations.")
    gamma: float = _key(0.5, "Largest change of the exponent of grey levels, in powers of 2.")
    noise_probability: float | None = _probability("become noisy")
    noise: float = _key(0.3, "Largest standard deviation of the noise, in standard deviations.")
    missing_probability: float | None = _probability("miss sections")
    missing_sections: int = _key(2, "Most sections of an example that are missing.")
    missing_fill: float = _key(0.0, "Grey level of what is missing; 0 is the image's mean.")
    partial: float = _key(
        0.5, "How many missing and out-of-focus sections are so on one side of a line only."
    )

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise OptionError(
                f"augmentation.preset {self.preset!r} is not one of {', '.join(PRESETS)}"
            )
        for name in ("reflectable_axes", "permutable_axes"):
            _check_axes(name, getattr(self, name))
        for name in (*PRESETS["none"], "partial"):
            if getattr(self, name) is not None:
                _check_range(name, getattr(self, name), high=1)
        for name in ("scale", "shear"):
            _check_range(name, getattr(self, name), high=1)
        _check_range("rotation_degrees", self.rotation_degrees, high=180)
        for name in ("misalignment", "blur", "out_of_focus", "contrast", "brightness"):
            _check_range(name, getattr(self, name))
        _check_range("contrast", self.contrast, high=1)
        for name in ("gamma", "noise"):
            _check_range(name, getattr(self, name))
        for name in ("missing_sections", "out_of_focus_sections"):
            _check_range(name, getattr(self, name), low=1)
        if not math.isfinite(self.missing_fill):
            raise OptionError(f"augmentation.missing_fill {self.missing_fill!r} is not a number")
        self._check_elastic()

    def _check_elastic(self) -> None:
        spacing_z, spacing_y, spacing_x = self.elastic_spacing
        if min(self.elastic_spacing) < 1:
            raise OptionError(
                f"augmentation.elastic_spacing {self.elastic_spacing} is not at least 1 voxel "
                "on every axis"
            )
        for name, spacing in (
            ("elastic_displacement", min(spacing_y, spacing_x)),
            ("elastic_displacement_z", spacing_z),
        ):
            value = getattr(self, name)
            if not 0 <= value <= FOLD_LIMIT * spacing:
                raise OptionError(
                    f"augmentation.{name} {value!r} is not 0 to {FOLD_LIMIT * spacing:g} voxels: "
                    f"control points {spacing} voxels apart would fold the image; "
                    "raise elastic_spacing"
                )

    def probability(self, name: str) -> float:
        """Return how often `name` (affine, elastic, slip, ...) happens, by key or by preset."""
        given: float | None = getattr(self, f"{name}_probability")
        return PRESETS[self.preset][f"{name}_probability"] if given is None else given

    def resolved(self) -> AugmentationOptions:
        """Return the same options with the preset's probabilities written out."""
        values: dict[str, Any] = {
            name: getattr(self, name) if getattr(self, name) is not None else value
            for name, value in PRESETS[self.preset].items()
        }
        return dataclasses.replace(self, **values)


def _check_axes(name: str, axes: tuple[int, ...]) -> None:
    if len(set(axes)) < len(axes) or any(axis not in AXES for axis in axes):
        raise OptionError(
            f"augmentation.{name} {list(axes)} are not different axes out of 0 (z), 1 (y) and 2 (x)"
        )


def _check_range(name: str, value: float, *, low: float = 0, high: float = math.inf) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        bound = f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
        raise OptionError(f"augmentation.{name} {value!r} is not {bound}")
