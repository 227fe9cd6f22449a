"""An address at which no cluster can be, and a folder in which no Ray can start, are refused before any work."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from kdsearch.engine.address import check_cluster
from kdsearch.errors import UserError, command_line


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)


def refused(address: str | None) -> str:
    with command_line(), pytest.raises(UserError) as caught:
        check_cluster(address)
    with command_line():
        return str(caught.value)


def test_the_address_of_a_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    message = refused(None)
    assert message.startswith("RAY_ADDRESS is http://127.0.0.1:8265, an address for submitting jobs")
    assert "unset it" in message
    assert refused("https://head:8265").startswith("--address is https://head:8265")


def test_an_address_at_which_nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: refused
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert refused(address).startswith(
            f"No Ray cluster answers at {address} (Connection refused); correct --address"
        )
        monkeypatch.setenv("RAY_ADDRESS", f"ray://{address}")
        assert "correct RAY_ADDRESS, or unset RAY_ADDRESS to start Ray here" in refused(None)
        taken.listen()
        check_cluster(address)


@pytest.mark.parametrize("address", ["head", "head:port", "6379", "head:99999999"])
def test_an_address_that_is_none(address: str) -> None:
    assert f"No Ray cluster answers at {address} (it is not HOST:PORT)" in refused(address)


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_folder_too_long_for_sockets(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, f"/tmp/{'long' * 20}")
    message = refused(None)
    assert message.startswith(f"{name} is /tmp/longlong")
    assert "set RAY_TMPDIR to a shorter folder, such as /tmp" in message
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")  # the one that counts
    check_cluster(None)


def test_the_limit_is_that_of_ray() -> None:
    ray_utils = pytest.importorskip("ray._private.utils")
    from kdsearch.engine.address import SOCKET, SOCKET_BYTES

    path = SOCKET.format(pid=12345)
    ray_utils.validate_socket_filepath("x" * (SOCKET_BYTES - len(path)) + path)
    with pytest.raises(OSError, match="cannot exceed"):
        ray_utils.validate_socket_filepath("x" * (SOCKET_BYTES - len(path) + 1) + path)
