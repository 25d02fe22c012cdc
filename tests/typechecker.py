"""How array shapes are checked while tests run.

mypy sees to all other types before anything runs, so only annotations that
mention an array's shape are handed to beartype. A test may pass a stand-in for
anything else.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "floodem"

Function = TypeVar("Function", bound=Callable[..., Any])

_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))


def mentions_array(annotation: Any) -> bool:
    """Tell whether a shape stands in this annotation, also inside a union or a container."""
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return True
    return any(mentions_array(part) for part in typing.get_args(annotation))


def check(function: Function) -> Function:
    """Check the arrays that this function takes and gives.

    Not where a dataclass is made: its ``__post_init__`` refuses wrong shapes in its own words.
    """
    if function.__name__ == "__init__":
        return function
    hints = {name: hint for name, hint in function.__annotations__.items() if mentions_array(hint)}
    if not hints:
        return function
    function.__annotations__ = hints
    return _beartype(function)


def modules_with_shapes() -> list[str]:
    """Return the modules whose source names shapes; the others need no checking."""
    return [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in sorted(PACKAGE.rglob("*.py"))
        if "from jaxtyping import" in path.read_text(encoding="utf-8")
    ]
