"""The learning curves of a finished study as a table for the tabular benchmark (`kdsearch replay`)."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsearch.config.space.search_space import load_space
from kdsearch.errors import UserError
from kdsearch.io.locks import is_held
from kdsearch.io.run_folder import RunFolder
from kdsearch.io.targets import check_target
from kdsearch.search.simulation.tabular_benchmark import BenchmarkTable, TableRow, TabularBenchmark
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.trial_record import TrialRecord

_PATHS = ("path", "encoder_weights", "checkpoint")
"""Settings that name files."""


def export_table(folder: Path, out: Path, report: Callable[[str], None]) -> dict[str, Any]:
    """Write the table of the study in `folder` to `out`; report and return how well its rows predict each other.

    Raises `UserError` if there is no study, if it is running, or if it has too few whole curves.
    """
    check_target("--out", out)
    run = RunFolder(folder)
    if not (run.space.exists() and run.journal.exists()):
        raise UserError(f"There is no study in {folder}; name a run folder, such as runs/clfd-20260101-120000.")
    space = load_space(run.space)
    if is_held(run.lock):
        raise UserError(f"The study in {folder} is still running; wait for its end, or stop it.")
    with tempfile.TemporaryDirectory(prefix="kdsearch-") as scratch:
        # A copy: opening the journal of a study writes to it.
        storage = StudyStorage.open(Path(shutil.copy(run.journal, scratch)), space, lambda config: {})
        searched = [trial for trial in storage.trials if trial.stage == "search" and trial.epoch > 0]
        storage.close()
    rows = _rows(searched)
    if rows and len({len(row.curve) for row in rows}) > 1:
        raise UserError(f"The trials of {folder} differ in train.epochs; a table needs one horizon.")
    table = BenchmarkTable(_without_paths(space.resolved()), rows)
    benchmark = TabularBenchmark(table)
    table.save(out)
    final, predicted = np.array([row.curve[-1] for row in rows]), benchmark.leave_one_out()
    error, spread = float(np.sqrt(np.mean((predicted - final) ** 2))), float(final.std())
    left_out = len(searched) - len(rows)
    correlation = _rank_correlation(predicted, final)
    report(f"{out}: {len(rows)} curves of {benchmark.epochs} epochs; {left_out} trials without a whole curve")
    report(
        f"final mIoU of a trial predicted from the others: error {error:.3f}, with a spread of {spread:.3f}; "
        f"rank correlation {correlation:.2f}"
    )
    report("other configurations are interpolated: compare searches on this table, do not read optima off it")
    return {
        "table": str(out), "curves": len(rows), "epochs": benchmark.epochs, "left_out": left_out, "error": error,
        "spread": spread, "rank_correlation": correlation,
    }  # fmt: skip


def _rows(searched: list[TrialRecord]) -> list[TableRow]:
    """The trials with a whole curve."""
    return [
        TableRow(trial.params, trial.cost, trial.seconds / trial.epoch, [trial.curve[e] for e in sorted(trial.curve)])
        for trial in searched
        if trial.state == "COMPLETE" and len(trial.curve) == trial.epoch
    ]


def _without_paths(node: Any) -> Any:
    """A resolved space without the names of files, none of which a simulation reads."""
    if isinstance(node, list):
        return [_without_paths(each) for each in node]
    if not isinstance(node, dict) or "choice" in node:
        return node
    return {key: _without_paths(value) for key, value in node.items() if key not in _PATHS}


def _rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Spearman's rho of numbers without ties."""
    return float(np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1])
