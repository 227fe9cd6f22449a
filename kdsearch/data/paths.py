"""Paths given by users: local folders, or `file://` URIs."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kdsearch.errors import UserError


def local_path(path: str | Path) -> Path:
    """The local path of `path`, with `~` expanded. `UserError` for a URI of another kind, such as s3://."""
    text = str(path)
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", text)  # pathlib makes one slash of two
    if scheme is None:
        return Path(text).expanduser()
    if scheme[1].lower() == "file":
        return Path(unquote(urlsplit(text).path))
    raise UserError(f"{text}: only local folders are supported; copy the data to a local or mounted folder")
