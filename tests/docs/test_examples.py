"""The term of docs/term.md, the reader of docs/data.md and the plug-ins of docs/plugins.md pass the shipped suites."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from examples.term import test_zscore_kd
from kdsearch import plugins
from kdsearch.data.reader import Reader
from kdsearch.search.callbacks import StudyCallback, StudyInfo
from kdsearch.testing.callbacks import drive
from kdsearch.testing.readers import ReaderConformance
from tests.docs.blocks import REPOSITORY, blocks


class TestTerm(test_zscore_kd.TestConformance):
    @pytest.fixture(autouse=True)
    def _named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(plugins.VARIABLE, "examples.term.zscore_kd")

    def test_is_the_published_formula(self) -> None:
        test_zscore_kd.test_is_the_published_formula()

    def test_scale_and_shift_of_the_logits_do_not_matter(self) -> None:
        test_zscore_kd.test_scale_and_shift_of_the_logits_do_not_matter()

    def test_a_pixel_of_equal_logits_has_a_gradient(self) -> None:
        test_zscore_kd.test_a_pixel_of_equal_logits_has_a_gradient()


class TestReader(ReaderConformance):
    @pytest.fixture
    def open_again(self, tmp_path: Path) -> Callable[[], Reader]:
        page = REPOSITORY / "docs" / "data.md"
        code = next(block.text for block in blocks(page) if block.argument == "my_reader.py")
        (tmp_path / "my_reader.py").write_text(code)
        reader = runpy.run_path(str(tmp_path / "my_reader.py"))["READERS"]["npz"]
        rng = np.random.default_rng(0)
        for split in ("train", "val"):
            (tmp_path / split).mkdir()
            for number in range(3):
                image, label = rng.integers(0, 256, (8, 12, 3), np.uint8), rng.integers(0, 2, (8, 12)).astype(np.uint8)
                np.savez(tmp_path / split / f"{split}{number}.npz", image=image, label=label)
        return lambda: reader(tmp_path)


def _module(page: str, file: str) -> ModuleType:
    """A module from a block of a page, registered under its name."""
    block = next(block for block in blocks(REPOSITORY / "docs" / page) if block.argument == file)
    module = ModuleType(file.removesuffix(".py"))
    exec(compile(block.text, str(block), "exec", dont_inherit=True), module.__dict__)
    sys.modules[module.__name__] = module
    return module


_module("plugins.md", "our_plugins.py")
_suites = _module("plugins.md", "test_our_plugins.py")


class TestStopRule(_suites.TestMedianStop):
    pass


class TestSampler(_suites.TestNSGA3):
    pass


class TestCallback(_suites.TestFrontierLog):
    def test_a_line_per_change(self, make: Callable[[StudyInfo], StudyCallback], study: StudyInfo) -> None:
        callback = make(study)
        drive(callback, study)
        lines = (study.path / "frontier.jsonl").read_text().splitlines()
        assert json.loads(lines[0])["trials"] == []
        assert json.loads(lines[-1])["trials"]
