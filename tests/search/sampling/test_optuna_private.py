"""The private interfaces of Optuna: the same draws with and without them, and other versions of Optuna."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from kdsearch.config.search import SearchConfig
from kdsearch.search.sampling import optuna_private
from kdsearch.search.sampling.factory import make_sampler
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.testing.storages import Open, StorageConformance, Tear
from kdsearch.testing.toy_study import cost_of
from tests.search.sampling.cases import BRANCHES, open_study


@pytest.fixture
def other_version(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An Optuna of a version without the private interfaces."""
    monkeypatch.setattr(optuna, "__version__", "5.9.0")
    optuna_private.supported.cache_clear()
    yield
    optuna_private.supported.cache_clear()


def test_this_version_is_supported() -> None:
    assert optuna_private.supported()


@pytest.mark.parametrize("options", [{}, {"constant_liar": True}, {"multivariate": True, "group": True}])
def test_draws_are_those_of_optunas_own_sampler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, bool]
) -> None:
    fast = draws(tmp_path, options)
    monkeypatch.setattr(optuna_private, "_CachedTPESampler", optuna.samplers.TPESampler)
    assert draws(tmp_path, options) == fast


@pytest.mark.usefixtures("other_version")
def test_another_version_draws_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "kdsearch"):
        slow = draws(tmp_path, {"constant_liar": True})
    assert caplog.text.count("Optuna 5.9.0 lacks private interfaces of Optuna 5.0") == 1
    sampler = make_sampler(SearchConfig.model_validate({"sampler": "tpe"}).sampler, 0)
    assert type(sampler) is optuna.samplers.TPESampler
    optuna_private.supported.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optuna, "__version__", "5.0.0")
        assert draws(tmp_path, {"constant_liar": True}) == slow


def test_a_missing_attribute_is_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(optuna.study.Study, "_pop_waiting_trial_id")
    assert optuna_private._difference() == "no optuna.study.Study._pop_waiting_trial_id"


def test_tpe_draws_what_optuna_draws() -> None:
    drawn = []
    for sampler in (
        optuna.samplers.TPESampler(seed=1),
        make_sampler(SearchConfig.model_validate({"sampler": "tpe"}).sampler, 1),
    ):
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        running = [study.ask() for _ in range(3)]
        params = []
        for _ in range(40):
            trial = running.pop(0)
            x = trial.suggest_float("x", 0.01, 1, log=True)
            y = trial.suggest_int("y", 1, 9)
            z = trial.suggest_categorical("z", ["a", "b"])
            study.tell(trial, [x * y, float(y)] if y < 8 else None, state=None if y < 8 else TrialState.PRUNED)
            running.append(study.ask())
            params.append((x, y, z))
        drawn.append(params)
    assert drawn[0] == drawn[1]


@pytest.mark.usefixtures("other_version")
class TestStorageOnAnotherVersion(StorageConformance):
    """The journal by Optuna's own backend is the same file."""

    @pytest.fixture
    def open_storage(self, tmp_path: Path) -> Open:
        return lambda space: StudyStorage.open(tmp_path / "study.journal", space, cost_of)

    @pytest.fixture
    def tear(self, tmp_path: Path) -> Tear:
        def tear(rest: bytes) -> None:
            with (tmp_path / "study.journal").open("ab") as file:
                file.write(rest)

        return tear


def draws(tmp_path: Path, options: dict[str, bool]) -> list[dict[str, Any]]:
    """The parameters of 33 trials, three at a time."""
    text = ", ".join(f"{name}: true" for name in options)
    storage = open_study(tmp_path, f"{{name: tpe, n_startup_trials: 4, {text}}}", BRANCHES)
    running: list[Any] = []
    for step in range(30):
        while len(running) < 3:
            running.append(storage.ask())
        trial = running.pop(0)
        trial.epoch, trial.metrics = 4, {"val/miou": trial.config.train.lr * 10}
        storage.tell(trial, "PRUNED" if step % 3 == 2 else "COMPLETE")
    return [each.params for each in storage.trials]
