"""Run folders made by hand, for tests of what reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from kdsearch.config.trial import TrialConfig
from kdsearch.data.store.store import Store
from kdsearch.models.registry import build_network
from kdsearch.models.student import save_student
from tests.conftest import config

POINT: dict[str, Any] = {"trial": "t0000", "miou": 0.5, "gflops": 0.1, "params_m": 1.0}


def student_folder(folder: Path, store: Store, trial: TrialConfig | None = None) -> Path:
    """An untrained student of `trial`, written as a study writes it."""
    trial = trial or config()
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    network = build_network(trial.student, store.info)
    metrics = {"val/miou": 0.5, "val/iou/road": 0.5}
    save_student(folder, network, trial, store.info, store.size, metrics)
    return folder


def summary(*points: dict[str, Any]) -> str:
    return json.dumps({"kdsearch": "0", "space": "tiny", "frontier": points or (POINT,)})


def run_folder(folder: Path, store: Store, *points: dict[str, Any], trial: TrialConfig | None = None) -> Path:
    """A finished study in `folder/run` whose frontier is `points`, all with the same student."""
    run = folder / "run"
    for point in points or (POINT,):
        student_folder(run / "students" / point["trial"], store, trial)
    (run / "summary.json").write_text(summary(*points))
    return run
