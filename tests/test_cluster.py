"""What starts clusters: cluster.yaml, cluster-gcp.yaml, deploy/ and runtime_env.yaml, without a cloud."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml

from regimes.actors.runtime import KEEP_FREED_MEMORY

ROOT = Path(__file__).parents[1]
CLUSTERS = ("cluster.yaml", "cluster-gcp.yaml")
MANIFESTS = ("raycluster.yaml", "rayjob.yaml")
MACHINES = {  # CPUs and GPUs, as the clouds list them
    "m6i.xlarge": (4, 0), "g5.xlarge": (4, 1), "n2-standard-4": (4, 0), "g2-standard-8": (8, 1),
}  # fmt: skip

DISK = {
    "type": "object",
    "required": ["boot", "autoDelete", "type", "initializeParams"],
    "properties": {
        "initializeParams": {
            "type": "object",
            "required": ["diskSizeGb", "sourceImage"],
            "properties": {
                "diskSizeGb": {"type": "integer", "minimum": 50},
                "sourceImage": {"pattern": r"^projects/[\w-]+/global/images/(family/)?[\w-]+$"},
            },
            "additionalProperties": False,
        },
    },
}
NODES = {
    "aws": {
        "type": "object",
        "required": ["InstanceType", "ImageId", "IamInstanceProfile", "BlockDeviceMappings"],
        "properties": {
            "InstanceType": {"pattern": r"^[a-z0-9-]+\.[a-z0-9]+$"},
            "ImageId": {"pattern": "^(ami-[0-9a-f]{8,17}|resolve:ssm:/aws/service/[a-z0-9._/-]+)$"},
            "IamInstanceProfile": {"required": ["Name"], "maxProperties": 1},
            "InstanceMarketOptions": {"properties": {"MarketType": {"const": "spot"}}},
            "BlockDeviceMappings": {
                "items": {
                    "required": ["DeviceName", "Ebs"],
                    "properties": {
                        "Ebs": {"properties": {"VolumeSize": {"type": "integer", "minimum": 50}}}
                    },
                }
            },
        },
        "additionalProperties": False,
    },
    "gcp": {
        "type": "object",
        "required": ["machineType", "disks"],
        "properties": {
            "machineType": {"pattern": r"^[a-z0-9]+-[a-z0-9]+-\d+$"},
            "disks": {"items": DISK},
            "metadata": {"required": ["items"]},
            "scheduling": {
                "items": {"required": ["onHostMaintenance"]},
                "minItems": 1,
            },
            "serviceAccounts": {"items": {"required": ["email", "scopes"]}},
        },
        "additionalProperties": False,
    },
}


def read(name):
    return yaml.safe_load((ROOT / name).read_text())


def workers(cluster):
    kinds = cluster["available_node_types"]
    return {name: kind for name, kind in kinds.items() if name != cluster["head_node_type"]}


def machine(node):
    return node.get("InstanceType") or node["machineType"]


def is_spot(node):
    scheduling = node.get("scheduling", [{}])[0]
    return "InstanceMarketOptions" in node or scheduling.get("preemptible", False)


def test_clusters_pass_the_autoscalers_own_validation():
    """In a process of its own: ray, once imported, would no longer stay on loopback in this one."""
    code = (
        "import sys, yaml\n"
        "from ray.autoscaler._private.util import prepare_config, validate_config\n"
        "for name in sys.argv[1:]: validate_config(prepare_config(yaml.safe_load(open(name))))"
    )
    paths = [str(ROOT / name) for name in CLUSTERS]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


LAUNCHED = """
import sys, types, yaml
from ray.autoscaler._private.util import prepare_config
from ray.autoscaler.v2 import scheduler
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.utils import ResourceRequestUtil
config = AutoscalingConfig(prepare_config(yaml.safe_load(open(sys.argv[1]))), skip_content_hash=True)
asked = [ResourceRequestUtil.make({"GPU": 1.0}) for _ in range(5)]
request = scheduler.SchedulingRequest(
    node_type_configs=config.get_node_type_configs(), disable_launch_config_check=True,
    resource_requests=ResourceRequestUtil.group_by_count(asked),
    cloud_resource_availabilities={kind: 0.0 for kind in sys.argv[2:]},
    recoverable_resource_availabilities={kind: 0.0 for kind in sys.argv[2:]},
)
silent = types.SimpleNamespace(log_cluster_scheduling_update=lambda **_: None)
for launch in scheduler.ResourceDemandScheduler(silent).schedule(request).to_launch:
    print(launch.instance_type, launch.count)
"""


@pytest.mark.parametrize("name", CLUSTERS)
def test_nodes_at_full_price_start_only_where_spot_nodes_are_refused(name):
    """By the scheduler that `ray up` uses, which takes kinds of equal priority in turn."""

    def launched(*refused):
        command = [sys.executable, "-c", LAUNCHED, str(ROOT / name), *refused]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return dict(line.split() for line in done.stdout.splitlines())

    assert launched() == {"gpu_spot": "5"}
    assert launched("gpu_spot")["gpu_on_demand"] == "2"


@pytest.mark.parametrize("name", CLUSTERS)
def test_nodes_have_the_fields_of_their_provider_and_the_resources_of_their_machine(name):
    cluster = read(name)
    for kind in cluster["available_node_types"].values():
        jsonschema.validate(kind["node_config"], NODES[cluster["provider"]["type"]])
        cpus, gpus = MACHINES[machine(kind["node_config"])]
        assert kind["resources"] == {"CPU": cpus} | ({"GPU": gpus} if gpus else {})


def test_the_schema_refuses_what_the_autoscaler_lets_pass():
    aws, gcp = read(CLUSTERS[0]), read(CLUSTERS[1])
    node = aws["available_node_types"]["head"]["node_config"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(node, NODES["gcp"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(gcp["available_node_types"]["head"]["node_config"], NODES["aws"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(node | {"InstanceTyp": "m6i.xlarge"}, NODES["aws"])


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_cluster_scales_from_zero_gpus_on_spot_and_on_demand(name):
    cluster = read(name)
    kinds = workers(cluster)
    assert sorted(is_spot(kind["node_config"]) for kind in kinds.values()) == [False, True]
    assert sum(kind["max_workers"] for kind in kinds.values()) <= cluster["max_workers"]
    for kind in kinds.values():
        assert kind["min_workers"] == 0
        assert kind["resources"]["GPU"] >= 1
    head = cluster["available_node_types"][cluster["head_node_type"]]
    assert "GPU" not in head["resources"]
    assert not is_spot(head["node_config"])
    assert 0 < cluster["idle_timeout_minutes"] <= 15


@pytest.mark.parametrize(("name", "bucket"), [(CLUSTERS[0], "s3://"), (CLUSTERS[1], "gs://")])
def test_a_cluster_installs_pinned_versions_opens_nothing_and_knows_where_results_go(name, bucket):
    cluster = read(name)
    assert "--constraint ~/regimes/constraints.txt" in " ".join(cluster["setup_commands"])
    (head,) = [c for c in cluster["head_start_ray_commands"] if "ray start" in c]
    (worker,) = [c for c in cluster["worker_start_ray_commands"] if "ray start" in c]
    assert "--dashboard-host=127.0.0.1" in head
    assert f"REGIMES_OUTPUT={bucket}" in head
    for command in (head, worker):
        assert "RAY_AUTH_MODE=token ray start" in " ".join(command.split())
        assert "0.0.0.0" not in command
    assert "~/.ray/auth_token" in cluster["file_mounts"]
    assert "security_group" not in cluster["provider"]
    assert {".git", ".venv", "results"} <= set(cluster["rsync_exclude"])


@pytest.mark.parametrize(
    ("name", "packages"),
    [(CLUSTERS[0], ["boto3"]), (CLUSTERS[1], ["google-api-python-client", "google-auth-httplib2"])],
)
def test_the_head_has_what_its_autoscaler_talks_to_the_cloud_with(name, packages):
    """What ray.autoscaler._private.{aws,gcp} import and no dependency of ours brings."""
    (command,) = read(name)["head_setup_commands"]
    assert command.split()[-len(packages) :] == packages


def ray_cluster(name):
    found = read(f"deploy/{name}")
    assert found["apiVersion"] == "ray.io/v1"
    return found["spec"] if found["kind"] == "RayCluster" else found["spec"]["rayClusterSpec"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_scales_from_zero_asks_for_tokens_and_has_no_public_service(name):
    spec = ray_cluster(name)
    pins = (ROOT / "constraints.txt").read_text()
    assert f"ray=={spec['rayVersion']}\n" in pins
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    groups = spec["workerGroupSpecs"]
    assert len({group["groupName"] for group in groups}) == len(groups) == 2
    for group in groups:
        assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_containers_have_one_tagged_image_and_consistent_resources(name):
    spec = ray_cluster(name)
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    containers = [c for g in groups for c in g["template"]["spec"]["containers"]]
    assert len({c["image"] for c in containers}) == 1
    for container in containers:
        assert re.fullmatch(r"[\w.-]+(/[\w.-]+)+:\d+\.\d+\.\d+", container["image"])
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert all(limits[key] == value for key, value in requests.items())
        assert ("nvidia.com/gpu" in limits) == (container["name"] == "ray-worker")


def test_both_manifests_describe_the_same_cluster():
    assert ray_cluster(MANIFESTS[0]) == ray_cluster(MANIFESTS[1])


def test_the_image_is_built_from_the_pins():
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    assert re.search(r"^FROM python:3\.1[1-9]-slim-\w+$", text, re.MULTILINE)
    assert "--constraint /home/ray/regimes/constraints.txt" in text


def test_the_jobs_that_documents_name_exist():
    entry = read("deploy/rayjob.yaml")["spec"]["entrypoint"]
    assert (ROOT / entry.split()[1]).is_file()
    for name in re.findall(r"python (jobs/\w+\.py)", (ROOT / "README.md").read_text()):
        assert (ROOT / name).is_file()


def test_an_upload_leaves_results_and_environments_at_home():
    runtime_env = read("runtime_env.yaml")
    assert {"/.git", "/.venv", "/results", "/samples"} <= set(runtime_env["excludes"])
    assert runtime_env["env_vars"] == {"PYTHONPATH": "platform"} | KEEP_FREED_MEMORY
    assert runtime_env["working_dir"] == "."
    image = (ROOT / "deploy/Dockerfile").read_text()
    assert "ENV " + " ".join(f"{k}={v}" for k, v in KEEP_FREED_MEMORY.items()) in image


def test_every_direct_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(name for extra in extras for name in extra)]
    names = {re.split(r"[\[;<>= ]", d)[0].lower() for d in wanted}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower() for line in lines if "==" in line}
    assert names <= pinned
    assert not [line for line in lines if "://" in line]
