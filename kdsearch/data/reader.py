"""Readers: one class a data set, behind one protocol.

A reader lists the samples of its splits and reads each at its native size; `data/store.py` resizes and keeps them.
To add one, write a class with the methods of `Reader` and register it in `READERS`, or list it in those of a plug-in.
Its constructor's keyword arguments are the data set's `options`; one that reads files takes `path` as well. Every
registered reader passes the conformance suite in `tests/data/conformance.py`.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_type_hints

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from kdsearch import plugins
from kdsearch.config.trial import DataConfig
from kdsearch.data.info import IGNORE_INDEX, DatasetInfo
from kdsearch.data.problems import LabelRangeError
from kdsearch.errors import UserError, did_you_mean
from kdsearch.io.uris import is_remote, local_path

SPLITS = ("train", "val")
READERS = {
    "ade20k": "kdsearch.data.readers.ade20k:ADE20K",
    "camvid": "kdsearch.data.readers.camvid:CamVid",
    "cityscapes": "kdsearch.data.readers.cityscapes:Cityscapes",
    "coco_stuff": "kdsearch.data.readers.coco_stuff:COCOStuff",
    "folder": "kdsearch.data.readers.folder:Folder",
    "mfnet": "kdsearch.data.readers.mfnet:MFNet",
    "pst900": "kdsearch.data.readers.pst900:PST900",
    "scenes": "kdsearch.data.readers.scenes:Scenes",
    "voc": "kdsearch.data.readers.voc:VOC",
}
"""Registry: the name in a configuration, and `module:Class`."""


@dataclass
class Sample:
    """One image and its label at native size.

    `image_hwc` and `next_image_hwc` are uint8 `[H, W, C]`; `label_hw` is uint8 `[H, W]` with class ids and
    `IGNORE_INDEX`. `flow_hw2` is float32 `[H, W, 2]`, (x, y) in pixels: `image(p)` shows what
    `next_image(p + flow(p))` shows.
    """

    image_hwc: NDArray[np.uint8]
    label_hw: NDArray[np.uint8]
    next_image_hwc: NDArray[np.uint8] | None = None
    flow_hw2: NDArray[np.float32] | None = None


class Reader(Protocol):
    """A data set on disk or in code. Reads are independent of each other and may run in several threads."""

    info: DatasetInfo

    def keys(self, split: str) -> list[str]:
        """Names of the samples of `"train"` or `"val"`, unique, in a fixed order."""
        ...

    def read(self, split: str, key: str) -> Sample:
        """The sample `key`. `UserError` names the file when it is missing, damaged or not what it should be."""
        ...

    def fingerprint(self) -> str:
        """Hexadecimal digest that changes whenever a sample may have changed."""
        ...


def open_reader(config: DataConfig) -> Reader:
    """The reader of `config.name`, with `config.path` and `config.options` checked against its constructor."""
    reader_class = _reader_class(config.name)
    parameters = dict(inspect.signature(reader_class).parameters)
    arguments: dict[str, Any] = {}
    if parameters.pop("path", None) is not None:
        arguments["path"] = _folder(config)
    elif config.path is not None:
        raise UserError(f"data set '{config.name}' is built in and takes no path; remove data.path")
    hints = get_type_hints(reader_class.__init__, include_extras=True)
    for name, value in config.options.items():
        if name not in parameters:
            raise UserError(f"data set '{config.name}' has no option '{name}'.{did_you_mean(name, list(parameters))}")
        try:
            arguments[name] = TypeAdapter(hints[name]).validate_python(value, strict=True)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise UserError(f"option '{name}' of data set '{config.name}' is {value!r}: {reason}") from None
    reader: Reader = reader_class(**arguments)
    return reader


def needs_folder(name: str) -> bool:
    """Whether the data set `name` is read from a folder; False for built-in sets."""
    return "path" in inspect.signature(_reader_class(name)).parameters


def _reader_class(name: str) -> Any:
    known = plugins.readers(READERS)
    if name not in known:
        raise UserError(f"unknown data set '{name}'.{did_you_mean(name, list(known))}")
    if not isinstance(known[name], str):
        return known[name]
    module, _, class_name = known[name].partition(":")
    return getattr(importlib.import_module(module), class_name)


def _folder(config: DataConfig) -> Path:
    if config.path is None:
        raise UserError(f"data set '{config.name}' needs a folder; give --data {config.name}=FOLDER")
    if is_remote(config.path):
        from kdsearch.data.store.remote import fetch_folder

        return fetch_folder(config.path)
    folder = local_path(config.path)
    if not folder.is_dir():
        raise UserError(f"data set '{config.name}': folder {folder} does not exist; give --data {config.name}=FOLDER")
    return folder


def check_split(split: str) -> None:
    """Raise `ValueError` for a split that no data set has."""
    if split not in SPLITS:
        raise ValueError(f"unknown split '{split}'; there are 'train' and 'val'")


def check_sample(sample: Sample, info: DatasetInfo, where: str) -> NDArray[np.int64]:
    """Check shapes, types and label ids of a sample; `where` names it in errors. Returns its pixels a class."""
    height, width = sample.label_hw.shape
    for image in (sample.image_hwc, sample.next_image_hwc):
        if image is not None and (image.shape != (height, width, info.channels) or image.dtype != np.uint8):
            raise UserError(
                f"{where}: image is {image.dtype} {list(image.shape)}, its label needs "
                f"uint8 {[height, width, info.channels]}; make both the same size"
            )
    counts = np.bincount(sample.label_hw.ravel(), minlength=256)
    counts[IGNORE_INDEX] = 0
    if counts[info.num_classes :].any():
        bad = int(np.flatnonzero(counts[info.num_classes :])[0]) + info.num_classes
        raise LabelRangeError(
            f"{where}: label id {bad} is out of range; use class ids 0..{info.num_classes - 1}, "
            f"and {IGNORE_INDEX} for pixels without a class"
        )
    return counts[: info.num_classes].astype(np.int64)


def files_fingerprint(root: Path, files: Iterable[Path], *facts: object) -> str:
    """Digest over names, sizes and modification times of `files`, and over `facts` such as options and classes."""
    digest = hashlib.sha256(repr(facts).encode())
    for file in files:
        try:
            stat = file.stat()
            state = (stat.st_size, stat.st_mtime_ns)
        except FileNotFoundError:  # reported by name when it is read
            state = (-1, -1)
        name = file.relative_to(root) if file.is_relative_to(root) else file
        digest.update(f"{name}:{state}\n".encode())
    return digest.hexdigest()
