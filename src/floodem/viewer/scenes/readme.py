"""What README.txt in a scene says: title, volumes and scores in, plain words out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_OPEN = """\
{title}

A scene of floodem: images, segmentations and the shapes of neurons.

To see it, serve this folder and open the address in a browser:

    floodem view FOLDER
    python -m http.server --bind 127.0.0.1 --directory FOLDER 8000
                                             then http://127.0.0.1:8000/

Any web space works as well; nothing is fetched from elsewhere. A page opened from
the disk (file://) may read nothing beside it, and shows how to go on instead.
"""

_NO_CLIENT = """\
{title}

A scene of floodem without its viewer: images, segmentations and the shapes of neurons.

To see it:

    floodem view FOLDER

Or serve the folder to a Neuroglancer of your own (floodem serve FOLDER) and give it
the layers below as precomputed://ADDRESS/NAME.
"""

_SHARDED = """\
Volumes and shapes are packed into shards. The server should send parts of files
(ranges, as all object stores do); from others the viewer here fetches whole shards.
"""


def readme(
    title: str,
    *,
    lines: Sequence[str],
    scores: Mapping[str, Any] | None,
    has_client: bool,
    is_sharded: bool,
) -> str:
    """Return the text.

    Parameters
    ----------
    lines
        One about each volume.
    scores
        What scene.json says of them.
    """
    parts = [(_OPEN if has_client else _NO_CLIENT).format(title=title)]
    parts.append("\n".join(["What is in it (voxels along z, y and x):", "", *lines, ""]))
    if scores:
        parts.append("\n".join(["Scores against the truth:", "", *_scores(scores), ""]))
    if is_sharded:
        parts.append(_SHARDED)
    return "\n".join(parts)


def _scores(scores: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, words in (("all_truth", "all truth"), ("where_both_label", "where both label")):
        found = scores.get(key) or {}
        if found:
            lines.append(
                f"  {words}: adapted Rand error {found.get('adapted_rand_error', 0.0):.4f}, "
                f"VOI split {found.get('voi_split_bits', 0.0):.3f}, "
                f"VOI merge {found.get('voi_merge_bits', 0.0):.3f} bits"
            )
    return lines
