"""Model of a search-space file: one sample of the space is validated against it."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from kdsearch.config.search import ConfirmConfig, SearchConfig
from kdsearch.config.trial import TrialConfig


class SpaceDocument(TrialConfig):
    """The configuration of a trial, and the sections that only a space has."""

    name: str = Field(description="names the MLflow experiment and the run folder")
    description: str = ""
    search: SearchConfig = SearchConfig()
    confirm: ConfirmConfig = ConfirmConfig()
    profiles: dict[str, dict[str, Any]] = Field(
        {}, description="variants of this space; --profile NAME merges one into it"
    )
