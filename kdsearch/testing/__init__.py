"""Conformance suites: what kdsearch requires of terms and other parts, as test classes for pytest.

The author of a plug-in inherits a suite in a test module of the plug-in and adds the fixtures that it names:

    from kdsearch.testing.terms import TermCase, TermConformance

    class TestMyTerm(TermConformance):
        @pytest.fixture(params=[TermCase(MyTerm), TermCase(MyTerm, {"temperature": 2.0})], ids=str)
        def case(self, request): return request.param

The tests of kdsearch inherit the same classes. This package imports pytest; no other part of kdsearch imports it.
"""

from __future__ import annotations

import pkgutil

import pytest

# The assertions of the suites are in modules that pytest does not collect itself.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)))
