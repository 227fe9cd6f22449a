"""`kdsearch.Space`: a search space from a name, a file or a dictionary, and ranges as Python objects."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdsearch.config.space.ranges import Choice, Int, IntLog, Log, Range, RangeError, Uniform, parse_range
from kdsearch.config.space.search_space import Sample, SearchSpace, load_space, profile_names, space_from_text
from kdsearch.config.target import Target
from kdsearch.config.trial import TrialConfig
from kdsearch.data.registry import needs_folder
from kdsearch.errors import UserError, addressed


class Space:
    """A search space: the settings of a trial, any of which may be a range. Immutable.

    `source` is the name of a shipped space (`"clfd"`), the path of a YAML file, or a dictionary of the same structure
    whose leaves may be ranges: `{"train": {"lr": kdsearch.log(1e-5, 1e-3)}, ...}`.

    `data` is `"NAME=PATH"`: the reader and the folder or URI of the data set. `profile` names a variant that the file
    holds; by default it is the one named like the data set, or the demo on built-in scenes where the space needs a
    folder and none is given. `latency` names the device (`"cpu"`, `"cpu:4"`, `"cuda"`) whose latency replaces GFLOPs as
    the cost. Notes on such choices are in `notes`.

    Raises `UserError` with one line per problem.
    """

    def __init__(
        self,
        source: str | Path | Mapping[str, Any],
        *,
        profile: str | None = None,
        data: str | None = None,
        latency: str | None = None,
    ) -> None:
        self.notes: list[str] = []
        self._source: str | Path | Mapping[str, Any] = source
        self._profile, self._latency = profile, latency
        self._data = parse_data(data)
        self._overrides: tuple[str, ...] = ()
        if not isinstance(source, Mapping) and profile is None:
            self._profile = self._implied_profile(source)
        self.search_space: SearchSpace = self._load()

    @property
    def name(self) -> str:
        """The name of the space: its MLflow experiment is `kdsearch/<name>`."""
        return self.search_space.name

    @property
    def source(self) -> str | Path | Mapping[str, Any]:
        """The name, the file or the dictionary that the space was made from."""
        return self._source

    @property
    def source_name(self) -> str:
        """The name that new run folders begin with: of the file, or of the space itself."""
        return self.name if isinstance(self._source, Mapping) else Path(str(self._source)).stem

    def set(self, name: str, value: Any) -> Space:
        """A copy with another value or range for the setting `name`, such as `"train.lr"`."""
        return self.with_overrides(as_overrides({name: value}))

    def with_overrides(self, overrides: Sequence[str]) -> Space:
        """A copy with these `KEY=VALUE` overrides, the values in YAML, as `--set` takes them."""
        other = object.__new__(Space)
        other.__dict__ |= self.__dict__
        other._overrides = (*self._overrides, *overrides)
        other.search_space = other._load() if overrides else self.search_space
        return other

    def parameters(self) -> dict[str, Range]:
        """Every parameter of the space with its range, by its dotted name."""
        return self.search_space.parameters()

    def default(self) -> TrialConfig:
        """The trial with every parameter at its default: the first trial of every search."""
        return self.search_space.default().trial

    def sample(self, seed: int = 0) -> Sample:
        """A random trial, uniform in each range: its parameters and its configuration."""
        rng = random.Random(seed)
        return self.search_space.sample(lambda name, domain: _draw(rng, domain))

    def to_yaml(self) -> str:
        """The text of a file that loads as this space."""
        return self.search_space.to_yaml()

    def __repr__(self) -> str:
        return f"Space({self.name!r}, {len(self.parameters())} parameters)"

    def _load(self) -> SearchSpace:
        if self._latency is None:
            return self._load_with(self._overrides)
        try:
            Target.parse(self._latency)
        except ValueError as error:
            raise UserError(f"--latency {error}.") from None
        overrides = [*self._overrides, f"search.latency={self._latency}"]
        space = self._load_with(overrides)
        objectives: dict[Any, str] = dict(space.search.objectives)
        if "latency_ms" in objectives:
            return space
        objectives.pop("gflops", None)
        text = ", ".join(f"{name}: {direction}" for name, direction in [*objectives.items(), ("latency_ms", "min")])
        return self._load_with([*overrides, f"search.objectives={{{text}}}"])

    def _load_with(self, overrides: Sequence[str]) -> SearchSpace:
        if isinstance(self._source, Mapping):
            text = json.dumps(plain(self._source))
            return space_from_text(text, "the dictionary", profile=self._profile, overrides=overrides, data=self._data)
        return load_space(self._source, profile=self._profile, overrides=overrides, data=self._data)

    def _implied_profile(self, source: str | Path) -> str | None:
        profiles = profile_names(source)
        if self._data is not None:
            name = self._data[0]
            if name not in profiles:
                return None
            self.notes.append(addressed(f"--data {name}: taking the space's profile {name}"))
            return name
        data = load_space(source).default().trial.data
        if "demo" not in profiles or data.path is not None or not needs_folder(data.name):
            return None
        self.notes.append(addressed(f"no --data for {data.name}: running the demo profile on built-in scenes"))
        return "demo"


def as_space(
    source: str | Path | Mapping[str, Any] | Space,
    *,
    data: str | None = None,
    profile: str | None = None,
    latency: str | None = None,
) -> Space:
    """`source` itself where it is a `Space`, which has its data, profile and latency already. Raises `UserError`."""
    if not isinstance(source, Space):
        return Space(source, profile=profile, data=data, latency=latency)
    if profile or data or latency:
        raise UserError("profile, data and latency belong to kdsearch.Space(...) where the space is one already.")
    return source


def parse_data(text: str | None) -> tuple[str, str] | None:
    """`NAME=PATH` in its two parts. Raises `UserError`."""
    if text is None:
        return None
    name, separator, path = text.partition("=")
    if not (name and separator and path):
        raise UserError(f"--data {text}: expected NAME=PATH, for example --data mfnet=/data/MFNet.")
    return name, path


# ---- ranges ----------------------------------------------------------------------------------------------------------


def uniform(low: float, high: float, default: float | None = None) -> Range:
    """A number from `low` to `high`. Without a default, the middle."""
    return _range("uniform", [float(low), float(high)], default)


def log(low: float, high: float, default: float | None = None) -> Range:
    """A number from `low` to `high` on a logarithmic scale. Without a default, the geometric mean."""
    return _range("log", [float(low), float(high)], default)


def integer(low: int, high: int, default: int | None = None) -> Range:
    """An integer from `low` to `high`, both included."""
    return _range("int", [low, high], default)


def int_log(low: int, high: int, default: int | None = None) -> Range:
    """An integer from `low` to `high`, both included, on a logarithmic scale."""
    return _range("int_log", [low, high], default)


def choice(options: Sequence[Any], default: Any = ...) -> Range:
    """One of `options`; without a default, the first."""
    return _range("choice", list(options), None if default is ... else default, given=default is not ...)


def one_of(branches: Sequence[Any], default: str | None = None) -> dict[str, Any]:
    """One of several sections, each with parameters of its own; None stands for "without". `default` is a label."""
    return {"one_of": list(branches)} | ({} if default is None else {"default": default})


def _range(kind: str, content: list[Any], default: Any, given: bool | None = None) -> Range:
    has_default = default is not None if given is None else given
    try:
        return parse_range({kind: content} | ({"default": default} if has_default else {}))
    except RangeError as error:
        raise UserError(f"{kind}: {error}") from None


def as_overrides(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings with their values or ranges as `KEY=VALUE` overrides."""
    return tuple(f"{name}={json.dumps(plain(value))}" for name, value in settings.items())


def plain(value: Any) -> Any:
    """A tree with ranges as Python objects in the form that files have."""
    match value:
        case Uniform():
            return {"uniform": [value.low, value.high], "default": value.default}
        case Log():
            return {"log": [value.low, value.high], "default": value.default}
        case Int():
            return {"int": [value.low, value.high], "default": value.default}
        case IntLog():
            return {"int_log": [value.low, value.high], "default": value.default}
        case Choice():
            return {"choice": plain(list(value.options)), "default": plain(value.default)}
        case Mapping():
            return {str(key): plain(each) for key, each in value.items()}
        case list() | tuple():
            return [plain(each) for each in value]
        case Path():
            return str(value)
    return value


def _draw(rng: random.Random, domain: Range) -> Any:
    match domain:
        case Choice():
            return rng.choice(domain.options)
        case Int():
            return rng.randint(domain.low, domain.high)
        case Uniform():
            return rng.uniform(domain.low, domain.high)
        case Log():
            return domain.low * (domain.high / domain.low) ** rng.random()
    return round(domain.low * (domain.high / domain.low) ** rng.random())
