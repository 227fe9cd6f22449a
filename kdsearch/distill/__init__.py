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
    from kdsearch.distill.adversarial import Adversarial
    from kdsearch.distill.afdcd import AfDCD
    from kdsearch.distill.at import AT
    from kdsearch.distill.cirkd import CIRKD
    from kdsearch.distill.cirkd_memory import CIRKDMemory
    from kdsearch.distill.clfd import CLFD
    from kdsearch.distill.cwd import CWD, CWDFeature
    from kdsearch.distill.dist import DIST
    from kdsearch.distill.dsrd import DSRD
    from kdsearch.distill.fitnet import FitNet
    from kdsearch.distill.frkd_distances import FRKDInter, FRKDIntra
    from kdsearch.distill.frkd_location import FRKDLocation
    from kdsearch.distill.frkd_refine import FRKDRefine
    from kdsearch.distill.ifvd import IFVD
    from kdsearch.distill.kd import KD
    from kdsearch.distill.mgd import MGD
    from kdsearch.distill.skd import SKDPair
    from kdsearch.distill.stc_frames import StcFrames
    from kdsearch.distill.stc_motion import StcMotion
    from kdsearch.distill.stc_pair import StcPair
    from kdsearch.distill.stc_temporal_kd import StcTemporalKD

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
