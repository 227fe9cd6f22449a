"""The whole of a search-space file, as one sample of it is validated."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from kdsearch.config.search import ConfirmConfig, SearchConfig
from kdsearch.config.trial import TrialConfig


class SpaceDocument(TrialConfig):
    """A trial config with what a space has beside it."""

    name: str = Field(description="names the MLflow experiment and the run folder")
    description: str = ""
    search: SearchConfig = SearchConfig()
    confirm: ConfirmConfig = ConfirmConfig()
    profiles: dict[str, dict[str, Any]] = Field({}, description="variants of this space, laid over it by --profile")
