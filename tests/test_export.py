"""Bundles of a run folder made by hand: what they say of repeats and controls."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kdsearch import models
from kdsearch.data.store import Store
from kdsearch.export import main as export
from kdsearch.student import load_student, save_student
from kdsearch.train.trial import Trial
from tests.conftest import config

POINT = {"trial": "t0000", "miou": 0.5, "gflops": 0.1, "params_m": 1.0}
CONFIRMED = {
    "seeds": 2, "miou_mean": 0.45, "miou_std": 0.0707, "control_miou_mean": 0.375, "gain": 0.075, "gain_std": 0.0354,
    "gain_low": -0.2427, "gain_high": 0.3927, "p_frontier": 1.0,
}  # fmt: skip


def bundle(folder: Path, store: Store, point: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """`metrics.json` and the model card of the exported `point` of a study with this one student."""
    run = folder / "run"
    (run / "students" / "t0000").mkdir(parents=True)
    network = models.build(config().student, store.info)
    trial = SimpleNamespace(
        module=SimpleNamespace(student=network), config=config(), resources=SimpleNamespace(store=store)
    )
    save_student(run / "students" / "t0000", cast(Trial, trial), {"val/miou": 0.5})
    (run / "summary.json").write_text(json.dumps({"kdsearch": "0", "space": "tiny", "frontier": [point]}))
    assert export([str(run), "--out", str(folder / "out")]) == 0
    load_student(folder / "out")
    return json.loads((folder / "out" / "metrics.json").read_text()), (folder / "out" / "README.md").read_text()


def test_a_confirmed_student_carries_its_mean_and_gain(tmp_path: Path, store: Store) -> None:
    metrics, card = bundle(tmp_path, store, POINT | CONFIRMED)
    assert metrics == {"val/miou": 0.5} | {
        f"confirm/{name}": value for name, value in CONFIRMED.items() if name != "gain_std"
    }
    assert "| mIoU on val | 0.5000 |\n| the same with 2 other seeds: mIoU | 0.4500 ± 0.0707 |\n" in card
    assert "| gain over the same student without distillation | +0.0750 (95 %: -0.2427 to +0.3927) |\n" in card


@pytest.mark.parametrize("unknown", [{}, dict.fromkeys(CONFIRMED) | {"seeds": 0}])
def test_a_student_without_repeats_says_nothing_of_them(unknown: dict[str, Any], tmp_path: Path, store: Store) -> None:
    metrics, card = bundle(tmp_path, store, POINT | unknown)
    assert metrics["val/miou"] == 0.5
    assert metrics.get("confirm/miou_mean") is None
    assert "other seeds" not in card
    assert "None" not in card


def test_one_repeat_has_no_spread(tmp_path: Path, store: Store) -> None:
    one = dict.fromkeys(CONFIRMED) | {"seeds": 1, "miou_mean": 0.45, "gain": 0.02}
    _, card = bundle(tmp_path, store, POINT | one)
    assert "| the same with 1 other seed: mIoU | 0.4500 |\n" in card
    assert "| gain over the same student without distillation | +0.0200 |\n" in card
