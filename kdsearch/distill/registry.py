"""Registry of distillation terms: one file per term, one contract (`base.Term`), any of them combine.

No torch is imported until a term is looked up. `kdsearch.config.terms.registry` has the settings of the same names.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kdsearch import plugins
from kdsearch.config.terms.base import TermConfig
from kdsearch.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from kdsearch.data.info import DatasetInfo
    from kdsearch.distill.base import Shapes, Term
    from kdsearch.distill.weighted_sum import WeightedSum

TERMS = {
    "kd": "kd:KD",
    "dsrd": "dsrd:DSRD",
    "clfd": "clfd:CLFD",
    "skd_pair": "skd:SKDPair",
    "ifvd": "ifvd:IFVD",
    "cwd": "cwd:CWD",
    "cwd_feature": "cwd:CWDFeature",
    "dist": "dist:DIST",
    "at": "at:AT",
    "fitnet": "fitnet:FitNet",
    "adversarial": "adversarial:Adversarial",
    "stc_pair": "stc_pair:StcPair",
    "stc_motion": "stc_motion:StcMotion",
    "stc_frames": "stc_frames:StcFrames",
    "stc_temporal_kd": "stc_temporal_kd:StcTemporalKD",
    "afdcd": "afdcd:AfDCD",
    "mgd": "mgd:MGD",
    "cirkd": "cirkd:CIRKD",
    "cirkd_memory": "cirkd_memory:CIRKDMemory",
    "frkd_refine": "frkd_refine:FRKDRefine",
    "frkd_location": "frkd_location:FRKDLocation",
    "frkd_inter": "frkd_distances:FRKDInter",
    "frkd_intra": "frkd_distances:FRKDIntra",
}
"""Terms that kdsearch ships: the name in a configuration, and `module:Class` in `kdsearch.distill.terms`."""


def registry() -> dict[str, type[Term]]:
    """Every distillation term by name, plug-ins included. Imports torch, all terms and the plug-ins.

    Raises `UserError` for a name used twice, and for an entry of a plug-in's `TERMS` that is no named `Term` class.
    """
    return {name: _imported(term) for name, term in _known().items()}


def term_class(name: str) -> type[Term]:
    """The term `name`; of the terms that kdsearch ships it imports this one alone. Raises `UserError` if unknown."""
    known = _known()
    if name not in known:
        raise UserError(f"There is no distillation term '{name}'.{did_you_mean(name, list(known))}")
    return _imported(known[name])


def build_terms(configs: Mapping[str, TermConfig], student: Shapes, teacher: Shapes, info: DatasetInfo) -> WeightedSum:
    """Build the configured terms for this pair of networks and this data set.

    Build them before the optimiser and the DDP wrapper: their parameters train with the student. Raises `UserError`
    for an unknown name, and for a term that cannot compare these networks.
    """
    from kdsearch.distill.weighted_sum import WeightedSum

    classes = {name: term_class(name) for name in configs}
    return WeightedSum({name: classes[name](config, student, teacher, info) for name, config in configs.items()})


def _known() -> dict[str, Any]:
    """Terms by name: those that kdsearch ships as `module:Class`, those of plug-ins as classes."""
    found: dict[str, Any] = dict(TERMS)
    for module, terms in plugins.collect("TERMS"):
        from kdsearch.distill.base import Term

        for term in terms:
            if not (isinstance(term, type) and issubclass(term, Term) and isinstance(getattr(term, "name", None), str)):
                raise UserError(f"plug-in {module.__name__}: TERMS holds {term!r}, no class of Term with a name.")
            plugins.add_once(found, term.name, term, module)
    return found


def _imported(term: Any) -> type[Term]:
    if not isinstance(term, str):
        return term  # type: ignore[no-any-return]
    module, _, name = term.partition(":")
    return getattr(importlib.import_module(f"kdsearch.distill.terms.{module}"), name)  # type: ignore[no-any-return]
