"""Addresses of trackers: what names a file, and what may be shown."""

from __future__ import annotations

import shlex
import sqlite3
from pathlib import Path

import pytest

from kdsearch.config.space.search_space import load_space
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.tracking.mlflow.address import check_address, sqlite_file, without_password
from kdsearch.tracking.mlflow.callback import MLflowCallback
from kdsearch.tracking.mlflow.opening import open_study


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sqlite:///runs/mlflow.db", "runs/mlflow.db"), ("sqlite:////a b/#1/mlflow.db", "/a b/#1/mlflow.db"),
        ("sqlite+pysqlite:////a/m.db?timeout=5", "/a/m.db"), ("sqlite://m.db", None), ("sqlite://", None),
        ("sqlite:///:memory:", None), ("http://mlflow:5000", None),
    ],
)  # fmt: skip
def test_the_file_of_a_database(uri: str, path: str | None) -> None:
    assert sqlite_file(uri) == (None if path is None else Path(path))


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://me:secret@mlflow:5000/x/", "http://mlflow:5000/x"), ("sqlite:////a#b/m.db", "sqlite:////a#b/m.db"),
        ("postgresql://me@host/mlflow?password=secret", "postgresql://host/mlflow"), ("./mlruns", "./mlruns"),
    ],
)  # fmt: skip
def test_no_password_is_shown(uri: str, shown: str) -> None:
    assert without_password(uri) == shown


@pytest.mark.parametrize(
    "uri",
    ["http://mlflow:5000", "https://me@mlflow/path", "postgresql+psycopg2://me@host/mlflow", "mysql://host/mlflow",
     "databricks", "databricks://profile"],
)  # fmt: skip
def test_what_mlflow_knows_is_left_to_it(uri: str) -> None:
    check_address(uri)


def test_files_are_taken_where_mlflow_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError):
        check_address("./mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    check_address("./mlruns")


def test_a_study_of_an_odd_name_is_kept_in_its_own_folder(tmp_path: Path) -> None:
    run = RunFolder.at(str(tmp_path / "my runs"), "it's 50% #1")
    run.create()
    tracker = MLflowCallback(None, load_space("clfd", profile="demo"), run, print)
    study = open_study(tracker._header)
    assert {path.name for path in tmp_path.iterdir()} == {"my runs"}
    with sqlite3.connect(run.path / "mlflow.db") as database:
        assert database.execute("SELECT run_uuid FROM runs").fetchone() == (study.runs[""].info.run_id,)
    assert list(run.path.glob("artifacts/**/space.json"))
    assert shlex.split(tracker.how_to_look().partition(": ")[2])[-1] == tracker.uri
