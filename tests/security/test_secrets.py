"""Passwords do not reach logs, the terminal, run folders or MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.cli.main import main as kdsearch
from kdsearch.config.space.search_space import load_space
from kdsearch.data.store.store import Store
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.io.secrets import refuse_passwords
from kdsearch.tracking.mlflow.callback import MLflowCallback
from tests.security.conftest import SPACE, Refused

SECRET = "hunter2"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--tracking-uri", f"http://me:{SECRET}@mlflow:5000"],
        ["--tracking-uri", f"postgresql+psycopg2://me:{SECRET}@database/mlflow"],
        ["--data", f"camvid=s3://AKIA:{SECRET}@bucket/camvid"],
        ["--storage", f"s3://AKIA:{SECRET}@bucket/runs"],
        ["--address", f"ray://me:{SECRET}@head:10001"],
        ["--set", f"data.path=s3://AKIA:{SECRET}@bucket/x?region=eu"],
        ["--set", f"teacher.checkpoint=https://:{SECRET}@host/x.pt"],
    ],
)
def test_a_uri_with_a_password_is_refused_and_not_repeated(
    arguments: list[str], refused: Refused, space: Path, tmp_path: Path
) -> None:
    message = refused("run", str(space), *arguments)
    assert "holds a password, which would end up in logs" in message
    assert SECRET not in message
    assert not (tmp_path / "runs").exists()


def test_neither_in_a_space_nor_at_export(refused: Refused, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = SPACE.replace("{name: scenes,", f"{{name: camvid, path: 's3://AKIA:{SECRET}@bucket/x',")
    (tmp_path / "space.yaml").write_text(text)
    message = refused("run", "space.yaml")
    assert "holds a password" in message
    assert SECRET not in message
    uri = f"https://me:{SECRET}@mlflow"
    assert kdsearch(["export", "models:/x@knee", "--tracking-uri", uri, "--out", str(tmp_path / "out")]) == 2
    said = capfd.readouterr()
    assert "MLFLOW_TRACKING_USERNAME" in said.err
    assert SECRET not in said.out + said.err


@pytest.mark.parametrize(
    "text",
    ["s3://bucket/a@b:c", "http://mlflow:5000", "sqlite:////tmp/a:b@c.db", "camvid=/data/a:b@c", "https://me@host/x"],
)
def test_what_is_no_password(text: str) -> None:
    refuse_passwords([text, None, 5, ["x"]])


def test_other_schemes_say_where_instead() -> None:
    for uri, place in [("gs://a:b@c", "environment"), ("mysql+pymysql://a:b@c", "environment"), ("s3://a:b@c", "AWS_")]:
        with pytest.raises(UserError, match=place):
            refuse_passwords([uri])


def test_a_failing_server_does_not_bring_the_password_into_the_log(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What MLflow raises is printed to `run.log`; the password, given as MLflow wants it, is not in it."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run = RunFolder.at(str(tmp_path), "study")
    run.create()
    said: list[str] = []
    space = load_space("clfd", profile="demo")
    with (
        pytest.raises(UserError, match=r"cannot be written to MLflow at http://127\.0\.0\.1:9") as refused,
        MLflowCallback("http://127.0.0.1:9", space, run, said.append, drain_s=0.0),
    ):
        pass
    printed = capfd.readouterr()
    assert SECRET not in printed.out + printed.err + "".join(said) + str(refused.value)
