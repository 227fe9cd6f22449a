"""The bounded history of a sampler, and the calls to the storage per trial."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest

from kdsearch.config.space.search_space import load_space
from kdsearch.search.sampling.search_study import SearchStudy
from kdsearch.search.storage.study_storage import StudyStorage
from tests.search.conftest import SPACE, cost_of


def _filled(history: int | None, n: int) -> SearchStudy:
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(storage=storage, study_name="s", directions=["maximize", "minimize"])
    filled = SearchStudy("s", storage, optuna.samplers.RandomSampler(seed=0), history)
    for number in range(n):
        trial = filled.ask()
        x = trial.suggest_float("x", 0, 1)
        filled.tell(trial, [1.0 if number == 3 else 0.5 * x, 1.0])
    return filled


def test_a_bounded_history_keeps_the_best_and_the_latest() -> None:
    bounded = _filled(50, 200)
    running = bounded.ask()
    seen = [t.number for t in bounded._get_trials(deepcopy=False)]
    assert len(seen) <= 51
    assert seen == sorted(seen)
    assert 3 in seen  # the best of all, long ago
    assert {199, 198, 197} <= set(seen)
    assert len(bounded.trials) == 201
    bounded.ask()
    assert running.number in [t.number for t in bounded._get_trials(deepcopy=False)]
    assert len(_filled(None, 60)._get_trials()) == 60


def test_what_is_enqueued_comes_next_however_long_the_study() -> None:
    filled = _filled(50, 60)
    filled.enqueue_trial({"x": 0.125})
    assert filled.ask().suggest_float("x", 0, 1) == 0.125
    assert filled.ask().suggest_float("x", 0, 1) != 0.125


def test_a_trial_makes_as_many_calls_to_the_storage_after_120_trials_as_after_30(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s.yaml").write_text(
        SPACE.replace("sampler: random", "sampler: {name: tpe, n_startup_trials: 1000, history: 50}")
    )
    storage = StudyStorage.open(tmp_path / "study.journal", load_space(tmp_path / "s.yaml"), cost_of)
    calls: Counter[str] = Counter()
    backend = storage._search._storage
    for name in ("get_all_trials", "get_trial", "set_trial_param", "set_trial_user_attr", "set_trial_state_values"):

        def counted(*arguments: Any, name: str, method: Any, **options: Any) -> Any:
            calls[name] += 1
            return method(*arguments, **options)

        monkeypatch.setattr(backend, name, partial(counted, name=name, method=getattr(backend, name)))
    per_trial = []
    for number in range(1, 121):
        calls.clear()
        asked = len(storage.trials)
        trial = storage.ask()
        assert trial is not None
        trial.epoch, trial.metrics = 4, {"val/miou": 0.5 * number / 120}
        storage.tell(trial, "COMPLETE")
        if len(storage.trials) == asked + 1 and number in (*range(25, 35), *range(110, 120)):
            per_trial.append((number, dict(calls)))
    early = [made for number, made in per_trial if number < 100]
    late = [made for number, made in per_trial if number > 100]
    assert early
    assert late
    assert all(made.get("get_all_trials", 0) == 0 for made in late)  # the one call that goes through all trials
    assert max(sum(made.values()) for made in late) <= max(sum(made.values()) for made in early)
    storage.close()
