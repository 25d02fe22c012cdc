"""Seed policies by name: what the user writes becomes a policy, a policy becomes seeds.

In: a name and arguments, as text or from a request. Out: the seeds of a block,
in the order in which they are to be flooded. Policies of other packages are
found through the entry point group `floodem.seed_policies`.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Int64

from floodem.errors import OptionError
from floodem.flooding.seeds.context import SeedContext, inside_margin

ENTRY_POINT_GROUP = "floodem.seed_policies"
DEFAULT_POLICY = "PolicyPeaks"


@runtime_checkable
class SeedPolicy(Protocol):
    """Something that proposes seeds for one block."""

    def __call__(self, context: SeedContext, /) -> Int64[np.ndarray, "n 3"]:
        """Return positions (z, y, x) in the block's array, in the order to flood them."""
        ...


PolicyFactory = Callable[..., SeedPolicy]
_Factory = TypeVar("_Factory", bound=PolicyFactory)

_policies: dict[str, PolicyFactory] = {}

# Where our own policies live, so that none of them is imported before it is used.
_OWN_MODULES = ("peaks",)


@dataclass(frozen=True, slots=True)
class SeedPolicySpec:
    """A seed policy as one writes it down: its name and its arguments."""

    name: str = DEFAULT_POLICY
    args: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "args", MappingProxyType(dict(self.args)))

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary for a run's record."""
        return {"name": self.name, "args": dict(self.args)}


def seed_policy(name: str) -> Callable[[_Factory], _Factory]:
    """Register a class (or function) whose keyword arguments make a `SeedPolicy`.

    Raises
    ------
    ValueError
        When another policy has this name already.
    """

    def register(factory: _Factory) -> _Factory:
        if _policies.setdefault(name, factory) is not factory:
            raise ValueError(f"a seed policy called {name} is registered already")
        return factory

    return register


def policy_names() -> list[str]:
    """Return the names of all policies, ours and those of installed packages."""
    _load_own()
    return sorted({*_policies, *(entry.name for entry in entry_points(group=ENTRY_POINT_GROUP))})


def make_policy(spec: SeedPolicySpec) -> SeedPolicy:
    """Build the policy that `spec` describes.

    Raises
    ------
    OptionError
        When there is no policy of this name, it has no argument of some name,
        or an argument has an impossible value.
    """
    factory = _find(spec.name)
    accepted = _argument_names(factory)
    for name in spec.args:
        if name not in accepted:
            known = ", ".join(accepted) if accepted else "none at all"
            raise OptionError(
                f"seed policy {spec.name} has no argument {name!r}{_nearest(name, accepted)}: "
                f"it takes {known}"
            )
    try:
        return factory(**spec.args)
    except TypeError as error:
        raise OptionError(f"seed policy {spec.name} cannot be made: {error}") from error


def seed_positions(spec: SeedPolicySpec, context: SeedContext) -> Int64[np.ndarray, "n 3"]:
    """Return the seeds of one block, z, y, x in its array, in the order to flood them.

    Seeds whose field of view would leave the block are not among them. The same
    context gives the same array, so that a stopped run goes on at its k-th row.
    A policy that looks at the segmentation sees it as it is now.

    Raises
    ------
    OptionError
        When the policy or one of its arguments is unknown or impossible.
    """
    positions = np.asarray(make_policy(spec)(context))
    if positions.ndim != 2 or positions.shape[1] != 3 or positions.dtype.kind not in "iu":
        raise OptionError(
            f"seed policy {spec.name} gave {positions.dtype} of shape {positions.shape}: "
            "it must return integers of shape (n, 3), z,y,x"
        )
    return inside_margin(
        positions.astype(np.int64, copy=False), shape=context.shape, margin=context.margin
    )


def _load_own() -> None:
    for module in _OWN_MODULES:
        importlib.import_module(f"floodem.flooding.seeds.{module}")


def _find(name: str) -> PolicyFactory:
    _load_own()
    if name in _policies:
        return _policies[name]
    for entry in entry_points(group=ENTRY_POINT_GROUP, name=name):
        factory: PolicyFactory = entry.load()
        return factory
    names = policy_names()
    raise OptionError(
        f"there is no seed policy {name!r}{_nearest(name, names)}: choose one of {', '.join(names)}"
    )


def _argument_names(factory: PolicyFactory) -> list[str]:
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(factory).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind in named]


def _nearest(name: str, known: list[str]) -> str:
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f" (did you mean {by_lower[found[0]]}?)" if found else ""
