"""The fenced blocks of a page, and what is to be done with each.

The language of a block says what is checked, an HTML comment on the line before it may say more:

- `python` runs; all of a page's blocks share one folder and one set of names.
- `yaml` is a search space, or sections of one, and loads.
- `console`, `sh`, or no language: commands. Those of kdsearch pass its argument parser, and spaces that they name load.
  `<!-- run -->` runs them as well; `<!-- run slow: ARGUMENTS -->` does so with ARGUMENTS added, in a slow test.
- `text` is what was printed: `<!-- output -->` by the blocks run before it, line by line, or `<!-- sample -->` by a
  longer run, which nothing checks.
- `<!-- file: NAME -->` writes a block to the page's folder (a `.yaml` with a `name` is loaded as a space too), and
  `<!-- from: PATH -->` says that it stands word for word in a file of the repository.

A block that is none of these is an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]

_BLOCK = re.compile(
    r"(?:^<!--\s*(?P<note>.*?)\s*-->\n)?^(?P<fence>```+)(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=fence)[ ]*$",
    re.M | re.S,
)
_KINDS = {"python": "python", "yaml": "space", "console": "commands", "sh": "commands", "": "commands"}
_NOTES = {"run": "run", "output": "output", "sample": "sample"}


@dataclass(frozen=True)
class Block:
    """A block: `kind` says what to do with it, `argument` is what its comment adds (a file's name, arguments)."""

    page: Path
    line: int
    kind: str
    argument: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All blocks of a page in order. `ValueError` for one that nothing would check."""
    text = page.read_text()
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("fence")) + 1
        kind, argument = _kind(match["language"].strip(), match["note"] or "", f"{page}:{line}")
        found.append(Block(page, line, kind, argument, match["text"]))
    if len(found) * 2 != len(re.findall(r"^\s*```", text, re.M)):
        raise ValueError(f"{page}: a fence that is not closed, or not at the start of its line")
    return found


def _kind(language: str, note: str, where: str) -> tuple[str, str]:
    word, colon, argument = (part.strip() for part in note.partition(":"))
    if colon and word in ("file", "from", "run slow"):
        return word, argument
    if note in _NOTES and (language == "text") == (note in ("output", "sample")):
        return _NOTES[note], ""
    if not note and language in _KINDS:
        return _KINDS[language], ""
    raise ValueError(f"{where}: nothing says how a block of {language or 'no language'} with '{note}' is checked")


def commands(text: str) -> list[str]:
    """The single commands of a block: continued lines joined; comments, and what follows three spaces, left out."""
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    without = (re.sub(r"(^|\s)#.*|(?<=\S)\s{3,}.*", "", line) for line in lines)
    return [part.strip() for line in without for part in re.split(r"&&|;\s|&\s*$", line) if part.strip()]


def prose(page: Path) -> str:
    """The page without its blocks."""
    return _BLOCK.sub("", page.read_text())
