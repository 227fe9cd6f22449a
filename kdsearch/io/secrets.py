"""Passwords in URIs are refused, because URIs appear in logs, the live view, run folders and MLflow."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from kdsearch.errors import UserError

_PASSWORD = re.compile(r"\b([a-zA-Z][\w+.-]*)://[^/\s@]*:[^/\s@]*@")
_ELSEWHERE = {
    "http": "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment",
    "https": "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment",
    "postgresql": "PGPASSWORD in the environment or ~/.pgpass",
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment or ~/.aws/credentials",
}


def refuse_passwords(texts: Iterable[Any]) -> None:
    """Raise `UserError` for a text with a password in a URI, without repeating it; values of other types pass."""
    for text in texts:
        match = _PASSWORD.search(text) if isinstance(text, str) else None
        if match is not None:
            scheme = match[1].lower()
            place = _ELSEWHERE.get(
                scheme.partition("+")[0], "the environment or the provider's own file of credentials"
            )
            raise UserError(
                f"A {scheme}:// URI holds a password, which would end up in logs: take it out, and give it by {place}."
            )
