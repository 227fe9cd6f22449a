"""A benchmark from formulas: a conditional space of real students, whose learning curves cross.

What is known is real: the students' GFLOPs at 512x1024 with 19 classes (`kdsearch.models.cost`). The rest has the shape
that trainings have: larger students reach more and learn more slowly, each has a learning rate of its own, distillation
helps at the right weight and temperature, small students more than large ones, and slows the first epochs; a high
learning rate looks bad until the schedule lowers it. `variant` draws the constants anew, optima and gains included.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdsearch.config.space.search_space import load_space, trial_key
from kdsearch.config.trial import TrialConfig
from kdsearch.search.trial_record import TrialRecord

GFLOPS = {
    "deeplabv3plus resnet18 256": 73.3, "deeplabv3plus resnet18 128": 67.1, "deeplabv3plus resnet18 64": 65.2,
    "deeplabv3plus mobilenet_v2 256": 24.0, "deeplabv3plus mobilenet_v2 128": 16.2,
    "deeplabv3plus mobilenet_v2 64": 13.5, "pspnet resnet18 512": 24.3, "pspnet resnet18 128": 21.6,
    "pspnet mobilenet_v2 512": 6.4, "pspnet mobilenet_v2 128": 4.9, "fpn resnet18": 71.2, "fpn mobilenet_v2": 38.5,
    "fpn tu-mobilenetv3_small_050": 32.0, "segformer mit_b0": 35.5, "segformer mit_b1": 69.6,
}  # fmt: skip

WEIGHTS = {"kd": {"kd.weight": 1.0}, "kd+cwd": {"kd.weight": 1.0, "cwd.weight": 3.0},
           "afdcd": {"afdcd.w_fd": 20.0, "afdcd.w_ctr": 0.2}}  # fmt: skip
"""The weights of each method, and about where the best one lies."""


class Parametric:
    """The benchmark of one `variant`. Equal configurations have equal curves."""

    def __init__(self, variant: int) -> None:
        self.space = load_space(Path(__file__).parent / "landscapes" / "parametric.yaml")
        self.epochs = self.space.default().trial.train.epochs
        self.variant = variant
        rng = np.random.default_rng([7, variant])
        self._capacity = {name: 0.45 + 0.33 * g / (g + 12) + rng.normal(0, 0.015) for name, g in GFLOPS.items()}
        self._lr = {name: -3 - 0.25 * math.log10(g / 30) + rng.normal(0, 0.25) for name, g in GFLOPS.items()}
        self._decay = rng.uniform(-3, -1.5)
        self._gain = {method: rng.uniform(0.01, 0.05) for method in WEIGHTS}
        self._weight = {
            f"{method}/{name}": math.log10(centre) + rng.normal(0, 0.3)
            for method, weights in WEIGHTS.items() for name, centre in weights.items()
        }  # fmt: skip
        self._temperature = {method: dict(zip((1, 2, 4, 8), rng.permutation((0.5, 0.7, 0.9, 1.0)), strict=True))
                             for method in ("kd", "kd+cwd")}  # fmt: skip
        self._mask = rng.uniform(0.4, 0.8)
        self._aux = rng.normal(0, 0.008)

    def cost(self, config: TrialConfig) -> dict[str, float]:
        return {"gflops": GFLOPS[_student(config)], "params_m": 1.0}

    def reference(self) -> dict[str, float]:
        return {"gflops": 80.0, "miou": 0.4}

    def seconds(self, trial: TrialRecord) -> float:
        return 20.0 + trial.cost["gflops"]

    def best(self) -> NDArray[np.float64]:
        """mIoU and GFLOPs of the best configuration of each student."""
        gain = max(self._gain.values())
        return np.array([[self._capacity[s] + gain * _need(g) + abs(self._aux), g] for s, g in GFLOPS.items()])

    def final_miou(self, trial: TrialRecord) -> float:
        """mIoU at the end of training, without the noise of a seed."""
        params, student = trial.params, _student(trial.config)
        method = params["distill"]
        lr_off = math.log10(params["train.lr"]) - self._lr[student]
        decay_off = math.log10(params["train.weight_decay"]) - self._decay
        loss = 0.07 * min(lr_off**2, 1.2) + 0.15 * max(0.0, lr_off - 0.6) + 0.008 * decay_off**2
        fit, harm = 1.0, 0.0
        for name in WEIGHTS[method]:
            off = math.log10(params[f"distill[{method}].{name}"]) - self._weight[f"{method}/{name}"]
            fit *= math.exp(-(off**2) / 0.5)
            harm += 0.06 * max(0.0, off - 0.6) ** 2
        if method == "afdcd":
            fit *= 1 - 2 * (params["distill[afdcd].afdcd.mask_ratio"] - self._mask) ** 2
        else:
            name = "kd.temperature" if method == "kd" else "cwd.tau"
            fit *= self._temperature[method][params[f"distill[{method}].{name}"]]
        aux = self._aux if params["train.aux_weight"] else -self._aux
        gain = self._gain[method] * _need(GFLOPS[student]) * fit
        return max(0.05, self._capacity[student] + gain + aux - loss - harm)

    def curve(self, trial: TrialRecord) -> NDArray[np.float64]:
        params, student = trial.params, _student(trial.config)
        seed = hashlib.sha256(f"{self.variant} {trial_key(trial.config)}".encode()).digest()
        rng = np.random.default_rng(list(seed))
        lr_off = math.log10(params["train.lr"]) - self._lr[student]
        strength = max(
            math.log10(params[f"distill[{params['distill']}].{name}"]) - self._weight[f"{params['distill']}/{name}"]
            for name in WEIGHTS[params["distill"]]
        )
        done = np.arange(1, self.epochs + 1) / self.epochs
        slow = 0.12 * (GFLOPS[student] / 30) ** 0.15 * 10 ** (-0.2 * lr_off) * (1 + 0.15 * max(0.0, strength + 0.5))
        rise = (1 - np.exp(-((done / slow) ** 0.8))) / (1 - math.exp(-((1 / slow) ** 0.8)))
        hot = 0.12 * max(0.0, lr_off) * (1 - done) ** 1.5
        noise = rng.normal(0, 0.006) * np.sqrt(done) + rng.normal(0, 0.010, self.epochs) * (1 - 0.8 * done)
        return np.clip((self.final_miou(trial) - hot) * rise + noise, 0.0, 1.0)


def _student(config: TrialConfig) -> str:
    student = config.student
    channels = [str(value) for value in json.loads(student.model_dump_json()).get("options", {}).values()]
    return " ".join([student.arch, student.encoder, *channels])


def _need(gflops: float) -> float:
    """How much of a method's gain a student takes."""
    return 1.5 - 0.8 * gflops / 75
