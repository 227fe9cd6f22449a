"""Files with the configuration of one trial, the input of `kdsearch train`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdsearch.config.space.file import SpaceDocument
from kdsearch.config.space.problems import Problem, problems_error
from kdsearch.config.space.shipped import display, yaml_file
from kdsearch.config.space.validation import read_checked, sample_tree, validate
from kdsearch.config.space.yaml_tree import Tree, dump_yaml, parse_yaml
from kdsearch.config.trial import TrialConfig

LABELS = ("name", "description")
"""What a space has beside its settings; a trial that has them trains the same."""


def load_trial(path: str | Path) -> TrialConfig:
    """Read a trial from its own file, or from the `config.json` of a student.

    Raises one `UserError` that lists every problem with its line, key and remedy.
    """
    file = yaml_file(Path(path))
    origin = display(file)
    return _trial_from_text(file.read_bytes(), origin)


def trial_from_dict(settings: Mapping[str, Any]) -> TrialConfig:
    """A trial from a dictionary of the same structure. Raises `UserError` as `load_trial` does."""
    return _trial_from_text(json.dumps(settings), "the dictionary")


def _trial_from_text(text: str | bytes, origin: str) -> TrialConfig:
    tree = parse_yaml(text, lambda line: f"{origin}:{line}")
    if isinstance(tree, Tree) and isinstance(tree.get("trial"), Tree):
        tree = tree["trial"]
    if isinstance(tree, Tree):
        _leave_out_the_space(tree)
    root = read_checked(tree, origin, TrialConfig, lambda name: "a trial has one value here, ranges are for a space")
    return validate(sample_tree(root, lambda _, domain: domain.default), TrialConfig)


def _leave_out_the_space(tree: Tree) -> None:
    """Remove what only names a space; refuse what only a study reads, since here it would have no effect."""
    problems = [
        Problem(tree.origins[key], key, "belongs to a study, a trial has no such section; remove it")
        for key in tree
        if key in SpaceDocument.model_fields and key not in TrialConfig.model_fields and key not in LABELS
    ]
    if problems:
        raise problems_error(problems)
    for key in LABELS:
        tree.pop(key, None)


def dump_trial(config: TrialConfig) -> str:
    """The YAML text that `load_trial` reads as the same trial."""
    return dump_yaml(config.model_dump(mode="json"))
