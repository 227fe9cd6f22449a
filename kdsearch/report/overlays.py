"""Predictions of networks on a few images of the validation split, as small pictures inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kdsearch.data.info import IGNORE_INDEX
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder

if TYPE_CHECKING:
    from kdsearch.config.space.search_space import SearchSpace
    from kdsearch.data.info import DatasetInfo
    from kdsearch.data.store.store import Store
    from kdsearch.models.student import Student

SAMPLES = 4
WIDTH = 300
"""Pixels across a picture."""
OPACITY = 0.62


@dataclass(frozen=True)
class Picture:
    """A picture as a `data:` URI; `correct` is the share of labelled pixels that a network classified correctly."""

    title: str
    uri: str
    correct: float | None = None


@dataclass(frozen=True)
class Overlays:
    """A row of pictures for each sample, and the legend: each class with its colour."""

    rows: list[tuple[str, list[Picture]]]
    legend: list[tuple[str, str]]


def draw_overlays(run: RunFolder, space: SearchSpace, store_name: str | None, students: Mapping[str, str]) -> Overlays:
    """The image, the truth, the teacher and each of `students` (title to trial) on `SAMPLES` images of `val`.

    The samples are spread evenly over the split, so every report of a data set shows the same ones. Raises `UserError`
    where the data or the weights are missing.
    """
    from kdsearch.data.store.store import Store
    from kdsearch.models.student import load_student

    if store_name is None or Path(store_name).name != store_name:
        raise UserError("summary.json does not name the data store of the study")
    store = Store.open(run.stores / store_name)
    networks: dict[str, Student] = {}
    if (teacher := _teacher(run, space, store)) is not None:
        networks["teacher"] = teacher
    networks |= {title: load_student(run.student(trial_id)) for title, trial_id in students.items()}
    for network in networks.values():
        if network.info.classes != store.info.classes or network.info.channels != store.info.channels:
            raise UserError(f"{store.path} is not the data set of the students in {run.path}")
    return _draw(store, networks)


def _draw(store: Store, networks: Mapping[str, Student]) -> Overlays:
    val = store.split("val")
    rows = []
    for index in sample_indices(len(val)):
        image, truth = val.images[index], val.labels[index]
        pictures = [
            Picture("image", picture_uri(image[..., :3])),
            Picture("truth", picture_uri(overlay(image, truth, store.info))),
        ]
        for title, network in networks.items():
            classes = network.predict(image[None])[0].numpy().astype(np.uint8)
            labelled = truth != IGNORE_INDEX
            correct = float((classes == truth)[labelled].mean()) if labelled.any() else None
            pictures.append(Picture(title, picture_uri(overlay(image, classes, store.info)), correct))
        rows.append((val.keys[index], pictures))
    return Overlays(rows, legend(store.info))


def legend(info: DatasetInfo) -> list[tuple[str, str]]:
    """Each class with its colour for a page."""
    return [
        (name, "#{:02x}{:02x}{:02x}".format(*color)) for name, color in zip(info.classes, info.palette, strict=True)
    ]


def sample_indices(count: int) -> list[int]:
    """The middles of `SAMPLES` equal parts of a split of `count`; all of a smaller one."""
    samples = min(SAMPLES, count)
    return [int((i + 0.5) * count / samples) for i in range(samples)]


def _teacher(run: RunFolder, space: SearchSpace, store: Store) -> Student | None:
    from kdsearch.models.registry import build_network
    from kdsearch.models.student import Student
    from kdsearch.models.weights import load_network
    from kdsearch.train.teacher import teacher_folder

    config = space.default().trial
    if config.teacher is None:
        return None
    if config.teacher.checkpoint is not None:
        weights = Path(config.teacher.checkpoint).expanduser()
    else:
        weights = teacher_folder(config, store, run.teachers) / "model.safetensors"
    if not weights.is_file():
        return None  # trained elsewhere, or deleted: the students can be shown without it
    network = build_network(config.teacher.network(), store.info, store.size)
    load_network(network, weights)
    return Student(network, store.info, store.size).eval()


def overlay(image_hwc: NDArray[np.uint8], classes_hw: NDArray[np.uint8], info: DatasetInfo) -> NDArray[np.uint8]:
    """The image in grey under the classes' colours; pixels without a class stay grey."""
    grey_hw1 = image_hwc[..., :3].mean(axis=-1, keepdims=True)
    colors = np.zeros((256, 3))
    colors[: info.num_classes] = info.palette
    mixed = (1 - OPACITY) * grey_hw1 + OPACITY * colors[classes_hw]
    unlabelled = (classes_hw >= info.num_classes)[..., None]
    drawn: NDArray[np.uint8] = np.where(unlabelled, grey_hw1, mixed).astype(np.uint8)
    return drawn


def picture_uri(image_hwc: NDArray[np.uint8]) -> str:
    """A small JPEG of an RGB image as a `data:` URI."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image_hwc))
    height = max(1, round(picture.height * WIDTH / picture.width))
    resampling = Image.Resampling.LANCZOS if picture.width > WIDTH else Image.Resampling.NEAREST
    buffer = io.BytesIO()
    picture.resize((WIDTH, height), resampling).save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
