"""Whether the labels of a data set can train and rank networks at all, from the number of pixels of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.info import IGNORE_INDEX

MUCH = 0.2
"""Share of pixels without a label from which a class that never occurs is taken for the missing labels."""


def label_problem(
    classes: Sequence[str], counts: Mapping[str, NDArray[np.int64]], pixels: Mapping[str, int]
) -> str | None:
    """Why nothing can be learned from these labels, or ranked by them, in a sentence; None if it can.

    By split, `counts` are the pixels of each class and `pixels` all of them, those without a label included.
    """
    for split, count in counts.items():
        if not pixels[split]:
            return f"the split {split} is empty; give it at least one image"
        if not count.any():
            return (
                f"no pixel of the split {split} has a label: all are {IGNORE_INDEX}, which means 'no label'; check its "
                "masks and the ids of the classes"
            )
    total_k = sum(counts.values(), np.zeros(len(classes), np.int64))
    absent = [name for name, count in zip(classes, total_k, strict=True) if count == 0]
    unlabelled = 1 - float(total_k.sum()) / sum(pixels.values())
    if not absent or (len(absent) < len(classes) - 1 and unlabelled < MUCH):
        return None
    few = ", ".join(f"'{name}'" for name in absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
    occurs = f"the class {few} never occurs" if len(absent) == 1 else f"the classes {few} never occur"
    return (
        f"{occurs}, and {unlabelled:.0%} of all pixels have no label ({IGNORE_INDEX}): are the masks of another kind, "
        "such as 0 and 255? Correct their values or the ids of the classes, or leave the classes out"
    )
