"""The viewer of a scene: Neuroglancer's built client in, pages that any web server can send out.

The client comes with the package neuroglancer, without its source maps. It was built
to talk with a server in Python; scenes/page/*.js stand between it and the network.
"""

from __future__ import annotations

import html
import importlib.metadata
import importlib.resources
import re
import shutil
from pathlib import Path
from string import Template

from floodem.errors import DependencyError, StorageError
from floodem.files import storage_error, write_text
from floodem.viewer.scenes.scene import CLIENT
from floodem.viewer.serving.pages import PAGE_FOLDER, client_folder

LICENCE = "LICENSE-neuroglancer.txt"
START = "index.html"

_PACKAGE = "neuroglancer"
_INSTALL = 'pip install "floodem[view]"'
_LEFT_OUT = (".map", ".html")
_OURS = ("ranges.js", "scene.js", "worker.js")
_SHARED = ("capabilities.js", "icon.svg")
"""What the viewer's own server puts in front of the client as well."""

_SCRIPT = re.compile(r'<script[^>]*\bsrc="([\w.-]+)"')
_STYLE = re.compile(r'<link[^>]*\bhref="([\w.-]+\.css)"')


def client_bytes() -> int:
    """Return how much the client takes.

    Raises
    ------
    DependencyError
        When it is not installed.
    """
    return sum(path.stat().st_size for path in _files(client_folder()))


def write_client(folder: Path, *, title: str) -> None:
    """Put the viewer into a scene, below `CLIENT`, and the page that leads there.

    Parameters
    ----------
    folder
        Of the scene; what an earlier viewer left is replaced.
    title
        Of both pages.

    Raises
    ------
    DependencyError
        When there is no built client, or it is built otherwise than the page expects.
    StorageError
        When the file system refuses.
    """
    built = client_folder()
    target = folder / CLIENT
    try:
        if target.exists():
            shutil.rmtree(target)
        target.mkdir(parents=True)
        for path in _files(built):
            shutil.copyfile(path, target / path.name)
        for name in _OURS:
            (target / name).write_text(_page(name), encoding="utf-8", newline="\n")
        for name in _SHARED:
            shutil.copyfile(PAGE_FOLDER / name, target / name)
        (target / LICENCE).write_text(_licence(), encoding="utf-8", newline="\n")
    except OSError as error:
        raise storage_error("write", target, error) from error
    write_text(target / START, _client_page(built, title=title))
    write_text(folder / START, _start_page(title))


def remove_client(folder: Path) -> None:
    """Take the viewer out of a scene, if it is there.

    Raises
    ------
    StorageError
        When the file system refuses.
    """
    try:
        if (folder / "v").is_dir():
            shutil.rmtree(folder / "v")
        (folder / START).unlink(missing_ok=True)
    except OSError as error:
        raise storage_error("remove", folder / "v", error) from error


def _files(built: Path) -> list[Path]:
    return sorted(path for path in built.iterdir() if path.suffix not in _LEFT_OUT)


def _start_page(title: str) -> str:
    return _filled("start.html", title=title, client=f"{CLIENT}/", icon=f"{CLIENT}/icon.svg")


def _client_page(built: Path, *, title: str) -> str:
    page = (built / START).read_text(encoding="utf-8")
    scripts, styles = _SCRIPT.findall(page), _STYLE.findall(page)
    if not scripts or len(styles) != 1:
        raise DependencyError(
            f"{built} is built otherwise than scenes need it: install the neuroglancer that "
            f"floodem names ({_INSTALL}), or leave the viewer out with --no-client"
        )
    return _filled("client.html", title=title, scripts=" ".join(scripts), stylesheet=styles[0])


def _filled(name: str, **values: str) -> str:
    escaped = {key: html.escape(value) for key, value in values.items()}
    return Template(_page(name)).substitute(escaped)


def _page(name: str) -> str:
    place = importlib.resources.files("floodem.viewer.scenes") / "page" / name
    return place.read_text(encoding="utf-8")


def _licence() -> str:
    """Return the licence that the package came with."""
    for file in importlib.metadata.files(_PACKAGE) or []:
        if file.name == "LICENSE":
            return (
                "The viewer in this folder is Neuroglancer "
                f"{importlib.metadata.version(_PACKAGE)} "
                "(github.com/google/neuroglancer), as built by its authors and unchanged. "
                f"{', '.join((*_OURS, *_SHARED))} and index.html are part of floodem, under the "
                f"same licence.\n\n{file.read_text(encoding='utf-8')}"
            )
    raise StorageError(
        f"the licence of the installed {_PACKAGE} is missing: install it again ({_INSTALL})"
    )
