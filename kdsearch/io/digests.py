"""Digests of files by their bytes."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

State = tuple[int, int, int]
"""Size, and times of the last change of the content and of the entry, in ns. The latter cannot be set back."""


def state_of(path: Path) -> State | None:
    """What shows, without reading the file, that it has changed; None for a file that is missing."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def digest_of(path: Path) -> str:
    """SHA-256 of a file, shortened to 32 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def weights_digest(path: Path) -> str:
    """The digest of a file, or of the names and files of a folder; read again only after a change."""
    if not path.is_dir():
        return _cached(str(path), state_of(path))
    files = sorted(file for file in path.rglob("*") if file.is_file())
    text = "".join(f"{file.relative_to(path)}:{_cached(str(file), state_of(file))}\n" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@lru_cache(maxsize=64)
def _cached(path: str, state: State | None) -> str:
    return digest_of(Path(path))
