"""Settings that would change nothing."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.wrong_inputs.case import Case

RUN = "run clfd --storage {folder}/runs"
PLAN = "plan clfd --storage {folder}/runs"


def trial_file(folder: Path) -> None:
    """A trial whose term never counts."""
    trial = {
        "data": {"name": "scenes", "size": [64, 96]},
        "teacher": {"arch": "fpn", "encoder": "resnet18"},
        "student": {"arch": "fpn", "encoder": "resnet18"},
        "distill": {"kd": {"warmup_epochs": 2}},
        "train": {"epochs": 2},
    }
    (folder / "trial.yaml").write_text(yaml.safe_dump(trial))


CASES = [
    Case("rung-at-the-last-epoch", f"{RUN} --set search.rungs=[3,9] --set train.epochs=9",
         r"search\.rungs: 9 has no effect: a trial ends after 9 epochs; set search\.rungs=\[3\]"),
    Case("rung-beyond-the-epochs", f"{RUN} --set train.epochs=2", r"search\.rungs: 3 has no effect.*rungs=\[\]"),
    Case("rung-beyond-the-epochs-of-a-plan", f"{PLAN} --set train.epochs=2", r"search\.rungs: 3 has no effect"),
    Case("rung-beyond-the-longest-of-several", f"{RUN} --set 'train.epochs={{choice: [1, 2]}}'",
         r"search\.rungs: 3 has no effect: a trial ends after 2 epochs"),
    Case("reduction-without-stopping", f"{RUN} --set search.stop=none --set search.reduction=4",
         r"--set search\.reduction=4: search\.reduction: has no effect with stop none.*search\.reduction=3"),
    Case("audit-without-stopping", f"{RUN} --set search.stop=none --set search.audit=0.5",
         r"search\.audit: has no effect with stop none.*search\.audit=0\.05"),
    Case("reduction-without-rungs", f"{RUN} --set search.rungs=[] --set search.reduction=5",
         r"search\.reduction: has no effect without rungs"),
    Case("warm-up-as-long-as-the-training", f"{RUN} --set distill.dsrd.warmup_epochs=99",
         r"distill\.dsrd\.warmup_epochs: 99 leaves no epoch in which dsrd counts.*below"),
    Case("warm-up-of-a-plan", f"{PLAN} --set distill.dsrd.warmup_epochs=99", r"warmup_epochs: 99 leaves no epoch"),
    Case("warm-up-of-one-trial", "train {folder}/trial.yaml --out {folder}/out --storage {folder}/runs",
         r"distill\.kd\.warmup_epochs: 2 leaves no epoch in which kd counts.*set it below 2", trial_file),
    Case("zoom-from-large-to-small", f"{RUN} --set data.augment.scale=[2,0.5]",
         r"data\.augment\.scale.*from the smaller to the larger factor: \[0\.5, 2\]"),
    Case("cached-confirmation-of-nothing", f"{RUN} --set 'confirm={{seeds: 0, cache: true}}'",
         r"confirm\.cache: has no effect with seeds 0"),
    Case("unknown-node", "run baselines --storage {folder}/runs --set distill[skd_pair].skd_pair.node=grid33",
         r"node"),
]  # fmt: skip
