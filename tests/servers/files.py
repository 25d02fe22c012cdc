"""Files of a folder over http, with ranges."""

from __future__ import annotations

from pathlib import Path

from servers.base import Answer, Asked, FakeServer


class FileServer(FakeServer):
    """Serves a folder, read-only; without `ranges` always whole files."""

    def __init__(self, folder: Path, *, ranges: bool = True, delay_s: float = 0.0) -> None:
        super().__init__(delay_s=delay_s)
        self.folder = folder
        self.ranges = ranges

    def answer(self, asked: Asked) -> Answer:
        path = self.folder / asked.path.lstrip("/")
        if asked.method not in ("GET", "HEAD"):
            return Answer(405)
        if not path.is_file():
            return Answer(404, b"not here")
        body = path.read_bytes()
        changed = path.stat().st_mtime_ns
        return Answer(200, body, {"ETag": f'"{changed}"'}, ranges=self.ranges)
