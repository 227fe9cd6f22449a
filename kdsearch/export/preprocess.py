"""`preprocess.json`: the input and output of a student's ONNX file, for programs without kdsearch."""

from __future__ import annotations

from typing import Any

from kdsearch.config.networks import without_weights
from kdsearch.data.info import IGNORE_INDEX
from kdsearch.models.cost import tap_shapes
from kdsearch.models.student import Student


def preprocessing(student: Student, network: Any) -> dict[str, Any]:
    """The steps from an image to the input of `network` (its configuration), and from its output to classes."""
    info, (height, width) = student.info, student.size
    _, rows, columns = tap_shapes(without_weights(network), info, student.size)["logits"]
    return {
        "input": "image: float32 [batch, channels, height, width], any batch",
        "size": [height, width],
        "resize": "bilinear with antialiasing to size, each channel by itself; no padding, the shape may change",
        "channels": ["red", "green", "blue", "thermal"][: info.channels],
        "scale": 1 / 255,
        "mean": info.mean,
        "std": info.std,
        "normalise": "(pixel * scale - mean) / std",
        "output": "logits: float32 [batch, classes, rows, columns]",
        "output_size": [rows, columns],
        "output_stride": [height / rows, width / columns],
        "to_labels": "resize the logits to the image's own size, bilinear with align_corners=True; take the largest",
        "classes": info.classes,
        "palette": info.palette,
        "ignore_index": IGNORE_INDEX,
    }
