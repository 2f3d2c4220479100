"""A pool whose nodes are removed under it, on a Ray of two nodes on loopback, for tests: prints JSON.

python tests/actors/lost_nodes_run.py
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))
from many_nodes import node_options

from regimes.actors import pool as pools

LOSSES = 2


class Worker:
    """Waits at unit 1 until nodes have gone often enough."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def ready(self) -> None:
        """Answers."""

    def make(self, unit: int) -> int:
        """The unit, once there is no need to wait."""
        while unit == 1 and not (self.folder / "enough").exists():
            (self.folder / "begun").touch()
            time.sleep(0.1)
        return unit


def main() -> None:
    """One node after the other goes, more than failures may be."""
    folder = tempfile.mkdtemp(prefix="rl-", dir="/tmp")  # short: sockets go there
    os.environ["RAY_TMPDIR"] = folder
    os.makedirs(f"{folder}/ray")
    import ray
    from ray.cluster_utils import Cluster

    # Nodes are known to be dead after two seconds instead of fifteen.
    checks = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
    head = node_options() | {"num_cpus": 0, "_system_config": checks}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        print(json.dumps(lose_nodes(ray, cluster, folder)))
        ray.shutdown()
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def lose_nodes(ray: object, cluster: object, folder: str) -> dict:
    """What a pool of one actor does meanwhile."""
    pools.FAILURES = pools.ATTEMPTS = 1  # a failure would end the run at once
    nodes, causes = [cluster.add_node(**node_options())], []
    remote = ray.remote(Worker).options(num_cpus=1, max_restarts=0, max_task_retries=0)
    pool = pools.Pool(ray, lambda: remote.remote(folder), 1)
    failed, begun = pool._failed, Path(folder) / "begun"

    def wait(*arguments: object, **options: object) -> object:
        """As ``ray.wait``; takes the node away when the unit is begun."""
        if begun.exists() and nodes and len(causes) < LOSSES:
            cluster.remove_node(nodes.pop(), allow_graceful=False)
            begun.unlink()
        return waits(*arguments, **options)

    def note(slot: object, error: BaseException) -> object:
        causes.append(type(error).__name__)
        if len(causes) == LOSSES:
            (Path(folder) / "enough").touch()
        nodes.append(cluster.add_node(**node_options()))
        return failed(slot, error)

    waits, ray.wait, pool._failed = ray.wait, wait, note
    pool._patience = lambda: 0.1
    units = pool.run(lambda actor, i, unit: actor.make.remote(unit), [(0, 0), (0, 1)])
    return {"done": [entry for _, entry in units], "causes": causes}


if __name__ == "__main__":
    main()
