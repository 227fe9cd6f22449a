"""The cluster launcher's files against Ray's own schema and checks, and what kdsearch needs of them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from .conftest import CLUSTER, secrets_in

FILES = ["aws", "gcp", "onprem"]
CLOUDS = ["aws", "gcp"]


def load(name: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())
    return config


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_the_file(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(load(name)))


def test_ray_refuses_a_field_that_it_does_not_know() -> None:
    """The check above can fail."""
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(jsonschema.ValidationError, match="idle_timeout"):
        validate_config(prepare_config(load("aws") | {"idle_timeout": 5}))


@pytest.mark.parametrize("name", FILES)
def test_every_node_has_the_token_and_none_is_in_the_file(name: str) -> None:
    config = load(name)
    assert "~/.ray/auth_token" in config["file_mounts"].values()
    starts = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    in_container = "--env=RAY_AUTH_MODE=token" in config.get("docker", {}).get("run_options", [])
    assert in_container or all("RAY_AUTH_MODE=token" in start for start in starts if "ray start" in start)
    assert not secrets_in((CLUSTER / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", CLOUDS)
def test_the_head_is_kept_and_runs_no_trial_and_gpu_nodes_are_spot(name: str) -> None:
    config = load(name)
    head, gpu = (config["available_node_types"][kind] for kind in ("head", "gpu"))
    assert config["head_node_type"] == "head"
    assert head["resources"] == {"CPU": 0}
    assert any("--num-cpus=0" in command for command in config["head_start_ray_commands"])
    assert gpu["resources"]["GPU"] == 1
    assert (gpu["min_workers"], gpu["max_workers"]) == (0, config["max_workers"])

    def is_spot(node: dict[str, Any]) -> bool:
        market = node.get("InstanceMarketOptions", {}).get("MarketType")
        return market == "spot" or node.get("scheduling", {}).get("provisioningModel") == "SPOT"

    assert is_spot(gpu["node_config"])
    assert not is_spot(head["node_config"])


@pytest.mark.parametrize("name", CLOUDS)
def test_the_storage_is_mounted_before_the_container_starts(name: str) -> None:
    config = load(name)
    assert any("mount -t nfs" in command and "/shared" in command for command in config["initialization_commands"])
    assert "--volume=/shared:/shared" in config["docker"]["run_options"]
    assert "--env=KDSEARCH_STORAGE=/shared/runs" in config["docker"]["run_options"]


@pytest.mark.parametrize("name", FILES)
def test_the_dashboard_is_not_open_to_the_network(name: str) -> None:
    assert any("--dashboard-host=127.0.0.1" in command for command in load(name)["head_start_ray_commands"])
