"""Servers that a test starts as processes of its own: PostgreSQL, MLflow, Ray nodes."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ..end_to_end.test_ray_job import RAY, free_port

HIDE = 'mount -t tmpfs none "$1" && shift && exec "$@"'
"""Covers a folder with an empty one, for this process and those it starts."""


@contextmanager
def running(
    command: list[str], log: Path, ready: Callable[[], bool], end: signal.Signals = signal.SIGTERM, **options: Any
) -> Iterator[None]:
    """`command` as a process, from when `ready()` holds. Whatever it started is gone at the end."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            **options,
        )  # fmt: skip
    try:
        limit = time.monotonic() + 180
        while not ready():
            assert process.poll() is None, f"{command[0]} ended:\n{log.read_text()}"
            assert time.monotonic() < limit, f"{command[0]} is not ready:\n{log.read_text()}"
            time.sleep(0.2)
        yield
    finally:
        process.send_signal(end)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(url: str) -> bool:
    """Whether a server answers there, with whatever status below 500."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A PostgreSQL server of its own; yields its URI for SQLAlchemy. It refuses to run as root, so root steps down."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    pytest.importorskip("psycopg2", reason="psycopg2-binary is not installed")
    here = Path(tempfile.mkdtemp(prefix="kdsearch-pg-"))  # pytest's folders are closed to other users
    who: dict[str, Any] = {"cwd": here}
    if os.getuid() == 0:
        user = next((name for name in ("postgres", "nobody") if name in {p.pw_name for p in pwd.getpwall()}), None)
        if user is None:
            pytest.skip("there is no user postgres or nobody for PostgreSQL to run as")
        shutil.chown(here, user)
        who |= {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    password, port = "only-for-this-test", free_port()
    (here / "password").write_text(password)
    (here / "password").chmod(0o644)
    try:
        subprocess.run(
            [programs[-1], "--pgdata=data", "--username=mlflow", "--pwfile=password", "--auth=scram-sha-256",
             "--no-sync"],
            check=True, capture_output=True, **who,
        )  # fmt: skip
        ask = [programs[-1].with_name("pg_isready"), "--quiet", "--host=127.0.0.1", f"--port={port}"]
        with running(
            [str(programs[-1].with_name("postgres")), "-D", "data", "-p", str(port), "-c", "fsync=off",
             "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="],
            folder / "postgres.log", lambda: subprocess.run(ask, check=False).returncode == 0, signal.SIGINT, **who,
        ):  # fmt: skip
            yield f"postgresql+psycopg2://mlflow:{password}@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(here)


@contextmanager
def mlflow_server(backend: str, folder: Path) -> Iterator[str]:
    """An MLflow server that keeps trials in `backend` and artifacts in a folder; yields its address."""
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1",
        f"--artifacts-destination={folder / 'artifacts'}",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": backend}  # not on the command line, which all users see
    with running(command, folder / "mlflow.log", lambda: answers(f"{url}/health"), env=environment, cwd=folder):
        yield url


@contextmanager
def two_nodes(token: Path, folder: Path) -> Iterator[str]:
    """A Ray cluster of two nodes with one CPU each, as like two machines as can be; yields its dashboard's address.

    They have addresses of their own, and where mounting is allowed the second sees nothing of the first one's temporary
    folder.
    """
    base = Path(tempfile.mkdtemp(prefix="kdsearch-ray-"))  # short: paths of sockets have a limit
    (base / "first").mkdir()
    port, dashboard = free_port(), free_port()
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment = inherited | {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_worker_niceness": "0",
        "TMPDIR": str(base / "first"),
    }  # fmt: skip
    sizes = ["--num-cpus=1", f"--memory={4 * 1024**3}", f"--object-store-memory={100 * 1024**2}"]
    ports = ["--min-worker-port=0", "--max-worker-port=0"]
    url = f"http://127.0.0.1:{dashboard}"

    def second_is_there() -> bool:
        return "Ray runtime started" in (folder / "second.log").read_text()

    hidden = ["unshare", "--mount", "sh", "-c", HIDE, "sh", str(base / "first")]
    may_hide = subprocess.run([*hidden, "true"], capture_output=True, check=False).returncode == 0
    try:
        with (
            running(
                [RAY, "start", "--head", "--block", *sizes, *ports, "--node-ip-address=127.0.0.1", f"--port={port}",
                 "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", "--include-dashboard=true",
                 f"--dashboard-agent-listen-port={free_port()}", f"--temp-dir={base / 'first' / 'ray'}"],
                folder / "first.log", lambda: answers(f"{url}/api/version"), env=environment,
            ),
            running(
                [*(hidden if may_hide else []), RAY, "start", "--block", *sizes, *ports,
                 f"--address=127.0.0.1:{port}", "--node-ip-address=127.0.0.2",
                 f"--dashboard-agent-listen-port={free_port()}"],
                folder / "second.log", second_is_there, env=environment | {"TMPDIR": "/tmp"},
            ),
        ):  # fmt: skip
            yield url
    finally:
        shutil.rmtree(base, ignore_errors=True)
