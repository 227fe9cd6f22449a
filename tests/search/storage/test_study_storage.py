from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.config.trial import TrialConfig
from kdsearch.errors import UserError
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.trial_record import TrialRecord
from kdsearch.testing import toy_study
from kdsearch.testing.storages import Open, StorageConformance, Tear
from tests.search.conftest import SPACE, cost_of


class TestConformance(StorageConformance):
    @pytest.fixture
    def open_storage(self, tmp_path: Path) -> Open:
        return lambda space: StudyStorage.open(tmp_path / "study.journal", space, toy_study.cost_of)

    @pytest.fixture
    def tear(self, tmp_path: Path) -> Tear:
        def tear(rest: bytes) -> None:
            with (tmp_path / "study.journal").open("ab") as file:
                file.write(rest)

        return tear


@pytest.fixture
def storage(tmp_path: Path, space: SearchSpace) -> Iterator[StudyStorage]:
    storage = StudyStorage.open(tmp_path / "study.journal", space, cost_of)
    yield storage
    storage.close()


def complete(storage: StudyStorage, trial: TrialRecord, miou: float = 0.5) -> None:
    trial.epoch, trial.metrics = 4, {"val/miou": miou}
    storage.tell(trial, "COMPLETE")


def test_the_default_comes_first(storage: StudyStorage) -> None:
    first = storage.ask()
    assert first is not None
    assert first.config.student.encoder == "resnet18"
    assert first.config.train.lr == 1e-3


def test_infeasible_configurations_are_told_and_take_no_slot(storage: StudyStorage) -> None:
    asked = [storage.ask() for _ in range(8)]
    assert all(trial is not None and trial.cost["gflops"] <= 5 for trial in asked)
    infeasible = [trial for trial in storage.trials if trial.state == "INFEASIBLE"]
    assert infeasible
    assert all(trial.config.student.encoder == "resnet34" for trial in infeasible)
    assert "gflops 9 is not <= 5" in infeasible[0].reason
    assert storage.searched() == 8
    told = storage._search.trials
    assert all(told[int(trial.id[1:])].constraints["gflops"] == 4.0 for trial in infeasible)


def test_a_student_that_cannot_be_built_is_infeasible(tmp_path: Path, space: SearchSpace) -> None:
    def cost(config: TrialConfig) -> dict[str, float]:
        if config.student.encoder == "resnet18":
            raise UserError("resnet18 is out of stock.")
        return cost_of(config)

    storage = StudyStorage.open(tmp_path / "other.journal", space, cost)
    trial = storage.ask()
    assert trial is not None
    assert trial.config.student.encoder == "mobilenet_v2"
    assert "out of stock" in storage.trials[0].reason
    storage.close()


def test_equal_configurations_are_never_trained_twice_and_a_small_space_ends(tmp_path: Path) -> None:
    fixed = SPACE.replace("{log: [1.0e-4, 1.0e-2], default: 1.0e-3}", "1.0e-3")
    (tmp_path / "small.yaml").write_text(fixed.replace("{log: [0.1, 10], default: 1}", "1"))
    storage = StudyStorage.open(tmp_path / "small.journal", load_space(tmp_path / "small.yaml"), cost_of)
    asked = []
    while (trial := storage.ask()) is not None:
        complete(storage, trial)
        asked.append(trial.config.student.encoder)
    assert sorted(asked) == ["mobilenet_v2", "resnet18"]
    copies = [t for t in storage._search.trials if "copy_of" in t.user_attrs]
    assert copies
    assert all(t.state.is_finished() for t in copies)
    storage.close()


def test_without_a_path_everything_stays_in_memory(
    tmp_path: Path, space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    for _ in range(2):
        storage = StudyStorage.open(None, space, cost_of)
        assert storage.trials == []
        trial = storage.ask()
        assert trial is not None
        complete(storage, trial)
        storage.close()
    assert set(tmp_path.iterdir()) == before


def test_everything_is_read_back_and_running_trials_keep_their_number(tmp_path: Path, space: SearchSpace) -> None:
    storage = StudyStorage.open(tmp_path / "study.journal", space, cost_of)
    done, stopped, failed, running = (storage.ask() for _ in range(4))
    assert done
    assert stopped
    assert failed
    assert running
    complete(storage, done, 0.6)
    stopped.epoch, stopped.metrics = 1, {"val/miou": 0.2}
    storage.tell(stopped, "PRUNED")
    storage.tell(failed, "FAIL", "loss/kd is not finite at step 3 of epoch 1")
    storage.close()

    again = StudyStorage.open(tmp_path / "study.journal", space, cost_of)
    assert [r.id for r in again.running()] == [running.id]
    assert again.get(running.id).config == running.config
    assert (again.get(done.id).state, again.get(done.id).miou) == ("COMPLETE", 0.6)
    assert (again.get(stopped.id).state, again.get(stopped.id).epoch) == ("PRUNED", 1)
    assert again.get(failed.id).reason.startswith("loss/kd")
    complete(again, again.get(running.id))
    assert not list(again.running())
    again.close()


def test_an_outcome_written_but_not_told_is_told_on_opening(
    tmp_path: Path, space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = StudyStorage.open(tmp_path / "study.journal", space, cost_of)
    trial = storage.ask()
    assert trial is not None

    def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "_tell_sampler", die)
    with pytest.raises(KeyboardInterrupt):
        complete(storage, trial, 0.4)
    storage.close()
    again = StudyStorage.open(tmp_path / "study.journal", space, cost_of)
    frozen = again._search.trials[int(trial.id[1:])]
    assert frozen.values == [0.4, trial.cost["gflops"]]
    again.close()


def test_one_driver_at_a_time(storage: StudyStorage, tmp_path: Path, space: SearchSpace) -> None:
    with pytest.raises(UserError, match="Another process is running the study"):
        StudyStorage.open(tmp_path / "study.journal", space, cost_of)


ASK_FOR_EVER = """
import sys
from pathlib import Path
from kdsearch.config.space.search_space import load_space
from kdsearch.search.storage.study_storage import StudyStorage
folder = Path(sys.argv[1])
cost = lambda config: {"gflops": 1.0, "params_m": 1.0}
storage = StudyStorage.open(folder / "study.journal", load_space(folder / "toy.yaml"), cost)
print("ready", flush=True)
left = list(storage.running())
while True:
    trial = left.pop() if left else storage.ask()
    trial.epoch, trial.metrics = 4, {"val/miou": 0.5}
    storage.tell(trial, "COMPLETE")
"""


def test_a_driver_killed_at_any_moment_leaves_a_journal_that_goes_on(tmp_path: Path, space: SearchSpace) -> None:
    seen = 0
    journal = tmp_path / "study.journal"
    for grown in (200, 4100, 9000):
        process = subprocess.Popen([sys.executable, "-c", ASK_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        enough = journal.stat().st_size + grown
        while process.poll() is None and journal.stat().st_size < enough:
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        storage = StudyStorage.open(tmp_path / "study.journal", space, cost_of)
        assert len(list(storage.running())) <= 1
        assert len(storage.trials) >= seen
        seen = len(storage.trials)
        told = storage._search.trials
        running = [t.user_attrs["trial"]["id"] for t in told if t.state == TrialState.RUNNING]
        assert running == [r.id for r in storage.running()]
        storage.close()
    assert seen > 2


def test_a_journal_of_an_earlier_form_is_refused_and_kept(tmp_path: Path, space: SearchSpace) -> None:
    journal = tmp_path / "study.journal"
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal))),
        study_name="search",
        directions=["maximize", "minimize"],
    )
    study.ask().set_user_attr("config", "{}")
    before = journal.read_bytes()
    with pytest.raises(UserError, match="begun by an earlier version"):
        StudyStorage.open(journal, space, cost_of)
    assert journal.read_bytes() == before
