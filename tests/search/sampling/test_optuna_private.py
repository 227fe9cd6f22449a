"""The private interfaces of Optuna: the same draws with them and without, and other versions."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from kdsearch.config.search import SearchConfig
from kdsearch.config.space.search_space import SearchSpace
from kdsearch.search.sampling import optuna_private
from kdsearch.search.sampling.factory import make_sampler
from kdsearch.search.storage.study_storage import StudyStorage
from tests.search.conftest import cost_of
from tests.search.sampling.cases import BRANCHES, open_study


@pytest.mark.parametrize("options", [{}, {"constant_liar": True}, {"multivariate": True, "group": True}])
def test_draws_are_those_of_optunas_own_sampler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, bool]
) -> None:
    def draws() -> list[dict[str, Any]]:
        text = ", ".join(f"{name}: true" for name in options)
        storage = study(tmp_path, f"{{name: tpe, n_startup_trials: 4, {text}}}", BRANCHES)
        out: list[Any] = []
        for step in range(30):
            while len(out) < 3:
                out.append(storage.ask())
            trial = out.pop(0)
            trial.epoch, trial.metrics = 4, {"val/miou": trial.config.train.lr * 10}
            storage.tell(trial, "PRUNED" if step % 3 == 2 else "COMPLETE")
        return [each.params for each in storage.trials]

    ours = draws()
    monkeypatch.setattr(samplers, "_TPESampler", optuna.samplers.TPESampler)
    assert draws() == ours


def test_tpe_draws_what_optuna_draws() -> None:
    drawn = []
    for sampler in (
        optuna.samplers.TPESampler(seed=1),
        make_sampler(SearchConfig.model_validate({"sampler": "tpe"}).sampler, 1),
    ):
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        out = [study.ask() for _ in range(3)]
        params = []
        for _ in range(40):
            trial = out.pop(0)
            x = trial.suggest_float("x", 0.01, 1, log=True)
            y = trial.suggest_int("y", 1, 9)
            z = trial.suggest_categorical("z", ["a", "b"])
            study.tell(trial, [x * y, float(y)] if y < 8 else None, state=None if y < 8 else TrialState.PRUNED)
            out.append(study.ask())
            params.append((x, y, z))
        drawn.append(params)
    assert drawn[0] == drawn[1]


