"""A Ray of several nodes on this machine's loopback, in a process of its own, for tests.

python tests/jobs/many_nodes.py             (a head with the dashboard, and two nodes)

Prints the dashboard's address as JSON; then every line of standard input, ``remove`` or ``add``, takes a
node away without a word to it, or adds one. Ends with its standard input.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def node_options() -> dict[str, int]:
    """One CPU. Its agent, which takes submissions, has a port of its own: the default is another Ray's."""
    return {
        "num_cpus": 1,
        "object_store_memory": 10**8,
        "dashboard_agent_listen_port": free_port(),
    }


def main() -> None:
    """Start, obey, stop."""
    folder = tempfile.mkdtemp(prefix="rn-", dir="/tmp")  # short: sockets go there
    os.environ["RAY_TMPDIR"] = folder  # or others would join this cluster by Ray's default
    os.makedirs(f"{folder}/ray")
    from ray.cluster_utils import Cluster

    port = free_port()
    cluster = Cluster(
        initialize_head=True,
        head_node_args=node_options()
        | {"include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": port},
    )
    nodes = [cluster.add_node(**node_options()) for _ in range(2)]
    try:
        print(json.dumps({"dashboard": f"http://127.0.0.1:{port}", "folder": folder}), flush=True)
        for line in sys.stdin:
            if line.strip() == "remove":
                cluster.remove_node(nodes.pop(0), allow_graceful=False)
            else:
                nodes.append(cluster.add_node(**node_options()))
            print(len(nodes), flush=True)
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    assert os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") == "0", "only on loopback"
    main()
