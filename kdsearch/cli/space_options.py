"""The search space that the options of a command name."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdsearch.api.space import Space


def space_of(options: argparse.Namespace) -> Space:
    """The space of SPACE, `--data`, `--profile`, `--latency` and `--set`. Raises `UserError`."""
    from kdsearch.api.space import Space

    latency = getattr(options, "latency", None)
    space = Space(options.space, profile=options.profile, data=options.data, latency=latency)
    return space.with_overrides(options.overrides)
