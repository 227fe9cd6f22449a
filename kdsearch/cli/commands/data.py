"""`kdsearch data`: check a data set before training, and build its store ahead of time."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsearch.cli import completion as complete
from kdsearch.cli.exit_status import DONE, FAILED
from kdsearch.cli.output import CommandOutput
from kdsearch.cli.parser import Commands, add_command, add_group, add_json, add_storage, positive
from kdsearch.errors import UserError

if TYPE_CHECKING:
    from kdsearch.config.data import DataConfig

CHECK = """\
Reads every sample; prints counts, class frequencies and samples that cannot be used; writes a picture of some samples.
"""
BUILD = """\
A study with the same data set, size, options and --storage uses the store and starts at once. An interrupted build is
continued.
"""


def add_to(commands: Commands) -> None:
    actions = add_group(commands, "data", help="check a data set, build its store")
    check = add_command(
        actions, "check", _check, help="read a data set in full and report its errors", about=CHECK,
        examples=[
            "data check camvid=/data/camvid",
            "data check camvid=/data/camvid --option flow=dis --picture camvid.png",
            "data check folder=s3://bucket/mine --json > mine.json",
        ],
        failed="some samples cannot be used, or the set cannot be trained",
    )  # fmt: skip
    _add_set(check)
    check.add_argument("--picture", metavar="FILE", type=Path, help="picture to write (default: NAME-check.png)")
    add_json(check, "name, path, splits, classes, problems, faults, notes, picture, ...")
    build = add_command(
        actions, "build", _build, help="build the store of a data set", about=BUILD,
        examples=[
            "data build camvid=/data/camvid --size 360 480",
            "data build camvid=/data/camvid --size 360 480 --option flow=dis",
        ],
        failed="some samples cannot be used, or the set cannot be trained",
    )  # fmt: skip
    _add_set(build)
    build.add_argument(
        "--size",
        metavar=("H", "W"),
        nargs=2,
        type=positive,
        required=True,
        help="height and width of the stored images, in pixels",
    )
    add_storage(build, "folder of all runs, or URI (default: runs)")
    add_json(build, "store, path, fingerprint, images, size, bytes, notes")


def _add_set(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    data = "reader, and folder or URI of the set; built-in sets have a name alone"
    complete.by(add("data", metavar="NAME=PATH", help=data), complete.readers)
    add(
        "--option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="option of the reader, such as flow=dis; may repeat",
    )
    add(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides",
        help="the same in the form of 'run', such as data.options.flow=dis; may repeat",
    )  # fmt: skip


def _check(options: argparse.Namespace) -> CommandOutput:
    from kdsearch.data.check.checks import check_set
    from kdsearch.data.check.picture import write_picture
    from kdsearch.data.registry import open_reader

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

    def show() -> None:
        from kdsearch.data.check.table import print_report

        print_report(report)
        print(f"picture: {picture}")

    value = {**report.to_json(), "path": config.path, "picture": str(picture)}
    return CommandOutput(value, show, status=FAILED if report.problems or report.faults else DONE)


def _build(options: argparse.Namespace) -> CommandOutput:
    from kdsearch.data.store.build import BadSamplesError
    from kdsearch.data.store.store import build_store
    from kdsearch.io.run_folder import RunFolder
    from kdsearch.io.uris import in_folder, is_remote

    storage: str = options.storage
    config = _config(options, size=(options.size[0], options.size[1]))
    root = in_folder(storage, ".cache/data") if is_remote(storage) else RunFolder.at(storage, "data").stores
    try:
        with _bar(f"build {config.name}") as progress:
            store = build_store(config, root, progress, log=lambda line: print(f"kdsearch: {line}", file=sys.stderr))
    except BadSamplesError as error:
        print(f"kdsearch: {error}", file=sys.stderr)
        return CommandOutput({"store": None, "problem": str(error)}, status=FAILED)
    counts = {name: len(store.split(name)) for name in store.meta["splits"]}
    size = sum(facts["bytes"] for facts in store.meta["splits"].values())
    facts = {"store": str(store.source), "path": str(store.path), "fingerprint": store.fingerprint}
    images = ", ".join(f"{count} {name}" for name, count in counts.items())
    line = f"{store.source}: {images}, {store.size[0]}x{store.size[1]}, {size / 1e6:.1f} MB"
    value = {**facts, "images": counts, "size": list(store.size), "bytes": size, "notes": store.notes}

    def show() -> None:
        for note in store.notes:
            print(f"note: {note}")
        print(line)

    return CommandOutput(value, show)


def _config(options: argparse.Namespace, size: tuple[int, int]) -> DataConfig:
    from pydantic import ValidationError

    from kdsearch.config.data import DataConfig

    name, separator, path = options.data.partition("=")
    if not name or (separator and not path):
        raise UserError(f"{options.data}: expected NAME=PATH, for example camvid=/data/camvid")
    values = dict(_option(f"--option {text}", text) for text in options.option)
    for text in options.overrides:
        key, _, value = text.partition("=")
        prefix = "data.options."
        if not key.startswith(prefix):
            raise UserError(f"--set {text}: only {prefix}NAME=VALUE can be set here; give the size with --size")
        values.update([_option(f"--set {text}", f"{key.removeprefix(prefix)}={value}")])
    try:
        return DataConfig(name=name, path=path or None, size=size, options=values)
    except ValidationError as error:
        raise UserError(f"{options.data}: {error.errors()[0]['msg']}") from None


def _option(origin: str, text: str) -> tuple[str, Any]:
    from kdsearch.config.space.yaml_tree import parse_yaml

    key, separator, value = text.partition("=")
    if not (key and separator):
        raise UserError(f"{origin}: expected NAME=VALUE, for example flow=dis")
    parsed = parse_yaml(value, lambda line: origin)
    if not isinstance(parsed, bool | int | float | str):
        raise UserError(f"{origin}: {value!r} is not a single value; give a number, a word, true or false")
    return key, parsed


def _check_picture(picture: Path) -> None:
    """Report a path that cannot be written before minutes of reading."""
    from PIL import Image

    from kdsearch.io.targets import check_target

    Image.init()
    if picture.suffix.lower() not in Image.EXTENSION:
        raise UserError(f"--picture {picture}: '{picture.suffix}' is not a picture format; use .png")
    check_target("--picture", picture)
    if not picture.absolute().parent.is_dir():
        raise UserError(f"--picture {picture}: {picture.absolute().parent} does not exist; create it, or give another")


@contextmanager
def _bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, if that is a terminal; yields the function that updates it: (done, total)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label)
        yield lambda done, total: bar.update(task, completed=done, total=total)
