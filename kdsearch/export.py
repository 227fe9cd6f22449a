"""`python -m kdsearch.export RUN`: write a student of a finished study as a bundle that stands alone."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.errors import UserError
from kdsearch.run_folder import write_folder_atomically, write_json
from kdsearch.secret import refuse_passwords

if TYPE_CHECKING:
    from kdsearch.bundle.choose import Best
    from kdsearch.bundle.source import Source

CONFIRMED = ("seeds", "miou_mean", "miou_std", "control_miou_mean", "gain", "gain_low", "gain_high", "p_frontier")
"""What a frontier point in `summary.json` says of repeats and controls (null where it does not), for the bundle."""

EXAMPLES = """examples:
  python -m kdsearch.export runs/clfd-20260101-120000 --best miou --out student
  python -m kdsearch.export runs/clfd-20260101-120000 --budget 'gflops<=5' --formats safetensors,onnx,pt2 --out student
  python -m kdsearch.export models:/clfd-20260101-120000@knee --tracking-uri http://mlflow:5000 --out student

read it back:  kdsearch.load_student("student")
exit status:   0 done, 1 a format does not compute what the student computes, 2 the request was wrong"""


class MismatchError(RuntimeError):
    """A format was written, but does not compute what the student computes. Nothing is left of the bundle."""


def export(
    run: str,
    out: Path,
    best: Best | None = None,
    budget: str | None = None,
    formats: tuple[str, ...] = ("safetensors",),
    tracking_uri: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Write the chosen student of `run` to the folder `out`; each format is loaded again and compared first.

    `run` is a run folder, `runs:/ID` or `models:/NAME@ALIAS` in MLflow (`tracking_uri`). Of a study, `best` is
    `"miou"` (most accurate, the default) or `"knee"` (best compromise), among those within `budget` (`"gflops<=5"`).
    Safetensors is always written.

    Raises `UserError` for a request that cannot be met, and `MismatchError`.
    """
    from kdsearch.bundle.formats import check_formats
    from kdsearch.bundle.source import from_run_folder

    check_formats(formats)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not an empty folder; give another --out.")
    with tempfile.TemporaryDirectory(prefix="kdsearch-") as scratch:
        if run.startswith(("runs:/", "models:/")):
            from kdsearch.tracking.fetch import from_mlflow

            source = from_mlflow(run, tracking_uri, best, budget, Path(scratch))
        elif tracking_uri is not None:
            raise UserError(f"--tracking-uri is for runs:/ID and models:/NAME@ALIAS, and {run} is a folder; drop it.")
        else:
            source = from_run_folder(Path(run), best or "miou", budget)
        say(f"{source.point['trial']} of {source.study}: {source.chosen}")
        out.resolve().parent.mkdir(parents=True, exist_ok=True)
        write_folder_atomically(out.resolve(), lambda folder: _write(source, folder, formats, say))


def _write(source: Source, folder: Path, formats: tuple[str, ...], say: Callable[[str], None]) -> None:
    from kdsearch.bundle.card import card
    from kdsearch.bundle.formats import FORMATS, agreement, runner, write_formats
    from kdsearch.bundle.latency import latencies_ms, machine
    from kdsearch.bundle.preprocess import preprocessing
    from kdsearch.bundle.sample import sample_images
    from kdsearch.config.trial_file import dump_trial
    from kdsearch.student import load_student, read_config, read_metrics, read_trial

    student, config, metrics = load_student(source.student), read_config(source.student), read_metrics(source.student)
    trial = read_trial(source.student)
    for name in ("model.safetensors", "config.json"):
        shutil.copyfile(source.student / name, folder / name)
    confirmed = {f"confirm/{name}": source.point.get(name) for name in CONFIRMED}
    write_json(
        folder / "metrics.json", metrics | {name: value for name, value in confirmed.items() if value is not None}
    )
    write_json(folder / "preprocess.json", preprocessing(student, trial.student))
    (folder / "trial.yaml").write_text(dump_trial(trial))

    write_formats(folder, formats)
    images, compared_on = sample_images(student, source.stores)
    agreements = {}
    for name in FORMATS:
        if name == "safetensors" or name in formats:
            agreements[name] = agreement(student, runner(folder, name), images)
            say(f"{name}: {agreements[name]}, on {compared_on}")
            if not agreements[name].holds:
                raise MismatchError(f"{name} does not compute what the student computes: {agreements[name]}")
    runtimes = {"PyTorch": "safetensors"} | ({"onnxruntime": "onnx"} if "onnx" in formats else {})
    one = student.preprocess(images[:1]).numpy()
    latency = latencies_ms({title: runner(folder, name) for title, name in runtimes.items()}, one)
    say(f"one image on {machine()}: " + ", ".join(f"{name} {value:.1f} ms" for name, value in latency.items()))
    del agreements["safetensors"]
    (folder / "README.md").write_text(card(source, config, metrics, agreements, compared_on, latency, machine()))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of an export."""
    add = parser.add_argument
    add(
        "run",
        metavar="RUN",
        help="run folder of a study; runs:/ID, models:/NAME@ALIAS or models:/NAME/VERSION in MLflow",
    )
    add("--best", choices=("miou", "knee"), help="which point of the frontier (default: miou)")
    add("--budget", metavar="'METRIC<=X'", help="only points within it, for example 'gflops<=5'")
    add("--formats", default="safetensors", help="comma-separated: safetensors, onnx, pt2 (default: safetensors)")
    add("--tracking-uri", metavar="URI", help="MLflow server or database of runs:/ and models:/")
    add("--out", metavar="DIR", type=Path, required=True, help="folder to write")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m kdsearch.export", description=__doc__, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_arguments(parser)
    return run(parser.parse_args(argv))


def run(options: argparse.Namespace) -> int:
    """Carry out a parsed command line; errors of the request become one sentence and exit status 2."""
    try:
        refuse_passwords(vars(options).values())
        from kdsearch.compat import ensure_torchvision

        ensure_torchvision()
        formats = tuple(options.formats.split(","))
        export(options.run, options.out, options.best, options.budget, formats, options.tracking_uri)
    except UserError as error:
        print(f"kdsearch: {error}", file=sys.stderr)
        return 2
    except MismatchError as error:
        print(f"kdsearch: {error}", file=sys.stderr)
        return 1
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
