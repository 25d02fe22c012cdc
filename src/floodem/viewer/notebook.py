"""A viewer inside a notebook: its address in, HTML out.

What is saved with a notebook is the address of a server on the machine of the
kernel. The token in it opens nothing once the kernel or the viewer has ended, and
before that only for programs on that machine; neither voxels nor paths are saved.
"""

from __future__ import annotations

import html

HEIGHT_PX = 600


def iframe(address: str, *, height_px: int = HEIGHT_PX) -> str:
    """Return HTML that shows a page in a frame as wide as the notebook.

    Parameters
    ----------
    address
        Of a running viewer. A browser on another machine needs the port forwarded
        (``ssh -L PORT:127.0.0.1:PORT``).
    """
    source = html.escape(address, quote=True)
    return (
        f'<iframe src="{source}" width="100%" height="{height_px}" '
        'style="border: 0" allowfullscreen></iframe>'
    )
