"""ONNX files as functions, through onnxruntime on the CPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kdsearch.errors import UserError

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Normalised images `[B, C, H, W]` to logits `[B, K, h, w]`."""


def open_session(path: Path) -> Run:
    """The file `path`, which holds no code; `UserError` where onnxruntime is missing or cannot read it."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise UserError(f"{path} needs the package onnxruntime: pip install 'kdsearch-seg[export]'.")
    if not path.is_file():
        raise UserError(f"{path} does not exist; export the student again with the format onnx.")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())}); export the student again.") from error

    def run(image_bchw: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = session.run(None, {"image": image_bchw})[0]
        return logits

    return run
