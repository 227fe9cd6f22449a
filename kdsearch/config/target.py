"""The device on which the latency of students is measured (`search.latency`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_PATTERN = r"^(cuda|cpu(:[1-9]\d{0,3})?)$"


@dataclass(frozen=True)
class Target:
    """A GPU (`cuda`), or `threads` threads of a CPU (`cpu:4`; `cpu` is one thread)."""

    kind: Literal["cpu", "cuda"]
    threads: int = 1

    @classmethod
    def parse(cls, text: Any) -> Any:
        """Parse `"cpu:4"`; a target or None is returned unchanged. Raises `ValueError`."""
        if text is None or isinstance(text, Target):
            return text
        match = re.match(_PATTERN, text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f"should be cpu, cpu:4 (with its number of threads) or cuda, got {text!r}")
        if text == "cuda":
            return cls("cuda")
        return cls("cpu", int(match[2][1:]) if match[2] else 1)

    def __str__(self) -> str:
        return self.kind if self.threads == 1 else f"{self.kind}:{self.threads}"


TargetText = Annotated[
    Target,
    BeforeValidator(Target.parse),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "pattern": _PATTERN}),
]
