"""Registry of term settings: the settings class of each term that a configuration may name. Imports no torch."""

from __future__ import annotations

from kdsearch import plugins
from kdsearch.config.terms.adversarial import AdversarialConfig
from kdsearch.config.terms.afdcd import AfDCDConfig
from kdsearch.config.terms.base import TermConfig
from kdsearch.config.terms.cirkd import CIRKDConfig, CIRKDMemoryConfig
from kdsearch.config.terms.clfd import CLFDConfig
from kdsearch.config.terms.cwd import CWDConfig, CWDFeatureConfig
from kdsearch.config.terms.dist import DISTConfig
from kdsearch.config.terms.dsrd import DSRDConfig
from kdsearch.config.terms.frkd import FRKDLocationConfig, FRKDRefineConfig
from kdsearch.config.terms.generator import GeneratorConfig
from kdsearch.config.terms.ifvd import IFVDConfig
from kdsearch.config.terms.kd import KDConfig
from kdsearch.config.terms.skd import SKDPairConfig
from kdsearch.config.terms.stc import StcFramesConfig, StcMotionConfig, StcPairConfig, StcTemporalKDConfig
from kdsearch.config.terms.tap import TapTermConfig
from kdsearch.errors import UserError

TERM_CONFIGS: dict[str, type[TermConfig]] = {
    "kd": KDConfig,
    "dsrd": DSRDConfig,
    "clfd": CLFDConfig,
    "skd_pair": SKDPairConfig,
    "ifvd": IFVDConfig,
    "cwd": CWDConfig,
    "cwd_feature": CWDFeatureConfig,
    "dist": DISTConfig,
    "at": TapTermConfig,
    "fitnet": TapTermConfig,
    "adversarial": AdversarialConfig,
    "stc_pair": StcPairConfig,
    "stc_motion": StcMotionConfig,
    "stc_frames": StcFramesConfig,
    "stc_temporal_kd": StcTemporalKDConfig,
    "afdcd": AfDCDConfig,
    "mgd": GeneratorConfig,
    "cirkd": CIRKDConfig,
    "cirkd_memory": CIRKDMemoryConfig,
    "frkd_refine": FRKDRefineConfig,
    "frkd_location": FRKDLocationConfig,
    "frkd_inter": TapTermConfig,
    "frkd_intra": TapTermConfig,
}
"""Settings of the terms that kdsearch ships, by term name. `kdsearch.distill.registry` has the terms."""


def term_configs() -> dict[str, type[TermConfig]]:
    """The settings class of each term by name, plug-ins included. Imports the plug-ins.

    Raises `UserError` for a name used twice, and for an entry of a plug-in's `TERMS` without a name or settings.
    """
    found = dict(TERM_CONFIGS)
    for module, terms in plugins.collect("TERMS"):
        for term in terms:
            name, config = getattr(term, "name", None), getattr(term, "Config", None)
            if not (isinstance(name, str) and isinstance(config, type) and issubclass(config, TermConfig)):
                raise UserError(f"plug-in {module.__name__}: TERMS holds {term!r}, no class of Term with a name.")
            plugins.add_once(found, name, config, module)
    return found
