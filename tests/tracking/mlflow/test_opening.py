"""The first writes decide whether a study can be tracked: a refusal is one sentence, and leaves no run behind."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.tracking.mlflow.callback import MLflowCallback
from kdsearch.tracking.mlflow.messages import StudyHeader
from kdsearch.tracking.mlflow.opening import OpenStudy, open_study
from tests.tracking.mlflow.doubles import Answer, fake_mlflow


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return load_space("clfd", profile="demo")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with its tables, which take seconds to create."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('database') / 'mlflow.db'}"
    MlflowClient(tracking_uri=uri).search_experiments()
    return uri


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def header(
    uri: str | None, space: SearchSpace, folder: Path, name: str = "study", resumed: bool = False
) -> StudyHeader:
    run = RunFolder.at(str(folder), name)
    run.create()
    return MLflowCallback(uri, space, run, print, resumed)._header


def note(study: OpenStudy, header: StudyHeader) -> None:
    """What the writer notes in the run folder."""
    header.run.tracking.write_text(json.dumps({"runs": {"": study.runs[""].info.run_id}}))


HTML = "<html><body>Nothing for you here</body></html>"


@pytest.mark.parametrize("path", ["experiments/get-by-name", "experiments/create", "runs/create", "runs/log-batch"])
@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (403, "ask for the permission to write there"),
        (404, "correct host, port and path of tracking_uri"),
        (500, "look into the server's log"),
    ],
)
def test_a_server_that_refuses_one_of_the_first_calls_is_refused(
    tmp_path: Path, space: SearchSpace, path: str, status: int, remedy: str
) -> None:
    def refuse(called: str, request: dict[str, Any]) -> Answer | None:
        return (status, HTML) if called == path else None

    with fake_mlflow(tmp_path / "artifacts", refuse) as server, pytest.raises(UserError) as refused:
        open_study(header(server.url, space, tmp_path))
    assert server.url in str(refused.value)
    assert remedy in str(refused.value)
    assert "\n" not in str(refused.value)
    assert all(run["info"]["lifecycle_stage"] == "deleted" for run in server.runs.values()), "nothing is left behind"


def test_artifacts_that_cannot_be_written_are_refused_at_the_start(tmp_path: Path, space: SearchSpace) -> None:
    (tmp_path / "file").write_text("no folder")
    with fake_mlflow(tmp_path / "file") as server, pytest.raises(UserError, match="cannot be written to MLflow at"):
        open_study(header(server.url, space, tmp_path))
    assert [run["info"]["lifecycle_stage"] for run in server.runs.values()] == ["deleted"]


def test_a_server_under_a_name_that_it_was_not_told_is_told(tmp_path: Path, space: SearchSpace) -> None:
    answer = (403, "Invalid Host header - possible DNS rebinding attack detected")
    with (
        fake_mlflow(tmp_path, lambda path, request: answer) as server,
        pytest.raises(UserError, match="--allowed-hosts"),
    ):
        open_study(header(server.url, space, tmp_path))


def test_an_experiment_that_was_deleted_is_restored_or_avoided(
    tmp_path: Path, space: SearchSpace, database: str
) -> None:
    client = MlflowClient(tracking_uri=database)
    gone = load_space("clfd", profile="demo", overrides=["name=gone"])
    client.delete_experiment(client.create_experiment("kdsearch/gone"))
    with pytest.raises(UserError, match=r"was deleted .*experiments restore --experiment-id \d+.*\bset name="):
        open_study(header(database, gone, tmp_path))


def test_a_study_with_quotes_in_its_name_is_found_again(tmp_path: Path, space: SearchSpace, database: str) -> None:
    for name in ("it's", 'the "best"', """both ' and " """.strip()):
        first = open_study(header(database, space, tmp_path, name))
        again = open_study(header(database, space, tmp_path, name, resumed=True))
        assert first.is_new
        assert not again.is_new
        assert again.runs[""].info.run_id == first.runs[""].info.run_id


def test_studies_of_one_name_do_not_share_a_run(tmp_path: Path, space: SearchSpace, database: str) -> None:
    """Two people with the same `--name` on one server."""
    mine, yours = header(database, space, tmp_path / "a", "same"), header(database, space, tmp_path / "b", "same")
    first, second = open_study(mine), open_study(yours)
    note(first, mine)
    note(second, yours)
    assert first.runs[""].info.run_id != second.runs[""].info.run_id
    for each, before in ((mine, first), (yours, second)):
        again = open_study(header(database, space, each.run.path.parent, "same", resumed=True))
        assert again.runs[""].info.run_id == before.runs[""].info.run_id


def test_a_study_whose_run_was_deleted_gets_a_new_one(tmp_path: Path, space: SearchSpace, database: str) -> None:
    study = header(database, space, tmp_path, "removed")
    first = open_study(study)
    note(first, study)
    first.client.delete_run(first.runs[""].info.run_id)
    again = open_study(header(database, space, tmp_path, "removed", resumed=True))
    assert again.is_new


def test_a_resumed_study_shows_its_present_space(tmp_path: Path, space: SearchSpace, database: str) -> None:
    open_study(header(database, space, tmp_path, "grown"))
    grown = load_space("clfd", profile="demo", overrides=["description=later"])
    study = open_study(header(database, grown, tmp_path, "grown", resumed=True))
    path = study.client.download_artifacts(study.runs[""].info.run_id, "space.json", str(tmp_path))
    assert json.loads(Path(path).read_text())["description"] == "later"


def test_a_shared_database_keeps_artifacts_beside_it(tmp_path: Path, space: SearchSpace, database: str) -> None:
    """Not in the folder of the study that came first, which may be removed."""
    study = open_study(header(database, space, tmp_path, "one"))
    place = Path(database.removeprefix("sqlite:///"))
    assert study.runs[""].info.artifact_uri.startswith(f"{(place.parent / 'mlflow-artifacts').as_uri()}/")


@pytest.mark.parametrize(
    ("revision", "message"),
    [
        ("451aebb31d03", r"written by an older MLflow; take a copy of it, then run: mlflow db upgrade sqlite:///"),
        ("ffffffffffff", r"written by a later MLflow than"),
    ],
)
def test_a_database_of_another_mlflow_is_left_as_it_is(
    tmp_path: Path, space: SearchSpace, revision: str, message: str
) -> None:
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as old:
        old.execute("CREATE TABLE alembic_version (version_num TEXT)")
        old.execute("INSERT INTO alembic_version VALUES (?)", [revision])
    before = path.read_bytes()
    with pytest.raises(UserError, match=message):
        open_study(header(f"sqlite:///{path}", space, tmp_path))
    assert path.read_bytes() == before


def test_a_run_folder_in_which_no_database_works_is_refused(tmp_path: Path, space: SearchSpace) -> None:
    study = header(None, space, tmp_path)
    (study.run.path / "mlflow.db").write_text("no database at all, and long enough not to look empty" * 9)
    with pytest.raises(UserError, match=r"file is not a database.*; give another storage, or tracking_uri\."):
        open_study(study)
