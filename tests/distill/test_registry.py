"""The registries of terms and of their settings have the same names, and importing them loads no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kdsearch.config.terms.base import TermConfig
from kdsearch.config.terms.registry import TERM_CONFIGS, term_configs
from kdsearch.data.info import DatasetInfo
from kdsearch.distill import terms
from kdsearch.distill.registry import TERMS, build_terms, registry, term_class
from kdsearch.errors import UserError

INFO = DatasetInfo("toy", tuple("abc"), ((0, 0, 0),) * 3, 3, (0.5,) * 3, (0.5,) * 3)
SHAPES = {"logits": (3, 4, 4)}


def test_every_term_has_settings_and_all_settings_have_a_term() -> None:
    assert list(TERMS) == list(TERM_CONFIGS)
    for name, term in registry().items():
        assert term.name == name
        assert term.Config is term_configs()[name]
        assert term_class(name) is term


def test_every_term_and_setting_is_documented() -> None:
    for name, term in registry().items():
        assert term.__doc__
        assert issubclass(term.Config, TermConfig)
        assert term.Config.__doc__
        assert all(field.description for field in term.Config.model_fields.values()), name
        assert term.Config() is not None


def test_reconstructed_terms() -> None:
    assert {name for name, term in registry().items() if term.reconstructed} == {
        "clfd", "dsrd", "frkd_inter", "frkd_intra", "frkd_location", "frkd_refine",
        "stc_frames", "stc_motion", "stc_pair", "stc_temporal_kd",
    }  # fmt: skip


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(UserError, match=r"no distillation term 'clfdd'\. Did you mean 'clfd'"):
        build_terms({"clfdd": TermConfig()}, SHAPES, SHAPES, INFO)


def test_terms_do_not_import_each_other() -> None:
    for path in Path(terms.__file__).parent.glob("*.py"):
        assert "kdsearch.distill.terms" not in path.read_text(), path


def test_the_registry_imports_no_torch() -> None:
    code = "import sys, kdsearch.distill.registry; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
