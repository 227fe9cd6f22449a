"""The page of an evaluation: the numbers, the classes, and the images with the lowest and the highest mIoU."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kdsearch.io.targets import write_target
from kdsearch.report.overlays import legend, overlay, picture_uri
from kdsearch.report.templating import templates

if TYPE_CHECKING:
    from kdsearch.data.info import DatasetInfo
    from kdsearch.data.reader import Sample
    from kdsearch.train.evaluation.result import Evaluation, ImageResult

SHOWN = 6
"""Images at either end."""


@dataclass(frozen=True)
class ImageRow:
    """Three pictures of one image, as `data:` URIs."""

    key: str
    miou: float
    image: str
    truth: str
    prediction: str


class EvaluationPage:
    """Collects the images at either end while a split is measured, then writes the page. Holds small pictures alone."""

    def __init__(self, info: DatasetInfo) -> None:
        self._info = info
        self._lowest: list[tuple[float, int, ImageRow]] = []
        self._highest: list[tuple[float, int, ImageRow]] = []
        self._count = 0

    def add(self, image: ImageResult, classes_hw: NDArray[np.uint8], sample: Sample) -> None:
        """Keep the image if it is among the lowest or the highest so far."""
        if math.isnan(image.miou):
            return
        self._count += 1
        for heap, rank in ((self._lowest, -image.miou), (self._highest, image.miou)):
            if len(heap) < SHOWN or rank > heap[0][0]:
                entry = (rank, -self._count, self._row(image, classes_hw, sample))
                (heapq.heappush if len(heap) < SHOWN else heapq.heappushpop)(heap, entry)

    def write(self, out: Path, name: str, result: Evaluation) -> None:
        """Write one self-contained HTML file; `name` is that of the student."""
        page = templates().get_template("evaluation.html").render(
            name=name, result=result, metrics=result.metrics(), legend=legend(self._info),
            ends=[("Lowest", self._rows(self._lowest)), ("Highest", self._rows(self._highest))],
        )  # fmt: skip
        write_target(out, page)

    def _rows(self, heap: list[tuple[float, int, ImageRow]]) -> list[ImageRow]:
        return [row for _, _, row in sorted(heap, reverse=True)]

    def _row(self, image: ImageResult, classes_hw: NDArray[np.uint8], sample: Sample) -> ImageRow:
        from kdsearch.data.images import resize_image

        # With `labels: resized` prediction and image differ in size.
        image_hwc = resize_image(sample.image_hwc, (classes_hw.shape[0], classes_hw.shape[1]))
        return ImageRow(
            image.key, image.miou, picture_uri(sample.image_hwc[..., :3]),
            picture_uri(overlay(sample.image_hwc, sample.label_hw, self._info)),
            picture_uri(overlay(image_hwc, classes_hw, self._info)),
        )  # fmt: skip
