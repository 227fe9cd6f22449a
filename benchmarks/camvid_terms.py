"""One short training with each distillation term on real CamVid: does its loss stay finite, and does it fall?

    python benchmarks/camvid_terms.py --data /data/camvid --weights /weights --out benchmarks/results/camvid_terms.md

Every term stands alone beside the task loss, with the setting that the shipped search spaces give it first. All
students are the same network with the same seed under the same two-branch teacher, which is trained first and kept in
`--storage`. This says nothing about which term is better: the trainings are far too short.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import time
from pathlib import Path
from typing import Any

import torch

from kdsearch.compat import ensure_torchvision
from kdsearch.config.space.search_space import load_space, profile_names
from kdsearch.config.terms.base import TermConfig
from kdsearch.config.trial import TrialConfig
from kdsearch.data.store.store import build_store
from kdsearch.io.run_folder import RunFolder

SPACES = ("afdcd", "stc", "frkd", "clfd", "baselines")


def first_settings() -> dict[str, TermConfig]:
    """Each term's setting in the first sample of a shipped space, `small` where there is one, that has the term."""
    found: dict[str, TermConfig] = {}
    for name in SPACES:
        profile = "small" if "small" in profile_names(name) else None
        for _, sample in load_space(name, profile=profile).corners():
            for term, config in sample.trial.distill.items():
                found.setdefault(term, config)
    return found


def train_with(job: tuple[str, dict[str, Any], dict[str, Any], str, str]) -> str:
    """Train the student with one term; its row of the table."""
    name, term, base, store, weights = job
    torch.set_num_threads(1)
    ensure_torchvision()
    from kdsearch.train.resources import Resources
    from kdsearch.train.trial import Trial

    config = TrialConfig.model_validate(base | {"distill": {name: term | {"warmup_epochs": 0}}})
    trial = Trial(config, Resources(Path(store), Path(weights)))
    started = time.monotonic()
    epochs = [trial.train_epoch() | trial.validate() for _ in range(config.train.epochs)]
    seconds = (time.monotonic() - started) / len(epochs)
    begin, end = epochs[0], epochs[-1]
    first, last = begin[f"loss/{name}"], end[f"loss/{name}"]
    return (
        f"| {name} | {term['weight']:g} | {first:.4g} | {last:.4g} | {'yes' if last < first else 'NO'} "
        f"| {end[f'grad_ratio/{name}']:.3g} | {begin['loss/task']:.3f} | {end['loss/task']:.3f} "
        f"| {end['val/miou']:.3f} | {end['val/temporal_consistency']:.3f} | {seconds:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of CamVid")
    parser.add_argument("--weights", required=True, help="file or folder of ImageNet weights of mobilenet_v2")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--teacher-epochs", type=int, default=10)
    parser.add_argument("--storage", default="runs", help="keeps the data store and the teacher")
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side, with one thread each")
    parser.add_argument("--terms", nargs="*", help="these alone (default: all)")
    parser.add_argument("--weight", type=float, help="in place of the weight that the space gives")
    parser.add_argument("--out", help="write the table to this file")
    options = parser.parse_args()
    ensure_torchvision()
    from kdsearch.train.standalone import teacher_weights

    weights = [f"{name}.encoder_weights={options.weights}" for name in ("teacher.cnn", "student[pspnet]")]
    space = load_space(
        "stc",
        profile="small",
        data=("camvid", options.data),
        overrides=[*weights, f"train.epochs={options.epochs}", f"teacher.train.epochs={options.teacher_epochs}"],
    )
    base: dict[str, Any] = space.default().trial.model_dump(mode="json")
    folder = RunFolder.at(options.storage, "camvid-terms")
    config = TrialConfig.model_validate(base)
    store = build_store(config.data, folder.stores)
    path = teacher_weights(config, store, folder, print)
    terms = {name: term for name, term in first_settings().items() if not options.terms or name in options.terms}
    weight = {} if options.weight is None else {"weight": options.weight}
    jobs = [
        (name, term.model_dump(mode="json") | weight, base, str(store.path), str(path)) for name, term in terms.items()
    ]
    rows = []
    # One thread each: side by side they are quicker than one after the other on all cores.
    with multiprocessing.get_context("spawn").Pool(options.jobs, maxtasksperchild=1) as pool:
        for row in pool.imap(train_with, jobs, chunksize=1):
            rows.append(row)
            print(row, flush=True)
    facts = {"torch": torch.__version__, "machine": platform.machine()}
    table = "\n".join([HEADER.format(**vars(options), **facts), *rows])
    print(table)
    if options.out:
        Path(options.out).write_text(table + "\n")


HEADER = """# Every term on real CamVid

`python benchmarks/camvid_terms.py --data CAMVID --weights WEIGHTS --epochs {epochs} --teacher-epochs {teacher_epochs}`
(torch {torch}, {machine}, one thread a training): 367 training images at 160x224 (views of 96x160), batch 8,
PSPNet-MobileNetV2 student, teacher of DeepLabV3+-MobileNetV2 and SegFormer-B0, pairs of views as frames, mIoU and
temporal consistency on the 101 frames of `val`. Weighted losses: means over the first and the last epoch. `gradient` is
the norm of the term's gradient at the student's logits over the task loss's (0 for terms on features alone).

| term | weight | first | last | falls | gradient | task first | task last | mIoU | consistency | s/epoch |
|---|---|---|---|---|---|---|---|---|---|---|"""


if __name__ == "__main__":
    main()
