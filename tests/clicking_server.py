"""A viewer that floods, in a process of its own that can be killed: prints its address, then waits.

Arguments: folder of what is kept, and the address of an image and a model file, or nothing for
the tubes of the tests.
"""

from __future__ import annotations

import sys
import time

from bright import bright_model
from clicking_cases import ON_CPU, SIZE, TUBE, tubes
from floodem.viewer import view
from floodem.viewer.clicking import ClickToFlood
from floodem.volumes import open_volume


def main() -> None:
    keep, *real = sys.argv[1:]
    image, model = (open_volume(real[0]), real[1]) if real else (tubes(), bright_model())
    viewer = view(image=image, voxel_size=None if image.voxel_size else SIZE)
    with viewer.client.txn() as state:
        state.position = [at + 0.5 for at in TUBE[::-1]]
    with ClickToFlood(viewer.client, image, model=model, keep=keep, request=ON_CPU):
        print(viewer.address, flush=True)
        time.sleep(600)


if __name__ == "__main__":
    main()
