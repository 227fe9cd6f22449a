"""`kdsearch.evaluate`: a network on a split of a data set, by the rules of a protocol."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsearch.config.data import DataConfig
from kdsearch.config.protocol import EvalProtocol, protocol_named
from kdsearch.errors import UserError, did_you_mean
from kdsearch.io.targets import check_target

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kdsearch.data.reader import Reader, Sample
    from kdsearch.models.student import Student
    from kdsearch.train.evaluation.evaluate import OnImage
    from kdsearch.train.evaluation.result import Evaluation, ImageResult

Progress = Callable[[int, int], None]


def evaluate(
    student: str | Path | Student,
    *,
    data: str | None = None,
    split: str = "val",
    protocol: str | EvalProtocol = "kdsearch",
    settings: Mapping[str, Any] | None = None,
    predictions: str | Path | None = None,
    page: str | Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a student on a split of a data set: every image and every label at its native size.

    `student` is the folder of a student (`students/<trial>` of a run, or a bundle), the `model.onnx` of a bundle, or a
    loaded student. `data` is `NAME=PATH`; without it, the data set of the training at its place. `split` is one that
    its reader lists: `val`, `test`, ... `protocol` is the name of published rules, or rules; `settings` change single
    ones, such as `{"scales": [0.5, 1.0], "flip": True}`. `predictions` is a new folder for the predicted class ids as
    PNG files, `page` an HTML file with the classes and the images of the lowest and the highest mIoU. `progress`
    receives the images measured and their number.

    The default protocol resizes images to the size of the student's training, as `Student.segment` does. Each use of a
    student in a run folder is appended to its `evaluations.jsonl`. `UserError` for requests that cannot be met.
    """
    from kdsearch.compat import ensure_torchvision

    ensure_torchvision()
    from kdsearch.models.student import Student
    from kdsearch.report.evaluation_page import EvaluationPage
    from kdsearch.train.evaluation.evaluate import measure
    from kdsearch.train.evaluation.prediction import Predictor
    from kdsearch.train.evaluation.source import from_folder, of_student

    path: Path | None = None
    if isinstance(student, Student):
        network = of_student(student)
    else:
        path = Path(student).expanduser().resolve()
        network = from_folder(path)
    reader = _reader(network.data, data)
    _check(reader, network.info.classes, network.info.channels, split)
    rules = _rules(protocol, reader.info.name, settings or {})
    reports: list[OnImage] = []
    if predictions is not None:
        reports.append(_written_to(Path(predictions)))
    extremes = None if page is None else EvaluationPage(reader.info)
    if page is not None and extremes is not None:
        check_target("--page", Path(page))
        reports.append(extremes.add)
    if progress is not None:
        reports.append(_counted(progress, len(reader.keys(split))))
    result = measure(Predictor(network, rules), reader, split, _each_image(reports))
    if page is not None and extremes is not None:
        extremes.write(Path(page), "student" if path is None else path.stem, result)
    if path is not None:
        _record(path, result)
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


def _each_image(reports: Sequence[OnImage]) -> OnImage:
    def on_image(image: ImageResult, classes_hw: NDArray[np.uint8], sample: Sample) -> None:
        for report in reports:
            report(image, classes_hw, sample)

    return on_image


def _counted(progress: Progress, count: int) -> OnImage:
    done = itertools.count(1)
    return lambda image, classes_hw, sample: progress(next(done), count)


def _written_to(folder: Path) -> OnImage:
    """Write the class ids of each image to `folder` as KEY.png."""
    from PIL import Image

    check_target("--predictions", folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder; give another one for the predictions.")

    def on_image(image: ImageResult, classes_hw: NDArray[np.uint8], sample: Sample) -> None:
        target = folder / f"{image.key}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(classes_hw).save(target)

    return on_image


def _record(path: Path, result: Evaluation) -> None:
    """Note the measurement in the run folder that the student is part of, so that looks at a test split show."""
    from kdsearch.report import measurements

    folder = path.parent if path.suffix == ".onnx" else path
    run = folder.parent.parent
    if folder.parent.name == "students" and (run / "space.yaml").is_file():
        measurements.append(run, folder.name, result.to_dict())
