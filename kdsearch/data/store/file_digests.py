"""The digests of a data set's files, cached by path, size and times, so that the second time no file is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kdsearch.data.reader import SPLITS, Reader
from kdsearch.data.store.content import Content, Samples
from kdsearch.errors import UserError
from kdsearch.io.atomic import write_text
from kdsearch.io.digests import State, digest_of, state_of

FOLDER = ".digests"
"""Hidden folder beside the stores."""
THREADS = 16
UNREADABLE = "unreadable"

Progress = Callable[[int, int], None]


def content_of(reader: Reader) -> Content:
    """The content of a reader's data set, by reading every file."""
    return FileDigests(Path(), reader, "", cached=False).read_all()


class FileDigests:
    """The files of a reader as they are now, with the digests that the cache below `root` knows of them.

    `place` names the place of the data set: its folder or URI.
    """

    def __init__(self, root: Path, reader: Reader, place: str, cached: bool = True) -> None:
        self.reader = reader
        self.keys = {split: reader.keys(split) for split in SPLITS}
        self._cache = root / FOLDER / f"{hashlib.sha256(place.encode()).hexdigest()[:16]}.json"
        files = {file for split in SPLITS for key in self.keys[split] for file in reader.files(split, key)}
        self._states: dict[Path, State | None] = {file: state_of(file) for file in files}
        self._digests: dict[Path, str] = {}
        known = self._load() if files and cached else {}
        for file, state in self._states.items():
            entry = known.get(str(file))
            if state is None:
                self._digests[file] = "missing"  # reported by name when it is read
            elif entry is not None and entry[1:] == [*state]:
                self._digests[file] = str(entry[0])
        self._changed = False

    @property
    def complete(self) -> bool:
        """Whether the content is known without reading a file."""
        return len(self._digests) == len(self._states)

    @property
    def stamp(self) -> str:
        """Equal while no file seems to have changed; depends on paths and times."""
        states = sorted((str(file), state) for file, state in self._states.items())
        return hashlib.sha256(json.dumps(states).encode()).hexdigest()

    def of(self, split: str, key: str) -> list[str]:
        """The digests of the files of a sample; reads those that are not known."""
        return [self._digest(file) for file in self.reader.files(split, key)]

    def check_unchanged(self, split: str, key: str) -> None:
        """Raise `UserError` if a file of the sample has changed since it was listed."""
        for file in self.reader.files(split, key):
            if state_of(file) != self._states[file]:
                raise UserError(f"{file} changed while it was read; try again when nothing writes to the data set")

    def add(self, split: str, key: str, digests: list[str]) -> None:
        """Take over the digests of a sample, from an interrupted build of the same `stamp`."""
        for file, digest in zip(self.reader.files(split, key), digests, strict=True):
            self._digests[file], self._changed = digest, True

    def read_all(self, progress: Progress | None = None) -> Content:
        """The content, after reading the files whose digests are not known."""
        unknown = [file for file in self._states if file not in self._digests]
        with ThreadPoolExecutor(THREADS) as pool:
            for done, _ in enumerate(pool.map(self._digest, unknown), 1):
                if progress is not None:
                    progress(done, len(unknown))
        return self.content()

    def content(self) -> Content:
        """The content; every digest must be known."""
        samples: Samples = {split: {key: self.of(split, key) for key in self.keys[split]} for split in SPLITS}
        return Content(json.loads(json.dumps(self.reader.rules())), samples)

    def save(self) -> None:
        """Keep new digests for the next opening."""
        if not self._changed:
            return
        self._cache.parent.mkdir(parents=True, exist_ok=True)
        entries = {
            str(file): [self._digests[file], *state]
            for file, state in self._states.items()
            if state is not None and self._digests[file] != UNREADABLE
        }
        write_text(self._cache, json.dumps(entries))
        self._changed = False

    def _digest(self, file: Path) -> str:
        if file not in self._digests:
            try:
                self._digests[file] = digest_of(file)
            except OSError:
                # Reported when the sample is read; such a data set makes no store.
                self._digests[file] = UNREADABLE
            self._changed = True
        return self._digests[file]

    def _load(self) -> dict[str, list[object]]:
        """The cache, or nothing where there is none or it is damaged: it can always be made again."""
        try:
            known = json.loads(self._cache.read_text())
        except (OSError, ValueError):
            return {}
        return (
            {file: entry for file, entry in known.items() if isinstance(entry, list)} if isinstance(known, dict) else {}
        )
