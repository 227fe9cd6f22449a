"""`kdsearch.Study`: the results of a study, and the handle of one that runs in the background."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kdsearch.api.trial import Trial
from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.errors import UserError
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.callbacks import StudyEnd
from kdsearch.search.summary import StudySummary

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from matplotlib.axes import Axes

    from kdsearch.models.student import Student
    from kdsearch.report.results import Results
    from kdsearch.search.storage.reader import StudyHistory

Best = Literal["knee", "miou", "best-miou"]


class Study:
    """A study, read from its run folder on every access, so that a running one may be watched.

    `kdsearch.search` returns it; `kdsearch.load_study` reads one of another process. Nothing in the run folder is
    changed, but by `report`.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._thread: threading.Thread | None = None
        self._stop: threading.Event | None = None
        self._end: StudyEnd | None = None
        self._error: BaseException | None = None

    # ---- what it is ----------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name of the run folder."""
        return self._run.path.name

    @property
    def path(self) -> Path:
        """The run folder."""
        return self._run.path

    @property
    def status(self) -> str:
        """`running`, `done`, `interrupted` or `failed`; a study whose driver was killed is `interrupted`."""
        from kdsearch.search.storage.listing import status_of

        # Where the disk was full at the end, the run folder does not have it.
        return status_of(self._run) if self._end is None else self._end.status

    @property
    def space(self) -> SearchSpace:
        """The resolved search space."""
        return load_space(self._run.space)

    @property
    def objectives(self) -> dict[str, str]:
        """Each objective with its direction, `max` or `min`."""
        return {str(name): direction for name, direction in self.space.search.objectives.items()}

    @property
    def hypervolume(self) -> float:
        """The hypervolume that the frontier dominates."""
        return self.summary().hypervolume

    def summary(self) -> StudySummary:
        """The content of `summary.json`."""
        return StudySummary.read_or_empty(self._run.summary, "" if self._run.summary.exists() else self.space.name)

    # ---- trials and the frontier ---------------------------------------------------------------------------------

    def trials_dataframe(self) -> pd.DataFrame:
        """One row per finished trial: state, results, costs and settings."""
        from kdsearch.search.dataframes import trials_dataframe

        return trials_dataframe([trial for trial in self._history().trials if trial.state != "RUNNING"])

    @property
    def trials(self) -> list[Trial]:
        """All trials in the order in which they were asked for, the search first."""
        return [Trial(trial, self._run) for trial in self._history().trials]

    def trial(self, trial_id: str) -> Trial:
        """The trial with this id, such as `"t0007"`. `UserError` where there is none."""
        for trial in self._history().trials:
            if trial.id == trial_id:
                return Trial(trial, self._run)
        raise UserError(f"{self.path} has no trial {trial_id!r}; see trials_dataframe().")

    def frontier(self) -> pd.DataFrame:
        """One row per member of the frontier, cheapest first, with the numbers of its repeats and controls."""
        from kdsearch.search.confirm import confirmations
        from kdsearch.search.dataframes import frontier_dataframe

        trials, space = self._history().trials, self.space
        members = self._members()
        found = confirmations(members, trials, space.confirm, space.search.objectives)
        return frontier_dataframe(members, found)

    @property
    def best_trials(self) -> list[Trial]:
        """The trials on the frontier, cheapest first (the name that Optuna uses)."""
        return [Trial(member, self._run) for member in self._members()]

    def student(self, which: str = "knee", *, budget: str | None = None) -> Student:
        """A trained student: `"knee"` (best compromise), `"miou"` (most accurate), or of a trial by its id.

        `budget` limits the choice, such as `"gflops<=5"`. `UserError` where no member of the frontier is within it.
        """
        if which in ("knee", "miou", "best-miou"):
            from kdsearch.search.choice import choose

            summary = self.summary()
            best: Literal["miou", "knee"] = "knee" if which == "knee" else "miou"
            which = choose(summary.frontier, best, budget, summary.main_cost)[0].trial
        elif budget is not None:
            raise UserError(f"student({which!r}) names one trial; leave budget out.")
        return self.trial(which).student()

    def optuna(self) -> optuna.Study:
        """The Optuna study of the present space, from a copy of the journal: changes to it reach no file."""
        from kdsearch.search.storage.reader import optuna_study

        return optuna_study(self._run.journal)

    # ---- pages, plots and bundles --------------------------------------------------------------------------------

    def report(self, out: str | Path | None = None) -> Path:
        """Write `report.html` (and `frontier.html`) into the run folder, or the report to `out`; returns its path."""
        from kdsearch.report.pages import write_report

        return write_report(self._run, None if out is None else Path(out))

    def export(
        self,
        out: str | Path,
        *,
        best: Best = "knee",
        budget: str | None = None,
        formats: Sequence[str] = ("safetensors",),
    ) -> Path:
        """Write a student as a bundle: safetensors, and on request `onnx` and `pt2`, each loaded again and compared."""
        from kdsearch.export.bundle import export

        chosen: Literal["miou", "knee"] = "knee" if best == "knee" else "miou"
        export(str(self.path), Path(out), chosen, budget, tuple(formats), say=lambda line: None)
        return Path(out)

    def plot_frontier(self, ax: Axes | None = None) -> Axes:
        """mIoU against the cost: all trials, the frontier, repeats and controls."""
        from kdsearch.report import charts

        return charts.plot_frontier(self._results(), ax)

    def plot_history(self, ax: Axes | None = None) -> Axes:
        """mIoU by epoch of every trial, the frontier's in colour."""
        from kdsearch.report import charts

        return charts.plot_history(self._results(), ax)

    def plot_parallel(self, ax: Axes | None = None) -> Axes:
        """Parallel coordinates of the searched settings, the cost and mIoU."""
        from kdsearch.report import charts

        return charts.plot_parallel(self._results(), ax)

    def plot_importance(self, ax: Axes | None = None) -> Axes:
        """The share of each setting in what distinguishes the best trials (PED-ANOVA)."""
        from kdsearch.report import charts

        return charts.plot_importance(self._results(), ax)

    # ---- a study in the background -------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask the study to end after the events in hand; it can be resumed. Returns at once; see `wait`.

        `UserError` where it runs in another process, or not at all.
        """
        if self._stop is None:
            raise UserError(f"{self.name} was not started by this process; end its driver with Ctrl-C or SIGTERM.")
        self._stop.set()

    def wait(self, timeout: float | None = None) -> Study:
        """Wait for the end of a study that `search(..., block=False)` started; returns the study itself.

        Raises the study's exception, and `TimeoutError` after `timeout` seconds.
        """
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                raise TimeoutError(f"{self.name} is still running after {timeout:g} s")
        if self._error is not None:
            raise self._error
        return self

    def __repr__(self) -> str:
        return f"Study({self.name!r}, {self.status}, path={str(self.path)!r})"

    def _history(self) -> StudyHistory:
        from kdsearch.search.storage.reader import read_history

        return read_history(self._run.journal, self.space.search.objectives)

    def _members(self) -> list[Any]:
        trials = {trial.id: trial for trial in self._history().trials}
        return [trials[point.trial] for point in self.summary().frontier if point.trial in trials]

    def _results(self) -> Results:
        from kdsearch.report.results import read_results

        return read_results(self._run)
