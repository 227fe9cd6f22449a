"""What can be wrong with a sample, by kind: the command `kdsearch data check` counts them."""

from __future__ import annotations

from kdsearch.errors import UserError


class MissingFileError(UserError):
    """A file that a sample needs is not there."""


class DamagedFileError(UserError):
    """A file is there and cannot be read."""


class LabelRangeError(UserError):
    """A label holds a value that is no class of the set."""


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
