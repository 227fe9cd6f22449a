"""docs/cluster.md and the files' comments name files and options that exist."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from kdsearch.cli.commands.run import add_arguments

from .conftest import CLUSTER, REPOSITORY

TEXTS = [REPOSITORY / "docs" / "cluster.md", *sorted(path for path in CLUSTER.rglob("*") if path.is_file())]
STUDY = re.compile(r"(?:kdsearch\.run|kdsearch-study|study\.sh|slurm\.sh)\b(.*)")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
class TestNames:
    def test_files_that_are_named_exist(self, path: Path) -> None:
        for name in re.findall(r"\b(?:cluster|tests|docs|benchmarks)/[\w./-]*\w", path.read_text()):
            assert (REPOSITORY / name).exists(), name

    def test_options_of_a_study_are_ones_that_kdsearch_has(self, path: Path) -> None:
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        text = path.read_text().replace("\\\n", " ")
        for line in STUDY.findall(text):
            for option in re.findall(r"(?<![\w-])--[a-z][\w-]+", line.split("`")[0]):
                assert option in parser._option_string_actions, f"{option} in {line}"
