"""Measurement of a network on a split of a data set, as the reader lists it: native images, native labels."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from kdsearch.data.images import resize_label
from kdsearch.data.info import IGNORE_INDEX
from kdsearch.data.reader import Reader, Sample
from kdsearch.errors import UserError
from kdsearch.train.evaluation.boundary import BoundaryCounts
from kdsearch.train.evaluation.confusion import ConfusionMatrix
from kdsearch.train.evaluation.prediction import Predictor
from kdsearch.train.evaluation.result import Evaluation, ImageResult

AHEAD = 4
"""Images that are decoded while the network runs."""

OnImage = Callable[[ImageResult, NDArray[np.uint8], Sample], None]


def measure(predictor: Predictor, reader: Reader, split: str, on_image: OnImage | None = None) -> Evaluation:
    """One confusion matrix over the whole split, each image once.

    `on_image` receives the result, the predicted class ids `[H, W]` and the sample of each image. `UserError` for a
    split without a labelled pixel.
    """
    info, protocol = reader.info, predictor.protocol
    cpu = torch.device("cpu")
    whole, boundary = ConfusionMatrix(info.num_classes, cpu), BoundaryCounts(info.num_classes)
    images: list[ImageResult] = []
    digest = hashlib.sha256()
    for key, sample in _samples(reader, split):
        label_hw = sample.label_hw
        if protocol.labels == "resized":
            label_hw = resize_label(label_hw, predictor.input_size(sample.image_hwc.shape[:2]))
        size = (label_hw.shape[0], label_hw.shape[1])
        found_hw = predictor.classes(sample.image_hwc, size).to(cpu)
        of_image = ConfusionMatrix(info.num_classes, cpu)
        of_image.update(found_hw, torch.tensor(label_hw, dtype=torch.int64))
        whole.counts_kk += of_image.counts_kk
        classes_hw = found_hw.numpy().astype(np.uint8)
        boundary.update(classes_hw, label_hw, IGNORE_INDEX)
        images.append(ImageResult(key, of_image.miou_of_truth()))
        for part in (key.encode(), sample.image_hwc.tobytes(), sample.label_hw.tobytes()):
            digest.update(hashlib.sha256(part).digest())
        if on_image is not None:
            on_image(images[-1], classes_hw, sample)
    if not whole.counts_kk.any():
        raise UserError(f"the split '{split}' of {info.name} has no labelled pixel, so there is nothing to measure.")
    return Evaluation(
        info.name, split, info.classes, protocol, digest.hexdigest(), whole, boundary.iou_k(), tuple(images)
    )


def _samples(reader: Reader, split: str) -> Iterator[tuple[str, Sample]]:
    """The samples of the split in its order; a few are decoded ahead."""
    waiting: deque[tuple[str, Future[Sample]]] = deque()
    with ThreadPoolExecutor(2) as pool:
        for key in reader.keys(split):
            waiting.append((key, pool.submit(reader.read, split, key)))
            if len(waiting) > AHEAD:
                name, future = waiting.popleft()
                yield name, future.result()
        for name, future in waiting:
            yield name, future.result()
