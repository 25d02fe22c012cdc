"""What a page is told that asks for credentials: that there are none.

The client asks for a login before it speaks to a DVID server at all, be it open to
everyone; a server that wants no login is satisfied with an empty one. Nothing of this
machine's credentials is ever handed to a page.
"""

from __future__ import annotations

import functools
import json
from http import HTTPStatus
from typing import Any

_OPEN_TO_ALL = "DVID"  # the client's credentialsKey in datasource/dvid/api.ts


@functools.cache
def anonymous_class() -> Any:
    """Return the handler of Neuroglancer's path for credentials."""
    from tornado.web import RequestHandler

    class Anonymous(RequestHandler):
        """Gives the empty login of DVID, and refuses all others in a sentence."""

        def initialize(self, server: Any) -> None:
            self._server = server

        def post(self, viewer_token: str) -> None:
            if viewer_token not in self._server.viewers:
                self._end(HTTPStatus.NOT_FOUND, "Not Found")
                return
            try:
                asked = json.loads(self.request.body)
            except (ValueError, RecursionError):
                asked = None
            if not isinstance(asked, dict):
                self._end(HTTPStatus.BAD_REQUEST, "Bad Request")
            elif asked.get("key") == _OPEN_TO_ALL and asked.get("invalid") is None:
                self.set_header("Content-Type", "application/json")
                self.finish(json.dumps({"generation": 1, "credentials": {}}))
            else:
                # The reason is what the client shows.
                self._end(HTTPStatus.FORBIDDEN, "floodem passes no login on to pages")

        def _end(self, status: int, reason: str) -> None:
            self.set_status(status, reason)
            self.finish()

    return Anonymous
