"""Trials on several ranks, as processes joined by gloo: they see what one rank sees, and go on as they would have."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdsearch.config.trial import TrialConfig
from kdsearch.data.store.store import Store
from kdsearch.models.seg_output import SegOutput
from kdsearch.train.losses import SupervisedLoss
from kdsearch.train.resources import Resources
from kdsearch.train.teacher_cache import reader
from kdsearch.train.teacher_cache.plan import CachePlan
from kdsearch.train.teacher_cache.writer import TeacherForward
from kdsearch.train.trial import Trial
from tests.conftest import SMALL, TEACHER, config, distilled

RANK = """
import sys
from pathlib import Path
from kdsearch.compat import ensure_torchvision
ensure_torchvision()
import torch, torch.distributed as dist
from kdsearch.config.trial import TrialConfig
from kdsearch.train.resources import Resources
from kdsearch.train.trial import Trial
from tests.train import test_ranks
torch.set_num_threads(1)
job, rank, ranks, store, weights, port, config, out = sys.argv[1:]
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=int(rank), world_size=int(ranks))
resources = Resources(Path(store), Path(weights), rank=int(rank), world_size=int(ranks))
result = getattr(test_ranks, job)(TrialConfig.model_validate_json(config), resources, Path(out))
torch.save(result, Path(out) / f"{rank}.pt")
dist.destroy_process_group()
"""


def on_ranks(job: Any, ranks: int, config: TrialConfig, store: Store, weights: Path, out: Path) -> list[dict[str, Any]]:
    """What `job(config, resources, out)` returns on each of `ranks` processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    rest = [str(ranks), str(store.path), str(weights), port, config.model_dump_json(), str(out)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, job.__name__, str(rank), *rest], env=os.environ | {"OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).parents[2],
        )
        for rank in range(ranks)
    ]  # fmt: skip
    try:
        assert [process.wait(timeout=400) for process in processes] == [0] * ranks
    finally:
        for process in processes:
            process.kill()
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(ranks)]


def one_epoch(config: TrialConfig, resources: Resources, out: Path) -> dict[str, Any]:
    trial = Trial(config, resources)
    metrics = trial.train_epoch() | trial.validate()
    state = dict(trial.module.named_parameters()) | dict(trial.module.named_buffers())
    return {"state": {name: value.detach().clone() for name, value in state.items()}, **metrics}


@pytest.mark.slow
@pytest.mark.parametrize(
    "terms",
    [{"dsrd": {}, "clfd": {}}, {"cirkd_memory": {"queue": 40, "region_queue": 9}, "adversarial": {"width": 8}}],
    ids=lambda terms: "-".join(terms),
)
def test_two_ranks_stay_equal_and_validate_the_whole_split(
    terms: dict[str, Any], store: Store, teacher_weights: Path, tmp_path: Path
) -> None:
    zero, one = on_ranks(one_epoch, 2, distilled(**terms), store, teacher_weights, tmp_path)
    # The student's buffers too: it was validated on both ranks with the batch statistics that are saved.
    shared = [name for name in zero["state"] if name.startswith("student.") or "queue" in name or "running" not in name]
    assert all(torch.equal(zero["state"][name], one["state"][name]) for name in shared)
    for name in zero.keys() - {"state"}:
        assert "time/" in name or zero[name] == one[name], name
    # A term that reads taps alone has no gradient at the logits.
    assert max(zero[f"grad_ratio/{name}"] for name in terms) > 0


def first_gradients(config: TrialConfig, resources: Resources, out: Path) -> dict[str, Any]:
    """The samples of the first step, and the gradient of every parameter; batch statistics and dropout are off."""
    trial = Trial(config, resources)
    trial.wrapped.eval()
    batch = next(trial.train_batches.train(0))
    losses = trial._forward_backward(batch, None)
    gradients = {name: p.grad.clone() for name, p in trial.module.named_parameters() if p.grad is not None}
    return {"rows": batch.index.tolist(), "images": batch.image_bchw, "gradients": gradients, "losses": losses}


def assert_close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, gradient in one.items():
        torch.testing.assert_close(gradient, other[name], rtol=1e-3, atol=1e-5, msg=lambda text, name=name: name + text)


# Views that reach beyond their image have ignored pixels, in some samples more than in others.
BEYOND = {**SMALL["data"], "augment": {"scale": [0.3, 1.5]}}
WITHIN = {**SMALL["data"], "augment": {"scale": [1.0, 2.0]}}


def cases() -> dict[str, TrialConfig]:
    enet = {**SMALL["train"], "class_weights": "enet"}
    clnet = {"arch": "clnet", "encoder": "mit_b0", "width": 8, "steps": 2}
    terms = {"kd": {}, "fitnet": {"tap": "c3"}}
    return {
        "ignored pixels": config(data=BEYOND),
        "class weights and details": config(data=BEYOND, student=clnet, train=enet),
        "terms": config(data=WITHIN, teacher=TEACHER, distill=terms),
        "random masks": config(data=WITHIN, teacher=TEACHER, distill={"mgd": {"tap": "c3"}}),
    }


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("case", list(cases()))
def test_any_number_of_ranks_takes_the_same_step(
    case: str, ranks: int, store: Store, teacher_weights: Path, tmp_path: Path
) -> None:
    trial_config = cases()[case]
    alone = first_gradients(trial_config, Resources(store.path, teacher_weights), tmp_path)
    parts = on_ranks(first_gradients, ranks, trial_config, store, teacher_weights, tmp_path)
    assert [row for part in parts for row in part["rows"]] == alone["rows"]
    assert torch.equal(torch.cat([part["images"] for part in parts]), alone["images"])
    assert sum(gradient.abs().sum() for gradient in alone["gradients"].values()) > 1
    for part in parts:
        assert_close(alone["gradients"], part["gradients"])
    total = torch.stack([part["losses"]["total"] for part in parts]).mean()
    torch.testing.assert_close(total, alone["losses"]["total"], rtol=1e-4, atol=0)


def with_cached_maps(config: TrialConfig, resources: Resources, out: Path) -> dict[str, Any]:
    """The rows whose maps this rank computed, the maps that it read for its first batch, and its parameters."""
    computed: list[int] = []
    teacher_forward = resources._teacher_forward

    def counted(trial_config: TrialConfig) -> TeacherForward:
        forward = teacher_forward(trial_config)

        def count(rows: np.ndarray[Any, Any]) -> SegOutput:
            computed.extend(rows.tolist())
            return forward(rows)

        return count

    resources._teacher_forward = counted  # type: ignore[method-assign]
    resources.cache_plan = CachePlan(out / "maps", ("logits",))
    reader.SHARD_BYTES = 1  # one image per file, so that there is work to share
    trial = Trial(config, resources)
    batch = next(trial.train_batches.train(0))
    read = trial.teacher_output(batch)
    assert trial.cached is not None
    assert read is not None
    trial.train_epoch()
    state = {name: p.detach().clone() for name, p in trial.module.named_parameters()}
    return {"computed": computed, "rows": batch.index.tolist(), "logits": read.logits, "state": state}


@pytest.mark.slow
def test_ranks_write_the_maps_together_and_read_those_of_their_rows(
    store: Store, teacher_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "SHARD_BYTES", reader.SHARD_BYTES)
    trial = config(data=WITHIN, teacher=TEACHER | {"cache": "logits"}, distill={"kd": {}})
    alone = with_cached_maps(trial, Resources(store.path, teacher_weights), tmp_path / "alone")
    zero, one = on_ranks(with_cached_maps, 2, trial, store, teacher_weights, tmp_path)
    assert sorted(zero["computed"] + one["computed"]) == sorted(alone["computed"]) == list(range(12))
    assert zero["rows"] + one["rows"] == alone["rows"]
    logits = torch.cat([zero["logits"], one["logits"]])
    # Roundings of fp16: a network's sums depend on the number of threads.
    torch.testing.assert_close(logits, alone["logits"], rtol=2**-10, atol=1e-3 * float(logits.abs().max()))
    assert all(torch.equal(zero["state"][name], one["state"][name]) for name in zero["state"])


@pytest.mark.parametrize("case", ["ignored pixels", "class weights and details"])
def test_micro_batches_take_the_same_step(case: str, store: Store) -> None:
    whole, halves = (Trial(cases()[case], Resources(store.path)) for _ in range(2))
    halves.micro_batches = 2
    gradients = []
    for trial in (whole, halves):
        trial.wrapped.eval()
        trial._forward_backward(next(trial.train_batches.train(0)), None)
        gradients.append({name: p.grad.clone() for name, p in trial.module.named_parameters() if p.grad is not None})
    assert_close(*gradients)


def test_norms_are_those_that_the_loss_finds_by_itself(store: Store) -> None:
    trial = Trial(cases()["class weights and details"], Resources(store.path))
    supervised, batch = trial.module.supervised, next(trial.train_batches.train(0))
    assert isinstance(supervised, SupervisedLoss)
    output = trial.module.student(batch.image_bchw)
    norms_3 = supervised.norms(batch.label_bhw)
    assert torch.equal(supervised(output, batch.label_bhw), supervised(output, batch.label_bhw, norms_3))
    assert len(norms_3.unique()) == 3


def resumed(config: TrialConfig, resources: Resources, out: Path) -> dict[str, Any]:
    """The state after three epochs at once, and after one, a checkpoint of rank 0, and two more."""
    states = []
    for stops in (False, True):
        trial = Trial(config, resources)
        trial.train_epoch()
        trial.validate()
        if stops:
            if resources.rank == 0:
                trial.save(out / "state.pt", {})
            torch.distributed.barrier()
            torch.rand(100)
            trial = Trial(config, resources)
            trial.load(out / "state.pt")
        for _ in range(2):
            trial.train_epoch()
            trial.validate()
        states.append({name: value.clone() for name, value in trial.module.state_dict().items()})
    return {"at once": states[0], "resumed": states[1]}


@pytest.mark.slow
def test_two_ranks_go_on_bit_for_bit(store: Store, teacher_weights: Path, tmp_path: Path) -> None:
    terms = {
        "mgd": {"tap": "c3"},
        "clfd": {"mode": "pixel_pixel", "anchors_per_class": 16},
        "adversarial": {"mode": "wgan_gp", "width": 8},
        "cirkd_memory": {"queue": 40, "region_queue": 9},
    }
    for rank in on_ranks(resumed, 2, distilled(**terms), store, teacher_weights, tmp_path):
        assert rank["at once"].keys() == rank["resumed"].keys()
        different = [name for name, value in rank["at once"].items() if not torch.equal(value, rank["resumed"][name])]
        assert different == []
