"""A wrong or odd input of any command ends with its exit status and one sentence, and leaves nothing behind.

The cases are in the `cases_*.py` beside this file. All run in this process, and none starts Ray or trains: each is
refused before that.
"""

from __future__ import annotations

import importlib
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest

from kdsearch.cli.main import main
from tests.wrong_inputs.case import Case

FILES = sorted(path.stem for path in Path(__file__).parent.glob("cases_*.py"))
CASES: list[Case] = [case for file in FILES for case in importlib.import_module(f"tests.wrong_inputs.{file}").CASES]
VARIABLES = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "RAY_JOB_CONFIG_JSON_ENV_VAR", "KDSEARCH_DATA")
"""Variables of the environment that change what a command does; a case may set them."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_sentence_and_nothing_left_behind(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, home = tmp_path / "here", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("COLUMNS", "500")
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in case.env.items():
        monkeypatch.setenv(name, value.replace("{folder}", str(folder)))
    if case.prepare is not None:
        case.prepare(folder)
    before = content(folder)
    capfd.readouterr()

    status = exit_status(shlex.split(case.argv.replace("{folder}", str(folder))))

    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    assert (status, said(case, out, err)) == (case.status, True), (
        f"{case.argv}\n--- expected {case.message}\n{out}{err}"
    )
    if case.status == 2:
        assert len(re.findall(r"^kdsearch(?: \w+)*: ", err, flags=re.MULTILINE)) == 1, err
    assert content(folder) == before
    assert not content(home)


def test_names_are_unique() -> None:
    assert [name for name, count in Counter(case.name for case in CASES).items() if count > 1] == []


def exit_status(arguments: list[str]) -> int:
    """The status with which the command line ends; the parser ends it by `SystemExit`."""
    try:
        return main(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


def said(case: Case, out: str, err: str) -> bool:
    """A refusal is on standard error; what a command found (status 1) or did (0) may be on either."""
    return re.search(case.message, err if case.status == 2 else out + err, flags=re.DOTALL) is not None


def content(folder: Path) -> dict[str, bytes]:
    """Every file and folder below `folder`, with the bytes of files."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}
