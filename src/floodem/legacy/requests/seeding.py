"""Seed policies of a request: their names and JSON in, what `floodem.flooding.seeds` takes out.

All of the old policies are floodem's own, by the same names. Only the origins of an
earlier result need work here: the old programs keep them in npz files, one for each
subvolume, counted from its corner.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from floodem.errors import OptionError
from floodem.flooding.seeds import SeedPolicySpec
from floodem.flooding.seeds.explicit import explicit_seeds
from floodem.flooding.seeds.registry import DEFAULT_POLICY, make_policy
from floodem.geometry import Zyx
from floodem.legacy.requests.message import Message
from floodem.legacy.requests.volumes import json_object
from floodem.legacy.results.paths import existing_path
from floodem.legacy.results.subvolume import read_subvolume

ORIGIN_POLICIES = frozenset({"PolicyInvertOrigins", "PolicyInverseOrigins"})
_FIELD = "seed_policy_args"
_EXAMPLE = r'"{\"step\": 8}"'
_DEEPEST = 8


def seed_policy(request: Message, *, corner: Zyx | None) -> SeedPolicySpec:
    """Return the policy of a request.

    Parameters
    ----------
    corner
        First voxel of the subvolume (z, y, x), whose earlier result's origins may be the
        seeds; None where it is not known yet.

    Raises
    ------
    OptionError
        When there is no such policy, or its arguments are impossible.
    FloodemError
        When an earlier result cannot be read.
    """
    name = request.get("seed_policy") or DEFAULT_POLICY
    args = json_object(request.get("seed_policy_args"), field=_FIELD, example=_EXAMPLE)
    spec = _served(name.rpartition(".")[2], args, corner=corner, depth=0)
    make_policy(spec)
    return spec


def _served(
    name: str, args: Mapping[str, Any], *, corner: Zyx | None, depth: int
) -> SeedPolicySpec:
    """Return a policy with the origins of old results put in for those that want them."""
    if depth > _DEEPEST:
        raise OptionError(f"{_FIELD} holds policies more than {_DEEPEST} deep: take some out")
    if name in ORIGIN_POLICIES:
        return _origins(name, args, corner=corner)
    if name == "ReverseCoords" and isinstance(args.get("policy_to_reverse"), str):
        inner = {key: value for key, value in args.items() if key != "policy_to_reverse"}
        spec = _served(args["policy_to_reverse"], inner, corner=corner, depth=depth + 1)
        return SeedPolicySpec(name, {"policy_to_reverse": spec.name, **spec.args})
    if name == "SequentialPolicies" and isinstance(args.get("policies"), list):
        pairs = [_pair(pair, corner=corner, depth=depth + 1) for pair in args["policies"]]
        return SeedPolicySpec(name, {**args, "policies": pairs})
    return SeedPolicySpec(name, dict(args))


def _pair(pair: Any, *, corner: Zyx | None, depth: int) -> Any:
    match pair:
        case [str() as name, Mapping() as args]:
            spec = _served(name, args, corner=corner, depth=depth)
            return [spec.name, dict(spec.args)]
    return pair  # which SequentialPolicies refuses in its own words


def _origins(name: str, args: Mapping[str, Any], *, corner: Zyx | None) -> SeedPolicySpec:
    """Return an earlier result's origins as seeds in the volume, highest id first."""
    folder = args.get("segmentation_dir")
    # The old program gave the subvolume's own corner, whatever the request said.
    kept = SeedPolicySpec(name, {key: value for key, value in args.items() if key != "corner"})
    if not isinstance(folder, str) or "\0" in folder or corner is None:
        return kept
    path = existing_path(Path(folder), corner)
    if path is None:
        return kept
    origins = read_subvolume(path).origins
    positions = [origins[segment].start_zyx for segment in sorted(origins, reverse=True)]
    seeds = np.asarray(positions, dtype=np.int64).reshape(-1, 3)
    return explicit_seeds(seeds + np.asarray(corner, dtype=np.int64))
