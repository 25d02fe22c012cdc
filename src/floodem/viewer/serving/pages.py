"""The page of a viewer: Neuroglancer's own, from its package, with our scripts put in front.

Before the client starts, a script of ours looks whether the browser can draw it, and others may
listen to the mouse. They are the files of the folder ``page`` beside this module, in the order
of their names.
"""

from __future__ import annotations

import functools
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from floodem.errors import DependencyError
from floodem.viewer.serving.answers import Answer, Request, not_found
from floodem.viewer.serving.folders import ServedFolder, segments_of

PAGE_FOLDER = Path(__file__).parent / "page"
PREFIX = "page/"

_SCRIPT = re.compile(rb"<script\b[^>]*\bsrc=[^>]*>\s*</script>")
_HEAD = re.compile(rb"<head[^>]*>")
_INDEX = "index.html"
_INDEX_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-cache",
    # What comes with data (names, descriptions, a state) can bring no script into the page.
    "Content-Security-Policy": "script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'",
}


class ServedPage:
    """A source (see `floodem.viewer.serving.answers.Source`): the client and our scripts.

    Parameters
    ----------
    client
        Folder of the built client, which holds its index.html.
    """

    is_public = False

    def __init__(self, client: Path) -> None:
        # Names of the client's files hold a digest of what is in them.
        self._client = ServedFolder(client, headers={"Cache-Control": "private, max-age=86400"})
        self._ours = ServedFolder(PAGE_FOLDER)
        self._index = with_scripts((client / _INDEX).read_bytes())
        self.executor = ThreadPoolExecutor(2, thread_name_prefix="floodem-page")

    def at_once(self, request: Request) -> Answer | None:
        """Answer with the page itself, and refuse what no file of it is called."""
        if request.path == "":
            return Answer(headers=_INDEX_HEADERS, body=self._index)
        return None if segments_of(request.path) is not None else not_found()

    def answer(self, request: Request) -> Answer:
        """Answer with one of the scripts, ours or the client's."""
        if request.path.startswith(PREFIX):
            own = Request(path=request.path.removeprefix(PREFIX), headers=request.headers)
            return self._ours.answer(own)
        return self._client.answer(request)

    def close(self) -> None:
        """Wait for what is being read."""
        for part in (self, self._client, self._ours):
            part.executor.shutdown(wait=True, cancel_futures=True)


def with_scripts(index: bytes) -> bytes:
    """Put our scripts into the client's index.html, and let the first of them start the client.

    The client's own scripts go into a template, where they wait.

    Raises
    ------
    DependencyError
        When the page is none that we know.
    """
    head, scripts = _HEAD.search(index), _SCRIPT.findall(index)
    if head is None or not scripts:
        raise DependencyError(
            "the page of the installed neuroglancer is not known to this floodem: install the "
            'version that it asks for, pip install "floodem[view]"'
        )
    names = sorted(path.name for path in PAGE_FOLDER.glob("*.js"))
    ours = "".join(f'<script src="{PREFIX}{name}"></script>' for name in names).encode()
    icon = f'<link rel="icon" type="image/svg+xml" href="{PREFIX}icon.svg">'.encode()
    waiting = b'<template id="client">' + b"".join(scripts) + b"</template>"
    return index[: head.end()] + icon + ours + waiting + _SCRIPT.sub(b"", index[head.end() :])


@functools.cache
def client_folder() -> Path:
    """Return the folder of the client that is installed.

    Raises
    ------
    DependencyError
        When neuroglancer is not installed, or without its client.
    """
    try:
        from neuroglancer import static
    except ImportError as error:
        raise DependencyError(
            'the viewer needs the package neuroglancer: pip install "floodem[view]"'
        ) from error
    folder = Path(static.__file__).parent / "client"
    if not (folder / _INDEX).is_file():
        raise DependencyError(
            f"the installed neuroglancer has no built client ({folder} is missing): install it "
            'from a wheel, pip install "floodem[view]"'
        )
    return folder
