"""The console by the suite that callbacks of plug-ins inherit, on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kdsearch.testing.callbacks import CallbackConformance, Make
from kdsearch.tracking.console import ConsoleCallback


class TestConformance(CallbackConformance):
    @pytest.fixture(params=[True, False], ids=["terminal", "lines"])
    def make(self, request: pytest.FixtureRequest) -> Make:
        return lambda study: ConsoleCallback(Console(file=io.StringIO(), force_terminal=request.param, width=120))
