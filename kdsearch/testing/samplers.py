"""Conformance suite of samplers: a sampler that `search.sampler` names, in a study of kdsearch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import optuna
import pytest

from kdsearch.config.space.search_space import SearchSpace
from kdsearch.search.sampling.factory import make_sampler
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.trial_record import TrialRecord
from kdsearch.testing.toy_study import ask, complete, cost_of, toy_space

__all__ = ["SamplerConformance"]

DRAWS = 12


class SamplerConformance:
    """Inherit, with a fixture `sampler` that returns a value of `search.sampler`: a name, or a mapping with options.

    The sampler of a plug-in is found through `KDSEARCH_PLUGINS`, which the fixture may set with `monkeypatch`.
    """

    reproducible: ClassVar[bool] = True
    """Whether the sampler takes a seed, and draws the same trials for the same seed."""

    @pytest.fixture
    def sampler(self) -> Any:
        raise NotImplementedError

    @pytest.fixture
    def space(self, sampler: Any) -> SearchSpace:
        return toy_space(sampler=sampler)

    def test_is_a_sampler_of_optuna(self, space: SearchSpace) -> None:
        assert isinstance(make_sampler(space.search.sampler, 0), optuna.samplers.BaseSampler)

    def test_draws_are_samples_of_the_space(self, space: SearchSpace) -> None:
        """The defaults come first; later draws differ, have the parameters of their branch, and are in range."""
        storage = StudyStorage.open(None, space, cost_of)
        drawn = self._search(storage)
        assert drawn[0].config == space.default().trial
        assert len({str(trial.config) for trial in drawn}) == DRAWS
        for trial in drawn:
            sample = space.from_params(trial.params)
            assert (sample.trial, dict(sample.params)) == (trial.config, trial.params)

    def test_infeasible_draws_are_replaced(self, space: SearchSpace) -> None:
        """The sampler gets the result of a draw that breaks a constraint; the draw takes no slot."""
        storage = StudyStorage.open(None, space, cost_of)
        assert all(trial.cost["gflops"] <= 5 for trial in self._search(storage))
        assert storage.searched() == DRAWS

    def test_trials_overlap(self, space: SearchSpace) -> None:
        """Several trials run at a time; they end in any order and in any state."""
        storage = StudyStorage.open(None, space, cost_of)
        running = [ask(storage) for _ in range(4)]
        for step in range(DRAWS):
            trial = running.pop(2 * step % 3)
            if step % 4 == 1:
                trial.epoch, trial.metrics = 2, {"val/miou": 0.1}
                storage.tell(trial, "PRUNED")
            elif step % 4 == 2:
                storage.tell(trial, "FAIL" if step % 8 == 2 else "INFEASIBLE", "made to fail")
            else:
                complete(storage, trial)
            running.append(ask(storage))
        assert len({trial.id for trial in storage.trials}) == len(storage.trials)

    def test_the_same_seed_draws_the_same(self, space: SearchSpace) -> None:
        if not self.reproducible:
            pytest.skip("takes no seed")
        first, second = (self._search(StudyStorage.open(None, space, cost_of)) for _ in range(2))
        assert [trial.params for trial in first] == [trial.params for trial in second]

    def test_a_resumed_study_continues(self, space: SearchSpace, tmp_path: Path) -> None:
        """A sampler of a second driver learns from the first one's trials and repeats none of them."""
        storage = StudyStorage.open(tmp_path / "study.journal", space, cost_of)
        first = self._search(storage)
        storage.close()
        storage = StudyStorage.open(tmp_path / "study.journal", space, cost_of)
        second = self._search(storage)
        storage.close()
        assert not {str(trial.config) for trial in first} & {str(trial.config) for trial in second}
        assert storage.searched() == 2 * DRAWS

    @staticmethod
    def _search(storage: StudyStorage) -> list[TrialRecord]:
        drawn = []
        for _ in range(DRAWS):
            drawn.append(ask(storage))
            complete(storage, drawn[-1])
        return drawn
