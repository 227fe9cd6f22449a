"""`kdsearch evaluate`: measure students on a split of their data set."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from kdsearch.cli import completion as complete
from kdsearch.cli.output import CommandOutput, print_columns
from kdsearch.cli.parser import Commands, add_command, add_json
from kdsearch.errors import UserError

ABOUT = """\
Images and labels have their native size; the network's input is resized by the rules of the protocol: by default to the
size of the student's training. Of a run folder, every student of the frontier is measured.

Protocols: kdsearch, native, cirkd, afdcd, skd, etc, mmseg, clnet, rtfnet. A number compares with others of the same
protocol, data set and split alone.

Each measurement of a run's student is appended to the run folder's evaluations.jsonl.
"""


def add_to(commands: Commands) -> None:
    command = add_command(
        commands, "evaluate", _evaluate, help="measure a student on a split of a data set", about=ABOUT,
        examples=[
            "evaluate runs/clfd-1",
            "evaluate runs/clfd-1/students/t0007 --split test --protocol cirkd",
            "evaluate student/model.onnx --predictions ids",
        ],
    )  # fmt: skip
    add = command.add_argument
    source = "run folder; or the folder of one student, or of a bundle; or the model.onnx of a bundle"
    complete.by(add("run", metavar="RUN", type=Path, help=source), complete.runs)
    data = "data set, and its folder or URI (default: that of the training, at its place)"
    complete.by(add("--data", metavar="NAME=PATH", help=data), complete.readers)
    add("--split", metavar="NAME", default="val", help="a split that the data set lists (default: val)")
    add("--protocol", metavar="NAME", default="kdsearch", help="rules of the measurement (default: kdsearch)")
    add("--scales", metavar="LIST", help="comma-separated factors of the input's size, averaged")
    add("--flip", action="store_true", help="average with the mirrored image")
    add("--slide", metavar="LIST", help="windows and their stride in pixels, such as 512x512,341x341")
    add("--predictions", metavar="DIR", type=Path, help="write the predicted class ids there, as PNG files")
    add("--page", metavar="FILE", type=Path, help="write an HTML page with the lowest and the highest images")
    add_json(command, "a list of student, dataset, split, images, fingerprint, protocol, metrics, absent")


def _evaluate(options: argparse.Namespace) -> CommandOutput:
    from kdsearch.api.evaluation import evaluate

    students = _students(options.run)
    if len(students) > 1:
        for name in ("predictions", "page"):
            if getattr(options, name) is not None:
                raise UserError(f"--{name} takes one student: name one of {options.run / 'students'}/.")
    settings = _settings(options)
    results = {
        name: evaluate(
            path, data=options.data, split=options.split, protocol=options.protocol, settings=settings,
            predictions=options.predictions, page=options.page, progress=_progress(name),
        )
        for name, path in students.items()
    }  # fmt: skip
    value = [{"student": str(students[name]), **result.to_dict()} for name, result in results.items()]
    return CommandOutput(value, lambda: _show(results))


def _students(path: Path) -> dict[str, Path]:
    """The students to measure by name: those of the frontier of a run folder, or the one at `path`."""
    if not (path / "space.yaml").is_file():
        return {path.parent.name if path.suffix == ".onnx" else path.name: path}
    from kdsearch.api.functions import load_study

    study = load_study(path)
    points = study.frontier()
    if not len(points):
        raise UserError(f"{path} has no student yet; measure it when a trial is complete.")
    return {str(trial): study.path / "students" / str(trial) for trial in points["trial"]}


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if options.scales is not None:
        try:
            settings["scales"] = [float(text) for text in options.scales.split(",")]
        except ValueError:
            raise UserError(f"--scales {options.scales}: expected numbers, such as 0.5,1,1.5.") from None
    if options.flip:
        settings["flip"] = True
    if options.slide is not None:
        try:
            crop, stride = (tuple(map(int, text.split("x"))) for text in options.slide.split(","))
        except ValueError:
            raise UserError(f"--slide {options.slide}: expected CROP,STRIDE, such as 512x512,341x341.") from None
        settings["slide"] = {"crop": crop, "stride": stride}
    return settings


def _progress(name: str) -> Any:
    if not sys.stderr.isatty():
        return None

    def progress(done: int, count: int) -> None:
        end = "\r" if done < count else "\r\033[K"
        print(f"{name}: {done}/{count} images", end=end, file=sys.stderr, flush=True)

    return progress


def _show(results: dict[str, Any]) -> None:
    first = next(iter(results.values()))
    print(
        f"{first.dataset} {first.split}, {len(first.images)} images, split {first.fingerprint[:8]}, "
        f"protocol {first.protocol.digest()}"
    )
    names = ["mIoU", "over all classes", "pixel accuracy", "boundary IoU"]
    keys = ["miou", "miou_zero", "pixel_accuracy", "boundary_iou"]
    rows = [
        [student, *(f"{result.metrics().get(key, float('nan')):.4f}" for key in keys)]
        for student, result in results.items()
    ]
    print_columns(["student", *names], rows, right=names)
    if first.absent:
        print(f"not in the labels of this split: {', '.join(first.absent)}")
    print()
    columns = list(results)
    per_class = [
        [name, *("-" if (value := result.metrics().get(f"iou/{name}")) is None else f"{value:.4f}"
                 for result in results.values())]
        for name in first.classes
    ]  # fmt: skip
    print_columns(["IoU", *columns], per_class, right=columns)
