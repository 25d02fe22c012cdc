# %% [markdown]
# # Load a segmentation and look at it
#
# Runs as it stands: the cell below segments a small piece of synthetic tissue with the network
# that comes with floodem, in about ten seconds. To look at a result of your own, write its
# address into `SEGMENTATION`:
#
# - a block that the old programs wrote: `results/fib25/sample-training2.npz` (which
#   `floodem fetch fib25` brings), `inference_results/0/0/seg-0_0_0.npz`
# - any volume: `labels.h5@labels`, `labels.zarr`, `precomputed://https://...`, a folder of PNGs
#
# and that of its image, if you have it, into `IMAGE`.
#
# Needs floodem with what notebooks use: `pip install ".[notebooks]" -c constraints.txt`, typed in
# floodem's folder.

# %%
SEGMENTATION = None
IMAGE = None

# %%
import dataclasses
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import floodem
from floodem.volumes.synthetic import SyntheticOptions, SyntheticVolume

if SEGMENTATION is None:
    tissue = dataclasses.replace(SyntheticOptions.preset("clear"), shape=(40, 64, 64), seed=2026)
    IMAGE = SyntheticVolume(tissue, part="image")
    folder = tempfile.TemporaryDirectory()  # until the kernel ends
    SEGMENTATION = str(Path(folder.name) / "labels.zarr")
    options = floodem.FloodOptions(min_segment_size=300, disco_seed_threshold=-1.0)
    request = floodem.SegmentRequest(options=options)
    made = floodem.segment(IMAGE, SEGMENTATION, model="synthetic", request=request)
    print(f"{made.segments} segments, {made.covered:.0%} of the voxels")

# %% [markdown]
# Volumes are z, y, x. Nothing is loaded before it is read; for a large volume read a part of it,
# `volume.read(floodem.Box.parse("0:50,0:512,0:512"))`.

# %%
with floodem.open_volume(SEGMENTATION) as volume:
    labels = volume.read()
    print(f"{volume.uri}: {labels.shape} (z,y,x), {labels.dtype}, voxels {volume.voxel_size} nm")

if IMAGE is None:
    image = None
elif isinstance(IMAGE, str):
    with floodem.open_volume(IMAGE) as volume:
        image = volume.read()
else:
    image = IMAGE.read()

# %% [markdown]
# The largest objects; 0 is what no object has filled.

# %%
ids, counts = np.unique(labels, return_counts=True)
for number in np.argsort(-counts)[:10]:
    print(f"{ids[number]:>8} {counts[number]:>10} voxels {counts[number] / labels.size:7.1%}")

# %% [markdown]
# Three sections through the middle: each id has a colour of its own, 0 is clear.

# %%
colours = np.random.default_rng(0).random((len(ids), 4))
colours[:, 3] = np.where(ids == 0, 0.0, 0.5)
planes = {"z": 0, "y": 1, "x": 2}

figure, axes = plt.subplots(1, 3, figsize=(12, 4))
for axis, (name, number) in zip(axes, planes.items(), strict=True):
    middle = labels.shape[number] // 2
    if image is not None:
        axis.imshow(image.take(middle, axis=number), cmap="gray")
    section = labels.take(middle, axis=number)
    axis.imshow(colours[np.searchsorted(ids, section)], interpolation="nearest")
    axis.set_title(f"{name} = {middle}")
    axis.set_axis_off()
plt.show()

# %% [markdown]
# In the browser, with slices of any direction and in 3-D: `floodem view IMAGE SEGMENTATION`, or
# `floodem.view([IMAGE, SEGMENTATION])` here.
#
# Notebooks for the older programs go on to work where the folder `ffn` of
# `floodem legacy --layout` lies beside them:
#
# ```python
# from ffn.inference import storage
# seg, _ = storage.load_segmentation('results/fib25/training2', (0, 0, 0))
# ```
