"""A study without training for the conformance suites: a small space with branches, and made-up costs and mIoU."""

from __future__ import annotations

import math
from typing import Any

import yaml

from kdsearch.config.space.search_space import SearchSpace, space_from_text
from kdsearch.config.trial import TrialConfig
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.trial_record import TrialRecord

SPACE = """
name: toy
data: {name: scenes, size: [64, 96]}
teacher: {arch: fpn, encoder: resnet50}
student:
  one_of:
    - {arch: fpn, encoder: {choice: [resnet18, resnet34, mobilenet_v2]}}
    - {arch: clnet, encoder: mit_b0, width: {int: [8, 32], default: 16}}
distill: {kd: {weight: {log: [0.1, 10], default: 1}}}
train: {lr: {log: [1.0e-4, 1.0e-2], default: 1.0e-3}, weight_decay: {uniform: [0, 0.1], default: 0.01}, epochs: 4}
search: {trials: 12, constraints: {gflops: "<= 5"}, rungs: [2], stop: none}
confirm: {seeds: 1}
"""
GFLOPS = {"resnet18": 3.0, "resnet34": 9.0, "mobilenet_v2": 1.0, "mit_b0": 2.0}
REFERENCE = {"gflops": 10.0}
"""The corner of the hypervolume."""


def toy_space(**search: Any) -> SearchSpace:
    """The space, with these settings of `search`. One of four students exceeds the constraint."""
    tree = yaml.safe_load(SPACE)
    tree["search"] |= search
    return space_from_text(yaml.safe_dump(tree, sort_keys=False), "toy space")


def cost_of(config: TrialConfig) -> dict[str, float]:
    return {"gflops": GFLOPS[config.student.encoder], "params_m": 1.0}


def miou_of(config: TrialConfig, epoch: int) -> float:
    """The mIoU after an epoch: higher for larger students, best at one learning rate."""
    away = abs(math.log10(config.train.lr / 1e-3))
    return 0.4 + 0.02 * cost_of(config)["gflops"] + 0.02 * epoch - 0.1 * away


def ask(storage: StudyStorage) -> TrialRecord:
    """The next trial, which has to exist."""
    trial = storage.ask()
    assert trial is not None, "the space holds no new trial"
    return trial


def complete(storage: StudyStorage, trial: TrialRecord) -> None:
    """Tell the result of all epochs of a trial."""
    epochs = trial.config.train.epochs
    trial.epoch, trial.curve = epochs, {epoch: miou_of(trial.config, epoch) for epoch in range(1, epochs + 1)}
    trial.metrics = {"val/miou": trial.curve[epochs]}
    storage.tell(trial, "COMPLETE")
