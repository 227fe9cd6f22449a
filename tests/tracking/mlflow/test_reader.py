"""What is read from an address that is no MLflow, or does not let us, is one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kdsearch.cli.main import main
from tests.tracking.mlflow.doubles import fake_mlflow


@pytest.mark.parametrize(
    ("status", "body", "remedy"),
    [
        (401, "<html>who are you?</html>", "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (403, {"error_code": "PERMISSION_DENIED", "message": "no"}, "ask for the permission"),
        (404, "<html>nothing here</html>", "correct host, port and path of --tracking-uri"),
        (500, "a bug\nin two lines", "look into the server's log"),
        (200, "<html>please log in</html>", "or correct --tracking-uri"),
        (200, {"run": 7, "model_version": 7}, "or correct --tracking-uri"),
        (200, [], "or correct --tracking-uri"),
    ],
)
@pytest.mark.parametrize(
    "command", ["report runs:/0123", "export runs:/0123 --out out", "export models:/a@knee --out out"]
)
def test_an_address_that_is_no_mlflow_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    command: str, status: int, body: object, remedy: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with fake_mlflow(tmp_path, lambda path, request: (status, body)) as server:
        assert main([*command.split(), "--tracking-uri", server.url]) == 2
        error = capfd.readouterr().err
    assert re.fullmatch(r"(?:\d{4}/.* WARNING .*\n)*kdsearch: [^\n]+\.\n", error), error
    assert f"cannot be read from {server.url} (" in error
    assert remedy in error
    assert not list(tmp_path.iterdir())
