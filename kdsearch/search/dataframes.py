"""The trials and the frontier of a study as pandas data frames: the tables of the run folder and of the Python API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kdsearch.config.space.flatten import flatten
from kdsearch.search.confirm import Confirmation
from kdsearch.search.trial_record import TrialRecord

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["trial", "state", "stage", "epoch", "miou", "gflops", "params_m", "seed", "seconds", "reason"]


def trials_dataframe(trials: Sequence[TrialRecord]) -> pd.DataFrame:
    """One row per trial: state, results, costs, and one column per setting; seconds are those of training."""
    import pandas as pd

    rows = []
    for trial in trials:
        settings = {
            name: value for name, value in flatten(trial.config).items()
            if name.startswith(("student.", "distill.", "train.")) or name in trial.params
        }  # fmt: skip
        rows.append(
            {
                "trial": trial.id, "state": trial.state, "stage": trial.stage, "epoch": trial.epoch,
                "miou": trial.miou, "gflops": trial.cost.get("gflops"), "params_m": trial.cost.get("params_m"),
                **{name: value for name, value in trial.cost.items() if name not in ("gflops", "params_m")},
                "seed": trial.config.train.seed, "seconds": trial.seconds, "reason": trial.reason, **settings,
            }
        )  # fmt: skip
    frame = pd.DataFrame(rows, columns=None if rows else COLUMNS)
    for name in frame.columns[[dtype == "object" for dtype in frame.dtypes]]:
        # A setting may be a number in one branch and text in another; parquet wants one type per column.
        kinds = {type(value) for value in frame[name].dropna()}
        if len(kinds) > 1:
            frame[name] = frame[name].map(lambda value: value if pd.isna(value) else str(value))
    return frame


def frontier_dataframe(members: Sequence[TrialRecord], confirmed: Mapping[str, Confirmation]) -> pd.DataFrame:
    """`trials_dataframe` with the numbers of repeats and controls beside the costs; NaN where they are not known."""
    import pandas as pd

    frame = trials_dataframe(members)
    # Without members, the columns keep their names and types.
    numbers = pd.DataFrame([confirmed[m.id].numbers() for m in members] or [Confirmation().numbers()])
    numbers = numbers.iloc[: len(members)].set_axis(frame.index)
    at = list(frame.columns).index("seed")
    return pd.concat([frame.iloc[:, :at], numbers, frame.iloc[:, at:]], axis=1)
