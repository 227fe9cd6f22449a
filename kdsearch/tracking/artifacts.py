"""The study as files in its run folder: tables, the frontier's picture, the summary; and what is thrown away."""

from __future__ import annotations

import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from kdsearch import __version__
from kdsearch.config.search import main_cost
from kdsearch.config.space.search_space import flatten
from kdsearch.io.atomic import write_atomically, write_json
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.confirm import Confirmation, confirmations, control_to_show

if TYPE_CHECKING:
    import pandas as pd

    from kdsearch.config.space.search_space import SearchSpace
    from kdsearch.search.stopping.rungs import Rungs
    from kdsearch.search.storage.study_storage import StudyStorage, TrialRecord

PAGE_EVERY_S = 60.0
"""The frontier's page is written at most this often while the study runs, and never for more than 2 % of its time."""
WRITE_EVERY_S = 5.0
"""Tables are written at most this often while trials end."""
WRITE_SHARE = 0.02
"""Share of a study's time that writing them may take: the longer it takes, the less often it is done."""

Status = Literal["running", "done", "interrupted", "failed"]


class ArtifactsCallback:
    """Keeps the tables, the frontier's picture and page, and `summary.json` current as a study goes on.

    Weights of trials that are neither running nor on the frontier are removed, but for one control of each member,
    which the report shows beside it; their records stay. `facts` is what else the summary says of the study.
    """

    def __init__(
        self,
        space: SearchSpace,
        run: RunFolder,
        record: StudyStorage,
        teacher_metrics: Callable[[], dict[str, float]],
        rungs: Rungs,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.space, self.run, self.record, self.rungs = space, run, record, rungs
        self._teacher_metrics = teacher_metrics
        self._facts = dict(facts or {})
        self._members: list[TrialRecord] = []
        self._volume = 0.0
        self._due = 0.0
        self._page_due = 0.0
        for partial in run.path.glob(".*.partial"):
            partial.unlink()  # of a driver that was killed while it wrote; there is one driver at a time

    # ---- events --------------------------------------------------------------------------------------------------

    def on_trial_start(self, record: TrialRecord) -> None: ...

    def on_trial_result(self, record: TrialRecord) -> None: ...

    def on_trial_restart(self, record: TrialRecord, reason: str) -> None: ...

    def on_trial_end(self, record: TrialRecord) -> None:
        self.run.checkpoint(record.id).unlink(missing_ok=True)
        self._drop_weights()
        self._write_if_due()

    def on_frontier(self, members: list[TrialRecord], volume: float) -> None:
        self._members, self._volume = members, volume
        self._drop_weights()
        self._write_if_due()

    def _write_if_due(self) -> None:
        if time.monotonic() >= self._due:
            self.write("running")

    # ---- files ---------------------------------------------------------------------------------------------------

    def write(self, status: Status) -> None:
        """Write every file of the run folder that tells results."""
        began = time.monotonic()
        trials = table([record for record in self.record.all() if record.state != "RUNNING"])
        confirmed = confirmations(self._members, self.record.all(), self.space.confirm, self.space.search.objectives)
        frontier = frontier_table(self._members, confirmed)
        write_atomically(self.run.path / "trials.parquet", trials.to_parquet)
        write_atomically(self.run.path / "frontier.parquet", frontier.to_parquet)
        write_json(self.run.summary, self._summary(status, confirmed))
        if self._members:
            from kdsearch.report.plots import frontier_png

            write_atomically(
                self.run.path / "frontier.png",
                lambda path: frontier_png(
                    path, self.space.name, self.record.all(), self._members, confirmed,
                    self._teacher_metrics().get("val/miou"), main_cost(self.space.search.objectives),
                ),
            )  # fmt: skip
        took = time.monotonic() - began
        self._due = time.monotonic() + max(WRITE_EVERY_S, took / WRITE_SHARE)

        if status == "running" and self._members and time.monotonic() >= self._page_due:
            from kdsearch.report.pages import write_frontier

            began = time.monotonic()
            write_frontier(self.run)
            self._page_due = time.monotonic() + max(PAGE_EVERY_S, 50 * (time.monotonic() - began))

    def _summary(self, status: Status, confirmed: Mapping[str, Confirmation]) -> dict[str, Any]:
        return {
            "kdsearch": __version__,
            "space": self.space.name,
            "status": status,
            "objectives": dict(self.space.search.objectives),
            "trials": dict(Counter(record.state for record in self.record.all())),
            "searched": sum(r.stage == "search" and r.state != "RUNNING" for r in self.record.all()),
            "asked": self.space.search.trials,
            "hypervolume": self._volume,
            "stopping": self.rungs.audit_report(),
            "teacher_miou": self._teacher_metrics().get("val/miou"),
            **self._facts,
            "frontier": [
                {
                    "trial": r.id, "miou": r.miou, **r.cost, **_json(confirmed[r.id].numbers()),
                    "gain_of_class": dict(confirmed[r.id].gain_of_class), "student": str(self.run.student(r.id)),
                    "params": r.params,
                }
                for r in self._members
            ],
        }  # fmt: skip

    def _drop_weights(self) -> None:
        running = {record.id for record in self.record.running()}
        keep = {record.id for record in self._members} | running
        # Not from all records: looked through for every member at every end, they would be a study's largest cost.
        controls = self.record.complete("control")
        shown = (control_to_show(member.config, controls, self.space.confirm) for member in self._members)
        keep |= {control.id for control in shown if control is not None}
        for folder in self.run.students.iterdir():
            # A worker may be writing `.<trial>.<pid>.partial` of a running trial at this moment.
            if folder.name.lstrip(".").split(".")[0] not in keep:
                shutil.rmtree(folder)
        for checkpoint in self.run.checkpoints.iterdir():
            if checkpoint.name.lstrip(".").split(".")[0] not in running | {"teacher"}:
                checkpoint.unlink(missing_ok=True)


def table(records: list[TrialRecord]) -> pd.DataFrame:
    """One row a trial: what it reached, what it costs, and one column for each setting."""
    import pandas as pd

    columns = ["trial", "state", "stage", "epoch", "miou", "gflops", "params_m", "seed", "seconds", "reason"]
    rows = []
    for record in records:
        settings = {
            name: value for name, value in flatten(record.config).items()
            if name.startswith(("student.", "distill.", "train.")) or name in record.params
        }  # fmt: skip
        rows.append(
            {
                "trial": record.id, "state": record.state, "stage": record.stage, "epoch": record.epoch,
                "miou": record.miou, "gflops": record.cost.get("gflops"), "params_m": record.cost.get("params_m"),
                **{name: value for name, value in record.cost.items() if name == "latency_ms"},
                "seed": record.config.train.seed, "seconds": record.seconds, "reason": record.reason, **settings,
            }
        )  # fmt: skip
    frame = pd.DataFrame(rows, columns=None if rows else columns)
    for name in frame.columns[[dtype == "object" for dtype in frame.dtypes]]:
        # A setting may be a number in one branch and text in another; parquet wants one type a column.
        kinds = {type(value) for value in frame[name].dropna()}
        if len(kinds) > 1:
            frame[name] = frame[name].map(lambda value: value if pd.isna(value) else str(value))
    return frame


def frontier_table(members: list[TrialRecord], confirmed: Mapping[str, Confirmation]) -> pd.DataFrame:
    """`table`, with what repeats and controls say beside the costs; NaN where there are none."""
    import pandas as pd

    frame = table(members)
    # Without members, the names of the columns and their types all the same.
    numbers = pd.DataFrame([confirmed[m.id].numbers() for m in members] or [Confirmation().numbers()])
    numbers = numbers.iloc[: len(members)].set_axis(frame.index)
    at = list(frame.columns).index("seed")
    return pd.concat([frame.iloc[:, :at], numbers, frame.iloc[:, at:]], axis=1)


def _json(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: None if math.isnan(value) else value for name, value in numbers.items()}
