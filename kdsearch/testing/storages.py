"""Conformance suite of study storages: ask and tell, resuming, crashes, and a second writer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from kdsearch.config.space.search_space import SearchSpace
from kdsearch.errors import UserError
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.testing.toy_study import ask, complete, toy_space

__all__ = ["StorageConformance"]

Open = Callable[[SearchSpace], StudyStorage]
Tear = Callable[[bytes], None]


class StorageConformance:
    """Inherit, with a fixture `open_storage` that returns a function: each call opens the same storage anew.

    The fixture `tear` returns a function that appends bytes to the storage as a crash may; override it if the storage
    can be torn.
    """

    @pytest.fixture
    def open_storage(self) -> Open:
        raise NotImplementedError

    @pytest.fixture
    def tear(self) -> Tear:
        pytest.skip("cannot be torn")

    @pytest.fixture
    def space(self) -> SearchSpace:
        return toy_space(sampler="random")

    def test_ask_and_tell(self, open_storage: Open, space: SearchSpace) -> None:
        """The defaults come first; ids are unique; trials end in each state; a feasible best one is on the frontier."""
        with opened(open_storage, space) as storage:
            assert storage.trials == []
            trials = [ask(storage) for _ in range(4)]
            assert trials[0].config == space.default().trial
            assert {trial.id for trial in storage.running()} == {trial.id for trial in trials}
            complete(storage, trials[0])
            trials[1].epoch, trials[1].metrics = 2, {"val/miou": 0.1}
            storage.tell(trials[1], "PRUNED")
            storage.tell(trials[2], "FAIL", "loss/kd is not finite")
            storage.tell(trials[3], "INFEASIBLE", "out of device memory")
            assert [trial.state for trial in trials] == ["COMPLETE", "PRUNED", "FAIL", "INFEASIBLE"]
            assert storage.frontier() == [trials[0]]
            assert storage.searched() == 3
            assert not list(storage.running())
            assert len({trial.id for trial in storage.trials}) == len(storage.trials)

    def test_infeasible_and_equal_draws_take_no_slot(self, open_storage: Open, space: SearchSpace) -> None:
        with opened(open_storage, space) as storage:
            trials = [ask(storage) for _ in range(8)]
            assert all(trial.cost["gflops"] <= 5 for trial in trials)
            assert len({str(trial.config) for trial in trials}) == 8
            assert storage.searched() == 8
            for trial in storage.trials:
                assert (trial.state == "INFEASIBLE") == (trial.cost["gflops"] > 5)

    def test_enqueued_samples_come_next(self, open_storage: Open, space: SearchSpace) -> None:
        with opened(open_storage, space) as storage:
            complete(storage, ask(storage))
            sample = space.from_params({**space.default().params, "train.lr": 2e-3})
            storage.enqueue(sample)
            assert ask(storage).config == sample.trial

    def test_everything_is_restored(self, open_storage: Open, space: SearchSpace) -> None:
        """A second driver sees the same trials; running ones keep their ids and can be told."""
        with opened(open_storage, space) as storage:
            done, running = ask(storage), ask(storage)
            complete(storage, done)
            repeat = storage.add("confirm", done.config, {"of": done.id})
            before = {trial.id: str(trial) for trial in storage.trials}
        with opened(open_storage, space) as storage:
            assert {trial.id: str(trial) for trial in storage.trials} == before
            assert {trial.id for trial in storage.running()} == {running.id, repeat.id}
            assert [trial.id for trial in storage.frontier()] == [done.id]
            complete(storage, storage.get(running.id))
            complete(storage, storage.get(repeat.id))
            assert ask(storage).id not in before
            assert storage.complete("confirm")[0].params == {"of": done.id}

    def test_a_changed_space_imports_the_trials_that_it_could_have_drawn(
        self, open_storage: Open, space: SearchSpace
    ) -> None:
        with opened(open_storage, space) as storage:
            done, running = ask(storage), ask(storage)
            complete(storage, done)
        with opened(open_storage, toy_space(sampler="random", constraints={})) as storage:
            assert storage.extension is not None
            assert (storage.extension.version, storage.extension.running) == (2, [running.id])
            assert storage.extension.imported >= 1
            assert storage.old_spaces == [space.record()]
            assert [trial.id for trial in storage.frontier()] == [done.id]

    def test_one_writer_at_a_time(self, open_storage: Open, space: SearchSpace) -> None:
        with opened(open_storage, space), pytest.raises(UserError, match="Another process"):
            open_storage(space)
        open_storage(space).close()

    def test_close_twice(self, open_storage: Open, space: SearchSpace) -> None:
        storage = open_storage(space)
        storage.close()
        storage.close()

    @pytest.mark.parametrize("rest", [b'{"op_code": 5, "trial', b"\0" * 512, b"no entry\n"])
    def test_a_torn_end_is_removed(self, open_storage: Open, tear: Tear, space: SearchSpace, rest: bytes) -> None:
        """A crash in the middle of a write costs at most the entry that was being written."""
        with opened(open_storage, space) as storage:
            complete(storage, ask(storage))
            before = [str(trial) for trial in storage.trials]
        tear(rest)
        with opened(open_storage, space) as storage:
            assert storage.cut == len(rest)
            assert [str(trial) for trial in storage.trials] == before
            complete(storage, ask(storage))
        with opened(open_storage, space) as storage:
            assert storage.cut == 0
            assert len(storage.complete("search")) == 2


@contextmanager
def opened(open_storage: Open, space: SearchSpace) -> Iterator[StudyStorage]:
    """The storage, closed at the end."""
    storage = open_storage(space)
    try:
        yield storage
    finally:
        storage.close()
