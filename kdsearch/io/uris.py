"""Paths given by users: local folders, `file://` URIs, and URIs of object stores such as s3:// and gs://."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from kdsearch.errors import UserError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # pathlib makes one slash of two


def is_remote(path: str | Path) -> bool:
    """Whether `path` is a URI of anything but a local file."""
    scheme = _SCHEME.match(str(path))
    return scheme is not None and scheme[1].lower() != "file"


def local_path(path: str | Path) -> Path:
    """The local path of `path`, with `~` expanded. `UserError` for a URI of another kind, such as s3://."""
    text = str(path)
    if is_remote(text):
        raise UserError(f"{text}: only a local folder is possible here; copy the data to a local or mounted folder")
    return Path(unquote(urlsplit(text).path)) if _SCHEME.match(text) else Path(text).expanduser()


def in_folder(uri: str, name: str) -> str:
    """The URI of `name` in the folder `uri`; options such as `?endpoint_override=...` stay at the end."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))
