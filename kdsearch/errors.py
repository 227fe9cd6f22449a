"""The exceptions of kdsearch."""

from __future__ import annotations

from typing import Any


class UserError(ValueError):
    """A request that cannot be carried out as made. The message is one sentence or two: what is wrong, and the fix.

    The command line prints it without a traceback and ends with exit status 2.
    """


class StudyFailedError(RuntimeError):
    """A study ended without one completed trial. `study` is the `kdsearch.Study`, which can be resumed.

    The command line prints the reason and ends with exit status 1.
    """

    def __init__(self, message: str, study: Any = None) -> None:
        super().__init__(message)
        self.study = study


def did_you_mean(name: str, known: list[str]) -> str:
    """`" Did you mean 'x'?"` when a known name is close, else `" Known: a, b, c."`."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else f" Known: {', '.join(sorted(known))}."
