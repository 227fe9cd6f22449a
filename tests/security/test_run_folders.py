"""Run folders made to be resumed or exported by somebody else."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kdsearch.api.request_checks import values_of_a_study
from kdsearch.cli.main import main as kdsearch
from kdsearch.config.space.search_space import load_space
from kdsearch.data.store.store import Store
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.tracking.mlflow.client import check_own_database
from tests.export.cases import POINT, run_folder
from tests.security.conftest import Refused


@pytest.fixture
def run(tmp_path: Path, space: Path) -> RunFolder:
    """An interrupted study with one trial in its journal."""
    run = RunFolder.at(str(tmp_path / "runs"), "x")
    run.create()
    loaded = load_space(str(space))
    run.space.write_text(loaded.to_yaml())
    record = StudyStorage.open(run.journal, loaded, lambda config: {"gflops": 1.0, "params_m": 1.0})
    assert record.ask() is not None
    record.close()
    return run


def resumed(refused: Refused) -> str:
    return refused("run", "tiny", "--resume", "--name", "x")


def test_warm_start_copies_nothing_that_a_link_leads_to(run: RunFolder, refused: Refused, tmp_path: Path) -> None:
    (run.students / "t0000").mkdir()
    (run.students / "t0000" / "metrics.json").symlink_to("/etc/hostname")
    message = refused("run", "tiny.yaml", "--warm-start", str(run.path), "--name", "y")
    assert "metrics.json is a link" in message


@pytest.mark.parametrize("name", ["checkpoints", "students", "students/t0000", "run.log", "mlflow.db"])
def test_links_lead_nowhere(name: str, run: RunFolder, refused: Refused, tmp_path: Path) -> None:
    """Weights of trials that are over are deleted and the log is written: not through a link."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "mine.pt").write_text("mine")
    entry = run.path / name
    if entry.is_dir():
        entry.rmdir()
    entry.symlink_to(victim)
    assert f"{entry} is a link; put the file or folder itself in its place." in resumed(refused)
    assert [file.name for file in victim.iterdir()] == ["mine.pt"]


@pytest.mark.parametrize(
    "entry",
    [
        '{"op_code": 99, "worker_id": "x"}',
        '{"op_code": 4, "worker_id": "x"}',
        '{"op_code": 0, "worker_id": "x", "study_name": "y", "directions": ["z"]}',
        '{"op_code": 0, "worker_id": "x", "study_name": [], "directions": 5}',
        '{"op_code": "0"}',
    ],
)
def test_a_journal_with_odd_entries(entry: str, run: RunFolder) -> None:
    """Entries about trials and studies that are not there Optuna passes over; these it cannot."""
    with run.journal.open("a") as file:
        file.write(f"{entry}\n")
    with pytest.raises(UserError, match="holds values that no study writes"), values_of_a_study(run.journal):
        StudyStorage.open(run.journal, load_space(str(run.space)), lambda config: {})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("written", "changed", "message"),
    [("fpn", "os.system", "unknown arch 'os.system'"), ("t0000", "../../x", "holds values that no study writes")],
)
def test_a_journal_with_odd_values(written: str, changed: str, message: str, run: RunFolder, refused: Refused) -> None:
    text = run.journal.read_text()
    assert written in text
    run.journal.write_text(text.replace(written, changed))
    assert message in resumed(refused)


@pytest.mark.slow
def test_odd_rungs(run: RunFolder, refused: Refused) -> None:
    run.rungs.write_text("[]\n")
    assert "holds values that no study writes" in resumed(refused)


@pytest.mark.parametrize("name", ["../../x", "t0/../../x", "/etc/x", "", "t0000.pt", "t0\n", ".."])
def test_a_trials_name_is_no_path(name: str, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for path in (run.checkpoint, run.student):
        with pytest.raises(UserError, match="is no trial's name"):
            path(name)


@pytest.mark.parametrize("name", ["t0000", "t12345", "conf0001", "cont0001", "teacher"])
def test_names_that_trials_have(name: str, tmp_path: Path) -> None:
    assert RunFolder(tmp_path).checkpoint(name) == tmp_path / "checkpoints" / f"{name}.pt"


def database(path: Path, *locations: str) -> None:
    """A database with MLflow's tables, whose runs keep artifacts at `locations`."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE runs (run_uuid, artifact_uri)")
        connection.execute("CREATE TABLE experiments (name, artifact_location)")
        connection.execute("INSERT INTO experiments VALUES ('Default', '/somewhere/mlruns/0')")
        connection.executemany("INSERT INTO runs VALUES ('r', ?)", [(location,) for location in locations])


@pytest.mark.parametrize(
    "location",
    ["/etc", "file:///etc/x", "{run}/../y", "file://{run}/%2e%2e/y", "s3://bucket/x", "artifacts/x", "{link}/x"],
)
def test_artifacts_are_not_written_elsewhere(location: str, run: RunFolder, refused: Refused, tmp_path: Path) -> None:
    (run.path / "artifacts").mkdir()
    (run.path / "artifacts" / "link").symlink_to(tmp_path)
    place = location.format(run=run.path, link=run.path / "artifacts" / "link")
    database(run.path / "mlflow.db", f"file://{run.path}/artifacts/1/a", place)
    assert "outside the run folder (was the folder moved?)" in resumed(refused)


def test_artifacts_in_the_run_folder(run: RunFolder) -> None:
    check_own_database(run)
    database(run.path / "mlflow.db", f"file://{run.path}/artifacts/1/a", f"{run.path}/artifacts/1/b")
    check_own_database(run)


def test_a_database_that_is_none(run: RunFolder, refused: Refused) -> None:
    (run.path / "mlflow.db").write_text("this is no database, and long enough not to look like an empty one" * 9)
    assert "mlflow.db cannot be read" in resumed(refused)


def a_path(run: Path, secret: Path) -> None:
    (run / "summary.json").write_text(
        json.dumps({"kdsearch": "0", "space": "x", "frontier": [POINT | {"trial": "../.."}]})
    )


def a_linked_file(run: Path, secret: Path) -> None:
    (run / "students" / "t0000" / "metrics.json").unlink()
    (run / "students" / "t0000" / "metrics.json").symlink_to(secret)


def a_linked_student(run: Path, secret: Path) -> None:
    (run / "students" / "t0000").rename(secret.parent / "moved")
    (run / "students" / "t0000").symlink_to(secret.parent / "moved")


def odd(value: Any) -> Callable[[Path, Path], None]:
    def change(run: Path, secret: Path) -> None:
        (run / "summary.json").write_text(value if isinstance(value, str) else json.dumps(value))

    return change


@pytest.mark.parametrize(
    "change",
    [
        a_path, a_linked_file, a_linked_student, odd([]), odd({}), odd({"frontier": 5, "space": "x", "kdsearch": "0"}),
        odd({"frontier": [{"trial": "t0000"}], "space": "x", "kdsearch": "0"}), odd("[" * 100_000), odd("\x00"),
        odd({"frontier": [{**POINT, "miou": "x"}], "space": "x", "kdsearch": "0"}),
    ],
)  # fmt: skip
def test_what_a_run_folder_holds_is_exported_alone(
    change: Callable[[Path, Path], None], store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"token": 5}')
    run = run_folder(tmp_path, store)
    change(run, secret)
    assert kdsearch(["export", str(run), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("kdsearch: ")
    assert not (tmp_path / "out").exists()
