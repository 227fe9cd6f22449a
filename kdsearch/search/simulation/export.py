"""`kdsearch replay`: the learning curves of a finished study as a table for the simulator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kdsearch.config.space.search_space import load_space
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.simulation.tabular_benchmark import Row, Table, TabularBenchmark
from kdsearch.search.storage.study_storage import StudyStorage

_PATHS = ("path", "encoder_weights", "checkpoint")


def replay(folder: Path, out: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Write the table of the study in `folder` to `out`; say, and return, how well its rows predict each other.

    Raises `UserError` when there is no study, when it still runs, or when it has too few whole curves.
    """
    run = RunFolder(folder)
    if not (run.space.exists() and run.journal.exists()):
        raise UserError(f"There is no study in {folder}; name a run folder, such as runs/clfd-20260101-120000.")
    space = load_space(run.space)
    record = StudyStorage.open(run.journal, space, lambda config: {})
    try:
        searched = [r for r in record.trials if r.stage == "search" and r.epoch > 0]
    finally:
        record.close()
    rows = [
        Row(r.params, r.cost, r.seconds / r.epoch, [r.curve[epoch] for epoch in sorted(r.curve)])
        for r in searched if r.state == "COMPLETE" and len(r.curve) == r.epoch
    ]  # fmt: skip
    if rows and len({len(row.curve) for row in rows}) > 1:
        raise UserError(f"The trials of {folder} differ in train.epochs; a table needs one horizon.")
    table = Table(_without_paths(space.resolved()), rows)
    tabulated = TabularBenchmark(table)
    table.save(out)
    ends, predicted = np.array([row.curve[-1] for row in rows]), tabulated.leave_one_out()
    error = float(np.sqrt(np.mean((predicted - ends) ** 2)))
    left_out = len(searched) - len(rows)
    correlation = _rank_correlation(predicted, ends)
    say(f"{out}: {len(rows)} curves of {tabulated.epochs} epochs; {left_out} trials without a whole one")
    say(
        f"a trial's final mIoU predicted from the others: error {error:.3f} where they spread by {ends.std():.3f}; "
        f"rank correlation {correlation:.2f}"
    )
    say("other configurations are interpolated: compare searches on this table, do not read optima off it")
    return {
        "table": str(out), "curves": len(rows), "epochs": tabulated.epochs, "left_out": left_out, "error": error,
        "spread": float(ends.std()), "rank_correlation": correlation,
    }  # fmt: skip


def _without_paths(node: Any) -> Any:
    """A resolved space that names no file: nothing is read in a simulation."""
    if isinstance(node, list):
        return [_without_paths(each) for each in node]
    if not isinstance(node, dict) or "choice" in node:
        return node
    return {key: _without_paths(value) for key, value in node.items() if key not in _PATHS}


def _rank_correlation(a: Any, b: Any) -> float:
    """Spearman's, of two lists of numbers without ties."""
    return float(np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1])
