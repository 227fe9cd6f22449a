"""Trials in the hands of pretended workers, with and without Ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import tune

from kdsearch.config.trial import TrialConfig
from kdsearch.io.atomic import write_folder_atomically, write_text
from kdsearch.io.run_folder import RunFolder


def train_epoch(run: RunFolder, name: str, epoch: int) -> None:
    """An epoch is a line in `epochs.log`, a checkpoint a line of JSON, a student a file."""
    with (run.path / "epochs.log").open("a") as log:
        log.write(f"{name} {epoch}\n")
    write_text(run.checkpoint(name), json.dumps({"epoch": epoch}))


def write_student(folder: Path) -> None:
    (folder / "model.safetensors").write_text("weights")


class Training:
    """A trial whose epochs are `train`ed: written down, and nothing else."""

    def __init__(
        self, name: str, config: TrialConfig, run: RunFolder, train: Callable[[RunFolder, str, int], None] = train_epoch
    ) -> None:
        self.name, self.config, self.run, self.train = name, config, run, train
        checkpoint = run.checkpoint(name)
        self.epoch = json.loads(checkpoint.read_text())["epoch"] if checkpoint.exists() else 0
        self.is_news = self.epoch > 0  # as workers do: a checkpoint's epoch is reported before the next is trained

    def step(self) -> tuple[int, dict[str, float]]:
        if not self.is_news:
            self.epoch += 1
            self.train(self.run, self.name, self.epoch)
        self.is_news = False
        if self.epoch == self.config.train.epochs:
            write_folder_atomically(self.run.student(self.name), write_student)
        return self.epoch, {"val/miou": miou(self.config, self.epoch), "time/train_s": 1.0}


class OnNodes(tune.Trainable):  # type: ignore[misc]
    """A resident trainable, as `TrialActor` is, whose epochs are tasks on any node."""

    def setup(self, config: dict[str, Any]) -> None:
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        name, config, folder = new_config["job"]
        trial = TrialConfig.model_validate_json(config)
        anywhere = ray.remote(train_epoch).options(scheduling_strategy="SPREAD", num_cpus=0.1)
        self.training = Training(name, trial, RunFolder(Path(folder)), lambda *told: ray.get(anywhere.remote(*told)))
        return True

    def step(self) -> dict[str, Any]:
        epoch, metrics = self.training.step()
        return {"epoch": epoch, **{f"metrics/{name}": value for name, value in metrics.items()}}

    def save_checkpoint(self, checkpoint_dir: str) -> None: ...

    def load_checkpoint(self, checkpoint: Any) -> None: ...


def miou(config: TrialConfig, epoch: int) -> float:
    return (0.3 + 0.2 * (config.student.encoder == "resnet18") + config.train.lr) * epoch / config.train.epochs
