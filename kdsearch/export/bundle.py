"""A student as a self-contained bundle: weights, formats, preprocessing, model card."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsearch.errors import UserError
from kdsearch.io.atomic import write_folder_atomically, write_json
from kdsearch.io.targets import check_target

if TYPE_CHECKING:
    from kdsearch.search.choice import Best, ChosenStudent

CONFIRMED = ("seeds", "miou_mean", "miou_std", "control_miou_mean", "gain", "gain_low", "gain_high", "p_frontier")
"""Numbers of repeats and controls that `metrics.json` of a bundle holds, where they are known."""


class MismatchError(RuntimeError):
    """A written format computes other results than the student. No bundle is left."""


def export(
    run: str,
    out: Path,
    best: Best | None = None,
    budget: str | None = None,
    formats: tuple[str, ...] = ("safetensors",),
    tracking_uri: str | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Write the chosen student of `run` to the folder `out`; each format is loaded again and compared first.

    `run` is a run folder, the folder of one student, `runs:/ID` or `models:/NAME@ALIAS` in MLflow (`tracking_uri`). Of
    a study, `best` is `"miou"` (most accurate, the default) or `"knee"` (best compromise), among those within `budget`
    (`"gflops<=5"`). Safetensors is always written. Returns `bundle`, `study`, `trial`, `chosen`, the agreement of each
    format with PyTorch (`formats`), and the time of one image on this machine (`latency_ms`).

    Raises `UserError` for a request that cannot be met, and `MismatchError` for a format that differs.
    """
    from kdsearch.export.formats import check_formats
    from kdsearch.export.source import from_folder

    check_formats(formats)
    check_target("--out", out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not an empty folder; give another --out.")
    with tempfile.TemporaryDirectory(prefix="kdsearch-") as scratch:
        if run.startswith(("runs:/", "models:/")):
            from kdsearch.tracking.mlflow.download import from_mlflow

            source = from_mlflow(run, tracking_uri, best, budget, Path(scratch))
        elif tracking_uri is not None:
            raise UserError(f"--tracking-uri is for runs:/ID and models:/NAME@ALIAS; {run} is a folder, leave it out.")
        else:
            source = from_folder(Path(run), best, budget)
        say(f"{source.point.trial} of {source.study}: {source.chosen}")
        out.resolve().parent.mkdir(parents=True, exist_ok=True)
        written = {"bundle": str(out), "study": source.study, "trial": source.point.trial, "chosen": source.chosen}
        write_folder_atomically(out.resolve(), lambda folder: written.update(_write(source, folder, formats, say)))
    return written


def _write(source: ChosenStudent, folder: Path, formats: tuple[str, ...], say: Callable[[str], None]) -> dict[str, Any]:
    from kdsearch.config.space.trial_file import dump_trial
    from kdsearch.export.card import card
    from kdsearch.export.formats import FORMATS, agreement, runner, write_formats
    from kdsearch.export.preprocess import preprocessing
    from kdsearch.export.sample import sample_images
    from kdsearch.export.timing import latencies_ms, machine
    from kdsearch.models.student import load_student, read_config, read_metrics, read_trial

    student, config, metrics = load_student(source.folder), read_config(source.folder), read_metrics(source.folder)
    trial = read_trial(source.folder)
    for name in ("model.safetensors", "config.json"):
        shutil.copyfile(source.folder / name, folder / name)
    confirmed = {f"confirm/{name}": getattr(source.point, name) for name in CONFIRMED}
    write_json(
        folder / "metrics.json", metrics | {name: value for name, value in confirmed.items() if value is not None}
    )
    write_json(folder / "preprocess.json", preprocessing(student, trial.student))
    (folder / "trial.yaml").write_text(dump_trial(trial))

    write_formats(folder, formats)
    images, compared_on = sample_images(student, source.stores)
    agreements = {}
    for name in FORMATS:
        if name == "safetensors" or name in formats:
            agreements[name] = agreement(student, runner(folder, name), images)
            say(f"{name}: {agreements[name]}, on {compared_on}")
            if not agreements[name].holds:
                raise MismatchError(f"{name} differs from the student: {agreements[name]}")
    runtimes = {"PyTorch": "safetensors"} | ({"onnxruntime": "onnx"} if "onnx" in formats else {})
    one = student.preprocess(images[:1]).numpy()
    latency = latencies_ms({title: runner(folder, name) for title, name in runtimes.items()}, one)
    say(f"one image on {machine()}: " + ", ".join(f"{name} {value:.1f} ms" for name, value in latency.items()))
    written = {"formats": {name: asdict(each) for name, each in agreements.items()}, "latency_ms": latency}
    del agreements["safetensors"]
    (folder / "README.md").write_text(card(source, trial, config, metrics, agreements, compared_on, latency, machine()))
    return written
