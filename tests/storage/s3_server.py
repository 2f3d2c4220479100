"""An S3 server on loopback that refuses requests as told, for tests; prints its port.

python tests/storage/s3_server.py          (ends with its standard input)
"""

from __future__ import annotations

import json
import random
import sys
import threading
from collections import Counter
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

BUSY = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your rate.</Message></Error>"
)


class Faulty:
    """An application before which some requests fail.

    A PUT of JSON to /-/faults says which: ``share`` of all requests, and once in the middle of every
    upload of ``names`` that has not failed yet. GET returns how many were refused.
    """

    def __init__(self, inner: Any) -> None:
        self._inner, self._lock = inner, threading.Lock()
        self._set(0.0, ())

    def _set(self, share: float, names: tuple[str, ...]) -> None:
        self._share, self._names, self._failed = share, names, set()
        self._random, self._counts = random.Random(7), Counter()

    def __call__(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        if request.path == "/-/faults":
            return self._control(request)(environ, start_response)
        if self._refuses(request):
            response = Response(BUSY, 503, content_type="application/xml")
            return response(environ, start_response)
        return self._inner(environ, start_response)

    def _control(self, request: Request) -> Response:
        with self._lock:
            if request.method == "PUT":
                asked = json.loads(request.get_data())
                self._set(asked.get("share", 0.0), tuple(asked.get("names", ())))
            return Response(json.dumps(self._counts), content_type="application/json")

    def _refuses(self, request: Request) -> bool:
        with self._lock:
            self._counts["all"] += 1
            name = request.path.rsplit("/", 1)[-1]
            if request.method == "PUT" and name in self._names and request.path not in self._failed:
                self._failed.add(request.path)
                request.stream.read((request.content_length or 2) // 2)  # in the middle of it
                self._counts[name] += 1
                return True
            if self._random.random() < self._share:
                self._counts["refused"] += 1
                return True
            return False


class Quiet(WSGIRequestHandler):
    """Keeps no log."""

    protocol_version = "HTTP/1.1"

    def log(self, *_: Any) -> None:
        """Nothing."""


def main() -> None:
    """Serve until standard input ends."""
    app = Faulty(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
