"""One module of cases a group of terms."""

from ..conformance import Case
from . import afdcd, baselines, cirkd, clnet, frkd, stc

CASES: list[Case] = [*afdcd.CASES, *baselines.CASES, *cirkd.CASES, *clnet.CASES, *frkd.CASES, *stc.CASES]
