"""The one exception that means: the request was wrong, here is the fix."""


class UserError(ValueError):
    """A request that cannot be carried out as made. The message is one sentence or two: what is wrong, and the fix.

    The command line prints it without a traceback and ends with exit status 2.
    """


def did_you_mean(name: str, known: list[str]) -> str:
    """`" Did you mean 'x'?"` when a known name is close, else `" Known: a, b, c."`."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else f" Known: {', '.join(sorted(known))}."
