"""Shells complete the command, asked as they ask."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("kdsearch")
BASH = """
eval "$SCRIPT"
COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9 COMP_KEY=9
_python_argcomplete kdsearch
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
compdef() { :; }; is-at-least() { true; }; _describe() { print -l ${(P)2}; }
eval "$SCRIPT"
BUFFER=$1 CURSOR=${#1} words=(${(z)1})
_python_argcomplete
"""
FISH = """
printf %s $SCRIPT | source
complete -C $argv[1]
"""
SHELLS = {"bash": ["bash", "-c", BASH, "bash"], "zsh": ["zsh", "-fc", ZSH, "zsh"], "fish": ["fish", "-N", "-c", FISH]}


@cache
def script(shell: str) -> str:
    answer = subprocess.run([COMMAND, "completion", shell], capture_output=True, text=True, check=True)
    return answer.stdout


def complete(shell: str, line: str, folder: Path) -> list[str]:
    """What `shell` offers for a line that is typed up to its end, in a folder."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    path = f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "HOME": str(folder), "SCRIPT": script(shell)}
    answer = subprocess.run(
        [*SHELLS[shell], line], cwd=folder, env=environment, text=True, capture_output=True, timeout=60
    )
    assert not answer.stderr, answer.stderr
    # zsh and fish show what each is, beside it.
    return [
        each.replace("\\:", ":").partition("\t")[0].partition(":")[0].rstrip() for each in answer.stdout.splitlines()
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for run in ("clfd-1", "stc-1"):
        (tmp_path / "runs" / run).mkdir(parents=True)
        (tmp_path / "runs" / run / "space.yaml").write_text("")
    (tmp_path / "other" / "mine").mkdir(parents=True)
    (tmp_path / "other" / "mine" / "space.yaml").write_text("")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "own.yaml").write_text("name: own\nprofiles: {quick: {}}\ntrain: {lr: {log: [1e-4, 1e-3]}}\n")
    return tmp_path


@pytest.mark.parametrize("shell", SHELLS)
def test_commands_and_spaces_are_completed(shell: str, folder: Path) -> None:
    assert complete(shell, "kdsearch ru", folder) == ["run", "runs"]
    assert complete(shell, "kdsearch spaces show cl", folder) == ["clfd"]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("run --tr", {"--trials", "--tracking-uri"}),
        ("run o", {"own.yaml", "other/"}),
        ("run clfd --profile ", {"demo", "small"}),
        ("run own.yaml --profile ", {"quick"}),
        ("run own.yaml --set tr", {"train.lr="}),
        ("run no-such-space --profile ", {""}),
        ("run clfd --data mf", {"mfnet="}),
        ("run clfd --data mfnet=ru", {"runs/"}),
        ("run clfd --resume --name ", {"clfd-1", "stc-1"}),
        ("run clfd --storage other --resume --name ", {"mine"}),
        ("report runs/c", {"runs/clfd-1", "runs/clfd-1/"}),
        ("export runs/c --best ", {"miou", "knee"}),
        ("data b", {"build"}),
        ("runs --storage ", {"runs/", "other/"}),
        ("completion f", {"fish"}),
    ],
)  # fmt: skip
def test_what_bash_offers(line: str, offered: set[str], folder: Path) -> None:
    assert {each.rstrip() for each in complete("bash", f"kdsearch {line}", folder)} == offered


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from kdsearch.cli.main import main

    with pytest.raises(SystemExit, match="2"):
        main(["completion", "fsh"])
    assert "Did you mean 'fish'?" in capsys.readouterr().err
