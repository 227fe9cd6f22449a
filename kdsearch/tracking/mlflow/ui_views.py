"""What MLflow's own pages show of a study: columns, shared views, the note on the study's run."""

from __future__ import annotations

import json

COLUMNS = (
    "attributes.`Created`", "attributes.`Duration`", "metrics.`val/miou`", "metrics.`cost/gflops`",
    "metrics.`cost/params_m`", "metrics.`confirm/gain`", "tags.`kdsearch.pareto`", "tags.`kdsearch.state`",
)  # fmt: skip


def _view(order: str, query: str, timed: bool) -> str:
    """A view of MLflow's table of runs, in the interface's own form; one that does not know it shows its default."""
    columns = [*COLUMNS, *(["metrics.`cost/latency_ms`"] if timed else [])]
    return json.dumps(
        {"selectedColumns": columns, "runsExpanded": {}, "orderByKey": order, "orderByAsc": True, "searchFilter": query,
         "startTime": "ALL", "lifecycleFilter": "Active", "datasetsFilter": [], "modelVersionFilter": "All Runs",
         "runsPinned": [], "runsHidden": []}
    )  # fmt: skip


def experiment_tags(cost: str, timed: bool) -> dict[str, str]:
    """Tags of the experiment: how the interface shows it. The frontier is sorted by `cost`; `timed`: with latency."""
    return {
        "mlflow.experimentKind": "custom_model_development",  # the interface opens with runs, not with traces
        "mlflow.sharedViewState.kdsearch": _view("attributes.start_time", "", timed),
        "mlflow.sharedViewState.kdsearch-frontier": _view(
            f"metrics.`cost/{cost}`", "tags.`kdsearch.pareto` = 'true'", timed
        ),
    }


NOTE = """\
A study of kdsearch. Its trials are the runs below it: [all of them]({runs}?viewStateShareKey=kdsearch), and [the \
frontier]({runs}?viewStateShareKey=kdsearch-frontier), with mIoU, cost and state as columns. Under Artifacts, \
`frontier.html` is the frontier to explore, and `report.html` what came of the study, once it is over."""
