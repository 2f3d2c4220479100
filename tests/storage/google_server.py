"""A Google Cloud Storage server on loopback that refuses a share of requests, for tests; prints its port.

Parts of an upload are let through: this server does not know which it has when it is asked again.

python tests/storage/google_server.py SHARE          (ends with its standard input)
"""

from __future__ import annotations

import random
import sys
from typing import Any

from gcp_storage_emulator import server

BUCKET = "results"
_RANDOM = random.Random(7)


class Faulty(server.RequestHandler):
    """Refuses requests; keeps no log."""

    share = 0.0

    def parse_request(self) -> bool:
        """Every request comes by here before it is served."""
        if not super().parse_request():
            return False
        if self.command == "PUT" or _RANDOM.random() >= self.share:
            return True
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_error(503, "Slow down")
        return False

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def main() -> None:
    """Serve until standard input ends."""
    Faulty.share = float(sys.argv[1])
    server.RequestHandler = Faulty
    with server.create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET) as running:
        print(running._api._httpd.server_port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
