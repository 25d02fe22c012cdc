"""Synthetic electron microscopy with exact labels and skeletons, any box of it computed alone.

Options come in (`SyntheticOptions`), a volume whose voxels are computed when they
are read goes out (`SyntheticVolume`), or one box of it (`synthesize`).
"""

from floodem.volumes.synthetic.options import PRESETS, SectionOptions, SyntheticOptions
from floodem.volumes.synthetic.skeletons import Skeleton, skeletons, write_swc
from floodem.volumes.synthetic.synthesis import Synthetic, synthesize
from floodem.volumes.synthetic.volume import SyntheticVolume
from floodem.volumes.synthetic.writing import write_synthetic

__all__ = [
    "PRESETS",
    "SectionOptions",
    "Skeleton",
    "Synthetic",
    "SyntheticOptions",
    "SyntheticVolume",
    "skeletons",
    "synthesize",
    "write_swc",
    "write_synthetic",
]
