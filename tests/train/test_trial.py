from __future__ import annotations

import errno
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdsearch.data.info import IGNORE_INDEX
from kdsearch.data.loader import Batch
from kdsearch.data.store.store import Store
from kdsearch.distill.base import Term
from kdsearch.models.student import load_student
from kdsearch.train import memory
from kdsearch.train.memory import DoesNotFitError, TrialError
from kdsearch.train.resources import Resources
from kdsearch.train.trial import Trial
from tests.conftest import config, distilled

CLNET = {"arch": "clnet", "encoder": "mit_b0", "width": 8, "steps": 2}


def resources(store: Store, weights: Path | None = None) -> Resources:
    return Resources(store.path, weights)


def flat(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    tensors = dict(state["module"])
    for index, slots in state["optimizer"]["state"].items():
        tensors |= {f"{index}.{name}": value for name, value in slots.items() if torch.is_tensor(value)}
    return tensors


def assert_same(one: Trial, other: Trial) -> None:
    a, b = flat(one.state_dict()), flat(other.state_dict())
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("with_teacher", [False, True])
def test_saved_and_loaded_training_equals_training_at_once(
    with_teacher: bool, store: Store, teacher_weights: Path, tmp_path: Path
) -> None:
    trial_config = distilled() if with_teacher else config(student=CLNET)
    weights = teacher_weights if with_teacher else None
    whole = Trial(trial_config, resources(store, weights))
    history = [whole.train_epoch() | whole.validate() for _ in range(3)]

    first = Trial(trial_config, resources(store, weights))
    first.train_epoch()
    first.save(tmp_path / "state.pt", {"val/miou": 0.25})
    torch.rand(100)  # what else happens in the process must not matter
    second = Trial(trial_config, resources(store, weights))
    assert second.load(tmp_path / "state.pt") == {"val/miou": 0.25}
    assert second.epoch == 1
    later = [second.train_epoch() | second.validate() for _ in range(2)]
    assert_same(whole, second)
    for a, b in zip(history[1:], later, strict=True):
        assert {k: v for k, v in a.items() if "time/" not in k} == {k: v for k, v in b.items() if "time/" not in k}


def test_another_seed_is_another_training(store: Store) -> None:
    one = Trial(config(), resources(store))
    other = Trial(config(train={"epochs": 3, "batch_size": 4, "lr": 1e-3, "seed": 1}), resources(store))
    assert one.train_epoch()["loss/total"] != other.train_epoch()["loss/total"]


def test_the_learning_rate_spans_the_full_horizon(store: Store) -> None:
    trial = Trial(config(), resources(store))
    steps = 3  # 12 images in batches of 4
    for epoch in range(3):
        metrics = trial.train_epoch()
        last = epoch * steps + steps - 1
        assert metrics["lr"] == pytest.approx(1e-3 * (1 - last / 9) ** 0.9)


def test_the_total_is_the_task_loss_and_the_weighted_terms(store: Store, teacher_weights: Path) -> None:
    metrics = Trial(distilled(), resources(store, teacher_weights)).train_epoch()
    parts = metrics["loss/task"] + metrics["loss/dsrd"] + metrics["loss/clfd"]
    assert metrics["loss/total"] == pytest.approx(parts, rel=1e-5)
    assert metrics["grad_ratio/dsrd"] > 0
    assert metrics["grad_ratio/clfd"] >= 0


def test_the_teacher_stays_as_it_is(store: Store, teacher_weights: Path) -> None:
    shared = resources(store, teacher_weights)
    trial = Trial(distilled(), shared)
    assert trial.teacher is not None
    before = {name: tensor.clone() for name, tensor in trial.teacher.state_dict().items()}
    trial.train_epoch()
    assert not trial.teacher.training
    assert all(torch.equal(before[name], tensor) for name, tensor in trial.teacher.state_dict().items())
    assert not any("teacher" in name for name in trial.state_dict()["module"])
    assert Trial(distilled(), shared).teacher is trial.teacher


def test_a_loss_that_is_not_finite_ends_the_trial_with_its_step_and_name(store: Store, teacher_weights: Path) -> None:
    trial = Trial(distilled(), resources(store, teacher_weights))
    with torch.no_grad():
        next(trial.module.student.parameters()).fill_(float("nan"))
    with pytest.raises(TrialError, match=r"loss/\w+ is not finite at step 1 of epoch 1"):
        trial.train_epoch()


def out_of_memory_once(trial: Trial, times: int) -> list[int]:
    """Make the first `times` forward passes fail as a full device does; note the size of every pass."""
    sizes: list[int] = []
    forward = trial.module.forward

    def limited(batch: Batch, *rest: Any) -> Any:
        sizes.append(len(batch.image_bchw))
        if len(sizes) <= times:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(batch, *rest)

    trial.module.forward = limited  # type: ignore[method-assign]
    return sizes


def test_out_of_memory_is_tried_once_more_with_half_the_micro_batch(store: Store) -> None:
    trial = Trial(config(), resources(store))
    sizes = out_of_memory_once(trial, 1)
    trial.train_epoch()
    assert sizes == [4, 2, 2, 2, 2, 2, 2]
    assert trial.state_dict()["micro_batches"] == 2


def test_out_of_memory_twice_ends_the_trial(store: Store) -> None:
    trial = Trial(config(), resources(store))
    out_of_memory_once(trial, 2)
    with pytest.raises(TrialError, match="out of device memory at batch size 4"):
        trial.train_epoch()


def test_a_failed_attempt_is_freed_before_the_retry(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph of the first attempt would fill the device for the second one too."""
    trial = Trial(config(), resources(store))
    forward = trial.module.forward
    graphs: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []

    def limited(batch: Batch, *rest: Any) -> Any:
        alive.extend(graph() is not None for graph in graphs)
        task, *others = forward(batch, *rest)
        if not graphs:
            graph = task + 0  # only the frames of this attempt refer to it
            graph.in_a_cycle = graph  # type: ignore[attr-defined]
            graphs.append(weakref.ref(graph))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return task, *others

    trial.module.forward = limited  # type: ignore[method-assign]
    collected: list[bool] = []

    def noted(device: torch.device) -> None:
        collected.append(sys.exception() is None)
        memory.release(device)

    monkeypatch.setattr("kdsearch.train.trial.release", noted)
    trial.train_epoch()
    assert collected == [True]
    assert alive
    assert not any(alive)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("out"), RuntimeError("CUDA error: out of memory")])
@pytest.mark.parametrize(
    ("part", "replaced", "act"),
    [
        ("building the trial", "build_network", lambda trial, path: Trial(config(), trial.resources)),
        ("loading the checkpoint", "load_plain", lambda trial, path: trial.load(path)),
        ("validating", "evaluate", lambda trial, path: trial.validate()),
    ],
)
def test_a_full_device_is_one_verdict_wherever_it_is_met(
    part: str, replaced: str, act: Callable[[Trial, Path], object], error: RuntimeError, store: Store, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def full(*arguments: Any, **options: Any) -> None:
        raise error

    trial = Trial(config(), resources(store))
    monkeypatch.setattr(f"kdsearch.train.trial.{replaced}", full)
    with pytest.raises(DoesNotFitError, match=f"^out of device memory while {part}$"):
        act(trial, tmp_path / "state.pt")


def test_any_other_error_is_raised_as_it_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(config(), resources(store))

    def broken(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr("kdsearch.train.trial.evaluate", broken)
    with pytest.raises(RuntimeError, match="illegal memory access") as caught:
        trial.validate()
    assert not isinstance(caught.value, TrialError)


def test_a_disk_that_cannot_be_read_is_no_fault_of_the_checkpoint(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(config(), resources(store))

    def stale(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(torch, "load", stale)
    with pytest.raises(OSError, match="Stale"):
        trial.load(tmp_path / "state.pt")


def test_a_term_that_does_not_state_its_memory_does_not_hide_that_memory_ran_out(
    store: Store, teacher_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(distilled(), resources(store, teacher_weights))
    for term in trial.module.terms.terms.values():
        monkeypatch.setattr(type(term), "estimate_bytes", Term.estimate_bytes)
    out_of_memory_once(trial, 2)
    with pytest.raises(DoesNotFitError, match=r"^out of device memory at batch size 4$"):
        trial.train_epoch()


def test_the_memory_of_others_on_the_device_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(config(), resources(store))
    out_of_memory_once(trial, 2)
    monkeypatch.setattr("kdsearch.train.trial.bytes_of_others", lambda device: 5 * 10**9)
    with pytest.raises(DoesNotFitError, match=r"batch size 4, of which other processes hold 5\.0 GB$") as caught:
        trial.train_epoch()
    assert caught.value.others == 5 * 10**9


def test_others_are_what_neither_this_process_nor_nobody_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    free = [10 * 2**30]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[0], 40 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 29 * 2**30)
    gpu = torch.device("cuda")
    assert memory.bytes_of_others(gpu) == 0  # 1 GiB: the context of this process
    free[0] = 4 * 2**30
    assert memory.bytes_of_others(gpu) == 7 * 2**30
    assert memory.bytes_of_others(torch.device("cpu")) == 0


def test_a_student_is_read_back_exactly_and_carries_no_term(
    store: Store, teacher_weights: Path, tmp_path: Path
) -> None:
    trial = Trial(distilled(), resources(store, teacher_weights))
    trial.train_epoch()
    metrics = trial.validate()
    trial.save_student(tmp_path, metrics)
    student = load_student(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "metrics.json", "model.safetensors"]
    trained = trial.module.student.state_dict()
    assert student.network.state_dict().keys() == trained.keys()
    images = store.split("val").images
    classes = student.predict(images)
    assert classes.shape == images.shape[:3]
    with torch.no_grad():
        batch = next(iter(trial.val_batches.val()))
        expected = trial.module.student.eval()(batch.image_bchw).logits
        # Training runs in channels_last, which adds up in another order.
        torch.testing.assert_close(student(student.preprocess(images[: len(expected)])), expected, atol=1e-4, rtol=1e-4)


def test_a_validation_without_a_label_fails_the_trial(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mIoU is a mean of nothing, and no result."""
    trial = Trial(config(), resources(store))
    split = trial.val_batches.split
    monkeypatch.setattr(split, "labels", np.full_like(split.labels, IGNORE_INDEX))
    with pytest.raises(TrialError, match="no pixel of the validation split has a label"):
        trial.validate()
