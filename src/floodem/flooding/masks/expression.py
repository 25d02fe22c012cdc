"""Masks written as a condition on voxel coordinates: ``z < 10 and (x // 8) % 2 == 0``.

In: text. Out: a condition that can be computed over a box of the volume. The
text is parsed, held against a short list of what it may contain, and computed
over arrays; none of it is ever executed, so that a request from somewhere else
can say which voxels to leave out and nothing more.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool

from floodem.errors import OptionError
from floodem.geometry import Box

Axes = Sequence[np.ndarray[Any, np.dtype[np.int64]]]
Kind = Literal["whole number", "number", "condition"]

EXPRESSION_SYNTAX = (
    "x, y, z (voxels of the volume), numbers, + - * / // % **, < <= > >= == !=, "
    "and or not (or & | ^ ~) and brackets"
)
LONGEST_EXPRESSION = 1000
MOST_PARTS = 200
LARGEST_EXPONENT = 8
# Up to here int64 and float64 both hold every whole number, as Python's integers do.
LARGEST_WHOLE = 2**53
LARGEST_NUMBER = 1e300
# Intermediate arrays stay below this many voxels, whatever the box.
VOXELS_AT_ONCE = 1 << 22

_AXES = ("z", "y", "x")
_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
# What the size of a result cannot exceed, from the sizes of its operands.
_GROWTH: Mapping[Callable[[Any, Any], Any], Callable[[Any, Any], Any]] = {
    operator.add: operator.add,
    operator.sub: operator.add,
    operator.mul: operator.mul,
    operator.truediv: lambda size, divisor: size / divisor,
    operator.floordiv: lambda size, divisor: size // divisor + 1,
    operator.mod: lambda _, divisor: divisor,
}
_DIVISIONS = (ast.Div, ast.FloorDiv, ast.Mod)
_LOGIC: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.And: np.logical_and,
    ast.BitAnd: np.logical_and,
    ast.Or: np.logical_or,
    ast.BitOr: np.logical_or,
    ast.BitXor: np.logical_xor,
}
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a condition: what it is, and how it is computed.

    `values` takes the coordinates z, y, x, ready to broadcast; `largest` tells
    what its size cannot exceed in a box; `constant` is its value where no
    coordinate is in it.
    """

    kind: Kind
    values: Callable[[Axes], Any]
    largest: Callable[[Box], float]
    constant: int | float | None = None


class CoordinateExpression:
    """A condition on x, y, z that holds nothing but arithmetic and logic.

    Raises
    ------
    OptionError
        When the text holds anything else, is no condition, or is too long.
    """

    def __init__(self, text: str) -> None:
        self.text = " ".join(text.split())
        self._condition = _Reader(self.text).read()

    def require_exact(self, box: Box) -> None:
        """Check that no number in it grows beyond what can be computed exactly.

        Raises
        ------
        OptionError
            When a product or power could, somewhere in the box.
        """
        self._condition.largest(box)

    def over(self, box: Box) -> Bool[np.ndarray, "z y x"]:
        """Return, for every voxel of the box, whether the condition holds there.

        Raises
        ------
        OptionError
            As `require_exact`.
        """
        self.require_exact(box)
        holds = np.empty(box.shape, dtype=bool)
        depth, height, width = box.shape
        sections = max(1, VOXELS_AT_ONCE // max(1, height * width))
        for first in range(0, depth, sections):
            last = min(depth, first + sections)
            axes = np.ogrid[first:last, 0:height, 0:width]
            here = [axis + start for axis, start in zip(axes, box.start, strict=True)]
            holds[first:last] = self._condition.values(here)
        return holds


class _Reader:
    """Turns text into a condition, part by part, refusing what is not on the list."""

    def __init__(self, text: str) -> None:
        self._text = text

    def read(self) -> _Part:
        if len(self._text) > LONGEST_EXPRESSION:
            raise OptionError(
                f"the mask condition has {len(self._text)} characters: "
                f"use at most {LONGEST_EXPRESSION}"
            )
        tree = self._parsed()
        parts = sum(1 for _ in ast.walk(tree))
        if parts > MOST_PARTS:
            raise OptionError(
                f"the mask condition {self._text!r} has {parts} parts: use at most {MOST_PARTS}"
            )
        return self._condition(tree)

    def _parsed(self) -> ast.expr:
        for position, character in enumerate(self._text):
            if character == "#" or not character.isascii():
                raise self._refused(position, f"{character!r} has no meaning here")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # what Python only warns about, such as 1or x
                return ast.parse(self._text, mode="eval").body
        except SyntaxError as error:
            raise self._refused(max(error.offset or 1, 1) - 1, error.msg) from None
        except (ValueError, RecursionError, MemoryError, Warning) as error:
            raise self._refused(0, str(error) or "it is too deeply nested") from None

    def _part(self, node: ast.expr) -> _Part:
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return self._number(value, node)
            case ast.Name(id=name) if name in _AXES:
                return self._coordinate(_AXES.index(name))
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self._numeric(operand)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                zero = self._number(0, node)
                negated = self._numeric(operand)
                return self._combined(operator.sub, first=zero, second=negated, node=node)
            case ast.UnaryOp(op=ast.Not() | ast.Invert(), operand=operand):
                inner = self._condition(operand)
                return _Part(
                    "condition", lambda at: np.logical_not(inner.values(at)), inner.largest
                )
            case ast.BinOp(op=ast.Pow()):
                return self._power(node)
            case ast.BinOp(op=op) if type(op) in _ARITHMETIC:
                return self._arithmetic(node)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _LOGIC:
                return self._logic(_LOGIC[type(op)], [left, right])
            case ast.BoolOp(op=op, values=operands):
                return self._logic(_LOGIC[type(op)], operands)
            case ast.Compare(ops=ops) if all(type(op) in _COMPARISONS for op in ops):
                return self._comparison(node)
        raise self._refused(node.col_offset, f"{self._source(node)} is not allowed")

    def _numeric(self, node: ast.expr) -> _Part:
        part = self._part(node)
        if part.kind == "condition":
            raise self._refused(
                node.col_offset, f"{self._source(node)} is a condition, not a number"
            )
        return part

    def _condition(self, node: ast.expr) -> _Part:
        part = self._part(node)
        if part.kind != "condition":
            raise self._refused(
                node.col_offset,
                f"{self._source(node)} is a number, not a condition "
                "(& and | bind tighter than <: put brackets around comparisons)",
            )
        return part

    def _coordinate(self, axis: int) -> _Part:
        def largest(box: Box) -> float:
            return self._limited(max(abs(int(box.start[axis])), abs(int(box.stop[axis]))))

        return _Part("whole number", lambda at: at[axis], largest)

    def _number(self, value: float, node: ast.expr) -> _Part:
        limit = LARGEST_WHOLE if isinstance(value, int) else LARGEST_NUMBER
        if not abs(value) <= limit:  # also when it is not a number at all
            raise self._refused(node.col_offset, f"{self._source(node)} is too large")
        kind: Kind = "whole number" if isinstance(value, int) else "number"
        return _Part(kind, lambda at: value, lambda box: abs(value), value)

    def _arithmetic(self, node: ast.BinOp) -> _Part:
        right, op = node.right, node.op
        first, second = self._numeric(node.left), self._numeric(right)
        if isinstance(op, _DIVISIONS) and not second.constant:
            raise self._refused(
                right.col_offset, f"{self._source(right)} is no divisor: use a number other than 0"
            )
        if isinstance(op, ast.FloorDiv | ast.Mod) and {first.kind, second.kind} != {"whole number"}:
            raise self._refused(node.col_offset, "// and % take whole numbers only")
        return self._combined(_ARITHMETIC[type(op)], first=first, second=second, node=node)

    def _combined(
        self, compute: Callable[[Any, Any], Any], *, first: _Part, second: _Part, node: ast.expr
    ) -> _Part:
        if first.constant is not None and second.constant is not None:
            return self._number(compute(first.constant, second.constant), node)
        whole = first.kind == second.kind == "whole number" and compute is not operator.truediv
        kind: Kind = "whole number" if whole else "number"
        growth = _GROWTH[compute]

        def largest(box: Box) -> float:
            return self._limited(growth(first.largest(box), second.largest(box)))

        return _Part(kind, lambda at: compute(first.values(at), second.values(at)), largest)

    def _power(self, node: ast.BinOp) -> _Part:
        base, exponent = self._numeric(node.left), self._numeric(node.right).constant
        if not isinstance(exponent, int) or not 0 <= exponent <= LARGEST_EXPONENT:
            raise self._refused(
                node.right.col_offset,
                f"{self._source(node.right)} is no exponent: use a whole number from 0 to "
                f"{LARGEST_EXPONENT}",
            )
        if base.constant is not None or exponent == 0:
            return self._number(_raised(base.constant or 0, exponent), node)

        def largest(box: Box) -> float:
            return self._limited(_raised(base.largest(box), exponent))

        return _Part(base.kind, lambda at: _raised(base.values(at), exponent), largest)

    def _logic(self, compute: Callable[[Any, Any], Any], operands: Sequence[ast.expr]) -> _Part:
        parts = [self._condition(operand) for operand in operands]
        return _joined(compute, parts, lambda at: [part.values(at) for part in parts])

    def _comparison(self, node: ast.Compare) -> _Part:
        parts = [self._numeric(operand) for operand in [node.left, *node.comparators]]
        compares = [_COMPARISONS[type(op)] for op in node.ops]

        def truths(at: Axes) -> list[Any]:
            values = [part.values(at) for part in parts]
            return [
                compare(low, high)
                for compare, (low, high) in zip(compares, pairwise(values), strict=True)
            ]

        return _joined(np.logical_and, parts, truths)

    def _limited(self, size: float) -> float:
        limit = LARGEST_WHOLE if isinstance(size, int) else LARGEST_NUMBER
        if not size <= limit:
            raise OptionError(
                f"the mask condition {self._text!r} reaches {float(size):.3g} in this volume, "
                "too large to be exact: write it with smaller numbers"
            )
        return size

    def _source(self, node: ast.expr) -> str:
        return repr(ast.get_source_segment(self._text, node))

    def _refused(self, position: int, why: str) -> OptionError:
        return OptionError(
            f"the mask condition {self._text!r} is not understood at character {position + 1}: "
            f"{why}; it may hold {EXPRESSION_SYNTAX}"
        )


def _raised(base: Any, exponent: int) -> Any:
    """Return a power as products, whose rounding does not depend on a library."""
    return reduce(operator.mul, [base] * exponent, 1)


def _joined(
    compute: Callable[[Any, Any], Any],
    parts: Sequence[_Part],
    truths: Callable[[Axes], list[Any]],
) -> _Part:
    """Return the condition that joins truths; the parts are what may grow too large."""
    return _Part(
        "condition",
        lambda at: reduce(compute, truths(at)),
        lambda box: max(part.largest(box) for part in parts),
    )
