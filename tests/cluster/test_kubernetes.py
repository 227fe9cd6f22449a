"""The Kubernetes manifests against the fields that the API has.

The definitions themselves are not at hand in the tests: `FIELDS` is a table of the fields that the manifests use, with
their types, written by hand from KubeRay's API reference (ray.io/v1, release 1.6) and Kubernetes' (v1). A field that is
not in it is a mistake here, or wants to be looked up and added.
"""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import yaml

from kdsearch.cli.commands.run import add_arguments

from .conftest import CLUSTER, secrets_in

MANIFESTS = ["rayjob", "raycluster", "storage"]

FIELDS: dict[str, dict[str, Any]] = {
    "Object": {"apiVersion": str, "kind": str, "metadata": "Metadata", "spec": "Spec"},
    "Metadata": {"name": str},
    "RayJob": {
        "entrypoint": str, "submissionMode": str, "backoffLimit": int, "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int, "rayClusterSpec": "RayCluster",
    },
    "RayCluster": {
        "rayVersion": str, "authOptions": "Auth", "enableInTreeAutoscaling": bool, "autoscalerOptions": "Autoscaler",
        "headGroupSpec": "Head", "workerGroupSpecs": ["Worker"],
    },
    "Auth": {"mode": str, "secretName": str},
    "Autoscaler": {"idleTimeoutSeconds": int, "upscalingMode": str},
    "Head": {"rayStartParams": {str: str}, "template": "Template"},
    "Worker": {
        "groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, "rayStartParams": {str: str},
        "template": "Template",
    },
    "Template": {"spec": "Pod"},
    "Pod": {
        "securityContext": "SecurityContext", "restartPolicy": str, "containers": ["Container"], "volumes": ["Volume"],
        "nodeSelector": {str: str}, "tolerations": ["Toleration"],
    },
    "SecurityContext": {"runAsUser": int, "runAsGroup": int, "fsGroup": int, "fsGroupChangePolicy": str},
    "Toleration": {"key": str, "operator": str, "value": str, "effect": str},
    "Container": {
        "name": str, "image": str, "env": ["Variable"], "ports": ["Port"], "resources": "Resources",
        "volumeMounts": ["Mount"],
    },
    "Variable": {"name": str, "value": str},
    "Port": {"name": str, "containerPort": int},
    "Resources": {"requests": {str: str}, "limits": {str: str}},
    "Mount": {"name": str, "mountPath": str},
    "Volume": {"name": str, "persistentVolumeClaim": "Claim", "emptyDir": "EmptyDir"},
    "Claim": {"claimName": str},
    "EmptyDir": {"medium": str, "sizeLimit": str},
    "PersistentVolumeClaim": {"accessModes": [str], "storageClassName": str, "resources": "Resources"},
}  # fmt: skip


def load(name: str) -> dict[str, Any]:
    manifest: dict[str, Any] = yaml.safe_load((CLUSTER / "kubernetes" / f"{name}.yaml").read_text())
    return manifest


def problems(value: Any, kind: Any, place: str = "") -> list[str]:
    """Where `value` is not of `kind`: a type, a name in `FIELDS`, `[kind]` or `{str: kind}`."""
    if isinstance(kind, str):
        if not isinstance(value, dict):
            return [f"{place}: not an object"]
        unknown = [f"{place}.{name}: no such field" for name in value if name not in FIELDS[kind]]
        known = [(name, part) for name, part in value.items() if name in FIELDS[kind]]
        return unknown + [p for name, part in known for p in problems(part, FIELDS[kind][name], f"{place}.{name}")]
    if isinstance(kind, list):
        if not isinstance(value, list):
            return [f"{place}: not a list"]
        return [p for number, part in enumerate(value) for p in problems(part, kind[0], f"{place}[{number}]")]
    if isinstance(kind, dict):
        return [p for name, part in value.items() for p in problems(part, kind[str], f"{place}.{name}")]
    return [] if type(value) is kind else [f"{place}: {value!r} is not {kind.__name__}"]


def problems_of(manifest: dict[str, Any]) -> list[str]:
    head = {name: part for name, part in manifest.items() if name != "spec"}
    return problems(head, "Object") + problems(manifest["spec"], manifest["kind"], ".spec")


def cluster_of(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = load(name)["spec"]
    return spec.get("rayClusterSpec", spec)


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_field_exists_and_has_its_type(name: str) -> None:
    assert problems_of(load(name)) == []


def test_a_wrong_field_and_a_wrong_type_are_found() -> None:
    """The check above can fail."""
    manifest = load("raycluster")
    manifest["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    manifest["spec"]["workerGroupSpecs"][0]["maxReplica"] = 3
    assert problems_of(manifest) == [
        ".spec.headGroupSpec.rayStartParams.num-cpus: 0 is not str",
        ".spec.workerGroupSpecs[0].maxReplica: no such field",
    ]


@pytest.mark.parametrize(("name", "version"), [("rayjob", "ray.io/v1"), ("raycluster", "ray.io/v1"), ("storage", "v1")])
def test_the_api_version(name: str, version: str) -> None:
    assert load(name)["apiVersion"] == version


@pytest.mark.parametrize("name", ["rayjob", "raycluster"])
class TestRayPods:
    def test_ray_is_the_version_of_the_image(self, name: str, pinned: dict[str, str]) -> None:
        assert cluster_of(name)["rayVersion"] == pinned["ray"]

    def test_tokens_are_asked_for_and_none_is_in_the_file(self, name: str) -> None:
        assert cluster_of(name)["authOptions"] == {"mode": "token"}
        assert not secrets_in((CLUSTER / "kubernetes" / f"{name}.yaml").read_text())

    def test_all_pods_mount_the_claim_where_the_storage_is(self, name: str) -> None:
        cluster = cluster_of(name)
        for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
            pod = group["template"]["spec"]
            claims = {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if len(v) == 2
                      and "persistentVolumeClaim" in v}  # fmt: skip
            container = pod["containers"][0]
            assert claims == {"shared": load("storage")["metadata"]["name"]}
            mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert set(mounted) == {volume["name"] for volume in pod["volumes"]}
            assert {"name": "KDSEARCH_STORAGE", "value": f"{mounted['shared']}/runs"} in container["env"]

    def test_trials_run_on_gpu_pods_that_come_and_go(self, name: str) -> None:
        cluster = cluster_of(name)
        (gpu,) = cluster["workerGroupSpecs"]
        assert cluster["enableInTreeAutoscaling"]
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert gpu["minReplicas"] == 0 < gpu["maxReplicas"]
        assert gpu["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert "nodeSelector" not in cluster["headGroupSpec"]["template"]["spec"]


def test_the_storage_can_be_written_by_many_nodes() -> None:
    assert load("storage")["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_command_of_the_job_is_one_that_kdsearch_takes() -> None:
    import argparse

    command = shlex.split(load("rayjob")["spec"]["entrypoint"])
    program, name, *study = command
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = parser.parse_args([part for part in study if part != "--"])
    assert (program, name, options.space) == ("kdsearch-study", "mfnet-clfd", "clfd")
    assert options.grow_to == cluster_of("rayjob")["workerGroupSpecs"][0]["maxReplicas"]
    assert options.gpus_per_worker == 1
