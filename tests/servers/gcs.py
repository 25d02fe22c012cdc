"""As much of Google Cloud Storage's JSON interface as tensorstore needs, in memory."""

from __future__ import annotations

import json
import re

from servers.base import Answer, Asked, FakeServer

_PAGE = 50
"""Small, so that listing has to go on."""

_OBJECTS = re.compile(r"/(upload/)?storage/v1/b/([^/]+)/o(?:/(.*))?", re.DOTALL)


class GcsServer(FakeServer):
    """One bucket; every write gives an object a new generation."""

    def __init__(self, bucket: str = "bucket", *, delay_s: float = 0.0) -> None:
        super().__init__(delay_s=delay_s)
        self.bucket = bucket
        self.objects: dict[str, bytes] = {}
        self._generations: dict[str, int] = {}
        self._next_generation = 1

    def answer(self, asked: Asked) -> Answer:
        match = _OBJECTS.fullmatch(asked.path)
        if match is None or match[2] != self.bucket:
            return Answer(404, b"no such bucket")
        with self.lock:
            if match[1]:
                return self._write(asked, asked.query["name"])
            if match[3] is None:
                return self._list(asked)
            if asked.method == "DELETE":
                return self._delete(asked, match[3])
            return self._read(asked, match[3])

    def put(self, name: str, body: bytes) -> None:
        self.objects[name] = body
        self._generations[name] = self._next_generation
        self._next_generation += 1

    def _generation(self, name: str) -> int:
        return self._generations[name] if name in self.objects else 0

    def _metadata(self, name: str) -> dict[str, str]:
        return {
            "kind": "storage#object",
            "name": name,
            "bucket": self.bucket,
            "generation": str(self._generation(name)),
            "size": str(len(self.objects[name])),
        }

    def _refused(self, asked: Asked, name: str) -> bool:
        wanted = asked.query.get("ifGenerationMatch")
        return wanted is not None and int(wanted) != self._generation(name)

    def _write(self, asked: Asked, name: str) -> Answer:
        if self._refused(asked, name):
            return Answer(412, b"generation")
        self.put(name, asked.body)
        return Answer(200, json.dumps(self._metadata(name)).encode())

    def _delete(self, asked: Asked, name: str) -> Answer:
        if self._refused(asked, name):
            return Answer(412, b"generation")
        if self.objects.pop(name, None) is None:
            return Answer(404, b"not here")
        return Answer(204)

    def _read(self, asked: Asked, name: str) -> Answer:
        if name not in self.objects:
            return Answer(404, b"not here")
        if self._refused(asked, name):
            return Answer(412, b"generation")
        generation = self._generation(name)
        if asked.query.get("ifGenerationNotMatch") == str(generation):
            return Answer(304)
        if asked.query.get("alt") != "media":
            return Answer(200, json.dumps(self._metadata(name)).encode())
        return Answer(200, self.objects[name], {"x-goog-generation": str(generation)})

    def _list(self, asked: Asked) -> Answer:
        query = asked.query
        first = max(
            query.get("startOffset", ""), bytes.fromhex(query.get("pageToken", "")).decode()
        )
        names = sorted(
            name
            for name in self.objects
            if name.startswith(query.get("prefix", ""))
            and name >= first
            and (not query.get("endOffset") or name < query["endOffset"])
        )
        found: dict[str, object] = {"items": [self._metadata(name) for name in names[:_PAGE]]}
        if len(names) > _PAGE:
            found["nextPageToken"] = names[_PAGE].encode().hex()
        return Answer(200, json.dumps(found).encode())
