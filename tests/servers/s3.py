"""As much of Amazon's S3 as tensorstore needs: objects of one bucket, in memory.

Paths are ``/BUCKET/KEY`` (an ``endpoint`` of one's own). Writes may be conditional
(If-Match, If-None-Match), as they are since 2024.
"""

from __future__ import annotations

import functools
import hashlib
from xml.sax.saxutils import escape

from servers.base import Answer, Asked, FakeServer

_PAGE = 50
"""Small, so that listing has to go on."""


class S3Server(FakeServer):
    """One bucket; with `key_id` only requests signed with that key are served."""

    def __init__(self, bucket: str = "bucket", *, key_id: str = "", delay_s: float = 0.0) -> None:
        super().__init__(delay_s=delay_s)
        self.bucket = bucket
        self.key_id = key_id
        self.objects: dict[str, bytes] = {}

    def answer(self, asked: Asked) -> Answer:
        bucket, _, key = asked.path.lstrip("/").partition("/")
        if bucket != self.bucket:
            return Answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
        if not key and asked.method == "HEAD":
            return Answer(200, headers={"x-amz-bucket-region": "us-east-1"})
        if self.key_id and f"Credential={self.key_id}/" not in asked.headers.get(
            "authorization", ""
        ):
            return Answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        if not key:
            return self._list(asked)
        with self.lock:
            return self._object(asked, key)

    def put(self, key: str, body: bytes) -> None:
        self.objects[key] = body

    def _object(self, asked: Asked, key: str) -> Answer:
        there = self.objects.get(key)
        if asked.method == "PUT":
            if not _may_write(asked, there):
                return Answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            self.put(key, asked.body)
            return Answer(200, headers={"ETag": _etag(asked.body)})
        if asked.method == "DELETE":
            self.objects.pop(key, None)
            return Answer(204)
        if there is None:
            return Answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        if asked.headers.get("if-none-match") == _etag(there):
            return Answer(304, headers={"ETag": _etag(there)})
        if asked.headers.get("if-match", _etag(there)) != _etag(there):
            return Answer(412)
        return Answer(200, there, {"ETag": _etag(there)})

    def _list(self, asked: Asked) -> Answer:
        prefix = asked.query.get("prefix", "")
        after = bytes.fromhex(asked.query.get("continuation-token", "")).decode()
        after = after or asked.query.get("start-after", "")
        with self.lock:
            keys = sorted(k for k in self.objects if k.startswith(prefix) and k > after)
        page = keys[:_PAGE]
        more = len(keys) > _PAGE
        listed = "".join(f"<Contents><Key>{escape(key)}</Key></Contents>" for key in page)
        token = (
            f"<NextContinuationToken>{page[-1].encode().hex()}</NextContinuationToken>"
            if more
            else ""
        )
        return Answer(
            200,
            (
                '<?xml version="1.0" encoding="UTF-8"?>'
                '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                f"<KeyCount>{len(page)}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>"
                f"{listed}{token}</ListBucketResult>"
            ).encode(),
            {"Content-Type": "application/xml"},
        )


@functools.lru_cache(maxsize=1024)
def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body).hexdigest()}"'


def _may_write(asked: Asked, there: bytes | None) -> bool:
    none_match, match = asked.headers.get("if-none-match"), asked.headers.get("if-match")
    if none_match == "*":
        return there is None
    return match is None or (there is not None and match == _etag(there))
