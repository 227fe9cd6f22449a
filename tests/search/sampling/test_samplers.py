"""Samplers by name, what they see of a long study, and what a trial costs then."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from kdsearch.config.search import SearchConfig
from kdsearch.config.space.search_space import load_space
from kdsearch.errors import UserError
from kdsearch.search.sampling import samplers
from kdsearch.search.sampling.samplers import SearchStudy, make_sampler
from kdsearch.search.storage.study_storage import StudyStorage
from tests.search.conftest import SPACE, cost_of

BRANCHES = SPACE.replace(
    "student:\n  arch: fpn\n  encoder: {choice: [resnet18, resnet34, mobilenet_v2]}",
    "student:\n  one_of:\n    - {arch: fpn, encoder: {choice: [resnet18, resnet34]}}\n"
    "    - {arch: unet, encoder: mobilenet_v2, options: {decoder_channels: [8, 8, 8, 8, 8]}}",
).replace('constraints: {gflops: "<= 5"}, ', "")


def study(tmp_path: Path, sampler: str, text: str = SPACE) -> StudyStorage:
    (tmp_path / "s.yaml").write_text(text.replace("sampler: random", f"sampler: {sampler}"))
    return StudyStorage.open(None, load_space(tmp_path / "s.yaml"), lambda config: {"gflops": 2.0, "params_m": 1.0})


@pytest.mark.parametrize(
    "sampler",
    [
        "tpe", "nsga2", "random", "qmc",
        "{name: tpe, multivariate: true, group: true, n_startup_trials: 2, n_ei_candidates: 4}",
        "{name: nsga2, population_size: 4, crossover_prob: 0.5, mutation_prob: 0.2}",
        pytest.param("{name: gp, n_startup_trials: 3, deterministic_objective: true}", marks=pytest.mark.slow),
        "{name: qmc, qmc_type: halton, scramble: true}",
    ],
)  # fmt: skip
def test_every_sampler_searches_a_space_with_branches(tmp_path: Path, sampler: str) -> None:
    record = study(tmp_path, sampler, BRANCHES)
    for step in range(8):
        trial = record.ask()
        assert trial is not None
        trial.epoch, trial.metrics = 4, {"val/miou": trial.config.train.lr * 10}
        record.tell(trial, "PRUNED" if step % 3 == 2 else "COMPLETE")
    assert not list(record.running())
    assert len({r.config.train.lr for r in record.trials}) > 4


@pytest.mark.parametrize("options", [{}, {"constant_liar": True}, {"multivariate": True, "group": True}])
def test_draws_are_those_of_optunas_own_sampler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, bool]
) -> None:
    def draws() -> list[dict[str, Any]]:
        text = ", ".join(f"{name}: true" for name in options)
        record = study(tmp_path, f"{{name: tpe, n_startup_trials: 4, {text}}}", BRANCHES)
        out: list[Any] = []
        for step in range(30):
            while len(out) < 3:
                out.append(record.ask())
            trial = out.pop(0)
            trial.epoch, trial.metrics = 4, {"val/miou": trial.config.train.lr * 10}
            record.tell(trial, "PRUNED" if step % 3 == 2 else "COMPLETE")
        return [each.params for each in record.trials]

    ours = draws()
    monkeypatch.setattr(samplers, "_TPESampler", optuna.samplers.TPESampler)
    assert draws() == ours


def test_options_reach_the_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(optuna.samplers, "NSGAIISampler", lambda **options: given.update(options))
    config = SearchConfig.model_validate({"sampler": {"name": "nsga2", "population_size": 7}})
    make_sampler(config.sampler, 3)
    assert given == {
        "seed": 3, "population_size": 7, "mutation_prob": None, "crossover_prob": 0.9, "swapping_prob": 0.5
    }  # fmt: skip


def test_a_sampler_whose_packages_are_missing_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    find = samplers.importlib.util.find_spec  # type: ignore[attr-defined]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "scipy" else find(name))
    config = SearchConfig.model_validate({"sampler": "gp"})
    with pytest.raises(UserError, match=r"search\.sampler gp needs scipy: pip install scipy"):
        make_sampler(config.sampler, 0)


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
    record = StudyStorage.open(tmp_path / "study.journal", load_space(tmp_path / "s.yaml"), cost_of)
    calls: Counter[str] = Counter()
    storage = record._search._storage
    for name in ("get_all_trials", "get_trial", "set_trial_param", "set_trial_user_attr", "set_trial_state_values"):

        def counted(*arguments: Any, name: str, method: Any, **options: Any) -> Any:
            calls[name] += 1
            return method(*arguments, **options)

        monkeypatch.setattr(storage, name, partial(counted, name=name, method=getattr(storage, name)))
    per_trial = []
    for number in range(1, 121):
        calls.clear()
        asked = len(record.trials)
        trial = record.ask()
        assert trial is not None
        trial.epoch, trial.metrics = 4, {"val/miou": 0.5 * number / 120}
        record.tell(trial, "COMPLETE")
        if len(record.trials) == asked + 1 and number in (*range(25, 35), *range(110, 120)):
            per_trial.append((number, dict(calls)))
    early = [made for number, made in per_trial if number < 100]
    late = [made for number, made in per_trial if number > 100]
    assert early
    assert late
    assert all(made.get("get_all_trials", 0) == 0 for made in late)  # the one call that goes through all trials
    assert max(sum(made.values()) for made in late) <= max(sum(made.values()) for made in early)
    record.close()


def test_a_bound_on_what_trials_report_keeps_them_off_the_frontier(tmp_path: Path) -> None:
    text = SPACE.replace('gflops: "<= 5"', 'gflops: "<= 5", val/iou/person: ">= 0.5"')
    (tmp_path / "bound.yaml").write_text(text)
    space = load_space(tmp_path / "bound.yaml")
    record = StudyStorage.open(tmp_path / "study.journal", space, cost_of)
    reported = [
        {"val/miou": 0.9, "val/iou/person": 0.4}, {"val/miou": 0.5, "val/iou/person": 0.6}, {"val/miou": 0.95}
    ]  # fmt: skip
    trials = []
    for metrics in reported:
        trial = record.ask()
        assert trial is not None
        trial.epoch, trial.metrics = 4, metrics
        record.tell(trial, "COMPLETE")
        trials.append(trial)
    assert [trial.feasible for trial in trials] == [False, True, False]
    assert [trial.state for trial in trials] == ["COMPLETE"] * 3
    assert trials[0].reason == "val/iou/person 0.4 is not >= 0.5"
    assert "was not reported" in trials[2].reason
    assert record.frontier() == [trials[1]]
    told = [t.constraints["val/iou/person"] for t in record._search.trials if t.state.is_finished() and t.values]
    assert told == pytest.approx([0.1, -0.1, 1.0])
    record.close()
    again = StudyStorage.open(tmp_path / "study.journal", space, cost_of)
    assert [member.id for member in again.frontier()] == [trials[1].id]
    again.close()
