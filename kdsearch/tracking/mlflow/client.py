"""Where a study is tracked: whether it can be reached and written, and how its address may be shown."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder

if TYPE_CHECKING:
    from mlflow import MlflowClient

MOST_RUNS = 50_000
"""Runs that one query returns: the limit of a tracking server."""


def find(uri: str | None) -> str:
    """`uri`, or the address in the environment. Raises `UserError` where nothing can be read there."""
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise UserError("Name the tracking server: --tracking-uri http://HOST:PORT, or MLFLOW_TRACKING_URI.")
    if uri.startswith("sqlite:///") and not Path(urlsplit(uri).path.removeprefix("/")).is_file():
        raise UserError(f"There is no database at {uri}; correct --tracking-uri.")
    check_server(uri)
    return uri


def connect(uri: str) -> MlflowClient:
    """A client of the tracking server or database at `uri`.

    MLflow reports its use to its makers unless told not to; here it does so only where the user asks for it with
    MLFLOW_DISABLE_TELEMETRY=false.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def without_password(uri: str) -> str:
    """A tracking URI as it may be shown: without the user and password, and the options, that it may hold."""
    url = urlsplit(uri)
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path.rstrip('/')}"


def check_server(uri: str) -> None:
    """Raise `UserError` when `uri` is a server that does not answer."""
    import requests

    if not uri.startswith(("http://", "https://")):
        return

    try:
        answer = requests.get(f"{uri.rstrip('/')}/health", timeout=5)
        reachable = answer.status_code < 500
    except requests.RequestException:
        reachable = False
    if not reachable:
        raise UserError(
            f"The tracking server {uri} does not answer; start it or correct --tracking-uri "
            "(without it, trials are kept in mlflow.db in the run folder)."
        )


def check_own_database(run: RunFolder) -> None:
    """Raise `UserError` where `mlflow.db` of the run folder is no database, or keeps artifacts outside the folder.

    A folder that was moved, or comes from somebody else, would have them written wherever it says.
    """
    path = run.path / "mlflow.db"
    if not path.exists():
        return
    query = "SELECT artifact_uri FROM runs UNION SELECT artifact_location FROM experiments WHERE name LIKE 'kdsearch/%'"
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
            rows = database.execute(query).fetchall() if {"runs", "experiments"} <= tables else []
    except sqlite3.Error as error:
        raise UserError(f"{path} cannot be read ({error}); move it away and resume, the journal has it all.") from error
    for (location,) in rows:
        parts = urlsplit(str(location))
        folder = Path(unquote(parts.path)).resolve()
        if parts.scheme not in ("", "file") or not folder.is_relative_to(run.path.resolve()):
            raise UserError(
                f"{path} keeps artifacts in {location}, outside the run folder (was the folder moved?); move mlflow.db "
                "away and resume, the journal has every result."
            )
