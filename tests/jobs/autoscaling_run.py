"""A generation job on a cluster that grows and shrinks by itself, in namespaces of its own.

python tests/jobs/autoscaling_run.py GENERATE-OPTIONS...

Ray's fake node provider starts nodes as processes of this machine, through the same autoscaler that starts
machines in a cloud. Ray's fixed ports and folders would meet those of other clusters: run it by
``NAMESPACES``, where nothing else runs and no network is reached. Prints, as JSON: the numbers of nodes
over time, the exit code and last words of the job, and the hashes of its shards.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NAMESPACES = (
    "unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "sh", "-c",
    'ip link set lo up && mount -t tmpfs -o size=4g tmpfs /tmp && exec "$@"', "sh",
)  # fmt: skip
ADDRESS = "127.0.0.1:6379"
MOST_WORKERS = 2
JOB_S, SHRINK_S = 600, 120


def cluster_config() -> dict[str, Any]:
    """What ``ray up`` would make of a cluster.yaml: a head, and workers that go after six idle seconds."""
    worker = {"CPU": 1, "object_store_memory": 10**8}
    return {
        "cluster_name": "fake",
        "max_workers": MOST_WORKERS,
        "idle_timeout_minutes": 0.1,
        "upscaling_speed": 1.0,
        "docker": {},
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "auth": {},
        "provider": {
            "type": "fake_multinode",
            "disable_launch_config_check": True,
            "disable_node_updaters": True,
            "use_node_id_as_ip": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 1}, "max_workers": 0, "node_config": {}},
            "worker": {
                "resources": worker, "min_workers": 0, "max_workers": MOST_WORKERS, "node_config": {},
            },
        },
        "head_node_type": "ray.head.default",
    }  # fmt: skip


def start_head() -> None:
    """A head with one CPU, and the autoscaler beside it."""
    path = Path("/tmp/cluster.json")
    path.write_text(json.dumps(cluster_config()))
    os.environ.update({
        "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1", "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": ADDRESS,
    })  # fmt: skip
    ray = Path(sys.executable).parent / "ray"
    options = (
        "--port=6379",
        "--num-cpus=1",
        "--include-dashboard=false",
        "--object-store-memory=100000000",
    )
    command = [str(ray), "start", "--head", *options, f"--autoscaling-config={path}"]
    subprocess.run(command, check=True, stdout=sys.stderr)


class Census:
    """How many nodes were seen, and when."""

    def __init__(self) -> None:
        import ray

        ray.init(address=ADDRESS, log_to_driver=False)
        self._nodes, self._start = ray.nodes, time.monotonic()
        self.seen: list[tuple[float, int]] = []

    def take(self) -> int:
        """Count; every change is kept with its time in seconds."""
        alive = sum(bool(node["Alive"]) for node in self._nodes())
        if not self.seen or self.seen[-1][1] != alive:
            self.seen.append((round(time.monotonic() - self._start, 1), alive))
            print(*self.seen[-1], file=sys.stderr, flush=True)
        return alive

    def watch(self, until: Any, limit_s: float) -> None:
        """Count until something holds, or the time is over."""
        end = time.monotonic() + limit_s
        while not until() and time.monotonic() < end:
            self.take()
            time.sleep(0.5)


def main() -> None:
    """Start a cluster of one node, run the job, wait until the cluster is as small again."""
    start_head()
    census, output = Census(), Path("/tmp/out")
    command = [
        sys.executable,
        str(ROOT / "jobs" / "generate.py"),
        *sys.argv[1:],
        "--output",
        str(output),
    ]
    census.take()
    with Path("/tmp/log").open("w+") as log:
        job = subprocess.Popen(command, stdout=log, stderr=log)
        census.watch(lambda: job.poll() is not None, JOB_S)
        job.kill()
        log.seek(0)
        words = log.read()
    census.watch(lambda: census.take() == 1, SHRINK_S)
    hashes = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in output.rglob("shard-*.parquet")
        if "samples" in path.parts
    }
    print(json.dumps({"nodes": census.seen, "exit": job.wait(), "output": words, "shards": hashes}))


if __name__ == "__main__":
    main()
