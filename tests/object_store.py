"""Object stores for tests, started on loopback in processes of their own.

See storage/s3_server.py and storage/google_server.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

SERVERS = Path(__file__).parent / "storage"
BUCKET = "results"


@dataclass(frozen=True)
class ObjectStore:
    """A running server."""

    port: int

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to reach it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
        }

    def faults(self, **asked: Any) -> dict[str, int]:
        """Set what is to fail, or without arguments: count what has failed."""
        address = f"http://127.0.0.1:{self.port}/-/faults"
        data = json.dumps(asked).encode() if asked else None
        request = urllib.request.Request(address, data, method="PUT" if asked else "GET")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            return json.load(answer)


@contextlib.contextmanager
def object_store() -> Iterator[ObjectStore]:
    """A server with an empty bucket, reachable from this process too."""
    process = subprocess.Popen(
        [sys.executable, str(SERVERS / "s3_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    store = ObjectStore(int(process.stdout.readline()))
    before = {name: os.environ.get(name) for name in store.environment}
    os.environ.update(store.environment)
    try:
        filesystem, _ = pafs.FileSystem.from_uri("s3://?allow_bucket_creation=true")
        filesystem.create_dir(BUCKET)
        yield store
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
        process.stdin.close()
        process.wait(30)


@contextlib.contextmanager
def google_store(refused: float = 0.0) -> Iterator[Callable[[str], str]]:
    """A Google server with an empty bucket; gives the URI of a folder in it.

    Args:
        refused: share of all requests that it answers with 503.
    """
    process = subprocess.Popen(
        [sys.executable, str(SERVERS / "google_server.py"), str(refused)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    where = f"endpoint_override=127.0.0.1:{int(process.stdout.readline())}&scheme=http"
    try:
        yield lambda folder: f"gs://anonymous@{BUCKET}/{folder}?{where}"
    finally:
        process.stdin.close()
        process.wait(30)
