"""``floodem models``: nothing in, the networks that have a name out."""

from __future__ import annotations

import json as json_text
from typing import TYPE_CHECKING, Any

from floodem.cli import options

if TYPE_CHECKING:
    from floodem.network.named import NamedNetwork


def models(*, json: options.Json = False) -> None:
    """List the networks at hand, and those that can be fetched.

    --model takes the name of one at hand wherever no file has that name. Fetched
    networks lie in your data folder, or where FLOODEM_HOME says.
    """
    from floodem.network.named import data_folder, networks

    found = [_row(network) for network in networks()]
    if json:
        print(json_text.dumps({"data_folder": str(data_folder()), "models": found}, indent=2))
        return
    for row in found:
        print(f"{row['name']} ({row['state']})")
        for key in ("damage", "fov", "voxel_size_nm", "licence", "source", "path", "how"):
            if row[key]:
                print(f"  {_LABELS[key]}: {_text(row[key])}")


_LABELS = {
    "damage": "cannot be used",
    "fov": "field of view (z,y,x)",
    "voxel_size_nm": "voxel size (z,y,x, nm)",
    "licence": "licence",
    "source": "source",
    "path": "file",
    "how": "to have it here",
}


def _row(network: NamedNetwork) -> dict[str, Any]:
    facts = dict(network.facts)
    if network.kind == "fetchable":
        from floodem.legacy.published.catalogue import find_published

        published = find_published(network.name).network
        facts = {
            "fov": list(published.fov),
            "voxel_size": list(published.voxel_size.zyx_nm),
            "licence": published.licence,
            "source": published.source,
        }
    is_here = network.kind != "fetchable" and not network.damage
    return {
        "name": network.name,
        "state": network.kind,
        "fov": facts.get("fov"),
        "voxel_size_nm": facts.get("voxel_size"),
        "licence": facts.get("licence"),
        "source": facts.get("source"),
        "path": None if network.path is None else str(network.path),
        "damage": network.damage or None,
        "how": None if is_here else f"floodem fetch {network.name}",
    }


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(f"{one:g}" if isinstance(one, int | float) else str(one) for one in value)
    return str(value)
