"""The hyper-parameter models of the distillation terms, looked up only when a config names a term."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdsearch.config.trial import TermConfig


def term_configs() -> dict[str, type[TermConfig]]:
    """Each registered term's `Config` by the term's name. Imports torch."""
    from kdsearch.distill.registry import registry

    return {name: term.Config for name, term in registry().items()}
