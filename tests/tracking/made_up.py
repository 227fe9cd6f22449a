"""A run folder with made-up results: students on the frontier, dominated ones, one stopped, one failed."""

from __future__ import annotations

from pathlib import Path

from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.config.trial import TrialConfig
from kdsearch.io.atomic import write_text
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.confirm import repeats
from kdsearch.search.pareto import costs, non_dominated
from kdsearch.search.stopping.rung_state import RungState
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.trial_record import TrialRecord
from kdsearch.tracking.artifacts import ArtifactsCallback, Status

SPACE = """
name: toy
description: a <i>toy</i> & more
data: {name: scenes, size: [32, 64], options: {train: 12, val: 5, height: 32, width: 64}}
teacher: {arch: clnet, encoder: mit_b0, width: 8, steps: 2}
student: {arch: fpn, encoder: {choice: [tu-mobilenetv3_small_050, mobilenet_v2, resnet18]}}
distill: {kd: {weight: {log: [0.1, 10], default: 1}}}
train: {lr: {log: [1.0e-4, 1.0e-2], default: 1.0e-3}, epochs: 4, batch_size: 4}
search: {trials: 6, sampler: random, rungs: [2], reduction: 2, seed: 3}
confirm: {seeds: 2}
"""
HOSTILE = "</script><script>alert('x')</script>"
GFLOPS = {"tu-mobilenetv3_small_050": 0.123, "mobilenet_v2": 0.456, "resnet18": 0.987}
MIOU = {"tu-mobilenetv3_small_050": 0.411, "mobilenet_v2": 0.463, "resnet18": 0.527}
STATES = ("COMPLETE", "COMPLETE", "COMPLETE", "COMPLETE", "PRUNED", "FAIL")


def cost_of(config: TrialConfig) -> dict[str, float]:
    return {"gflops": GFLOPS[config.student.encoder], "params_m": 1.25}


RUNGS = RungState((2,), {"miou": "max", "gflops": "min"}, "none", 2)


class MadeUp:
    """A study whose journal is open, as a running driver has it, until `close`."""

    def __init__(self, folder: Path, store: str = "scenes-store") -> None:
        self.run = RunFolder.at(str(folder), "toy <b>study")
        self.run.create()
        (folder / "toy.yaml").write_text(SPACE)
        self.space: SearchSpace = load_space(folder / "toy.yaml")
        write_text(self.run.space, self.space.to_yaml())
        self.record = StudyStorage.open(self.run.journal, self.space, cost_of)
        facts = {"reference": {"gflops": 2.0}, "store": store, "versions": {"kdsearch": "1.2.3", "torch": "9.9"}}
        self.tables = ArtifactsCallback(self.space, self.run, self.record, lambda: {"val/miou": 0.6}, RUNGS, facts)
        self.members: list[TrialRecord] = []

    def search(self, status: Status = "running") -> None:
        for index, state in enumerate(STATES):
            trial = self.record.ask()
            assert trial is not None
            self.end(trial, MIOU[trial.config.student.encoder] - index / 100, state)
        complete = self.record.complete("search")
        mask = non_dominated(costs([r.values() for r in complete], self.space.search.objectives))
        self.members = [r for r, kept in zip(complete, mask, strict=True) if kept]
        self.tables.on_frontier(self.members, 0.7)
        if status != "running":
            self.tables.write(status)

    def confirm(self) -> list[TrialRecord]:
        """Repeats of the first member at 0.40 and 0.38, controls at 0.35 and 0.31. Returns the controls."""
        member, controls = self.members[0], []
        for (repeat, control), mious in zip(
            repeats(member.config, self.space.confirm), [(0.40, 0.35), (0.38, 0.31)], strict=True
        ):
            self.end(self.record.add("confirm", repeat, {"of": member.id}), mious[0])
            controls.append(self.record.add("control", control, {"of": member.id}))
            self.end(controls[-1], mious[1])
        return controls

    def end(self, trial: TrialRecord, miou: float, state: str = "COMPLETE") -> None:
        trial.epoch = 4 if state == "COMPLETE" else 2
        trial.metrics = {"val/miou": miou, "val/iou/road": miou + 0.1, f"val/iou/{HOSTILE}": miou - 0.1}
        trial.curve = {epoch: miou * epoch / trial.epoch for epoch in range(1, trial.epoch + 1)}
        trial.seconds = 12.0
        self.record.tell(trial, state, HOSTILE if state == "FAIL" else "")  # type: ignore[arg-type]

    def close(self) -> None:
        self.record.close()
