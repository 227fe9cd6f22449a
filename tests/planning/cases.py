"""A small space, and costs of its students without building them."""

from __future__ import annotations

SPACE = """
name: tiny
data: {name: scenes, size: [32, 64], options: {train: 40, val: 10, height: 32, width: 64}}
teacher: {arch: clnet, encoder: mit_b0, width: 8, steps: 2, train: {epochs: 2, batch_size: 4}}
student:
  one_of:
    - {arch: fpn, encoder: {choice: [tu-mobilenetv3_small_050, mobilenet_v2]}}
    - {arch: pspnet, encoder: resnet18}
distill:
  one_of:
    - {kd: {weight: {log: [0.1, 10], default: 1}}}
    - {at: {tap: c3}}
    - null
train: {epochs: 9, batch_size: 4}
search: {trials: 6, rungs: [3], stop: pareto, reduction: 2}
confirm: {seeds: 2}
"""


def gflops(trial: object) -> dict[str, float]:
    encoder = trial.student.encoder  # type: ignore[attr-defined]
    return {"gflops": {"tu-mobilenetv3_small_050": 1.0, "mobilenet_v2": 3.0, "resnet18": 2.0}[encoder], "params_m": 1.0}
