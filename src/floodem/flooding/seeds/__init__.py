"""Where floods start: seed policies by name.

In: a block's image, segments and masks (`SeedContext`) and a policy with its
arguments (`SeedPolicySpec`). Out: positions z, y, x in the block, in the order
in which the driver floods them.
"""

from floodem.flooding.seeds.context import SeedContext
from floodem.flooding.seeds.registry import (
    SeedPolicy,
    SeedPolicySpec,
    make_policy,
    policy_names,
    seed_policy,
    seed_positions,
)

__all__ = [
    "SeedContext",
    "SeedPolicy",
    "SeedPolicySpec",
    "make_policy",
    "policy_names",
    "seed_policy",
    "seed_positions",
]
