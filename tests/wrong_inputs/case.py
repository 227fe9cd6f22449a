"""One wrong or odd input of the command line, and what the command answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """`argv` is shell-like; the command runs in an empty folder, `{folder}`, in which `prepare` may write."""

    name: str
    """Unique among all cases, of words and dashes."""
    argv: str
    message: str
    """A regular expression that matches in standard error: what is wrong, and the remedy."""
    prepare: Callable[[Path], None] | None = None
    env: dict[str, str] = field(default_factory=dict)
    """Variables of the environment; `{folder}` is replaced here as well."""
    status: int = 2
