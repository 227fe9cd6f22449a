"""Terms that read two frames, and terms that train an opponent, inside a trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kdsearch.config.trial import TrialConfig
from kdsearch.data.store.store import Store
from kdsearch.errors import UserError
from kdsearch.models.registry import build_network
from kdsearch.train.losses import SupervisedLoss
from kdsearch.train.resources import Resources
from kdsearch.train.teacher import teacher_folder, teacher_trial
from kdsearch.train.teacher_cache.plan import plan_cache
from kdsearch.train.trial import Trial
from tests.conftest import config
from tests.train.test_trial import assert_same

TWO_BRANCH = {
    "arch": "two_branch",
    "cnn": {"arch": "fpn", "encoder": "tu-mobilenetv3_small_050"},
    "transformer": {"arch": "segformer", "encoder": "mit_b0"},
}
TERMS: dict[str, Any] = {
    "kd": {},
    "stc_pair": {"weight": 10.0},
    "adversarial": {"weight": 0.01, "width": 8},
    "stc_motion": {"weight": 1.0},
}


def stc(frames: str = "video", fuse: str = "mean_prob", **changes: Any) -> TrialConfig:
    base = config()
    data = base.data.model_dump(mode="json") | {"frames": frames, "consistency": True}
    return config(data=data, teacher=TWO_BRANCH | {"fuse": fuse}, **({"distill": TERMS} | changes))


@pytest.fixture(scope="module")
def shared(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Resources:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("two_branch") / "model.safetensors"
    save_file(build_network(teacher_trial(stc()).student, store.info).state_dict(), path)
    return Resources(store.path, path)


@pytest.mark.parametrize("frames", ["video", "views"])
def test_saved_and_loaded_training_equals_training_at_once(frames: str, shared: Resources, tmp_path: Path) -> None:
    whole = Trial(stc(frames), shared)
    for _ in range(3):
        metrics = whole.train_epoch() | whole.validate()
    first = Trial(stc(frames), shared)
    first.train_epoch()
    first.save(tmp_path / "state.pt", {})
    second = Trial(stc(frames), shared)
    second.load(tmp_path / "state.pt")
    for _ in range(2):
        resumed = second.train_epoch() | second.validate()
    assert_same(whole, second)
    assert {k: v for k, v in metrics.items() if "time/" not in k} == {
        k: v for k, v in resumed.items() if "time/" not in k
    }
    assert {f"loss/{name}" for name in TERMS} | {"loss/adversarial_opponent"} <= metrics.keys()
    assert 0 <= metrics["val/temporal_consistency"] <= 1


def test_the_opponent_learns_by_its_own_optimiser_alone(shared: Resources) -> None:
    trial = Trial(stc(), shared)
    discriminator = [p for p in trial.module.terms.parameters() if not p.requires_grad]
    ours = {id(p) for group in trial.optimizer.param_groups for p in group["params"]}
    assert discriminator
    assert not any(id(p) in ours for p in discriminator)
    before = [p.detach().clone() for p in discriminator]
    trial.train_epoch()
    assert any(not torch.equal(a, b) for a, b in zip(before, discriminator, strict=True))
    assert not any(p.requires_grad for p in discriminator)
    assert not any("discriminator" in name for name in trial.module.student.state_dict())


def test_micro_batches_split_frames_too(shared: Resources) -> None:
    trial = Trial(stc(), shared)
    trial.micro_batches = 2
    assert trial.train_epoch()["loss/stc_motion"] > 0


def test_views_are_taken_where_they_are_wanted(shared: Resources) -> None:
    assert Trial(stc("views"), shared).train_batches.frames == "views"
    assert Trial(stc("auto"), shared).train_batches.frames == "video"
    assert Trial(stc(distill={"kd": {}}), shared).train_batches.frames is None


def test_all_fusions_share_a_teacher(shared: Resources, store: Store, tmp_path: Path) -> None:
    folders = {teacher_folder(stc(fuse=fuse), store, tmp_path) for fuse in ("mean_prob", "gate", "max_conf")}
    assert len(folders) == 1
    teachers = [Trial(stc(fuse=fuse), shared).teacher for fuse in ("mean_prob", "gate")]
    assert teachers[0] is teachers[1]
    assert teachers[0].fuse == "gate"  # type: ignore[union-attr]


def test_a_two_branch_teacher_trains_branches_and_gate(store: Store) -> None:
    trial = Trial(teacher_trial(stc()), Resources(store.path))
    before = {name: tensor.clone() for name, tensor in trial.module.student.state_dict().items()}
    trial.train_epoch()
    changed = {name.split(".")[0] for name, tensor in trial.module.student.state_dict().items()
               if not torch.equal(tensor, before[name])}  # fmt: skip
    assert changed == {"cnn", "transformer", "gate"}


def test_the_auxiliary_head_is_trained_and_not_exported(store: Store) -> None:
    train = {"epochs": 1, "batch_size": 4, "lr": 1e-3}
    plain, aux = (Trial(config(train=train | extra), Resources(store.path)) for extra in ({}, {"aux_weight": 0.4}))
    assert aux.train_epoch()["loss/task"] > plain.train_epoch()["loss/task"]
    assert any("aux_head" in name for name in aux.module.state_dict())
    assert aux.module.student.state_dict().keys() == plain.module.student.state_dict().keys()
    train_config = config(train=train | {"aux_weight": 0.4}).train
    with pytest.raises(UserError, match=r"needs a tap c3.*set aux_weight to 0"):
        SupervisedLoss(train_config, store.split("train"), {"logits": (9, 8, 16), "head": (4, 8, 16)})


def test_a_teacher_without_terms_is_not_loaded(shared: Resources) -> None:
    assert Trial(stc(distill={}), shared).teacher is None


def test_each_fusion_of_a_two_branch_teacher_has_maps_of_its_own(
    shared: Resources, store: Store, tmp_path: Path
) -> None:
    weights = shared.teacher_weights
    assert weights is not None
    trials = []
    for fuse in ("mean_prob", "gate"):
        trial = stc("views", fuse)
        assert trial.teacher is not None
        trials.append(trial.model_copy(update={"teacher": trial.teacher.model_copy(update={"cache": "taps"})}))
    plan = plan_cache(trials, store, tmp_path, weights).plan
    assert plan is not None
    assert {"logits", "cnn.head", "transformer.head"} <= set(plan.maps)
    caching = Resources(store.path, weights, cache_plan=plan)
    cached = [Trial(trial, caching).cached for trial in trials]
    logits = [each.cache.whole("logits", np.arange(2)) for each in cached if each is not None]
    assert not torch.allclose(*logits)
    assert len(list(tmp_path.iterdir())) == 2
    metrics = Trial(trials[0], caching).train_epoch()
    assert {f"loss/{name}" for name in TERMS} <= metrics.keys()
