"""Base of terms that compare one map of both networks."""

from __future__ import annotations

from typing import TypeAlias

from kdsearch.config.terms.tap import TapTermConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import Requirements, Shapes, Term
from kdsearch.distill.taps import require_tap


class TapTerm(Term):
    """A term that reads the tap `config.tap` of the student and of the teacher, and no other.

    The constructor raises `UserError`, with the taps to choose from, where a network has no such tap.
    """

    Config: TypeAlias = TapTermConfig
    config: TapTermConfig

    def __init__(self, config: TapTermConfig, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__(config, student, teacher, info)
        require_tap(self.name, config.tap, student, teacher)

    @property
    def requirements(self) -> Requirements:
        return Requirements(taps=(self.config.tap,))
