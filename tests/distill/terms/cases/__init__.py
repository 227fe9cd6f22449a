"""One module of cases a group of terms."""

from kdsearch.testing.terms import TermCase

from . import afdcd, baselines, cirkd, clnet, frkd, stc

CASES: list[TermCase] = [*afdcd.CASES, *baselines.CASES, *cirkd.CASES, *clnet.CASES, *frkd.CASES, *stc.CASES]
