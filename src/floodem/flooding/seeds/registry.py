"""Seed policies by name: what the user writes becomes a policy, a policy becomes seeds.

In: a name and arguments, as text or from a request. Out: the seeds of a block,
in the order in which they are to be flooded. Policies of other packages are
found through the entry point group `floodem.seed_policies`.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Int64

from floodem import plugins
from floodem.errors import DependencyError, OptionError
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


@dataclass(frozen=True, slots=True)
class SeedPolicySpec:
    """A seed policy as one writes it down: its name and its arguments (JSON values)."""

    name: str = DEFAULT_POLICY
    args: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary for a run's record."""
        return {"name": self.name, "args": dict(self.args)}


def seed_policy(*names: str) -> Callable[[_Factory], _Factory]:
    """Register a class (or function) whose keyword arguments make a `SeedPolicy`.

    Raises
    ------
    ValueError
        When another policy has one of these names already.
    """

    def register(factory: _Factory) -> _Factory:
        for name in names:
            if _policies.setdefault(name, factory) is not factory:
                raise ValueError(f"a seed policy called {name} is registered already")
        return factory

    return register


def policy_names() -> list[str]:
    """Return the names of all policies, ours and those of installed packages."""
    return sorted({*_policies, *(entry.name for entry in entry_points(group=ENTRY_POINT_GROUP))})


def make_policy(spec: SeedPolicySpec) -> SeedPolicy:
    """Build the policy that `spec` describes.

    Raises
    ------
    OptionError
        When there is no policy of this name, it has no argument of some name,
        one is missing, or has an impossible value.
    DependencyError
        When the policy belongs to another package that cannot be imported.
    """
    factory = _find(spec.name)
    signature = inspect.signature(factory)
    accepted, takes_any = _argument_names(signature)
    for name in spec.args:
        if name not in accepted and not takes_any:
            raise OptionError(
                f"seed policy {spec.name} has no argument {name!r}{_nearest(name, accepted)}: "
                f"it takes {', '.join(accepted) or 'none'}"
            )
    try:
        signature.bind(**spec.args)
    except TypeError as error:
        raise OptionError(f"seed policy {spec.name}: {error}: give it by name") from error
    return factory(**spec.args)


def register_policy(spec: str) -> None:
    """Make a policy known that the user wrote out as ``package.module:factory``.

    Raises
    ------
    OptionError
        When the module has nothing of this name.
    DependencyError
        When the module cannot be imported.
    """
    _policies[spec] = plugins.resolve(
        spec, known=_policies, group=ENTRY_POINT_GROUP, what="seed policy"
    )


def seed_positions(spec: SeedPolicySpec, context: SeedContext) -> Int64[np.ndarray, "n 3"]:
    """Return the seeds of one block, z, y, x in its array, in the order to flood them.

    Seeds whose field of view would leave the block are not among them. The same
    context gives the same array, so that a stopped run goes on at its k-th row;
    a policy that looks at the segmentation sees it as it is at this moment.

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


def _find(name: str) -> PolicyFactory:
    if name in _policies:
        return _policies[name]
    for entry in entry_points(group=ENTRY_POINT_GROUP, name=name):
        try:
            factory: PolicyFactory = entry.load()
        except (ImportError, AttributeError) as error:
            raise DependencyError(
                f"seed policy {name} of {entry.value} cannot be loaded ({error}): "
                "mend or remove the package it comes from"
            ) from error
        return factory
    names = policy_names()
    raise OptionError(
        f"there is no seed policy {name!r}{_nearest(name, names)}: choose one of {', '.join(names)}"
    )


def _argument_names(signature: inspect.Signature) -> tuple[list[str], bool]:
    """Return the names a factory knows, and whether it passes any others on."""
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = signature.parameters.values()
    accepted = [parameter.name for parameter in parameters if parameter.kind in named]
    return accepted, any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)


def _nearest(name: str, known: list[str]) -> str:
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f" (did you mean {by_lower[found[0]]}?)" if found else ""
