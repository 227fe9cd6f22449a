"""Distillation terms: one file a term, one contract (`base.Term`), any of them combine. No torch at import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kdsearch.config.trial import TermConfig
from kdsearch.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from kdsearch.data.info import DatasetInfo
    from kdsearch.distill.base import Shapes, Term
    from kdsearch.distill.weighted_sum import WeightedSum


def registry() -> dict[str, type[Term]]:
    """Every distillation term by name. Its `Config` validates the hyper-parameters. Imports torch."""
    from kdsearch.distill.clfd import CLFD
    from kdsearch.distill.dsrd import DSRD
    from kdsearch.distill.kd import KD

    return {term.name: term for term in (KD, DSRD, CLFD)}


def build_terms(configs: Mapping[str, TermConfig], student: Shapes, teacher: Shapes, info: DatasetInfo) -> WeightedSum:
    """Build the configured terms for this pair of networks and this data set.

    Build them before the optimiser and the DDP wrap: their parameters train with the student. Raises `UserError` for
    an unknown name, and for a term that these networks cannot feed.
    """
    from kdsearch.distill.weighted_sum import WeightedSum

    known = registry()
    for name in configs:
        if name not in known:
            raise UserError(f"There is no distillation term '{name}'.{did_you_mean(name, list(known))}")
    return WeightedSum({name: known[name](config, student, teacher, info) for name, config in configs.items()})
