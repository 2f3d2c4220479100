"""cluster.yaml and runtime_env.yaml, as far as they can be checked without a cloud."""

from __future__ import annotations

from pathlib import Path

import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[1]


def cluster() -> dict:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_cluster_yaml_passes_the_autoscalers_own_validation() -> None:
    validate_config(prepare_config(cluster()))


def test_cluster_scales_from_zero_and_its_workers_have_gpus() -> None:
    kinds = cluster()["available_node_types"]
    workers = {name: kind for name, kind in kinds.items() if name != cluster()["head_node_type"]}
    assert workers
    for kind in workers.values():
        assert kind["min_workers"] == 0
        assert kind["max_workers"] <= cluster()["max_workers"]
        assert kind["node_config"]["InstanceType"].startswith(("g", "p"))


def test_cluster_installs_pinned_versions_and_opens_nothing() -> None:
    text = (ROOT / "cluster.yaml").read_text()
    assert "constraints.txt" in " ".join(cluster()["setup_commands"])
    assert "--dashboard-host=127.0.0.1" in text
    for command in cluster()["head_start_ray_commands"] + cluster()["worker_start_ray_commands"]:
        assert "ray stop" in command or "RAY_AUTH_MODE=token" in command


def test_an_upload_leaves_results_and_environments_at_home() -> None:
    runtime_env = yaml.safe_load((ROOT / "runtime_env.yaml").read_text())
    assert {"/.git", "/.venv", "/results"} <= set(runtime_env["excludes"])
    assert runtime_env["env_vars"]["PYTHONPATH"] == "platform"
    assert runtime_env["working_dir"] == "."


def test_every_direct_dependency_is_pinned() -> None:
    import re
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(name for extra in extras for name in extra)]
    names = {re.split(r"[\[;<>= ]", d)[0].lower() for d in wanted}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower() for line in lines if "==" in line}
    assert names <= pinned
    assert not [line for line in lines if "://" in line]
