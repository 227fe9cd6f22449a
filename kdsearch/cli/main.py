# PYTHON_ARGCOMPLETE_OK
"""The `kdsearch` command: its parser, and what ends a command."""

from __future__ import annotations

import argparse
import errno
import os
import select
import sys
from collections.abc import Sequence

from kdsearch.cli.exit_status import INTERRUPTED, READER_GONE, WRONG_REQUEST
from kdsearch.cli.output import CommandOutput, only_the_value, print_json
from kdsearch.cli.parser import Parser
from kdsearch.errors import UserError, command_line
from kdsearch.io.secrets import refuse_passwords
from kdsearch.version import __version__

EXAMPLES = """examples:
  kdsearch run clfd                             search on built-in scenes
  kdsearch plan clfd --data mfnet=/data/MFNet   the cost of a study of your data
  kdsearch run clfd --data mfnet=/data/MFNet    search on your data
  kdsearch runs                                 list runs
  kdsearch export runs/NAME --best knee --out student

'kdsearch COMMAND --help' describes a command and its exit statuses."""

OF_A_PATH = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP)
"""System errors that a path in the request causes. Others, such as a full disk, are not the request's fault."""


def main(argv: Sequence[str] | None = None) -> int:
    """Execute a command line; returns the exit status."""
    with command_line():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    try:
        parser = _parser()
        if "_ARGCOMPLETE" in os.environ:
            from kdsearch.cli import completion as complete

            complete.answer(parser)
        try:
            options, unknown = parser.parse_known_args(argv)
            if unknown:
                options.parser.unknown(unknown)
        except SystemExit:
            sys.stdout.flush()  # the reader of the help may be gone
            raise
        refuse_passwords([*vars(options).values(), *getattr(options, "overrides", [])])
        return _carry_out(options)
    except UserError as error:
        print(f"kdsearch: {error}", file=sys.stderr)
        return WRONG_REQUEST
    except KeyboardInterrupt as interruption:
        print(f"kdsearch: {str(interruption) or 'interrupted'}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        # Python flushes at its end; the rest of the output goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return READER_GONE
    except OSError as error:
        if error.errno not in OF_A_PATH or error.filename is None:
            raise
        path = _shortened(error.filename)
        print(f"kdsearch: {path} cannot be used ({error.strerror}); name another path.", file=sys.stderr)
        return WRONG_REQUEST


def _shortened(path: object) -> str:
    text = os.fsdecode(path) if isinstance(path, str | bytes) else str(path)
    return text if len(text) <= 100 else f"{text[:60]}...{text[-30:]}"


def _carry_out(options: argparse.Namespace) -> int:
    output: CommandOutput
    if options.json:
        with only_the_value():
            output = options.do(options)
        print_json(output.value)
    else:
        output = options.do(options)
        output.show()
    sys.stdout.flush()
    return output.status


def _parser() -> Parser:
    from kdsearch.cli.commands import (
        completion,
        data,
        evaluate,
        export,
        plan,
        replay,
        report,
        run,
        runs,
        spaces,
        teacher,
        train,
    )  # fmt: skip

    parser = Parser(
        prog="kdsearch", epilog=EXAMPLES,
        description="Search for distilled segmentation networks: accuracy against cost.",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"kdsearch {__version__}")
    parser.set_defaults(json=False, parser=parser, do=lambda options: CommandOutput(show=parser.print_help))
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", parser_class=Parser)
    for module in (run, plan, runs, report, evaluate, export, spaces, data, teacher, train, replay, completion):
        module.add_to(commands)
    return parser


def _reader_is_gone() -> bool:
    """Whether the reader of standard output is gone, and not that of another connection."""
    output = select.poll()
    output.register(1, 0)
    return any(event & select.POLLERR for _, event in output.poll(0))
