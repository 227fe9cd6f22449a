"""The content of a data set: the bytes of its files and how they are read, wherever they lie and whenever they changed.

Equal content has an equal fingerprint, which names stores, teachers and cached maps, and by which studies are compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kdsearch.errors import UserError

CONTENT = "content.json"
"""File of a store with the content that it was made from."""
LISTED = 5
"""Changed files that a message names."""

FileOf = Callable[[str, str, int], str]

Samples = dict[str, dict[str, list[str]]]
"""The digests of the files of each sample, by split and key."""


@dataclass(frozen=True)
class Content:
    """The rules by which a reader reads, and the digests of the files that it reads for each sample."""

    rules: Mapping[str, Any]
    samples: Samples

    @cached_property
    def fingerprint(self) -> str:
        """64 hexadecimal digits, equal for equal content on every machine."""
        order = {split: list(samples.items()) for split, samples in self.samples.items()}
        return hashlib.sha256(json.dumps([self.rules, order], sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        return json.dumps({"rules": self.rules, "samples": self.samples}, indent=0)

    @classmethod
    def load(cls, path: Path) -> Content:
        """The content in a file. Raises `UserError` if it is damaged."""
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            content = cls(facts["rules"], facts["samples"])
            content.fingerprint  # noqa: B018  a file of another structure has none
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(f"{path} cannot be read ({error!r}); bring it back from a copy") from None
        return content

    def changes(self, then: Content, file_of: FileOf) -> str:
        """How this content differs from that of `then`, in words; empty if it does not.

        `file_of` names the file of a sample as it is now, by split, key and number; "" where there is none.
        """
        if self.fingerprint == then.fingerprint:
            return ""
        now, before = _flat(self.samples), _flat(then.samples)
        kinds = {
            "changed": [name for name in now if name in before and now[name] != before[name]],
            "new": [name for name in now if name not in before],
            "gone": [name for name in before if name not in now],
        }
        counts = ", ".join(f"{len(names)} {kind}" for kind, names in kinds.items() if names)
        named = [name for names in kinds.values() for name in names]
        parts = []
        if named:
            more = ", ..." if len(named) > LISTED else ""
            shown = ", ".join(file_of(*name) or f"{name[0]} sample {name[1]}" for name in named[:LISTED])
            parts.append(f"of {len(before)} files {counts} ({shown}{more})")
        elif list(now) != list(before):
            parts.append("the files are in another order")
        rules = [key for key in {**then.rules, **self.rules} if self.rules.get(key) != then.rules.get(key)]
        if rules:
            parts.append(f"they are read in another way ({', '.join(sorted(rules))})")
        return "; ".join(parts)


def _flat(samples: Samples) -> dict[tuple[str, str, int], str]:
    """The digest of each file, by the split, the key and the number of the file in its sample."""
    return {
        (split, key, at): digest
        for split, each in samples.items()
        for key, digests in each.items()
        for at, digest in enumerate(digests)
    }
