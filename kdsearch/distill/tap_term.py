"""The base of terms that compare one map of both networks."""

from __future__ import annotations

from pydantic import Field

from kdsearch.data.info import DatasetInfo
from kdsearch.distill.base import Requirements, Shapes, Term
from kdsearch.distill.taps import require_tap


class TapTerm(Term):
    """A term that reads the tap `config.tap` of the student and of the teacher, and no other.

    Building one raises `UserError`, with the taps to choose from, where a network has no such tap.
    """

    class Config(Term.Config):
        tap: str = Field(
            "head", description="map to compare: head, the classifier's input (the usual one), or c4, the last stage"
        )

    config: Config

    def __init__(self, config: Config, student: Shapes, teacher: Shapes, info: DatasetInfo) -> None:
        super().__init__(config, student, teacher, info)
        require_tap(self.name, config.tap, student, teacher)

    @property
    def needs(self) -> Requirements:
        return Requirements(taps=(self.config.tap,))
