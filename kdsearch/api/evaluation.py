"""`kdsearch.evaluate`: a network on a split of a data set, by the rules of a protocol."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsearch.config.data import DataConfig
from kdsearch.config.protocol import EvalProtocol, protocol_named
from kdsearch.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from kdsearch.data.reader import Reader
    from kdsearch.models.student import Student
    from kdsearch.train.evaluation.measure import OnImage
    from kdsearch.train.evaluation.result import Evaluation

Progress = Callable[[int, int], None]


def evaluate(
    student: str | Path | Student,
    *,
    data: str | None = None,
    split: str = "val",
    protocol: str | EvalProtocol = "kdsearch",
    settings: Mapping[str, Any] | None = None,
    predictions: str | Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a student on a split of a data set: every image and every label at its native size.

    `student` is the folder of a student (`students/<trial>` of a run, or a bundle), the `model.onnx` of a bundle, or a
    loaded student. `data` is `NAME=PATH`; without it, the data set of the training at its place. `split` is one that
    its reader lists: `val`, `test`, ... `protocol` is the name of published rules, or rules; `settings` change single
    ones, such as `{"scales": [0.5, 1.0], "flip": True}`. `predictions` is a new folder for the predicted class ids as
    PNG files. `progress` receives the images measured and their number.

    The default protocol resizes images to the size of the student's training, as `Student.segment` does. Each use of a
    student in a run folder is appended to its `evaluations.jsonl`. `UserError` for requests that cannot be met.
    """
    from kdsearch.compat import ensure_torchvision

    ensure_torchvision()
    from kdsearch.models.student import Student
    from kdsearch.train.evaluation.measure import measure
    from kdsearch.train.evaluation.prediction import Predictor
    from kdsearch.train.evaluation.source import from_folder, of_student

    network = of_student(student) if isinstance(student, Student) else from_folder(Path(student).expanduser().resolve())
    reader = _reader(network.data, data)
    _check(reader, network.info.classes, network.info.channels, split)
    rules = _rules(protocol, reader.info.name, settings or {})
    predictor = Predictor(
        network.logits, network.info, rules, trained=network.trained, size_divisor=network.size_divisor,
        device=network.device,
    )  # fmt: skip
    on_image = _on_image(len(reader.keys(split)), progress, None if predictions is None else Path(predictions))
    result = measure(predictor, reader, split, on_image)
    if not isinstance(student, Student):
        _record(Path(student).expanduser().resolve(), result)
    return result


def _reader(trained_on: DataConfig | None, data: str | None) -> Reader:
    from kdsearch.data.registry import open_reader

    if data is None:
        if trained_on is None:
            raise UserError("A student in memory has no data set: give data='NAME=PATH'.")
        return open_reader(trained_on)
    name, _, path = data.partition("=")
    if trained_on is not None and name == trained_on.name:
        changed = trained_on.model_copy(update={"path": path or trained_on.path})
    else:
        changed = DataConfig(name=name, path=path or None, size=(1, 1))
    return open_reader(changed)


def _check(reader: Reader, classes: tuple[str, ...], channels: int, split: str) -> None:
    from kdsearch.data.reader import splits_of

    if reader.info.classes != classes or reader.info.channels != channels:
        raise UserError(
            f"the student knows {len(classes)} classes ({', '.join(classes[:3])}, ...) in {channels} channels, and "
            f"{reader.info.name} has {reader.info.num_classes} ({', '.join(reader.info.classes[:3])}, ...) in "
            f"{reader.info.channels}; give the data set that it was trained on."
        )
    known = splits_of(reader)
    if split not in known:
        raise UserError(f"{reader.info.name} has no split '{split}'.{did_you_mean(split, list(known))}")


def _rules(protocol: str | EvalProtocol, dataset: str, settings: Mapping[str, Any]) -> EvalProtocol:
    from pydantic import ValidationError

    rules = protocol_named(protocol, dataset) if isinstance(protocol, str) else protocol
    try:
        return EvalProtocol.model_validate({**rules.model_dump(), **settings})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None


def _on_image(count: int, progress: Progress | None, predictions: Path | None) -> OnImage:
    from PIL import Image

    if predictions is not None:
        if predictions.exists() and (not predictions.is_dir() or any(predictions.iterdir())):
            raise UserError(f"{predictions} is not an empty folder; give another one for the predictions.")
        predictions.mkdir(parents=True, exist_ok=True)
    done = 0

    def on_image(key: str, classes_hw: Any, sample: Any) -> None:
        nonlocal done
        done += 1
        if predictions is not None:
            target = predictions / f"{key}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(classes_hw).save(target)
        if progress is not None:
            progress(done, count)

    return on_image


def _record(path: Path, result: Evaluation) -> None:
    """Append the measurement to the run folder that the student is part of, so that looks at a test split show."""
    folder = path.parent if path.suffix == ".onnx" else path
    run = folder.parent.parent
    if folder.parent.name != "students" or not (run / "space.yaml").is_file():
        return
    line = {"when": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "student": folder.name, **result.to_dict()}
    with (run / "evaluations.jsonl").open("a") as file:
        file.write(json.dumps(line, allow_nan=False) + "\n")
