"""What a training step costs without a teacher, with a live one and with its cached maps, for `teacher_cache.py`."""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from kdsearch.config.trial import TrialConfig

GOAL = 1.15
"""Greatest time of a step with cached maps, in steps without distillation."""

SMP_STUDENT = {"arch": "pspnet", "encoder": "mobilenet_v2"}
PAIRS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    (
        {"arch": "deeplabv3plus", "encoder": "resnet101", "options": {"encoder_output_stride": 16}},
        SMP_STUDENT,
        {"kd": {}},
    ),
    (
        {"arch": "deeplabv3plus", "encoder": "resnet101", "options": {"encoder_output_stride": 16}},
        SMP_STUDENT,
        {"kd": {}, "cwd_feature": {"tap": "head"}},
    ),
    (
        {
            "arch": "two_branch",
            "cnn": {"arch": "deeplabv3plus", "encoder": "resnet50", "options": {"encoder_output_stride": 16}},
            "transformer": {"arch": "segformer", "encoder": "mit_b2"},
        },
        {"arch": "fpn", "encoder": "resnet18"},
        {"kd": {}, "stc_pair": {}},
    ),
    (
        {"arch": "clnet", "encoder": "mit_b4", "shared_encoder": False},
        {"arch": "clnet", "encoder": "mit_b0", "width": 32},
        {"dsrd": {}, "clfd": {}},
    ),
    (
        {"arch": "clnet", "encoder": "mit_b4", "shared_encoder": False},
        {"arch": "segformer", "encoder": "mit_b0"},
        {"dsrd": {"detail_source": "derived"}, "cwd": {}},
    ),
]


class Form:
    """One trial that is stepped again and again."""

    def __init__(self, config: TrialConfig, resources: Any) -> None:
        from kdsearch.train.trial import Trial

        self.trial = Trial(config, resources)
        self.trial.wrapped.train()
        self.device = resources.device
        self.batches = self._batches()

    def _batches(self) -> Iterator[Any]:
        for epoch in itertools.count():
            yield from self.trial.train_batches.train(epoch)

    def step(self) -> float:
        started = self._now()
        self.trial._step(next(self.batches), None)
        return self._now() - started

    def teacher(self) -> float:
        """The share of the teacher alone, live or cached."""
        batch = next(self.batches)
        started = self._now()
        self.trial.teacher_output(batch)
        return self._now() - started

    def _now(self) -> float:
        """CPU time of the one thread on a CPU, which other programs do not lengthen by much; wall time on a GPU."""
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def steps(options: argparse.Namespace, scratch: Path) -> list[str]:
    from safetensors.torch import save_file

    from kdsearch.data.store.store import build_store
    from kdsearch.models.registry import build_network
    from kdsearch.train.resources import Resources
    from kdsearch.train.teacher_cache.plan import plan_cache

    device = torch.device(options.device)
    lines = [STEPS_HEADER]
    met, read = [], []
    for number, (teacher, student, distill) in enumerate(PAIRS):
        height, width = options.size
        data = {
            "name": "scenes", "size": [height, width], "frames": "views",
            "options": {"train": 2 * options.batch, "val": 1, "height": height, "width": width},
        }  # fmt: skip
        train = {"batch_size": options.batch, "epochs": 10**6}
        base = {"data": data, "student": student, "train": train}
        configs = {
            "plain": TrialConfig.model_validate(base),
            "live": TrialConfig.model_validate(base | {"teacher": teacher, "distill": distill}),
            "cached": TrialConfig.model_validate(base | {"teacher": teacher | {"cache": "taps"}, "distill": distill}),
        }
        store = build_store(configs["plain"].data, scratch / "data")
        weights = scratch / f"teacher{number}.safetensors"
        torch.manual_seed(0)
        assert configs["live"].teacher is not None
        save_file(build_network(configs["live"].teacher.network(), store.info).state_dict(), weights)
        plan = plan_cache([configs["cached"]], store, scratch / "maps", weights).plan
        assert plan is not None
        shared = Resources(store.path, weights, device, cache_plan=plan, log=lambda line: None)
        forms = {name: Form(config, shared) for name, config in configs.items()}
        taken: dict[str, list[float]] = {name: [] for name in [*forms, "asking", "reading"]}
        for repeat in range(options.repeats + 1):
            for name, form in forms.items():
                seconds = form.step()
                if repeat:
                    taken[name].append(seconds)
            taken["asking"].append(forms["live"].teacher())
            taken["reading"].append(forms["cached"].teacher())
        ms = {name: 1e3 * statistics.median(values) for name, values in taken.items()}
        image = plan.nbytes(configs["cached"], store) / len(store.split("train")) / 1e6
        ratio = ms["cached"] / ms["plain"]
        alone = (ms["plain"] + ms["reading"]) / ms["plain"]
        met.append(ratio <= GOAL)
        read.append(alone <= GOAL)
        line = (
            f"| {_name(teacher)} | {_name(student)} | {', '.join(distill)} | {ms['plain']:.0f} | {ms['live']:.0f} "
            f"| {ms['cached']:.0f} | {ms['asking']:.0f} | {ms['reading']:.1f} | {ms['live'] / ms['plain']:.2f} "
            f"| **{ratio:.2f}** | {alone:.2f} | {image:.2f} |"
        )
        print(line, flush=True)
        lines.append(line)
    lines.append(
        f"\nGoal, a step with cached maps in at most {GOAL} plain steps: met by {sum(met)} of {len(met)} pairs, terms "
        f"included; by {sum(read)} of {len(read)} when only reading the maps is counted."
    )
    return lines


def _name(network: dict[str, Any]) -> str:
    if network["arch"] == "two_branch":
        return f"{_name(network['cnn'])} + {_name(network['transformer'])}"
    return f"{network['arch']} {network['encoder']}"


STEPS_HEADER = """## Seconds per training step

`plain` trains the student without distillation; `asking` and `reading` are the times of the live and the cached teacher
alone. The rest of a cached step beyond plain and reading is the terms' own forward and backward pass.

| teacher | student | terms | plain, ms | live, ms | cached, ms | asking, ms | reading, ms | live / plain \
| cached / plain | (plain + reading) / plain | MB per image |
|---|---|---|---|---|---|---|---|---|---|---|---|"""
