"""`frontier.html` and `report.html`: self-contained pages for a browser, a printer and MLflow's artifact viewer.

Both are rendered from `Results`. They load no other file, and every text in them is escaped.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsearch.config.metrics import METRICS
from kdsearch.errors import UserError
from kdsearch.io.atomic import write_atomically, write_text
from kdsearch.io.run_folder import RunFolder
from kdsearch.io.targets import write_target
from kdsearch.report import sentences
from kdsearch.report.results import Results, TrialRow, read_results
from kdsearch.report.templating import templates

if TYPE_CHECKING:
    from kdsearch.report.overlays import Overlays


def write_pages(run: RunFolder) -> None:
    """Write both pages and `frontier.png` into the run folder."""
    results = read_results(run)
    _write_frontier(run, results)
    write_text(run.path / "report.html", report_page(results, *overlays(run, results)))


def write_frontier(run: RunFolder) -> None:
    """Write `frontier.html` and `frontier.png` into the run folder."""
    _write_frontier(run, read_results(run))


def _write_frontier(run: RunFolder, results: Results) -> None:
    from kdsearch.report.charts import save_frontier

    write_text(run.path / "frontier.html", frontier_page(results))
    if results.points:
        write_atomically(run.path / "frontier.png", lambda path: save_frontier(results, path))


def write_report(run: RunFolder, out: Path | None) -> Path:
    """Write the pages of a run folder again: all into it, or the report alone to the file `out`. Returns the report."""
    if out is None:
        write_pages(run)
        return run.path / "report.html"
    results = read_results(run)
    write_target(out, report_page(results, *overlays(run, results)))
    return out


def write_report_of_server(run: str, uri: str | None, out: Path | None) -> Path:
    """Write the report of a study on a tracking server to `out`, by default `report.html` here. Returns its path."""
    from kdsearch.report.server import results_of_server

    out = out or Path("report.html")
    results = results_of_server(run, uri)
    write_target(out, report_page(results, None, "There are no pictures: they need the run folder."))
    return out


def overlays(run: RunFolder, results: Results) -> tuple[Overlays | None, str]:
    """Pictures of the best compromise beside its control; else None and the reason."""
    from kdsearch.config.space.search_space import load_space
    from kdsearch.report.overlays import draw_overlays

    point = results.knee()
    if point is None:
        return None, "No trial is complete yet."
    students = {f"student {point.trial.id}": point.trial.id}
    if point.control:
        students["same student alone"] = point.control
    try:
        return draw_overlays(run, load_space(run.space), results.summary.store, students), ""
    except (UserError, OSError) as error:
        return None, f"There are no pictures: {str(error).rstrip('.')}."


def frontier_page(results: Results) -> str:
    """The interactive frontier as HTML."""
    members = {point.trial.id: point for point in results.points}
    costs = ["gflops", "params_m", *(["latency_ms"] if results.latency else [])]
    data = {
        "server": results.server,
        "teacher": results.teacher_miou,
        "cost": results.main_cost,
        "axes": {name: METRICS[name].axis for name in costs},
        "columns": {name: METRICS[name].column for name in costs},
        "miou_axis": METRICS["miou"].axis,
        "trials": [_plain(trial) for trial in results.trials],
        "frontier": [
            {"id": trial_id, **{name: point.known(name) for name in point.confirmed}}
            for trial_id, point in members.items()
        ],
        "hypervolume": list(results.hypervolume),
        "importance": {name: dict(shares) for name, shares in results.importance.items()},
        "about_importance": sentences.importance(results),
    }
    return templates().get_template("frontier.html").render(results=results, data=_finite(data))


def report_page(results: Results, pictures: Overlays | None, no_pictures: str) -> str:
    """The report as HTML."""
    from kdsearch.report import charts
    from kdsearch.report.svg import inline_svg

    return (
        templates()
        .get_template("report.html")
        .render(
            results=results,
            knee=results.knee(),
            charts=charts,
            inline_svg=inline_svg,
            sentences=sentences,
            pictures=pictures,
            no_pictures=no_pictures,
        )
    )


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
