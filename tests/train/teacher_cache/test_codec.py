"""Codecs of teacher maps and the errors that they state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdsearch.data.store.store import Store
from kdsearch.train.teacher_cache.codec import MapCodec, MapError
from kdsearch.train.trial import Trial
from tests.train.teacher_cache.cases import HALF, cache_resources, cached, whole_maps


def test_the_error_is_the_stated_one() -> None:
    logits = torch.randn(4, 20, 5, 7, generator=torch.Generator().manual_seed(1)) * 4
    for codec in (
        MapCodec((20, 5, 7), "fp16"), MapCodec((20, 5, 7), "uint8"), MapCodec((20, 5, 7), "top_k", 5),
    ):  # fmt: skip
        columns = codec.encode(logits)
        assert {name: tuple(value.shape[1:]) for name, value in columns.items()} == {
            name: shape for name, (_, shape) in codec.columns.items()
        }
        assert sum(value[0].nbytes for value in columns.values()) == codec.nbytes
        kept = codec.decode(columns)
        error = MapError()
        for half in (slice(2), slice(2, 4)):
            error.add(logits[half], kept[half], logits=True)
        stated = error.stated()
        difference = (logits - kept).double()
        assert stated["max_error"] == pytest.approx(float(difference.abs().max()))
        assert stated["rms_error"] == pytest.approx(float(difference.square().mean().sqrt()))
        if codec.kind == "fp16":
            assert stated["max_error"] <= HALF * float(logits.abs().max())
        if codec.kind == "uint8":
            step = (logits.amax((2, 3)) - logits.amin((2, 3))) / 255
            assert (difference.abs().amax((2, 3)) <= 0.501 * step).all()
        if codec.kind == "top_k":
            assert stated["classes_changed"] < 0.02  # ties of fp16
            prob, prob_kept = logits.softmax(1), kept.softmax(1)
            index = logits.topk(5, 1).indices
            # The sum of the other probabilities is kept.
            torch.testing.assert_close(prob.gather(1, index), prob_kept.gather(1, index), atol=2e-3, rtol=2e-3)
        assert 0 <= stated["kl"] < (0.2 if codec.kind == "top_k" else 1e-2)


def test_constant_and_huge_maps_are_kept() -> None:
    constant = torch.full((1, 2, 3, 3), 1.5)
    codec = MapCodec((2, 3, 3), "uint8")
    assert torch.equal(codec.decode(codec.encode(constant)), constant)
    codec = MapCodec((2, 3, 3), "fp16")
    assert codec.decode(codec.encode(constant * 1e6)).isfinite().all()


@pytest.mark.parametrize("settings", [{"cache_format": "uint8"}, {"cache_top_k": 3}])
def test_smaller_codecs_are_near_the_live_maps(
    settings: dict[str, Any], store: Store, teacher_weights: Path, tmp_path: Path
) -> None:
    trial = cached("views", **settings)
    shared = cache_resources(trial, store, teacher_weights, tmp_path)
    kept = Trial(trial, shared).cached
    assert kept is not None
    expected = whole_maps(shared, trial, np.arange(12))["logits"]
    error = (kept.cache.whole("logits", np.arange(12)) - expected).abs().max()
    assert kept.cache.errors["logits"]["max_error"] == pytest.approx(float(error), rel=0.01, abs=1e-5)
    assert kept.cache.codecs["head"].kind == settings.get("cache_format", "fp16")
    full = sum(MapCodec(each.shape, "fp16").nbytes for each in kept.cache.codecs.values())
    assert sum(each.nbytes for each in kept.cache.codecs.values()) < full
