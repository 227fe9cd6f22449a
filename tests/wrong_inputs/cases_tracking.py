"""Addresses of a tracking server or database at which nothing can be kept, or read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from tests.wrong_inputs.case import Case

RUN = "run clfd --profile demo --name x --tracking-uri"
FOLDER = r"folder of files, which MLflow writes no more; give a database, such as sqlite:///.*mlflow\.db, or a server"


def database(revision: str) -> Callable[[Path], None]:
    """A database of MLflow whose tables have that revision."""

    def prepare(folder: Path) -> None:
        with sqlite3.connect(folder / "old.db") as old:
            old.execute("CREATE TABLE alembic_version (version_num TEXT)")
            old.execute("INSERT INTO alembic_version VALUES (?)", [revision])

    return prepare


def text(name: str) -> Callable[[Path], None]:
    return lambda folder: (
        (folder / name).write_text("no database at all, and long enough not to look empty" * 9) and None
    )


def sub_folder(folder: Path) -> None:
    (folder / "mlruns").mkdir()


OLDER = r"older MLflow; take a copy of it, then run: mlflow db upgrade sqlite:///.*old\.db"
REPORT = "report runs:/0123"
EXPORT = "export runs:/0123 --out out"

CASES: list[Case] = [
    Case("tracking-without-scheme", f"{RUN} localhost:5000", r"has no scheme; a server is http://localhost:5000"),
    Case("tracking-address-and-port", f"{RUN} 127.0.0.1:5000/mlflow", r"a server is http://127\.0\.0\.1:5000/mlflow"),
    Case("tracking-file", f"{RUN} file:///tmp/mlruns", FOLDER),
    Case("tracking-folder", f"{RUN} ./mlruns", FOLDER),
    Case("tracking-existing-folder", f"{RUN} {{folder}}/mlruns", FOLDER, sub_folder),
    Case("tracking-host-alone", f"{RUN} mlflow.example.org", r"or a server, http://HOST:PORT"),
    Case("tracking-mistyped-scheme", f"{RUN} htp://mlflow:5000", r"no scheme 'htp'\. Did you mean 'http'"),
    Case("tracking-foreign-scheme", f"{RUN} s3://bucket/mlruns", r"no scheme 's3'"),
    Case("tracking-no-host", f"{RUN} http://", r"names no server; expected http://HOST:PORT"),
    Case("tracking-odd-port", f"{RUN} http://mlflow:port", r"no address .*expected http://HOST:PORT"),
    Case("tracking-odd-host", f"{RUN} http://[::1", r"no address .*expected http://HOST:PORT"),
    Case("tracking-two-slashes", f"{RUN} sqlite://mlflow.db", r"three slashes, four for an absolute path"),
    Case("tracking-in-memory", f"{RUN} sqlite://", r"names no file; expected sqlite:///PATH/mlflow\.db"),
    Case("tracking-missing-folder", f"{RUN} sqlite:///nowhere/mlflow.db", r"there is no folder nowhere; create it"),
    Case("tracking-database-is-folder", f"{RUN} sqlite:///mlruns", r"is a folder; name a file in it", sub_folder),
    Case("tracking-server-is-away", f"{RUN} http://127.0.0.1:9", r"does not answer; start it or correct"),
    Case("tracking-with-password", f"{RUN} http://me:secret@mlflow:5000", r"MLFLOW_TRACKING_PASSWORD"),
    Case("tracking-older-database", f"{RUN} sqlite:///old.db", OLDER, database("451aebb31d03")),
    Case("tracking-later-database", f"{RUN} sqlite:///old.db", r"later MLflow than .*install", database("f" * 12)),
    Case("tracking-no-database", f"{RUN} sqlite:///a.txt", r"cannot be written to MLflow at sqlite", text("a.txt")),
    Case("tracking-own-folder-odd", "run clfd --profile demo --name what?", r"give another --name or --storage"),
    Case("report-of-no-address", REPORT, r"Name the tracking server: --tracking-uri"),
    Case("report-without-scheme", f"{REPORT} --tracking-uri localhost:5000", r"a server is http://localhost:5000"),
    Case("report-of-folder", f"{REPORT} --tracking-uri ./mlruns", FOLDER),
    Case("report-of-file", f"{REPORT} --tracking-uri file:///tmp/mlruns", FOLDER),
    Case("report-of-missing-database", f"{REPORT} --tracking-uri sqlite:///none.db", r"no database at sqlite:///none\.db"),
    Case("report-of-older-database", f"{REPORT} --tracking-uri sqlite:///old.db", OLDER, database("451aebb31d03")),
    Case(
        "report-of-no-database", f"{REPORT} --tracking-uri sqlite:///a.txt",
        r"cannot be read from sqlite:///a\.txt \(.*file is not a database", text("a.txt"),
    ),
    Case("report-of-variable", REPORT, r"MLFLOW_TRACKING_URI localhost:5000 has no scheme",
         env={"MLFLOW_TRACKING_URI": "localhost:5000"}),
    Case("export-without-scheme", f"{EXPORT} --tracking-uri localhost:5000", r"a server is http://localhost:5000"),
    Case("export-of-folder", f"{EXPORT} --tracking-uri ./mlruns", FOLDER),
    Case("export-of-older-database", f"{EXPORT} --tracking-uri sqlite:///old.db", OLDER, database("451aebb31d03")),
]  # fmt: skip
