"""Supervised losses beside the logits."""

from __future__ import annotations

import pytest
import torch

from kdsearch.data.store.store import Store
from kdsearch.errors import UserError
from kdsearch.train.losses import SupervisedLoss
from kdsearch.train.resources import Resources
from kdsearch.train.teacher import teacher_trial
from kdsearch.train.trial import Trial
from tests.conftest import config
from tests.train.stc_cases import stc


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
