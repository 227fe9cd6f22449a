"""A client of MLflow, and the checks of a database before one is opened."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.tracking.mlflow.address import DATABASES, check_address, sqlite_file, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

MOST_RUNS = 50_000
"""Runs that one query returns: the limit of a tracking server."""


def connect(uri: str) -> MlflowClient:
    """A client of the tracking server or database at `uri`. Raises `UserError` where it cannot be one.

    MLflow reports its use to its makers unless told not to; here it does so only where the user asks for it with
    MLFLOW_DISABLE_TELEMETRY=false.
    """
    check_address(uri)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # With MLflow's own seven, a call that fails takes four minutes. The outbox repeats calls itself.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    from mlflow import MlflowClient

    _check_schema(uri)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _check_schema(uri: str) -> None:
    """Raise `UserError` for a database of another version of MLflow: a client would change it, even to read."""
    if urlsplit(uri).scheme.partition("+")[0] not in DATABASES:
        return
    file = sqlite_file(uri)
    if file is not None and not file.exists():
        return
    import mlflow
    import sqlalchemy
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    engine = sqlalchemy.create_engine(uri)
    try:
        if not sqlalchemy.inspect(engine).has_table("alembic_version"):
            return  # empty, or of another program: MLflow reports that itself
        with engine.connect() as connection:
            found = connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version")).scalar()
    finally:
        engine.dispose()
    known = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    if found is None or found == known.get_current_head():
        return
    shown = without_password(uri)
    try:
        known.get_revision(found)
    except CommandError:
        raise UserError(
            f"The database {shown} was written by a later MLflow than {mlflow.__version__}; install that version here, "
            "or give another --tracking-uri."
        ) from None
    raise UserError(
        f"The database {shown} was written by an older MLflow; take a copy of it, then run: mlflow db upgrade {shown}"
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
