"""Constraints of the search: which metrics can be bounded, and which bounds a trial breaks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kdsearch.config.metrics import COSTS
from kdsearch.config.search import Constraint
from kdsearch.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from kdsearch.config.space.search_space import SearchSpace
    from kdsearch.data.info import DatasetInfo

Constraints = Mapping[str, Constraint]


def violations(constraints: Constraints, known: Mapping[str, float]) -> dict[str, float]:
    """How far each bound on a metric in `known` is exceeded; at most 0 if it is kept."""
    return {name: bound.violation(known[name]) for name, bound in constraints.items() if name in known}


def broken(constraints: Constraints, known: Mapping[str, float]) -> str:
    """The first bound that is broken, in words; empty if none is. A metric that was not reported breaks its bound."""
    for name, bound in constraints.items():
        if name not in known:
            return f"{name} was not reported, so it is not known to be {bound}"
        if bound.violation(known[name]) > 0:
            return f"{name} {known[name]:.3g} is not {bound}"
    return ""


def static(constraints: Constraints) -> dict[str, Constraint]:
    """The bounds that can be checked before training."""
    return {name: bound for name, bound in constraints.items() if name in COSTS}


def check_names(space: SearchSpace, info: DatasetInfo) -> None:
    """Raise `UserError` for a bound on a metric that no trial of the space can report on this data set."""
    known = [*COSTS, "val/miou", "val/pixel_accuracy", *(f"val/iou/{name}" for name in info.classes)]
    if space.default().trial.data.consistency:
        known.append("val/temporal_consistency")
    terms = terms_of(space)
    for name in space.search.constraints:
        if name == "val/temporal_consistency" and name not in known:
            raise UserError(f"search.constraints: {name} is reported only with data.consistency: true; set that too.")
        if name.startswith("val/") and name not in known:
            raise UserError(f"search.constraints: no trial reports '{name}'.{did_you_mean(name, known)}")
        if name.startswith("grad_ratio/") and name.partition("/")[2] not in terms:
            raise UserError(
                f"search.constraints: no trial reports '{name}'.{did_you_mean(name.partition('/')[2], sorted(terms))}"
            )


def check_reported(space: SearchSpace, metrics: Mapping[str, float]) -> None:
    """Raise `UserError` for a bound on a metric that the report of an epoch lacks.

    Losses and ratios of a term that only some trials have may be missing from the others.
    """
    for name in space.search.constraints:
        if name in metrics or name in COSTS:
            continue
        kind, _, rest = name.partition("/")
        if kind in ("loss", "grad_ratio") and rest in terms_of(space):
            continue
        if name.startswith("val/iou/"):
            raise UserError(
                f"search.constraints: '{name}' is not reported: the class does not occur in the validation split; "
                f"remove the bound: resume with --resume --set 'search.constraints={{}}'."
            )
        raise UserError(
            f"search.constraints: no trial reports '{name}'.{did_you_mean(name, sorted(metrics))} "
            "Correct it with --resume --set 'search.constraints={...}'."
        )


def terms_of(space: SearchSpace) -> set[str]:
    """Names of the distillation terms that trials of the space may have."""
    return {name for _, sample in space.corners() for name in sample.trial.distill}
