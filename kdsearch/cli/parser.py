"""The parsers of commands: help, errors, and arguments that several commands share."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from kdsearch.cli import completion as complete
from kdsearch.cli.exit_status import DONE, FAILED, INTERRUPTED, WRONG_REQUEST
from kdsearch.cli.output import CommandOutput
from kdsearch.errors import did_you_mean

WIDTH = 80
"""Columns of texts that are wrapped independently of the terminal."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence with the nearest valid name. Options cannot be abbreviated: a later option
    with the same beginning would change the meaning of an abbreviation in a script.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, formatter_class=_Help, allow_abbrev=False)
        self._positionals.title = "arguments"

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_REQUEST, f"{self.prog}: {message}\nTry '{self.prog} --help'.\n")

    def unknown(self, arguments: Sequence[str]) -> NoReturn:
        """Report arguments that no parser accepts."""
        first = arguments[0].partition("=")[0]
        if not first.startswith("-"):
            self.error(f"unexpected argument '{first}'")
        self.error(f"unknown option {first}.{_nearest(first, [*self._option_string_actions])}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        nearest = did_you_mean(str(value), [*action.choices])
        if isinstance(action, argparse._SubParsersAction):
            raise argparse.ArgumentError(None, f"unknown {str(action.metavar).lower()} '{value}'.{nearest}")
        raise argparse.ArgumentError(action, f"unknown '{value}'.{nearest}")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help of at most 100 columns, with the text of examples unchanged."""

    def __init__(self, prog: str) -> None:
        width = min(100, shutil.get_terminal_size().columns - 2)
        super().__init__(prog, max_help_position=28, width=width)

    def _format_action(self, action: argparse.Action) -> str:
        if isinstance(action, argparse._SubParsersAction):
            # argparse would repeat the title and indent the commands.
            return "".join(map(self._format_action, action._get_subactions()))
        return super()._format_action(action)


Commands = Any
"""The type of `ArgumentParser.add_subparsers`; argparse has no public name for it."""


def add_command(
    commands: Commands,
    name: str,
    do: Callable[[argparse.Namespace], CommandOutput],
    *,
    help: str,
    about: str = "",
    examples: Sequence[str] = (),
    failed: str = "",
) -> Parser:
    """Add one command. `help` is its line in the list of commands, `about` a longer description.

    `examples` are command lines without `kdsearch`. `failed` describes exit status 1; without it that status does not
    occur.
    """
    statuses = {DONE: "done", FAILED: failed, WRONG_REQUEST: "wrong request", INTERRUPTED: "interrupted"}
    said = ", ".join(f"{number} {meaning}" for number, meaning in statuses.items() if meaning)
    lines = [*["examples:"] * bool(examples), *(f"  kdsearch {example}" for example in examples)]
    parser: Parser = commands.add_parser(
        name,
        help=help,
        description=_wrapped(f"{help[0].upper()}{help[1:]}.", about),
        epilog="\n".join([*lines, *[""] * bool(examples), _wrapped_line(f"exit status: {said}")]),
    )
    parser.set_defaults(do=do, parser=parser)
    return parser


def add_group(commands: Commands, name: str, *, help: str, about: str = "") -> Commands:
    """Add a command with sub-commands."""
    parser: Parser = commands.add_parser(
        name, help=help, description=_wrapped(f"{help[0].upper()}{help[1:]}.", about),
        epilog=f"See 'kdsearch {name} ACTION --help' for each.",
    )  # fmt: skip
    return parser.add_subparsers(metavar="ACTION", required=True, title="actions")


def add_json(parser: argparse.ArgumentParser, fields: str) -> None:
    """Add `--json`, whose document has these fields."""
    # Suppressed: the default of an action would override `--json` before its name, as in `spaces --json show`.
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS,
        help=f"print one JSON document, and other output to standard error: {fields}",
    )  # fmt: skip


def add_space(parser: argparse._ActionsContainer, without_data: str = "the demo profile is used") -> None:
    """Add SPACE and its modifications: profile, data set, single settings."""
    add = parser.add_argument
    complete.by(
        add("space", metavar="SPACE", help="a search space: name (see 'kdsearch spaces') or YAML file"),
        complete.spaces,
    )
    data = f"data set, and its folder or URI; if the space needs one and none is given, {without_data}"
    complete.by(add("--data", metavar="NAME=PATH", help=data), complete.readers)
    add_profile(parser, "profile of the space (default: the one named like the data set)")
    setting = add(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides",
        help="set any setting of the space to a value or a range; may repeat",
    )  # fmt: skip
    complete.by(setting, complete.settings)


def add_profile(parser: argparse._ActionsContainer, help: str) -> None:
    complete.by(parser.add_argument("--profile", metavar="NAME", help=help), complete.profiles)


def add_storage(parser: argparse._ActionsContainer, help: str, default: str | None = "runs") -> None:
    """Add `--storage`, the same folder for all commands."""
    complete.by(parser.add_argument("--storage", metavar="DIR", default=default, help=help), complete.folders)


def positive(text: str) -> int:
    """The type of an option with a positive integer."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


def _nearest(name: str, known: list[str]) -> str:
    said = did_you_mean(name, known)
    return said if "Did you mean" in said else ""


def _wrapped_line(text: str) -> str:
    return textwrap.fill(text, WIDTH - 2, subsequent_indent="  ")


def _wrapped(*paragraphs: str) -> str:
    return "\n\n".join(
        part if part.startswith(" ") else textwrap.fill(part, WIDTH - 2)
        for text in paragraphs if text
        for part in textwrap.dedent(text).strip("\n").split("\n\n")
    )  # fmt: skip
