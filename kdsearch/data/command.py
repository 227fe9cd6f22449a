"""`kdsearch data`: look at a data set before anything is trained on it, and build its store ahead of time."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsearch.errors import UserError

if TYPE_CHECKING:
    from kdsearch.config.trial import DataConfig

CHECK = """examples:
  kdsearch data check camvid=/data/camvid
  kdsearch data check camvid=/data/camvid --option flow=dis --picture camvid.png
  kdsearch data check folder=s3://bucket/mine --json > mine.json

exit status: 0 all samples can be used, 1 some cannot, 2 the request was wrong"""
BUILD = """examples:
  kdsearch data build camvid=/data/camvid --size 360 480
  kdsearch data build camvid=/data/camvid --size 360 480 --set data.options.flow=dis --storage /shared/runs

A study with the same data set, size, options and --storage finds the store and starts at once. A build that was cut off
is gone on with.

exit status: 0 the store is there, 1 some samples cannot be used, 2 the request was wrong"""


def add_commands(actions: Any) -> None:
    """Add `check` and `build` to the sub-parsers of `kdsearch data`."""
    how = argparse.RawDescriptionHelpFormatter
    check = actions.add_parser(
        "check", help="read a set in full: what it holds, what is wrong", epilog=CHECK, formatter_class=how
    )
    _add_set(check)
    check.add_argument("--picture", metavar="FILE", type=Path, help="where samples are shown (default: NAME-check.png)")
    check.set_defaults(do=_check)
    build = actions.add_parser("build", help="make the store of a set", epilog=BUILD, formatter_class=how)
    _add_set(build)
    build.add_argument("--size", metavar=("H", "W"), nargs=2, type=_positive, required=True, help="in pixels")
    build.add_argument("--storage", metavar="DIR", default="runs", help="folder of all runs, or URI (default: runs)")
    build.set_defaults(do=_build)


def _add_set(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("data", metavar="NAME=PATH", help="reader, and folder or URI of the set; built-in sets have a name alone")
    add("--option", metavar="K=V", action="append", default=[], help="option of the reader, as flow=dis; may repeat")
    add("--set", metavar="data.options.K=V", action="append", default=[], dest="overrides", help="the same, as in run")
    add("--json", action="store_true", help="print JSON in place of the table")


def _check(options: argparse.Namespace) -> int:
    from kdsearch.data.check import check_set
    from kdsearch.data.picture import write_picture
    from kdsearch.data.reader import open_reader

    config = _config(options, size=(1, 1))
    picture = options.picture or Path(f"{config.name}-check.png")
    _check_picture(picture)
    reader = open_reader(config)
    with _bar(f"check {config.name}") as progress:
        report = check_set(reader, progress)
    try:
        write_picture(picture, report.info, report.shown)
    except OSError as error:
        raise UserError(f"--picture {picture} cannot be written ({error}); give another file") from None
    if options.json:
        print(json.dumps({**report.to_json(), "path": config.path, "picture": str(picture)}, indent=1))
    else:
        from kdsearch.data.report_table import print_report

        print_report(report)
        print(f"picture: {picture}")
    return 1 if report.problems else 0


def _build(options: argparse.Namespace) -> int:
    from kdsearch.data.paths import in_folder, is_remote
    from kdsearch.data.store import build_store
    from kdsearch.data.store_build import BadSamplesError
    from kdsearch.run_folder import RunFolder

    storage: str = options.storage
    config = _config(options, size=(options.size[0], options.size[1]))
    root = in_folder(storage, ".cache/data") if is_remote(storage) else RunFolder.at(storage, "data").stores
    try:
        with _bar(f"build {config.name}") as progress:
            store = build_store(config, root, progress)
    except BadSamplesError as error:
        print(f"kdsearch: {error}", file=sys.stderr)
        return 1
    counts = {name: len(store.split(name)) for name in store.meta["splits"]}
    size = sum(facts["bytes"] for facts in store.meta["splits"].values())
    if options.json:
        facts = {"store": str(store.source), "path": str(store.path), "fingerprint": store.fingerprint}
        print(json.dumps({**facts, "images": counts, "size": list(store.size), "bytes": size}, indent=1))
    else:
        images = ", ".join(f"{count} {name}" for name, count in counts.items())
        print(f"{store.source}: {images}, {store.size[0]}x{store.size[1]}, {size / 1e6:.1f} MB")
    return 0


def _config(options: argparse.Namespace, size: tuple[int, int]) -> DataConfig:
    from pydantic import ValidationError

    from kdsearch.config.trial import DataConfig

    name, separator, path = options.data.partition("=")
    if not name or (separator and not path):
        raise UserError(f"{options.data}: expected NAME=PATH, for example camvid=/data/camvid")
    values = dict(_option(f"--option {text}", text) for text in options.option)
    for text in options.overrides:
        key, _, value = text.partition("=")
        prefix = "data.options."
        if not key.startswith(prefix):
            raise UserError(f"--set {text}: only {prefix}NAME=VALUE can be set here; the size is given by --size")
        values.update([_option(f"--set {text}", f"{key.removeprefix(prefix)}={value}")])
    try:
        return DataConfig(name=name, path=path or None, size=size, options=values)
    except ValidationError as error:
        raise UserError(f"{options.data}: {error.errors()[0]['msg']}") from None


def _option(origin: str, text: str) -> tuple[str, Any]:
    from kdsearch.config.yaml_tree import parse_yaml

    key, separator, value = text.partition("=")
    if not (key and separator):
        raise UserError(f"{origin}: expected NAME=VALUE, for example flow=dis")
    parsed = parse_yaml(value, lambda line: origin)
    if not isinstance(parsed, bool | int | float | str):
        raise UserError(f"{origin}: {value!r} is no single value; give a number, a word, true or false")
    return key, parsed


def _check_picture(picture: Path) -> None:
    """Say now what would be said after minutes of reading."""
    from PIL import Image

    Image.init()
    if picture.suffix.lower() not in Image.EXTENSION:
        raise UserError(f"--picture {picture}: '{picture.suffix}' is no kind of picture; use .png")
    if not picture.absolute().parent.is_dir():
        raise UserError(f"--picture {picture}: {picture.absolute().parent} does not exist; make it, or give another")


@contextmanager
def _bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error where that is a terminal, to be told (done, of how many)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value
