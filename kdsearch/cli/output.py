"""The output of a command: a value for scripts, and a way to print it for people.

A command is a function from parsed options to a `CommandOutput`. Lines that it prints meanwhile are for people; with
`--json` they go to standard error, and standard output has the value alone.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

from kdsearch.io.json_text import to_json, with_nulls


@dataclass(frozen=True)
class CommandOutput:
    """The result of a command: `value` for `--json`, `show` prints it for people, `status` is the exit status."""

    value: Any = None
    show: Callable[[], None] = lambda: None
    status: int = 0


def print_json(value: Any) -> None:
    print(to_json(with_nulls(value), indent=2, ensure_ascii=False))


def print_columns(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print rows of text under their header, with the columns in `right` right-aligned; on a terminal each is one line.

    Text from folders and files is escaped, so that it cannot control the terminal.
    """
    lines = [[text if text.isprintable() else ascii(text)[1:-1] for text in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in lines:
        cells = [
            text.rjust(width) if name in right else text.ljust(width)
            for name, text, width in zip(header, line, widths, strict=True)
        ]
        text = "  ".join(cells).rstrip()
        print(text if room is None or len(text) <= room else _cut(text, room))


@contextmanager
def only_the_value() -> Iterator[None]:
    """Send all other output, also that of libraries and child processes, to standard error."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 1)
        os.close(saved)


def _cut(text: str, room: int) -> str:
    kept = text[: room - 1]
    whole_words = kept.rsplit(" ", 1)[0].rstrip(" ,.;:")
    return f"{whole_words if len(whole_words) > room / 2 else kept}…"
