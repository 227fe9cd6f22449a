"""What a worker replies to a command that goes wrong, without Ray."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kdsearch.engine import worker_loop
from kdsearch.engine.messages import AttemptEnded, NotSaved, Progress, StartTrial, TrainEpoch, TrialFailed, TrialJob
from kdsearch.engine.worker_loop import carry_out
from kdsearch.errors import UserError
from kdsearch.train.memory import DoesNotFitError, TrialError

JOB = TrialJob("t0000", "{}", "", None, "", "")


class Broken:
    """A worker whose every command raises `error`."""

    node = "a"

    def __init__(self, error: Exception, world_size: int = 1, whole_device: bool = True) -> None:
        self.error, self.world_size, self.whole_device = error, world_size, whole_device

    def start(self, job: TrialJob) -> Any:
        raise self.error

    def train_epoch(self) -> Any:
        raise self.error


def reply(command: Any, error: Exception, **options: Any) -> Any:
    worker: Any = Broken(error, **options)
    return carry_out(worker, command)


COMMANDS = pytest.mark.parametrize("command", [StartTrial(JOB), TrainEpoch()], ids=["start", "epoch"])


@COMMANDS
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        OSError(errno.ESTALE, "Stale file handle"),
        ImportError("libcudnn.so.9: cannot open shared object file"),
        FileNotFoundError("/data/store"),
        UserError("There is no file of weights."),
        MemoryError(),
        NotImplementedError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_that_is_no_verdict_ends_the_attempt_and_names_the_node(command: Any, error: Exception) -> None:
    ended = reply(command, error)
    assert isinstance(ended, AttemptEnded)
    assert (ended.kind, ended.nodes) == ("error", ("a",))
    assert ended.reason.startswith(type(error).__name__)


@COMMANDS
def test_a_verdict_on_the_configuration_is_one_wherever_it_is_met(command: Any) -> None:
    assert reply(command, TrialError("loss/kd is not finite")) == TrialFailed("loss/kd is not finite")
    full = DoesNotFitError("out of device memory while building the trial")
    assert reply(command, full) == TrialFailed(str(full), infeasible=True)
    assert reply(command, full, world_size=2).group_stuck


@COMMANDS
def test_a_device_that_others_use_too_gives_no_verdict(command: Any) -> None:
    share = reply(command, DoesNotFitError("out of device memory"), whole_device=False)
    foreign = reply(command, DoesNotFitError("out of device memory", others=2**33))
    assert [(ended.kind, ended.nodes) for ended in (share, foreign)] == [("memory", ("a",))] * 2


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_ends_the_study_wherever_it_is_met(number: int) -> None:
    assert reply(TrainEpoch(), OSError(number, "full")) == NotSaved(f"OSError: [Errno {number}] full", nodes=("a",))


@pytest.mark.parametrize(
    ("error", "probe", "full"),
    [
        (OSError(errno.ENOSPC, "No space left"), None, True),
        (OSError(errno.ESTALE, "Stale file handle"), None, False),
        (RuntimeError("PytorchStreamWriter failed writing file data/0"), None, True),
        (RuntimeError("PytorchStreamWriter failed writing file data/0"), errno.ENOSPC, True),
        (RuntimeError("PytorchStreamWriter failed writing file data/0"), errno.EROFS, False),
    ],
)
def test_what_cannot_be_saved_is_told_from_a_mount_that_is_broken(
    error: Exception, probe: int | None, full: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, data: bytes) -> int:
        if probe is not None:
            raise OSError(probe, os.strerror(probe))
        return len(data)

    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(worker_loop.CannotSaveError) as caught, worker_loop._saving(tmp_path / "t0000.pt"):
        raise error
    assert caught.value.full is full
    assert caught.value.folder == tmp_path
    assert not list(tmp_path.iterdir())


def test_seconds_of_all_epochs_are_saved_with_the_checkpoint(tmp_path: Path) -> None:
    worker: Any = object.__new__(worker_loop._Worker)
    saved: list[dict[str, float]] = []
    epoch = {"time/train_s": 2.0, "time/val_s": 1.0}
    worker.rank, worker.metrics, worker.job = 0, {}, SimpleNamespace(checkpoint=str(tmp_path / "t.pt"))
    worker.trial = SimpleNamespace(
        train_epoch=lambda: dict(epoch), validate=dict, save=lambda path, metrics: saved.append(metrics), epoch=1,
        config=SimpleNamespace(train=SimpleNamespace(epochs=9)),
    )  # fmt: skip
    worker.train_epoch()
    worker.metrics = saved[-1]  # another process loads them
    assert worker.train_epoch() == Progress(1, epoch | {"time/total_s": 6.0})


def test_threads_are_those_that_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU teacher may use all slots of the cluster, of which this machine has two."""
    set_to: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.setattr(worker_loop, "threads_here", lambda wanted, ranks: min(wanted, 4 // ranks))
    worker: Any = object.__new__(worker_loop._Worker)
    worker.device, worker.local_ranks = torch.device("cpu"), 2

    def stop(job: TrialJob) -> None:
        raise KeyError("far enough")

    worker._resources_for = stop
    with pytest.raises(KeyError, match="far enough"):
        worker.start(TrialJob("teacher", "{}", "", None, "", "", threads=64))
    assert set_to == [2]
