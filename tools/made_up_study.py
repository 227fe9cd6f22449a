"""A study with made-up trials: a run folder and MLflow runs like those of a real study, in a minute and without Ray.

    python tools/made_up_study.py FOLDER [--trials N] [--tracking-uri URI]

For the inspection of pages and the pictures in docs/. mIoU follows a formula with noise; costs are real. With --weights
the best compromise, its control and the teacher are trained for some epochs, so that the report has pictures.
"""

from __future__ import annotations

import argparse
import math
import random
from pathlib import Path

from kdsearch.compat import ensure_torchvision

ensure_torchvision()

from kdsearch.config.space.search_space import load_space  # noqa: E402
from kdsearch.config.trial import TrialConfig  # noqa: E402
from kdsearch.data.store.store import Store, build_store  # noqa: E402
from kdsearch.io.atomic import write_folder_atomically, write_text  # noqa: E402
from kdsearch.io.run_folder import RunFolder  # noqa: E402
from kdsearch.models.cost import network_cost  # noqa: E402
from kdsearch.report.callback import PagesCallback  # noqa: E402
from kdsearch.report.results import read_results  # noqa: E402
from kdsearch.search.callbacks import CallbackList, StudyEnd, StudyInfo  # noqa: E402
from kdsearch.search.controller import StudyController  # noqa: E402
from kdsearch.search.stopping.rung_state import RungState  # noqa: E402
from kdsearch.search.storage.study_storage import StudyStorage  # noqa: E402
from kdsearch.search.summary import versions  # noqa: E402
from kdsearch.search.trial_record import TrialRecord  # noqa: E402
from kdsearch.tracking.artifacts import ArtifactsCallback  # noqa: E402
from kdsearch.tracking.mlflow.callback import MLflowCallback  # noqa: E402
from kdsearch.tracking.retention import RetentionCallback  # noqa: E402

TEACHER_MIOU = 0.62


def made_up(config: TrialConfig, gflops: float) -> tuple[float, random.Random]:
    """The mIoU that a configuration ends at, and the noise that belongs to it."""
    noise = random.Random(str(sorted(config.model_dump(mode="json").items(), key=str)))
    miou = 0.30 + 0.085 * math.log10(gflops / 0.02) - 0.03 * math.log10(config.train.lr / 2.5e-3) ** 2
    if config.distill:
        weight = config.distill["clfd"].weight
        miou += 0.045 - 0.03 * math.log10(weight / 0.6) ** 2
    return miou + noise.gauss(0, 0.008), noise


def metrics_at(config: TrialConfig, gflops: float, epoch: int, classes: tuple[str, ...]) -> dict[str, float]:
    end, noise = made_up(config, gflops)
    reached = end * (1 - math.exp(-2.6 * epoch / config.train.epochs)) / (1 - math.exp(-2.6))
    weights = [noise.uniform(0.3, 1.7) for _ in classes]
    scale = reached * len(classes) / sum(weights)
    ious = {f"val/iou/{name}": min(0.98, scale * weight) for name, weight in zip(classes, weights, strict=True)}
    seconds = 20 + 30 * gflops
    return {"val/miou": sum(ious.values()) / len(ious), **ious, "loss/task": 2.2 * math.exp(-epoch / 4),
            "val/pixel_accuracy": 0.5 + reached / 2, "time/train_s": seconds, "time/val_s": seconds / 9}  # fmt: skip


def make(folder: Path, trials: int, tracking_uri: str | None, weights: bool) -> RunFolder:
    space = load_space(
        "clfd", profile="demo", overrides=[f"search.trials={trials}", "confirm.seeds=3", "teacher.train.epochs=6"]
    )
    run = RunFolder.at(str(folder.parent), folder.name)
    run.create()
    store = build_store(space.default().trial.data, run.stores)

    def cost_of(config: TrialConfig) -> dict[str, float]:
        cost = network_cost(config.student, store.info, config.data.size)
        return {"gflops": cost.gflops, "params_m": cost.params_m}

    reference = {"gflops": 4.0, "params_m": 40.0}
    storage = StudyStorage.open(run.journal, space, cost_of)
    write_text(run.space, space.to_yaml())
    search = space.search
    rungs = RungState(
        search.rungs, search.objectives, search.stop, search.reduction, run.rungs, search.audit, search.seed
    )
    facts = {"reference": reference, "store": store.path.name, "versions": versions()}
    with MLflowCallback(tracking_uri, space, run, print) as mlflow:
        mlflow.begin(store)
        artifacts = ArtifactsCallback(space, run, storage, lambda: {"val/miou": TEACHER_MIOU}, rungs, facts)
        callbacks = CallbackList([artifacts, RetentionCallback(space, run, storage), PagesCallback(run), mlflow])
        callbacks.on_study_start(StudyInfo(run.path.name, run.path, space))
        controller = StudyController(space, storage, rungs, reference, None, True, callbacks)
        while isinstance(trial := controller.next_trial(), TrialRecord):
            play(controller, trial, store)
        if weights:
            artifacts.write("running")
            train_shown(run, store)
        members, confirmed = controller.members(), controller.confirmed()
        callbacks.on_study_end(StudyEnd("done", "", members, confirmed, controller.hypervolume))
    storage.close()
    return run


def play(controller: StudyController, trial: TrialRecord, store: Store) -> None:
    """One trial from start to end; one in fifteen fails."""
    number = int(trial.id.lstrip("tconfl"))
    if trial.stage == "search" and number % 15 == 7:
        controller.on_trial_end(trial.id, "loss/clfd is not finite at step 3 of epoch 2")
        return
    for epoch in range(1, trial.config.train.epochs + 1):
        metrics = metrics_at(trial.config, trial.cost["gflops"], epoch, store.info.classes)
        if not controller.on_report(trial.id, epoch, metrics):
            break
    controller.on_trial_end(trial.id, None)


def train_shown(run: RunFolder, store: Store, epochs: int = 6) -> None:
    """Real weights, of a short training, for the networks that the report shows."""
    from kdsearch.config.space.search_space import load_space
    from kdsearch.search.confirm import repeats
    from kdsearch.search.storage.reader import read_history
    from kdsearch.train.resources import Resources
    from kdsearch.train.standalone import teacher_weights
    from kdsearch.train.trial import Trial

    space = load_space(run.space)
    point = read_results(run).knee()
    assert point is not None
    records = read_history(run.journal, space.search.objectives).trials
    config = next(r.config for r in records if r.id == point.trial.id)
    teacher = teacher_weights(config, store, run, print)
    control = next(r for r in records if r.stage == "control" and r.config == next(repeats(config, space.confirm))[1])
    for trial_id, each in ((point.trial.id, config), (control.id, control.config)):
        short = each.model_copy(update={"train": each.train.model_copy(update={"epochs": epochs})})
        trial = Trial(short, Resources(store.path, teacher if short.teacher else None))
        metrics: dict[str, float] = {}
        while trial.epoch < epochs:
            metrics = trial.train_epoch() | trial.validate()

        def write(folder: Path, trial: Trial = trial, metrics: dict[str, float] = metrics) -> None:
            trial.save_student(folder, metrics)

        write_folder_atomically(run.student(trial_id), write)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--tracking-uri")
    parser.add_argument("--weights", action="store_true")
    options = parser.parse_args()
    print(make(options.folder.resolve(), options.trials, options.tracking_uri, options.weights).path)


if __name__ == "__main__":
    main()
