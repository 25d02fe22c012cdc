"""``floodem serve DIR``: a folder comes in, an address for clients of other origins goes out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_LARGEST_PORT = 65535
_MOST_NAMED = 20
"""Addresses to paste: more would hide the first line."""


def serve(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What lies below it is served.")],
    *,
    port: Annotated[
        int, typer.Option(min=0, max=_LARGEST_PORT, help="0: any that is free.")
    ] = 9000,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Bind here, for example 0.0.0.0 for the network."),
    ] = "127.0.0.1",
) -> None:
    """Serve a folder to a Neuroglancer of your own, or to any page.

    It goes over HTTP with CORS, ranges and gzip.

    The address has a random part, which changes with every start: whoever knows it can
    read the folder, hidden files and links that lead out of it left out. Runs until Ctrl-C.
    """
    from floodem.cli.staying import stay, until_ctrl_c
    from floodem.viewer.serving import Site
    from floodem.viewer.serving.finding import find_sources
    from floodem.viewer.serving.gate import is_loopback

    with Site.start(host=host, port=port) as site, until_ctrl_c():
        address = site.serve_folder(folder, is_public=True)
        print(f"serving {folder} at {address}/")
        if not is_loopback(host):
            print("note: other machines reach it: whoever has this address can read the folder")
        found = find_sources(folder)
        for one in found[:_MOST_NAMED]:
            print(f"{one.what:12} {one.address(address)}")
        if len(found) > _MOST_NAMED:
            print(f"and {len(found) - _MOST_NAMED:,} more")
        print("Ctrl-C ends it", flush=True)
        stay()
