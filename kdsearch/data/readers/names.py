"""Names of samples: the files of a folder by name, and lists of names, as other systems write them."""

from __future__ import annotations

import codecs
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from kdsearch.errors import UserError

IMAGE_ENDS = (".png", ".jpg", ".jpeg")


class FilesByName:
    """The files of a folder that end with one of `ends`, by name without the end, in order of names.

    Names are compared in composed Unicode (macOS decomposes them), and where that finds nothing without case (Windows
    keeps none). Hidden files and folders are left out. `UserError` for a folder that is missing, or empty unless it
    `may_be_empty`.
    """

    def __init__(self, folder: Path, ends: Sequence[str] = IMAGE_ENDS, may_be_empty: bool = False) -> None:
        if not folder.is_dir():
            raise UserError(
                f"{folder} does not exist; give the folder that holds it, in the data set's official layout"
            )
        self.folder = folder
        self._found: dict[str, list[Path]] = {}
        others: set[str] = set()
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith(".") or entry.is_dir():
                    continue
                end = next((end for end in ends if entry.name.lower().endswith(end.lower())), None)
                if end is None:
                    others.add(os.path.splitext(entry.name)[1].lower())
                else:
                    name = unicodedata.normalize("NFC", entry.name[: -len(end)])
                    self._found.setdefault(name, []).append(folder / entry.name)
        if not (self._found or may_be_empty):
            there = f" (but {', '.join(sorted(others - {''}))})" if others - {""} else ""
            raise UserError(
                f"{folder} holds no file that ends with {' or '.join(ends)}{there}; check the layout of the data set"
            )
        self._folded: dict[str, list[str]] = {}
        for name in self._found:
            self._folded.setdefault(name.casefold(), []).append(name)

    @property
    def names(self) -> list[str]:
        return list(self._found)

    def end(self) -> str:
        """The ending of the first file."""
        return next(iter(self._found.values()))[0].suffix

    def __contains__(self, name: object) -> bool:
        return name in self._found

    def real(self, name: str) -> str | None:
        """The name as this folder has it, or None."""
        name = unicodedata.normalize("NFC", name)
        if name in self._found:
            return name
        alike = self._folded.get(name.casefold(), [])
        return alike[0] if len(alike) == 1 else None

    def get(self, name: str, stated: str = "") -> Path | None:
        """The file of a name of this folder, or None. Of several, such as a converted copy, the one named `stated`."""
        files = self._found.get(name, [])
        if len(files) < 2:
            return files[0] if files else None
        wanted = unicodedata.normalize("NFC", stated)
        for file in files:
            if unicodedata.normalize("NFC", file.name) == wanted:
                return file
        count = sum(len(files) > 1 for files in self._found.values())
        times = f" ({count} names have several files)" if count > 1 else ""
        raise UserError(f"{files[0]} and {files[1].name} have the same name{times}; remove one of them")


def read_names(path: Path, real: Callable[[str], str | None]) -> dict[str, str]:
    """The names in a list, one per line: bare, or the last part of a path; each with the file name in its line.

    `real` returns the name of a sample for a name in the list, None if there is none. Lines may have quotes, comments
    and further columns; how they are split is what makes the most names real, so that names may hold spaces and marks.
    `UserError` for a list that is missing or empty or repeats a name.
    """
    try:
        text = _decoded(path.read_bytes(), path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; the data set needs its lists of names") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); write one name per line") from None
    lines = [line.strip() for line in re.split(r"\r\n|\n|\r", text) if line.strip()]
    split = max(_SPLITS, key=lambda split: len(_real_names(map(split, lines), real)))
    entries = [_resolved(split(line), real) for line in lines]
    if not any(line.startswith("#") and found for line, (_, _, found) in zip(lines, entries, strict=True)):
        entries = [entry for line, entry in zip(lines, entries, strict=True) if not line.startswith("#")]
    if not entries:
        raise UserError(f"{path} names no image; write one name per line")
    names: dict[str, str] = {}
    for name, file_name, _ in entries:
        if name in names:
            raise UserError(f"{path} names '{name}' more than once; remove the repeated lines")
        if not name or "\0" in name or len(os.fsencode(name)) > 250:
            raise UserError(f"{path}: '{name[:40]}' is no file name; write one name per line")
        names[name] = file_name
    return names


def _decoded(raw: bytes, path: Path) -> str:
    """Text of any system: UTF-8 or UTF-16, with or without a mark, else of Western Windows."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings: tuple[str, ...] = ("utf-16",)
    elif b"\0" in raw[:2]:
        encodings = ("utf-16-be" if raw[:1] == b"\0" else "utf-16-le",)
    else:
        encodings = ("utf-8-sig", "cp1252")
    for encoding in encodings:
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise UserError(f"{path} is not a text file; write one name per line, in UTF-8")


def _real_names(entries: Iterable[str], real: Callable[[str], str | None]) -> set[str]:
    """Distinct names of samples: a first word that lines share is no name of any."""
    return {name for name, _, found in (_resolved(entry, real) for entry in entries) if found}


def _resolved(entry: str, real: Callable[[str], str | None]) -> tuple[str, str, bool]:
    """The name in an entry, the file name in it, and whether the name is one of a sample."""
    entry = entry.strip()
    plain = _unquoted(entry)
    last = re.split(r"[/\\]", plain)[-1]
    for file_name in dict.fromkeys((entry.rpartition("/")[2], plain.rpartition("/")[2], last)):
        for name in dict.fromkeys((file_name, _bare(file_name), file_name.rpartition(".")[0])):
            found = real(name) if name else None
            if found is not None:
                return found, file_name, True
    return _bare(last), last, False


def _bare(file_name: str) -> str:
    end = next((end for end in IMAGE_ENDS if file_name.lower().endswith(end)), "")
    return file_name[: len(file_name) - len(end)]


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _to_first_end(line: str) -> str:
    """Up to the first ending of an image: of two paths the first, which may hold spaces."""
    found = re.match(r"""(["']?)(.*?\.(?:png|jpe?g))\1(?=[\s,;]|$)""", line, re.IGNORECASE)
    return found[2] if found else line


def _quoted(line: str) -> str:
    found = re.match(r""""([^"]+)"|'([^']+)'""", line)
    return found[1] or found[2] if found else line


_SPLITS: tuple[Callable[[str], str], ...] = (
    lambda line: line,
    lambda line: re.split(r"\s+#", line)[0],
    _to_first_end,
    _quoted,
    lambda line: line.split("\t")[0],
    lambda line: line.split(",")[0],
    lambda line: line.split(";")[0],
    lambda line: line.split()[0],
)
"""Ways from a line to its first column, from the most literal to the least."""
