"""Registry of data-set readers: their names in a configuration, and the reader of a configuration."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from kdsearch import plugins
from kdsearch.config.data import DataConfig
from kdsearch.data.reader import Reader
from kdsearch.errors import UserError, did_you_mean
from kdsearch.io.uris import is_remote, local_path

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
    known = plugins.merged("READERS", READERS)
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
        from kdsearch.io.object_storage import fetch_folder

        return fetch_folder(config.path)
    folder = local_path(config.path)
    if not folder.is_dir():
        raise UserError(f"data set '{config.name}': folder {folder} does not exist; give --data {config.name}=FOLDER")
    return folder
