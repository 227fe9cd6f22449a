"""Measurement of a network on a split of a data set, as the reader lists it: native images, native labels."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.images import resize_label
from kdsearch.data.info import IGNORE_INDEX
from kdsearch.data.reader import Reader, Sample
from kdsearch.errors import UserError
from kdsearch.train.evaluation.boundary import BoundaryCounts
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
    count = info.num_classes
    counts_kk = np.zeros((count, count), np.int64)
    boundary = BoundaryCounts(count)
    images: list[ImageResult] = []
    digest = hashlib.sha256()
    for key, sample in _samples(reader, split):
        label_hw = sample.label_hw
        if protocol.labels == "resized":
            label_hw = resize_label(label_hw, predictor.input_size(sample.image_hwc.shape[:2]))
        size = (label_hw.shape[0], label_hw.shape[1])
        classes_hw = predictor.classes(sample.image_hwc, size).to("cpu").numpy().astype(np.uint8)
        of_image_kk = confusion(classes_hw, label_hw, count)
        counts_kk += of_image_kk
        boundary.update(classes_hw, label_hw, IGNORE_INDEX)
        images.append(ImageResult(key, _miou_of_truth(of_image_kk)))
        for part in (key.encode(), sample.image_hwc.tobytes(), sample.label_hw.tobytes()):
            digest.update(hashlib.sha256(part).digest())
        if on_image is not None:
            on_image(images[-1], classes_hw, sample)
    if not counts_kk.sum():
        raise UserError(f"the split '{split}' of {info.name} has no labelled pixel, so there is nothing to measure.")
    return Evaluation(
        info.name, split, info.classes, protocol, digest.hexdigest(), counts_kk, boundary.iou_k(), tuple(images)
    )


def confusion(classes_hw: NDArray[np.uint8], label_hw: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """Pixels `[K, K]` of one image: rows truth, columns prediction."""
    valid = label_hw != IGNORE_INDEX
    index = label_hw[valid].astype(np.int64) * count + classes_hw[valid]
    return np.bincount(index, minlength=count * count).reshape(count, count)


def _miou_of_truth(counts_kk: NDArray[np.int64]) -> float:
    truth_k, hits_k = counts_kk.sum(1), counts_kk.diagonal()
    present = truth_k > 0
    if not present.any():
        return float("nan")
    return float((hits_k / np.maximum(truth_k + counts_kk.sum(0) - hits_k, 1))[present].mean())


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
