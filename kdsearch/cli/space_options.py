"""The search space that a command line asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kdsearch.config.space.search_space import SearchSpace, load_space, profile_names
from kdsearch.config.target import Target
from kdsearch.data.reader import needs_folder
from kdsearch.errors import UserError


def requested_space(
    source: str,
    profile: str | None,
    overrides: Sequence[str],
    data: tuple[str, str] | None,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
    latency: str | None = None,
) -> SearchSpace:
    """The space with its profile, data set and overrides. `latency` names a device for `search.latency`; then
    `latency_ms` takes the place of `gflops` among the objectives, unless it is one of them already.

    Without a profile that is the one named like the data set, or the demo where the space needs a folder that nobody
    named; `say` is told.
    """
    profile = profile or _implied_profile(source, data, say)
    if latency is None:
        return load_space(source, profile=profile, overrides=overrides, data=data)
    try:
        Target.parse(latency)
    except ValueError as error:
        raise UserError(f"--latency {error}.") from None
    overrides = [*overrides, f"search.latency={latency}"]
    space = load_space(source, profile=profile, overrides=overrides, data=data)
    objectives: dict[Any, str] = dict(space.search.objectives)
    if "latency_ms" in objectives:
        return space
    objectives.pop("gflops", None)
    text = ", ".join(f"{name}: {direction}" for name, direction in [*objectives.items(), ("latency_ms", "min")])
    return load_space(source, profile=profile, overrides=[*overrides, f"search.objectives={{{text}}}"], data=data)


def parse_data(text: str | None) -> tuple[str, str] | None:
    """`NAME=PATH` in its two parts."""
    if text is None:
        return None
    name, separator, path = text.partition("=")
    if not (name and separator and path):
        raise UserError(f"--data {text}: expected NAME=PATH, for example --data mfnet=/data/MFNet.")
    return name, path


def _implied_profile(source: str, data: tuple[str, str] | None, say: Callable[[str], None]) -> str | None:
    profiles = profile_names(source)
    if data is not None:
        name = data[0]
        if name not in profiles:
            return None
        say(f"--data {name}: taking the space's profile {name}")
        return name
    default = load_space(source).default().trial.data
    if "demo" not in profiles or default.path is not None or not needs_folder(default.name):
        return None
    say(f"no --data for {default.name}: running the demo profile on built-in scenes")
    return "demo"
