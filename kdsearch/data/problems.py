"""Kinds of errors in samples, which the command `kdsearch data check` counts."""

from __future__ import annotations

from kdsearch.errors import UserError


class MissingFileError(UserError):
    """A file of a sample does not exist."""


class DamagedFileError(UserError):
    """A file of a sample exists and cannot be read."""


class LabelRangeError(UserError):
    """A label contains a value that is no class of the data set."""


KINDS: dict[str, type[UserError]] = {
    "missing": MissingFileError,
    "damaged": DamagedFileError,
    "out of range": LabelRangeError,
}
OTHER = "other"
"""Everything else, such as an image and a label of different sizes."""


def kind_of(error: UserError) -> str:
    """The name of an error's kind."""
    return next((name for name, kind in KINDS.items() if isinstance(error, kind)), OTHER)
