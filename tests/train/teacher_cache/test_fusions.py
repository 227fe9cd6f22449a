"""Caches of a two-branch teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from kdsearch.data.store.store import Store
from kdsearch.train.resources import Resources
from kdsearch.train.teacher_cache.plan import plan_cache
from kdsearch.train.trial import Trial
from tests.train.stc_cases import TERMS, stc


def test_each_fusion_of_a_two_branch_teacher_has_a_cache_of_its_own(
    stc_resources: Resources, store: Store, tmp_path: Path
) -> None:
    weights = stc_resources.teacher_weights
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
