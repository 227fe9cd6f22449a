"""Messages name options to the command line, and arguments to programs that call the library."""

from __future__ import annotations

import argparse
import ast
import inspect
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import kdsearch
from kdsearch.api.functions import plan, train
from kdsearch.api.search import search
from kdsearch.api.study import Study
from kdsearch.cli.main import _parser, main
from kdsearch.errors import OTHER_PROGRAMS, UserError, addressed, argument, command_line

OF_THE_COMMAND_LINE_ALONE = {"--help", "--version", "--json"}


def options(command: str) -> set[str]:
    """The options of a command or of all commands, which are named by an empty text."""
    found: set[str] = set()
    parsers = [("", _parser())]
    while parsers:
        name, parser = parsers.pop()
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += [(name or each, sub) for each, sub in action.choices.items()]
            elif command in ("", name):
                found.update(option for option in action.option_strings if option.startswith("--"))
    return found - OF_THE_COMMAND_LINE_ALONE


@pytest.mark.parametrize(
    ("command", "function", "others"),
    [
        ("run", search, set()),
        ("plan", plan, set()),
        ("train", train, set()),
        ("export", Study.export, {"--tracking-uri"}),
    ],
)
def test_every_option_is_an_argument(command: str, function: object, others: set[str]) -> None:
    parameters = inspect.signature(function).parameters  # type: ignore[arg-type]
    missing = {each for each in options(command) - others if argument(each).partition("=")[0] not in parameters}
    assert not missing


def test_every_option_that_a_message_of_the_library_names_exists() -> None:
    known = options("") | OF_THE_COMMAND_LINE_ALONE
    named = {option: where for where, text in texts() for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)}
    assert {option: where for option, where in named.items() if option not in known | OTHER_PROGRAMS} == {}


def texts() -> Iterator[tuple[str, str]]:
    for path in Path(kdsearch.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield f"{path.name}:{node.lineno}", node.value


def test_the_words_of_whoever_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError) as caught:
        kdsearch.search("clfd", resume=True, storage=tmp_path)
    assert str(caught.value).endswith("name it with name.")
    assert main(["run", "clfd", "--resume", "--storage", str(tmp_path)]) == 2
    assert capsys.readouterr().err.rstrip().endswith("name it with --name.")
    with pytest.raises(UserError, match=r"add resume=True\.$"):
        kdsearch.search("clfd", extend="clfd", storage=tmp_path)


def test_notes_name_arguments_too() -> None:
    assert kdsearch.Space("clfd").notes == ["no data for mfnet: running the demo profile on built-in scenes"]


def test_a_message_in_a_message_and_from_another_process() -> None:
    error = pickle.loads(pickle.dumps(UserError("give another --name")))
    assert str(UserError(f"with x=1: {error}")) == "with x=1: give another name"
    with command_line():
        assert str(UserError(f"with x=1: {error}")) == "with x=1: give another --name"
    assert addressed("/data/my--set/--x and a--b") == "/data/my--set/--x and a--b"
