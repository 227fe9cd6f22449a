"""Search spaces: the configuration of a trial whose leaves may be ranges and whose sections may be branches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdsearch.config.search import ConfirmConfig, SearchConfig
from kdsearch.config.space import effects
from kdsearch.config.space.defaults import written_out
from kdsearch.config.space.file import SpaceDocument
from kdsearch.config.space.flatten import flatten, trial_key
from kdsearch.config.space.overrides import overlay, set_data, set_override
from kdsearch.config.space.problems import Problem, locate, problems_error
from kdsearch.config.space.ranges import Choice, Log, Range, RangeError, Scalar, Uniform, category
from kdsearch.config.space.shipped import display, find_space
from kdsearch.config.space.tree import parameters
from kdsearch.config.space.validation import corners, read_checked, sample_tree, validate
from kdsearch.config.space.yaml_tree import Origin, Tree, copy, dump_yaml, parse_yaml, plain
from kdsearch.config.trial import TrialConfig
from kdsearch.errors import UserError, did_you_mean

__all__ = ["Sample", "SearchSpace", "Suggest", "flatten", "load_space", "profile_names", "space_from_text", "trial_key"]

Suggest = Callable[[str, Range], Any]
"""Returns the value of a parameter from its name and range; for a choice, the option or its category."""


@dataclass(frozen=True)
class Sample:
    """One trial of a space, and its parameters as scalars (options that are lists or mappings by their category)."""

    params: Mapping[str, Scalar]
    trial: TrialConfig


class SearchSpace:
    """A validated search space. Names of parameters are dotted paths, such as `student[clnet].encoder`."""

    def __init__(self, tree: Tree, origin: Origin) -> None:
        """`origin` names the file in errors. Raises one `UserError` that lists all problems of `tree`."""
        self._tree = tree
        self._origin = origin
        self._root = read_checked(tree, origin, SpaceDocument, _why_fixed)
        document = validate(sample_tree(self._root, lambda _, domain: domain.default), SpaceDocument)
        self.name: str = document.name
        self.description: str = document.description
        self.search: SearchConfig = document.search
        self.confirm: ConfirmConfig = document.confirm

    def check_effects(self) -> None:
        """Raise one `UserError` that lists all settings that would change nothing in a study of this space."""
        found = list(parameters(self._root, self._origin))
        problems = list(effects.of_search(self._tree, found, self.default().trial, self.search))
        if self.confirm.cache and not self.confirm.seeds:
            confirm = self._tree["confirm"].origins["cache"]
            problems.append(Problem(confirm, "confirm.cache", "has no effect with seeds 0; leave it out, or set seeds"))
        for params in corners(found):
            for name, why in effects.of_trial(self.from_params(params).trial):
                problems.append(Problem(self._origin, name, why))
        if problems:
            raise problems_error(problems)

    def resolved(self) -> dict[str, Any]:
        """The space after profile, data and overrides, as plain values; the result is a valid space."""
        resolved: dict[str, Any] = plain(self._tree)
        return resolved

    def to_yaml(self) -> str:
        """`resolved` as YAML text that loads as this space."""
        return dump_yaml(self._tree)

    def complete(self) -> dict[str, Any]:
        """`resolved` with every default written out, those of ranges and terms included, and with absolute paths."""

        def document(taken: Mapping[str, str]) -> SpaceDocument:
            tree = sample_tree(self._root, lambda name, domain: taken.get(name, domain.default))
            return validate(tree, SpaceDocument)

        complete = written_out(self._root, self.resolved(), document)
        del complete["profiles"]
        return complete

    def record(self) -> str:
        """`complete` as YAML text, which loads as this space in every folder, and with other defaults of a version."""
        return dump_yaml(self.complete())

    def parameters(self) -> dict[str, Range]:
        """All parameters: those of every branch, and the choice between the branches."""
        return {each.name: each.domain for each in parameters(self._root, self._origin)}

    def sample(self, suggest: Suggest) -> Sample:
        """One trial. `suggest` is called for the parameters that exist in the branches taken, and for no others.

        Raises `UserError` if `suggest` returns a value that is not an option of a choice.
        """
        params: dict[str, Scalar] = {}

        def choose(name: str, domain: Range) -> Any:
            value = suggest(name, domain)
            if isinstance(domain, Choice):
                try:
                    value = domain.option(value)
                except RangeError as error:
                    raise UserError(f"{self._origin}: {name}: {error}") from None
            params[name] = category(value)
            return value

        return Sample(params, self._trial(sample_tree(self._root, choose), params))

    def default(self) -> Sample:
        """Every parameter at its default: the first trial of every search."""
        return self.from_params({})

    def corners(self) -> Iterator[tuple[str, Sample]]:
        """Samples that represent all networks and terms of the space, each with a name; the default comes first.

        They are the ends of every integer range and the options of every choice in student, distillation and teacher;
        real numbers do not change the shape of a network.
        """
        found = [
            each for each in parameters(self._root, self._origin)
            if re.match(r"student|distill|teacher", each.name) and not isinstance(each.domain, Uniform | Log)
        ]  # fmt: skip
        for params in corners(found):
            yield ", ".join(f"{name}={value}" for name, value in params.items()), self.from_params(params)

    def distils(self) -> bool:
        """Whether any trial has terms: without them nobody reads a teacher."""
        return any(sample.trial.distill for _, sample in self.corners())

    def from_params(self, params: Mapping[str, Any]) -> Sample:
        """The sample with these parameters; the others take their defaults."""
        return self.sample(lambda name, domain: params.get(name, domain.default))

    def _trial(self, tree: Mapping[str, Any], params: Mapping[str, Scalar]) -> TrialConfig:
        try:
            return validate({key: tree[key] for key in TrialConfig.model_fields if key in tree}, TrialConfig)
        except ValidationError as error:
            raise problems_error(locate(error, self._root, self._origin, params)) from None


def load_space(
    source: str | Path,
    *,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    data: tuple[str, str] | None = None,
) -> SearchSpace:
    """Load a space from a path, or a shipped one by name; then apply profile, data set and overrides, in this order.

    `overrides` are the `K=V` of `--set K=V`; `data` is the name of a reader and its path or URI. Raises `UserError`
    with one line per problem: its file and line (or the command-line option), its key, and the remedy.
    """
    path = find_space(source)
    origin = display(path)
    return space_from_text(path.read_bytes(), origin, profile=profile, overrides=overrides, data=data)


def space_from_text(
    text: str | bytes,
    origin: Origin,
    *,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    data: tuple[str, str] | None = None,
) -> SearchSpace:
    """`load_space` from text, such as that of `SearchSpace.to_yaml`; `origin` names the source in errors."""
    tree = parse_yaml(text, lambda line: f"{origin}:{line}")
    if isinstance(tree, Tree):
        tree = _with_profile(tree, profile)
        if data is not None:
            set_data(tree, *data)
        for override in overrides:
            set_override(tree, override)
        if "profiles" in tree:
            raise UserError(f"{tree.origins['profiles']}: profiles: only the space file itself holds profiles")
    return SearchSpace(tree, origin)


def profile_names(source: str | Path) -> list[str]:
    """Names of the profiles in the file of a space."""
    path = find_space(source)
    origin = display(path)
    tree = parse_yaml(path.read_bytes(), lambda line: f"{origin}:{line}")
    return list(tree.get("profiles", {})) if isinstance(tree, Tree) else []


def _with_profile(tree: Tree, profile: str | None) -> Tree:
    base: Tree = copy(tree)
    profiles = base.pop("profiles", Tree())
    if not isinstance(profiles, Tree) or not all(isinstance(over, Tree) for over in profiles.values()):
        raise UserError(f"{tree.origins['profiles']}: profiles: should map names to sections")
    if profile is None:
        return base
    if profile not in profiles:
        raise UserError(f"{tree.get('name')} has no profile '{profile}'.{did_you_mean(profile, list(profiles))}")
    return overlay(base, copy(profiles[profile], lambda origin: f"{origin} (profile {profile})"))


def _why_fixed(name: str) -> str | None:
    section = re.split(r"[.\[]", name)[0]
    if section in ("student", "distill", "train") or re.match(r"data\.augment\b|teacher\.fuse$", name):
        return None
    if section in ("data", "teacher"):
        return f"no range and no one_of here: all trials share the {section}"
    return f"no range and no one_of here: {section} is not part of a trial"
