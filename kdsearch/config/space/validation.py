"""Validation of a space before a study starts, and of each of its samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from kdsearch.config.space.problems import Problem, locate, problems_error
from kdsearch.config.space.ranges import Range, ends
from kdsearch.config.space.tree import Choose, Parameter, Reader, Section, build, parameters
from kdsearch.config.space.yaml_tree import Origin, Tree
from kdsearch.config.trial import TrialConfig

Model = TypeVar("Model", bound=TrialConfig)
WhyFixed = Callable[[str], str | None]
"""Returns the reason why the setting of this name may not be a range, or None if it may."""


def read_checked(raw: Any, origin: Origin, model: type[TrialConfig], why_fixed: WhyFixed) -> Section:
    """Parse a tree and validate it as `model`: at its defaults, and at the ends of every range in every branch.

    Raises one `UserError` that lists all problems.
    """
    if not isinstance(raw, Tree):
        raise problems_error([Problem(origin, "", f"should hold the sections {', '.join(model.model_fields)}")])
    reader = Reader()
    root = reader.read(raw, origin)
    if not isinstance(root, Section):
        raise problems_error([Problem(origin, "", "a range or a one_of cannot stand for the whole file")])
    found = list(parameters(root, origin))
    problems = [Problem(*broken) for broken in reader.broken]
    problems += [Problem(each.origin, each.name, why) for each in found if (why := why_fixed(each.name))]
    spoilt = tuple(problem.name for problem in problems)
    for corner in corners(found):
        problems += [each for each in _problems_at(corner, root, origin, model) if not _is_below(each.name, spoilt)]
    if problems:
        raise problems_error(problems)
    return root


def sample_tree(root: Section, choose: Choose) -> dict[str, Any]:
    """One sample of a space as a plain tree, without the terms that are null."""
    tree: dict[str, Any] = build(root, choose)
    distill = tree.get("distill")
    if distill is None or isinstance(distill, dict):
        tree["distill"] = {name: term for name, term in (distill or {}).items() if term is not None}
    return tree


def validate(tree: Mapping[str, Any], model: type[Model]) -> Model:
    """`tree` as a `model`, strictly: text is never read as a number. Raises pydantic's `ValidationError`."""
    return model.model_validate(tree, strict=True)


def corners(found: list[Parameter]) -> Iterator[Mapping[str, Any]]:
    """Parameters that differ from their defaults in the samples that validation checks.

    These samples are the default, both ends of each range and each option of each choice, with all other parameters at
    their defaults.
    """
    yield {}
    for parameter in found:
        for value in ends(parameter.domain):
            yield {**parameter.taken, parameter.name: value}


def _problems_at(corner: Mapping[str, Any], root: Section, origin: Origin, model: type[TrialConfig]) -> list[Problem]:
    params: dict[str, Any] = {}

    def choose(name: str, domain: Range) -> Any:
        params[name] = corner.get(name, domain.default)
        return params[name]

    try:
        validate(sample_tree(root, choose), model)
    except ValidationError as error:
        return locate(error, root, origin, params)
    return []


def _is_below(name: str, others: tuple[str, ...]) -> bool:
    return any(name == other or name.startswith((f"{other}.", f"{other}[")) for other in others)
