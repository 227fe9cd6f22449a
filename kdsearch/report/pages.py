"""`frontier.html` and `report.html`: pages that stand alone, for a browser, a printer and MLflow's artifact viewer.

Both are made from `Results`. They load nothing from anywhere, and every text in them is escaped.
"""

from __future__ import annotations

import math
import platform
import traceback
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsearch import __version__, plugins
from kdsearch.errors import UserError
from kdsearch.io.atomic import write_text
from kdsearch.io.run_folder import RunFolder
from kdsearch.report.results import Results, TrialRow, read_results
from kdsearch.search.latency.report import AXIS

if TYPE_CHECKING:
    from jinja2 import Environment

    from kdsearch.report.overlays import Overlays

PACKAGES = (
    "torch", "segmentation-models-pytorch", "timm", "ray", "optuna", "mlflow", "pyarrow", "safetensors",
)  # fmt: skip


def write_pages(run: RunFolder) -> None:
    """Write both pages into the run folder, at the end of a study."""

    def both() -> None:
        results = read_results(run)
        write_text(run.path / "frontier.html", frontier_page(results))
        write_text(run.path / "report.html", report_page(results, *overlays(run, results)))

    _or_log(both)


def write_frontier(run: RunFolder) -> None:
    """Write the frontier's page into the run folder, while the study goes on."""
    _or_log(lambda: write_text(run.path / "frontier.html", frontier_page(read_results(run))))


def _or_log(write: Callable[[], None]) -> None:
    """A page that cannot be made must not fail a study: why goes to the log."""
    try:
        write()
    except Exception:  # noqa: BLE001  the results themselves are safe, and `kdsearch report` makes the pages again
        traceback.print_exc()


def write_report(run: RunFolder, out: Path | None) -> Path:
    """Make the pages of a run folder again: both in it, or the report alone in the file `out`. Returns the report."""
    results = read_results(run)
    if out is None:
        write_text(run.path / "frontier.html", frontier_page(results))
    out = out or run.path / "report.html"
    write_text(out, report_page(results, *overlays(run, results)))
    return out


def write_report_of_server(run: str, uri: str | None, out: Path | None) -> Path:
    """Write the report of a study on a tracking server to `out`, by default `report.html` here. Returns its path."""
    from kdsearch.report.server import results_of_server

    out = out or Path("report.html")
    results = results_of_server(run, uri)
    write_text(out, report_page(results, None, "There are no pictures: they are drawn from the run folder."))
    return out


def overlays(run: RunFolder, results: Results) -> tuple[Overlays | None, str]:
    """Pictures of the best compromise beside its control; or why there are none."""
    from kdsearch.config.space.search_space import load_space
    from kdsearch.report.overlays import draw_overlays

    point = results.knee()
    if point is None:
        return None, "No trial is complete yet."
    students = {f"student {point.trial.id}": point.trial.id}
    if point.control:
        students["same student alone"] = point.control
    try:
        return draw_overlays(run, load_space(run.space), results.summary.get("store"), students), ""
    except (UserError, OSError) as error:
        return None, f"There are no pictures: {str(error).rstrip('.')}."


def frontier_page(results: Results) -> str:
    """The interactive frontier as HTML."""
    from kdsearch.report import sentences as report_words

    members = {point.trial.id: point for point in results.points}
    data = {
        "server": results.server,
        "teacher": results.teacher_miou,
        "cost": results.main_cost,
        "axes": {name: title for name, title in AXIS.items() if name != "latency_ms" or results.latency is not None},
        "trials": [_plain(trial) for trial in results.trials],
        "frontier": [
            {"id": trial_id, **{name: point.known(name) for name in point.confirmed}}
            for trial_id, point in members.items()
        ],
        "hypervolume": list(results.hypervolume),
        "importance": {name: dict(shares) for name, shares in results.importance.items()},
        "about_importance": report_words.importance(results),
    }
    return _environment().get_template("frontier.html").render(results=results, data=_finite(data))


def report_page(results: Results, pictures: Overlays | None, no_pictures: str) -> str:
    """The report as HTML."""
    from kdsearch.report import charts
    from kdsearch.report import sentences as report_words

    return (
        _environment()
        .get_template("report.html")
        .render(
            results=results,
            knee=results.knee(),
            charts=charts,
            words=report_words,
            pictures=pictures,
            no_pictures=no_pictures,
        )
    )


def versions() -> dict[str, str]:
    """kdsearch, Python and the packages that results depend on; plug-ins by the names of their modules."""
    known = {"kdsearch": __version__, "python": platform.python_version()} | {
        name: metadata.version(name) for name in PACKAGES
    }
    modules = ", ".join(module.__name__ for module in plugins.modules(plugins.named()))
    return known | ({"plug-ins": modules} if modules else {})


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("kdsearch.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # objectives and settings keep their order
    return environment


def _plain(trial: TrialRow) -> dict[str, Any]:
    return {
        "id": trial.id, "stage": trial.stage, "state": trial.state, "student": trial.student, "epoch": trial.epoch,
        "epochs": trial.epochs, "miou": trial.miou, "gflops": trial.gflops, "params_m": trial.params_m,
        "latency_ms": trial.latency_ms,
        "seconds": trial.seconds, "seed": trial.seed, "settings": dict(trial.settings), "reason": trial.reason[:300],
        "of": trial.of, "run": trial.run,
    }  # fmt: skip


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
