"""A generation job on a Ray whose autoscaler starts and stops nodes on this machine, for tests.

Run it in namespaces of its own (test_autoscaling.py does): prints the counts of nodes as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PORT = 6379  # where the nodes of the fake provider look for the head
WORKERS = 2
CONFIG = {
    "cluster_name": "fake", "max_workers": WORKERS, "upscaling_speed": 1.0, "idle_timeout_minutes": 0.1,
    "provider": {
        "type": "fake_multinode", "disable_launch_config_check": True, "disable_node_updaters": True,
    },
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
        "worker": {
            "resources": {"CPU": 1, "object_store_memory": 10**8}, "node_config": {},
            "min_workers": 0, "max_workers": WORKERS,
        },
    },
    "head_node_type": "ray.head.default", "auth": {}, "docker": {}, "file_mounts": {},
    "cluster_synced_files": [], "file_mounts_sync_continuously": False, "rsync_exclude": [],
    "rsync_filter": [], "initialization_commands": [], "setup_commands": [], "head_setup_commands": [],
    "worker_setup_commands": [], "head_start_ray_commands": [], "worker_start_ray_commands": [],
}  # fmt: skip


def start_head(folder: Path) -> None:
    """A head with one CPU, and the autoscaler."""
    config = folder / "autoscaler.json"
    config.write_text(json.dumps(CONFIG))
    subprocess.run(
        [
            str(Path(sys.executable).parent / "ray"), "start", "--head", f"--port={PORT}", "--num-cpus=1",
            f"--autoscaling-config={config}", "--include-dashboard=false", "--object-store-memory=100000000",
            "--disable-usage-stats",
        ],
        check=True,
        stdout=sys.stderr,
        env=os.environ | {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1"},
    )  # fmt: skip


def generate(output: Path, replicas: int) -> subprocess.Popen[bytes]:
    """The job, which asks for more replicas than the head has CPUs."""
    return subprocess.Popen(
        [
            sys.executable, str(ROOT / "jobs" / "generate.py"), "--model", "empirical:digits",
            "--seeds", "0-7999", "--batch-size", "50", "--num-steps", "250", "--format", "npz",
            "--output", str(output), "--device", "cpu", "--replicas", str(replicas),
        ],
        stdout=sys.stderr,
        env=os.environ | {"RAY_ADDRESS": f"127.0.0.1:{PORT}"},
    )  # fmt: skip


def main() -> None:
    """Watch the nodes while a job runs and after it."""
    folder = Path(tempfile.mkdtemp())
    start_head(folder)
    import ray

    ray.init(address=f"127.0.0.1:{PORT}", log_to_driver=False, logging_level="error")
    seen, done_at = [], None
    job = generate(folder / "many", 1 + WORKERS)
    began = time.monotonic()
    while time.monotonic() - began < 240:
        alive = sum(node["Alive"] for node in ray.nodes())
        if not seen or seen[-1][1] != alive:
            seen.append([round(time.monotonic() - began, 1), alive])
        if job.poll() is not None:
            done_at = done_at or round(time.monotonic() - began, 1)
            if alive == 1:
                break
        time.sleep(0.2)
    digest = hashlib.sha256((folder / "many" / "samples.npz").read_bytes()).hexdigest()
    print(json.dumps({"nodes": seen, "rc": job.poll(), "done_at": done_at, "sha256": digest}))


if __name__ == "__main__":
    main()
