"""Where floods start: seed policies by name.

In: a block's image, segments and masks (`SeedContext`) and a policy with its
arguments (`SeedPolicySpec`). Out: positions z, y, x in the block, in the order
in which the driver floods them. Importing this package registers our policies.
"""

from floodem.flooding.seeds import combined, grid, intensity, origins, peaks
from floodem.flooding.seeds.context import SeedContext, inside_margin
from floodem.flooding.seeds.explicit import explicit_seeds, read_seed_positions, seeds_from_csv
from floodem.flooding.seeds.parse import SEEDS_SYNTAX, parse_seeds, policy_spec
from floodem.flooding.seeds.registry import (
    SeedPolicy,
    SeedPolicySpec,
    make_policy,
    policy_names,
    seed_policy,
    seed_positions,
)

__all__ = [
    "SEEDS_SYNTAX",
    "SeedContext",
    "SeedPolicy",
    "SeedPolicySpec",
    "combined",
    "explicit_seeds",
    "grid",
    "inside_margin",
    "intensity",
    "make_policy",
    "origins",
    "parse_seeds",
    "peaks",
    "policy_names",
    "policy_spec",
    "read_seed_positions",
    "seed_policy",
    "seed_positions",
    "seeds_from_csv",
]
