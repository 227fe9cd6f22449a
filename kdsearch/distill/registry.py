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
    """Every distillation term by name, those of plug-ins too. Its `Config` validates the hyper-parameters.

    Imports torch, and the plug-ins.
    """
    from kdsearch import plugins
    from kdsearch.distill.terms.adversarial import Adversarial
    from kdsearch.distill.terms.afdcd import AfDCD
    from kdsearch.distill.terms.at import AT
    from kdsearch.distill.terms.cirkd import CIRKD
    from kdsearch.distill.terms.cirkd_memory import CIRKDMemory
    from kdsearch.distill.terms.clfd import CLFD
    from kdsearch.distill.terms.cwd import CWD, CWDFeature
    from kdsearch.distill.terms.dist import DIST
    from kdsearch.distill.terms.dsrd import DSRD
    from kdsearch.distill.terms.fitnet import FitNet
    from kdsearch.distill.terms.frkd_distances import FRKDInter, FRKDIntra
    from kdsearch.distill.terms.frkd_location import FRKDLocation
    from kdsearch.distill.terms.frkd_refine import FRKDRefine
    from kdsearch.distill.terms.ifvd import IFVD
    from kdsearch.distill.terms.kd import KD
    from kdsearch.distill.terms.mgd import MGD
    from kdsearch.distill.terms.skd import SKDPair
    from kdsearch.distill.terms.stc_frames import StcFrames
    from kdsearch.distill.terms.stc_motion import StcMotion
    from kdsearch.distill.terms.stc_pair import StcPair
    from kdsearch.distill.terms.stc_temporal_kd import StcTemporalKD

    return plugins.terms(
        (
            KD,
            DSRD,
            CLFD,
            SKDPair,
            IFVD,
            CWD,
            CWDFeature,
            DIST,
            AT,
            FitNet,
            Adversarial,
            StcPair,
            StcMotion,
            StcFrames,
            StcTemporalKD,
            AfDCD,
            MGD,
            CIRKD,
            CIRKDMemory,
            FRKDRefine,
            FRKDLocation,
            FRKDInter,
            FRKDIntra,
        )
    )


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
