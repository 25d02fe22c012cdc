"""What a synthetic volume is asked to be like: frozen options, checked when they are made."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from floodem.errors import OptionError
from floodem.geometry import Box, VoxelSize, Zyx

LARGEST_SEED = 2**63 - 1

_ISOTROPIC = VoxelSize(8, 8, 8)

_FEWEST_SPACINGS = 2
_FEWEST_VOXELS_ACROSS = 8
"""Fewer voxels of the finest axis between neighbours leave no room for membranes."""


def nearest(wrong: str, known: list[str]) -> str:
    """End a sentence about an unknown name with the nearest known one, or all of them."""
    close = difflib.get_close_matches(wrong, known, n=1)
    return f": did you mean {close[0]}?" if close else f": choose among {', '.join(known)}"


def _require_share(name: str, value: float) -> None:
    _require_range(name, value, low=0, high=1)


def _require_range(name: str, value: float, *, low: float, high: float) -> None:
    if not low <= value <= high:
        raise OptionError(f"{name} is {value:g}: choose a number from {low:g} to {high:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionOptions:
    """What goes wrong when sections are cut and imaged one by one; 0 leaves it out.

    Attributes
    ----------
    contrast, brightness
        Standard deviation of each section's gain (1 is the mean), and of what is
        added to it in grey levels.
    missing
        Share of sections that are lost: grey value 0, while labels go on.
    folded
        Share of sections with a fold: a dark band across, under which labels go on.
    shift_nm
        Standard deviation of each section's misalignment in y and x. Image, labels
        and skeletons all follow it.
    slips, slip_nm
        Share of sections that are shifted more, and by how much (standard deviation).
    """

    contrast: float = 0.0
    brightness: float = 0.0
    missing: float = 0.0
    folded: float = 0.0
    shift_nm: float = 0.0
    slips: float = 0.0
    slip_nm: float = 0.0

    def __post_init__(self) -> None:
        for name in ("missing", "folded", "slips"):
            _require_share(f"sections.{name}", getattr(self, name))
        for name in ("contrast", "brightness", "shift_nm", "slip_nm"):
            _require_range(f"sections.{name}", getattr(self, name), low=0, high=1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticOptions:
    """A synthetic volume: the same options give the same voxels, on any machine.

    Attributes
    ----------
    seed
        Another number is another piece of tissue.
    shape
        Voxels, ordered z, y, x.
    voxel_size
        In nanometres.
    spacing_nm
        Distance of neighbouring neurites: their mean calibre.
    calibre
        Spread of the calibres: standard deviation of the logarithm of the radii.
    bend
        How far neurites are bent from straight lines, in `spacing_nm`.
    wobble
        How uneven their surfaces are, in `spacing_nm`.
    branching
        Share of lattice nodes at which neighbours come together, besides those that
        follow from their wandering.
    ending
        Share of lattice nodes at which a neurite ends.
    glia, mitochondria, vesicles
        How much there is of them: 0 none, 1 as usual.
    membrane_nm
        Thickness of a membrane pair as it appears.
    faint
        How faint membranes are in places: 0 none, 1 hardly to be seen.
    gap_nm
        Thickness of the layer with label 0 between two objects.
    texture
        Strength of the cytoplasm's texture in grey levels (standard deviation).
    noise
        Standard deviation of each voxel's noise in grey levels.
    sections
        Defects of serial sections.
    """

    seed: int = 0
    shape: Zyx = (128, 128, 128)
    voxel_size: VoxelSize = _ISOTROPIC
    spacing_nm: float = 128.0
    calibre: float = 0.7
    bend: float = 3.0
    wobble: float = 0.25
    branching: float = 0.03
    ending: float = 0.015
    glia: float = 1.0
    mitochondria: float = 1.0
    vesicles: float = 1.0
    membrane_nm: float = 22.0
    faint: float = 0.5
    gap_nm: float = 9.0
    texture: float = 9.0
    noise: float = 12.0
    sections: SectionOptions = field(default_factory=SectionOptions)

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= LARGEST_SEED:
            raise OptionError(f"seed {self.seed} is not from 0 to 2**63 - 1: choose one that is")
        limits = {
            "calibre": (0, 1.5),
            "bend": (0, 4),
            "wobble": (0, 0.3),
            "branching": (0, 0.3),
            "ending": (0, 0.3),
            "glia": (0, 3),
            "mitochondria": (0, 3),
            "vesicles": (0, 3),
            "membrane_nm": (1, 100),
            "faint": (0, 1),
            "gap_nm": (0, 50),
            "texture": (0, 100),
            "noise": (0, 100),
        }
        for name, (low, high) in limits.items():
            _require_range(name, getattr(self, name), low=low, high=high)
        finest = min(self.voxel_size.zyx_nm)
        if not _FEWEST_VOXELS_ACROSS * finest <= self.spacing_nm < math.inf:
            raise OptionError(
                f"spacing {self.spacing_nm:g} nm is less than {_FEWEST_VOXELS_ACROSS} voxels of "
                f"{finest:g} nm: choose a wider spacing or smaller voxels"
            )
        extents = [n * nm for n, nm in zip(self.shape, self.voxel_size.zyx_nm, strict=True)]
        if min(self.shape) < 1 or min(extents) < _FEWEST_SPACINGS * self.spacing_nm:
            raise OptionError(
                f"shape {','.join(map(str, self.shape))} (z,y,x) at {self.voxel_size} nm is "
                f"narrower than two neurites ({2 * self.spacing_nm:g} nm): choose a larger shape "
                "or a smaller spacing"
            )

    @property
    def box(self) -> Box:
        """Where the volume lies: from 0,0,0."""
        return Box.from_shape(self.shape)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """Return the options of a preset with some of them changed.

        Parameters
        ----------
        name
            ``"fib"``: isotropic voxels of 8 nm without section defects, as from a
            focused ion beam. ``"clear"``: the same with thicker neurites and membranes
            that seldom fade, for demonstrations. ``"atum"``: sections of 30 nm with pixels of 6 nm,
            and everything that goes wrong with them.

        Raises
        ------
        OptionError
            When there is no such preset or option.
        """
        known = [option.name for option in dataclasses.fields(cls)]
        for wrong in set(changes) - set(known):
            raise OptionError(f"no option {wrong!r} of synthetic volumes{nearest(wrong, known)}")
        if name not in PRESETS:
            raise OptionError(f"no preset {name!r}{nearest(name, list(PRESETS))}")
        return cls(**{**PRESETS[name], **changes})


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "fib": {},
    "clear": {"spacing_nm": 160.0, "calibre": 0.6, "faint": 0.1},
    "atum": {
        "shape": (64, 256, 256),
        "voxel_size": VoxelSize(30, 6, 6),
        "spacing_nm": 180.0,
        "membrane_nm": 20.0,
        "gap_nm": 8.0,
        "sections": SectionOptions(
            contrast=0.06,
            brightness=5.0,
            missing=0.01,
            folded=0.02,
            shift_nm=5.0,
            slips=0.03,
            slip_nm=25.0,
        ),
    },
}
