# %% [markdown]
# # Flood one object, and watch it grow
#
# A flood begins at one voxel, the seed. The network looks at the field of view around it and
# says which voxels belong to the same object; where the object leaves the field of view, it
# looks next. The picture below is drawn anew while that goes on.
#
# Runs as it stands, without any download: synthetic tissue, and the network that comes with
# floodem. With real tissue: type `floodem fetch fib25 .` once, here, and take the three lines
# that are commented out. Its network is some twenty times as large: a card helps.
#
# Needs floodem with what notebooks use: `pip install ".[notebooks]" -c constraints.txt`, typed in
# floodem's folder.

# %%
import dataclasses

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display

import floodem
from floodem.volumes.synthetic import SyntheticOptions, SyntheticVolume

tissue = dataclasses.replace(SyntheticOptions.preset("clear"), shape=(64, 80, 80), seed=2026)
image = SyntheticVolume(tissue, part="image")
model = "synthetic"
seed = (37, 38, 38)  # z, y, x

# image = floodem.open_volume(
#     "third_party/neuroproof_examples/training_sample2/grayscale_maps.h5@raw")
# model, seed = "fib25", (125, 125, 125)

# %% [markdown]
# Options are those of `floodem segment`. The rule against mergers is off here, as in
# `floodem demo`: leave `disco_seed_threshold` out for real tissue.

# %%
options = floodem.FloodOptions(disco_seed_threshold=-1.0)
request = floodem.SegmentRequest(options=options)

# %% [markdown]
# `floodem.flood_at` calls `on_step` after each network call. Left: the section of the seed, with
# the probability that the network has given each voxel so far; right: the object's growth. To end
# early, interrupt the kernel.

# %%
EVERY = 15  # network calls between two pictures

section = image.read(floodem.Box((seed[0], 0, 0), (seed[0] + 1, *image.shape[1:])))[0]
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
left.imshow(section, cmap="gray")
overlay = left.imshow(np.zeros(section.shape), cmap="viridis", vmin=0, vmax=1, alpha=0.5)
left.plot(seed[2], seed[1], "r+")
(curve,) = right.plot([], [])
right.set_xlabel("network calls")
right.set_ylabel("voxels in the object")
picture = display(figure, display_id=True)
calls, voxels = [0], [1]


def watch(step):
    """Draw now and then how far the flood is."""
    calls.append(step.calls)
    voxels.append(step.voxels)
    if step.calls % EVERY:
        return
    shown = np.full(section.shape, np.nan, np.float32)
    (_, y0, x0), (_, y1, x1) = step.box.start, step.box.stop
    shown[y0:y1, x0:x1] = step.probability(seed[0])
    overlay.set_data(shown)
    curve.set_data(calls, voxels)
    right.relim()
    right.autoscale_view()
    picture.update(figure)


grown = floodem.flood_at(image, seed, model=model, request=request, on_step=watch)
plt.close(figure)
print(f"{grown.voxels} voxels, {grown.calls} network calls, {grown.seconds:.1f} s: {grown.end}")

# %% [markdown]
# The object: how far it reaches along z, and its shadow on each plane.

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 4))
for number, (axis, name) in enumerate(zip(axes, "zyx", strict=True)):
    axis.imshow(grown.mask.sum(axis=number), cmap="magma")
    axis.set_title(f"seen along {name}")
    axis.set_axis_off()
plt.show()

# %% [markdown]
# All objects of a volume: `floodem segment IMAGE DST --model fib25`, or `floodem.segment`.
