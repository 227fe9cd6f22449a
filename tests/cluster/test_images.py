"""The images and the MLflow server's compose file: versions of constraints.txt, no secrets, health of every service."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import CLUSTER, REPOSITORY, secrets_in

DOCKERFILES = ["Dockerfile", "mlflow/Dockerfile"]


def instructions(name: str) -> list[str]:
    """The lines of a Dockerfile, continued ones joined, without comments."""
    lines = [line for line in (CLUSTER / name).read_text().splitlines() if not line.lstrip().startswith("#")]
    return [line for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line.strip()]


def compose() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((CLUSTER / "mlflow" / "compose.yaml").read_text())
    return config


@pytest.mark.parametrize("name", DOCKERFILES)
class TestDockerfile:
    def test_every_install_keeps_to_the_constraints(self, name: str) -> None:
        installs = [line for line in instructions(name) if "pip install" in line]
        assert installs
        assert all("--constraint /opt/" in line and "/constraints.txt" in line for line in installs)
        assert not [line for line in installs if "==" in line], "versions belong into constraints.txt"

    def test_every_package_that_is_installed_is_pinned(self, name: str, pinned: dict[str, str]) -> None:
        for line in instructions(name):
            for part in re.findall(r"pip install ([^&]+)", line):
                words = [w.strip('"') for w in part.split() if not w.startswith("--") and "constraints" not in w]
                packages = [word for word in words if not word.startswith("/src")]
                assert all(package in pinned for package in packages)

    def test_python_is_the_one_of_the_constraints(self, name: str) -> None:
        assert "on Python 3.11" in (REPOSITORY / "constraints.txt").read_text()
        assert re.search(r"python3\.11|python:3\.11", "\n".join(instructions(name)))

    def test_the_base_has_a_version(self, name: str) -> None:
        base = next(line.split()[1] for line in instructions(name) if line.startswith("FROM"))
        assert re.search(r":\d+\.\d+", base)

    def test_it_does_not_run_as_root(self, name: str) -> None:
        assert [line for line in instructions(name) if line.startswith("USER")][-1] in ("USER kdsearch", "USER mlflow")

    def test_what_it_copies_exists_and_reaches_the_builder(self, name: str) -> None:
        kept = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        for line in instructions(name):
            if line.startswith("COPY"):
                *sources, _ = [word for word in line.split()[1:] if not word.startswith("--")]
                for source in sources:
                    assert (REPOSITORY / source).exists()
                    assert Path(source).parts[0] in kept


def test_the_image_has_what_the_installation_reads() -> None:
    """The wheel is built from the files that pyproject.toml names."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    copied = " ".join(line for line in instructions("Dockerfile") if line.startswith("COPY"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    for needed in [project["project"]["readme"], *wheel["packages"], *wheel["force-include"]]:
        assert needed in copied


class TestCompose:
    def test_every_service_that_stays_has_a_health_check(self) -> None:
        services = compose()["services"]
        assert set(services) == {"database", "objects", "bucket", "mlflow"}
        for name, service in services.items():
            assert ("healthcheck" in service) == (service["restart"] != "no"), name

    def test_each_waits_for_what_it_needs(self) -> None:
        services = compose()["services"]
        for service in services.values():
            for needed, how in service.get("depends_on", {}).items():
                ready = "service_healthy" if "healthcheck" in services[needed] else "service_completed_successfully"
                assert how["condition"] == ready

    def test_secrets_come_from_the_environment_and_have_no_default(self) -> None:
        text = (CLUSTER / "mlflow" / "compose.yaml").read_text()
        assert not secrets_in(text)
        for service in compose()["services"].values():
            for name, value in service.get("environment", {}).items():
                if re.search("PASSWORD|SECRET|URI", name):
                    assert re.search(r"\$\{MLFLOW_(DB_PASSWORD|S3_SECRET):\?", value), name

    def test_the_database_s_driver_is_the_one_that_is_installed(self) -> None:
        """The driver must be named: what a bare postgresql:// means depends on SQLAlchemy's version."""
        uri = compose()["services"]["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"]
        driver = uri.partition("://")[0].removeprefix("postgresql+")
        assert f" {driver}-binary " in " ".join(instructions("mlflow/Dockerfile"))

    def test_only_the_server_is_reachable_and_from_this_machine_alone(self) -> None:
        ports = {name: service["ports"] for name, service in compose()["services"].items() if "ports" in service}
        assert ports == {"mlflow": ["${MLFLOW_BIND:-127.0.0.1}:5000:5000"]}

    def test_what_is_kept_lies_on_volumes(self) -> None:
        config = compose()
        for name in ("database", "objects"):
            assert [mount.split(":")[0] for mount in config["services"][name]["volumes"]] == [name]
        assert set(config["volumes"]) == {"database", "objects"}

    def test_images_have_versions(self) -> None:
        for service in compose()["services"].values():
            assert "build" in service or re.search(r":v?\d+", service["image"])


def test_a_literal_secret_would_be_found() -> None:
    assert secrets_in("POSTGRES_PASSWORD: hunter22222")
    assert secrets_in("  token: 0123456789abcdef")
    assert secrets_in("AWS_SECRET_ACCESS_KEY: 'abcdefgh'")
    assert not secrets_in("POSTGRES_PASSWORD: ${DB_PASSWORD:?set it}")
    assert not secrets_in("authOptions: {mode: token}")
