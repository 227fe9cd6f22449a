"""Settings of terms that compare one map of both networks."""

from __future__ import annotations

from pydantic import Field

from kdsearch.config.terms.base import TermConfig


class TapTermConfig(TermConfig):
    """Settings of a term that reads one tap; complete for `at`, `fitnet`, `frkd_inter` and `frkd_intra`."""

    tap: str = Field(
        "head", description="map to compare: head, the classifier's input (the usual one), or c4, the last stage"
    )
