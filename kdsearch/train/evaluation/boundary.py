"""Boundary IoU: the overlap of the pixels of both masks near their own contours (Cheng et al., CVPR 2021)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

RATIO = 0.02
"""Width of the boundary, as a share of the image's diagonal."""


class BoundaryCounts:
    """Pixels per class in the intersection and in the union of both boundaries, over a whole split.

    The boundary of a mask is its pixels within `max(1, round(RATIO * diagonal))` pixels (chessboard distance) of a
    pixel outside the mask; the image's edge is outside.
    """

    def __init__(self, num_classes: int) -> None:
        self.intersection_k = np.zeros(num_classes, np.int64)
        self.union_k = np.zeros(num_classes, np.int64)

    def update(self, classes_hw: NDArray[np.uint8], label_hw: NDArray[np.uint8], ignore: int) -> None:
        """Count one image. Pixels whose label is `ignore` are left out of both masks."""
        classes_hw = np.where(label_hw == ignore, ignore, classes_hw)
        predicted_hw, true_hw = near_contour(classes_hw), near_contour(label_hw)
        count = len(self.union_k)

        def per_class(of_hw: NDArray[np.uint8], where_hw: NDArray[np.bool_]) -> NDArray[np.int64]:
            return np.bincount(of_hw[where_hw & (label_hw != ignore)], minlength=count)[:count]

        both_k = per_class(label_hw, predicted_hw & true_hw & (classes_hw == label_hw))
        self.intersection_k += both_k
        self.union_k += per_class(label_hw, true_hw) + per_class(classes_hw, predicted_hw) - both_k

    def iou_k(self) -> NDArray[np.float64]:
        """Boundary IoU of each class; NaN for a class that has no boundary in truth and predictions."""
        with np.errstate(invalid="ignore"):
            return np.where(self.union_k > 0, self.intersection_k / np.maximum(self.union_k, 1), np.nan)


def near_contour(label_hw: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The pixels `[H, W]` near the contour of their own class: those whose neighbourhood holds another class."""
    from scipy.ndimage import maximum_filter1d, minimum_filter1d

    width = max(1, round(RATIO * math.hypot(*label_hw.shape)))
    # One more than any class, so that the image's edge is a contour.
    padded_hw = np.pad(label_hw.astype(np.int16), width, constant_values=256)
    low_hw = high_hw = padded_hw
    for axis in (0, 1):
        low_hw = minimum_filter1d(low_hw, 2 * width + 1, axis)
        high_hw = maximum_filter1d(high_hw, 2 * width + 1, axis)
    inner = (slice(width, -width),) * 2
    near: NDArray[np.bool_] = low_hw[inner] != high_hw[inner]
    return near
