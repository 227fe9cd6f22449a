"""Real images to compare a student's formats on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.store.store import Store
from kdsearch.errors import UserError
from kdsearch.models.student import Student

COUNT = 8


def sample_images(student: Student, stores: Path | None) -> tuple[NDArray[np.uint8], str]:
    """`COUNT` images `[n, H, W, C]` at the student's size, and their source in words.

    They are the first validation images of a store under `stores` of the student's data set and size; without such a
    store, as for a student from MLflow, built-in scenes.
    """
    for meta in sorted(stores.glob("*/meta.json")) if stores is not None else []:
        try:
            store = Store.open(meta.parent)
        except UserError:
            continue  # half-built, or of another version
        if store.info == student.info and store.size == student.size:
            images = store.split("val").images[:COUNT]
            return np.array(images), f"{len(images)} validation images of {store.info.name}"
    from kdsearch.data.readers.scenes import draw_scene

    scenes = [draw_scene(0, "val", index, student.size).sample.image_hwc for index in range(COUNT)]
    return np.stack(scenes)[..., : student.info.channels], f"{COUNT} built-in scenes (no store of its data was found)"
