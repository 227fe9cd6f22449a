"""Faults for the workers of a study whose PYTHONPATH leads here.

A file `<trial>-<epoch>-<rank>` in the folder KDSEARCH_TEST_FAULTS makes that epoch go wrong on that rank in the way
that it names: once, or each time where it begins with `always`. `poison` is for good in that process, as an error of a
CUDA context is.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

TARGET = "kdsearch.engine.worker_loop"


POISON: list[str] = []
"""The error of this process's device, once it has one."""


class _Patch(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != TARGET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_and_patch(module: Any) -> None:
            execute(module)
            _make_faulty(module._Worker)

        spec.loader.exec_module = exec_and_patch  # type: ignore[method-assign]
        return spec


def _make_faulty(rank: Any) -> None:
    epoch, start = rank.train_epoch, rank.start

    def faulty_start(self: Any, job: Any) -> Any:
        if POISON:
            raise RuntimeError(*POISON)
        return start(self, job)

    def faulty_epoch(self: Any) -> Any:
        order = Path(os.environ["KDSEARCH_TEST_FAULTS"]) / f"{self.job.id}-{self.trial.epoch + 1}-{self.rank}"
        if order.exists():
            kind = order.read_text()
            if not kind.startswith("always"):
                order.unlink()
            _go_wrong(kind.removeprefix("always "), self.trial, order)
        if POISON:
            raise RuntimeError(*POISON)
        return epoch(self)

    rank.train_epoch, rank.start = faulty_epoch, faulty_start


def _go_wrong(kind: str, trial: Any, order: Path) -> None:
    import resource
    import signal
    import time

    import torch

    match kind.split():
        case ["freeze"]:
            order.with_suffix(".pid").write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
        case ["poison"]:
            POISON.append("CUDA error: an illegal memory access was encountered")
        case ["sleep"]:
            time.sleep(10**6)
        case ["memory", times]:
            forward, left = trial.module.forward, [int(times)]

            def full(*arguments: Any) -> Any:
                left[0] -= 1
                if left[0] >= 0:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                return forward(*arguments)

            trial.module.forward = full
        case ["nan"]:
            with torch.no_grad():
                next(trial.module.student.parameters()).fill_(float("nan"))
        case ["disk"]:
            # The kernel refuses every byte beyond this one, as a full disk does in the middle of a file.
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
        case _:
            raise ValueError(kind)


if "KDSEARCH_TEST_FAULTS" in os.environ:
    sys.meta_path.insert(0, _Patch())
