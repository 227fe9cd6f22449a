"""The formats ONNX and pt2 of a student: written, loaded again, compared with PyTorch on real images."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kdsearch.errors import UserError
from kdsearch.models.onnx_session import Run, open_session
from kdsearch.models.seg_output import upsampled_classes
from kdsearch.models.student import Student, load_student

FORMATS = ("safetensors", "onnx", "pt2")
OPSET = 20
LEAST_AGREEMENT, LARGEST_DIFFERENCE = 0.999, 1e-3
"""The least share of pixels of the same class, and the largest difference of a logit relative to the largest one."""


@dataclass(frozen=True)
class Agreement:
    """A format compared with PyTorch: share of equal pixels, largest difference of a logit, largest logit."""

    pixels: float
    difference: float
    largest: float

    @property
    def holds(self) -> bool:
        return self.pixels >= LEAST_AGREEMENT and self.difference <= LARGEST_DIFFERENCE * self.largest

    def __str__(self) -> str:
        return (
            f"{100 * self.pixels:.3f} % of pixels get the same class, logits differ by at most {self.difference:.2g} "
            f"(largest logit {self.largest:.3g})"
        )


def check_formats(formats: tuple[str, ...]) -> None:
    """Raise `UserError` for an unknown format, and for ONNX without its packages."""
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"--formats {name}: unknown format; this version writes {', '.join(FORMATS)}.")
    if "onnx" in formats:
        for package in ("onnx", "onnxscript", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise UserError(
                    f"The format onnx needs the package {package}: pip install 'kdsearch-seg[export]', or leave onnx "
                    "out of --formats."
                )


def write_formats(folder: Path, formats: tuple[str, ...]) -> None:
    """Write `model.onnx` and `model.pt2` of the student in `folder`, if `formats` lists them, for any batch size."""
    if not {"onnx", "pt2"} & set(formats):
        return
    student = load_student(folder)
    # torch.export treats a batch of one as a constant.
    example_bchw = torch.zeros(2, student.info.channels, *student.size)
    batch = torch.export.Dim("batch", min=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own deprecations
        program = torch.export.export(student, (example_bchw,), dynamic_shapes=({0: batch},))
        if "pt2" in formats:
            torch.export.save(program, folder / "model.pt2")
        if "onnx" in formats:
            exported = torch.onnx.export(
                program, dynamo=True, input_names=["image"], output_names=["logits"], opset_version=OPSET,
                verbose=False,
            )  # fmt: skip
            assert exported is not None
            exported.save(folder / "model.onnx", external_data=False)


def runner(folder: Path, name: str) -> Run:
    """The student in `folder` from its file of the format `name`, on the CPU."""
    if name == "onnx":
        return open_session(folder / "model.onnx")
    # A pt2 file can hold code: only the one that `write_formats` has just written may be loaded.
    module: Any = torch.export.load(folder / "model.pt2").module() if name == "pt2" else load_student(folder)

    def run(image_bchw: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            logits: NDArray[np.float32] = module(torch.from_numpy(image_bchw)).numpy()
        return logits

    return run


def agreement(student: Student, run: Run, images_bhwc: NDArray[np.uint8]) -> Agreement:
    """Compare `run` with `student` on images, one at a time and all in one batch."""
    image_bchw = student.preprocess(images_bhwc)
    with torch.no_grad():
        wanted_bkhw = student(image_bchw)
    inputs = image_bchw.numpy()
    alone = np.concatenate([run(inputs[i : i + 1]) for i in range(len(inputs))])
    classes_bhw = upsampled_classes(wanted_bkhw, image_bchw.shape[-2:])
    agreed, differences = [], []
    for given in (alone, run(inputs)):
        given_bkhw = torch.from_numpy(given)
        if given_bkhw.shape != wanted_bkhw.shape:
            return Agreement(0.0, float("inf"), float(wanted_bkhw.abs().max()))
        same_bhw = upsampled_classes(given_bkhw, image_bchw.shape[-2:]) == classes_bhw
        agreed.append(float(same_bhw.float().mean()))
        differences.append(float((given_bkhw - wanted_bkhw).abs().max()))
    return Agreement(min(agreed), max(differences), float(wanted_bkhw.abs().max()))
