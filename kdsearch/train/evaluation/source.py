"""Networks to measure: a student from its folder, or the ONNX file of a bundle through onnxruntime alone."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from kdsearch.config.data import DataConfig
from kdsearch.errors import UserError
from kdsearch.models.student import Student, load_student, read_trial
from kdsearch.train.evaluation.prediction import Logits, MeasuredNetwork
from kdsearch.train.evaluation.sizes import Size


def of_student(student: Student, data: DataConfig | None = None) -> MeasuredNetwork:
    """A student in memory, on the device of its weights."""
    divisor = int(getattr(student.network, "size_divisor", 1))
    return MeasuredNetwork(student.eval(), student.info, student.size, divisor, student.mean_c.device, data)


def from_folder(path: Path) -> MeasuredNetwork:
    """The student in a folder (`students/<trial>` of a run, or a bundle), or the `model.onnx` of a bundle."""
    folder = path.parent if path.suffix == ".onnx" else path
    student = load_student(folder)
    data = read_trial(folder).data
    if path.suffix == ".onnx":
        return MeasuredNetwork(_onnx(path, student.size), student.info, student.size, 1, torch.device("cpu"), data)
    return of_student(student.to("cuda" if torch.cuda.is_available() else "cpu"), data)


def _onnx(path: Path, size: Size) -> Logits:
    from kdsearch.models.onnx_session import open_session

    session = open_session(path)

    def logits(image_bchw: Tensor) -> Tensor:
        if image_bchw.shape[-2:] != torch.Size(size):
            height, width = image_bchw.shape[-2:]
            raise UserError(
                f"{path} takes images of {size[0]}x{size[1]} alone, and this protocol gives it {height}x{width}; "
                f"measure with protocol 'kdsearch', with windows of that size, or the folder {path.parent} instead."
            )
        return torch.from_numpy(session(image_bchw.numpy()))

    return logits
