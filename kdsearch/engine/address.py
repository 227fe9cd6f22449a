"""The Ray cluster that a request names, checked before anything is built for it."""

from __future__ import annotations

import os
import socket
import sys
from urllib.parse import urlsplit

from kdsearch.errors import UserError

PATIENCE_S = 5.0
"""Seconds within which the head of a cluster has to accept a connection."""
SOCKET = "/ray/session_2026-01-01_00-00-00_000000_{pid}/sockets/plasma_store"
"""The longest path that a local Ray adds to its folder of temporary files."""
SOCKET_BYTES = 107
"""The longest path of a Unix socket; 103 on macOS, where Ray's folder is /tmp unless RAY_TMPDIR is set."""


def cluster_of(address: str | None) -> tuple[str | None, str]:
    """The address of the cluster to use, None to start Ray here; and what names it: `--address` or `RAY_ADDRESS`."""
    if address:
        return address, "--address"
    return os.environ.get("RAY_ADDRESS") or None, "RAY_ADDRESS"


def no_cluster(target: str, origin: str, reason: str) -> UserError:
    """The error for an address at which there is no cluster."""
    leave = "unset RAY_ADDRESS" if origin == "RAY_ADDRESS" else "leave it out"
    return UserError(f"No Ray cluster answers at {target} ({reason}); correct {origin}, or {leave} to start Ray here.")


def check_cluster(address: str | None) -> None:
    """Raise `UserError` for an address at which no cluster can be, and where Ray could not be started here.

    A Ray that runs in this process is used whatever the address; then nothing is checked.
    """
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        return
    target, origin = cluster_of(address)
    if target is None or target == "local":
        _check_temporary_folder()
    elif target.startswith(("http://", "https://")):
        leave = "unset it" if origin == "RAY_ADDRESS" else "leave it out"
        raise UserError(
            f"{origin} is {target}, an address for submitting jobs and no cluster: {leave} to start Ray here, give "
            "--address HOST:6379, or submit the command with `ray job submit`."
        )
    elif target != "auto":
        _check_answers(target, origin)


def _check_answers(target: str, origin: str) -> None:
    try:
        parts = urlsplit(target if "://" in target else f"//{target}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise no_cluster(target, origin, "it is not HOST:PORT")
    try:
        socket.create_connection((host, port), PATIENCE_S).close()
    except OSError as error:
        raise no_cluster(target, origin, error.strerror or str(error)) from error


def _check_temporary_folder() -> None:
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), None)
    if name is None:
        return
    folder, most = os.environ[name], SOCKET_BYTES - len(SOCKET.format(pid=os.getpid()))
    if len(os.fsencode(folder)) > most:
        raise UserError(
            f"{name} is {folder}, too long for the sockets of Ray, which take {most} characters: set RAY_TMPDIR to a "
            "shorter folder, such as /tmp."
        )
