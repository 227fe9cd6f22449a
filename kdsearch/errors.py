"""The exceptions of kdsearch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ARGUMENTS = {
    "--resume": "resume=True", "--no-confirm": "confirm=False", "--slots": "max_concurrent",
    "--limit": "seconds_per_trial",
}  # fmt: skip
"""Arguments of the library that are not simply called like their option: `--time-limit` is `time_limit`."""
OTHER_PROGRAMS = {
    "--allowed-hosts", "--artifact-path", "--backend-store-uri", "--dst-path", "--experiment-id", "--local-dir",
    "--run-id",
}  # fmt: skip
"""Options of commands of MLflow and others that messages give to copy."""
_OPTION = re.compile(r"(?<![\w/-])--[a-z][a-z-]*")
_by_command_line = False


class UserError(ValueError):
    """A request that cannot be carried out as made. The message is one sentence or two: what is wrong, and the fix.

    The message is written with the options of the command line, such as `--resume`, which prints it without a traceback
    and ends with exit status 2. To a program that called the library, `str` gives it with the arguments of the library.
    """

    def __str__(self) -> str:
        return addressed(super().__str__())


class StudyFailedError(RuntimeError):
    """A study ended without one completed trial. `study` is the `kdsearch.Study`, which can be resumed.

    The command line prints the reason and ends with exit status 1.
    """

    def __init__(self, message: str, study: Any = None) -> None:
        super().__init__(message)
        self.study = study


@contextmanager
def command_line() -> Iterator[None]:
    """While this lasts, requests come from the command line, and messages name its options."""
    global _by_command_line
    before, _by_command_line = _by_command_line, True
    try:
        yield
    finally:
        _by_command_line = before


def addressed(message: str) -> str:
    """A message that names options, in the words of whoever made the request: options, or arguments of the library."""
    if _by_command_line:
        return message
    return _OPTION.sub(lambda option: option[0] if option[0] in OTHER_PROGRAMS else argument(option[0]), message)


def argument(option: str) -> str:
    """The argument of the library that an option of the command line stands for."""
    return ARGUMENTS.get(option) or option.removeprefix("--").replace("-", "_")


def did_you_mean(name: str, known: list[str]) -> str:
    """`" Did you mean 'x'?"` when a known name is close, else `" Known: a, b, c."`."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else f" Known: {', '.join(sorted(known))}."
