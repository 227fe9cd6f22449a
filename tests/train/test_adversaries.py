"""Adversaries of the student inside a trial."""

from __future__ import annotations

import torch

from kdsearch.train.resources import Resources
from kdsearch.train.trial import Trial
from tests.train.stc_cases import stc


def test_an_adversary_learns_by_its_own_optimiser_alone(stc_resources: Resources) -> None:
    trial = Trial(stc(), stc_resources)
    discriminator = [p for p in trial.module.terms.parameters() if not p.requires_grad]
    ours = {id(p) for group in trial.optimizer.param_groups for p in group["params"]}
    assert discriminator
    assert not any(id(p) in ours for p in discriminator)
    before = [p.detach().clone() for p in discriminator]
    trial.train_epoch()
    assert any(not torch.equal(a, b) for a, b in zip(before, discriminator, strict=True))
    assert not any(p.requires_grad for p in discriminator)
    assert not any("discriminator" in name for name in trial.module.student.state_dict())
