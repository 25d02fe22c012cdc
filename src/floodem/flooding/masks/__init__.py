"""Where floods may not go or not begin: text to rules, rules to a mask for each block."""

from floodem.flooding.masks.expression import EXPRESSION_SYNTAX, CoordinateExpression
from floodem.flooding.masks.parse import MASK_SYNTAX, parse_mask
from floodem.flooding.masks.rules import (
    CoordinateMask,
    ImageMask,
    MaskPlace,
    MaskRule,
    VolumeMask,
    build_mask,
    check_masks,
)
from floodem.flooding.masks.selection import ValueSelection
from floodem.flooding.masks.shift import ShiftMask

__all__ = [
    "EXPRESSION_SYNTAX",
    "MASK_SYNTAX",
    "CoordinateExpression",
    "CoordinateMask",
    "ImageMask",
    "MaskPlace",
    "MaskRule",
    "ShiftMask",
    "ValueSelection",
    "VolumeMask",
    "build_mask",
    "check_masks",
    "parse_mask",
]
