"""Paths in a configuration."""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import AfterValidator

from kdsearch.io.secrets import refuse_passwords


def _absolute(path: str) -> str:
    """Local paths as absolute ones: workers run in folders of their own. A URI must hold no password."""
    refuse_passwords([path])
    return path if path == "imagenet" or "://" in path else os.path.abspath(os.path.expanduser(path))


FilePath = Annotated[str, AfterValidator(_absolute)]
