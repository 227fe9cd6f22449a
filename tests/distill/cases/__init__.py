"""One module of cases a group of terms."""

from ..conformance import Case
from . import clnet

CASES: list[Case] = [*clnet.CASES]
