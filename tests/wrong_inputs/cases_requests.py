"""Requests of each command that it cannot carry out."""

from __future__ import annotations

from tests.wrong_inputs.case import Case

CASES = [
    Case("run-unknown-space", "run clfb", "unknown search space 'clfb'. Did you mean 'clfd'?"),
]
