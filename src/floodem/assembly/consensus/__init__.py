"""What two segmentations agree on: every pair of their objects becomes a segment of its own.

In: two label volumes, perhaps of different resolutions (`overlay`). Out: one, in which
every segment lies inside one object of each (`make`). Both are split into connected
pieces first (`pieces`, `numbering`), whose ids do not depend on how the volume is cut.
`seed_orders` makes the two that are compared, from one image.
"""

from floodem.assembly.consensus.make import make_consensus
from floodem.assembly.consensus.options import Consensus, ConsensusOptions

__all__ = ["Consensus", "ConsensusOptions", "make_consensus"]
