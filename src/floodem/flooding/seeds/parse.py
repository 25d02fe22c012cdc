"""Seeds as one writes them on a command line or in an old request.

In: text. Out: a `SeedPolicySpec` that is known to be possible.
"""

from __future__ import annotations

import json
from pathlib import Path

from floodem.errors import OptionError
from floodem.flooding.seeds.explicit import seeds_from_csv
from floodem.flooding.seeds.registry import SeedPolicySpec, make_policy, register_policy
from floodem.plugins import is_written_out

SEEDS_SYNTAX = """\
Seeds are the name of a policy (PolicyPeaks), a name with arguments in JSON
(PolicyGrid3d {"step": 16}), or a CSV file with columns z,y,x in voxels of the volume
(points.csv). A policy of another package is written package.module:Policy."""

CSV_SUFFIX = ".csv"


def parse_seeds(text: str) -> SeedPolicySpec:
    """Read ``NAME``, ``NAME {"argument": value}`` or the path of a ``.csv`` file.

    The user wrote it, so that ``package.module:Policy`` is imported.

    Raises
    ------
    OptionError
        When there is no such policy, or its arguments are impossible.
    VolumeNotFoundError, VolumeFormatError, StorageError
        When the CSV file is missing, damaged or unreadable.
    """
    text = text.strip()
    if text.lower().endswith(CSV_SUFFIX):
        return seeds_from_csv(Path(text))
    name, brace, args = text.partition("{")
    name = name.strip()
    if is_written_out(name):
        register_policy(name)
    return policy_spec(name, brace + args)


def policy_spec(name: str, args: str = "") -> SeedPolicySpec:
    """Read a policy's name and the JSON text of its arguments (empty: none).

    Raises
    ------
    OptionError
        When there is no such policy, or its arguments are impossible.
    """
    try:
        values = json.loads(args or "{}")
    except (ValueError, RecursionError) as error:
        raise OptionError(
            f"the arguments {args!r} of seed policy {name} are not JSON ({error}): "
            'write them like {"step": 16}'
        ) from error
    if not isinstance(values, dict):
        raise OptionError(
            f"the arguments {args!r} of seed policy {name} are no JSON object: "
            'write them like {"step": 16}'
        )
    spec = SeedPolicySpec(name, values)
    make_policy(spec)
    return spec
