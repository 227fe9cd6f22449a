"""What MLflow's own pages show of a study: columns, shared views, the note on the study's run."""

from __future__ import annotations

import json

COLUMNS = (
    "attributes.`Created`", "attributes.`Duration`", "metrics.`val/miou`", "metrics.`cost/gflops`",
    "metrics.`cost/params_m`", "metrics.`confirm/gain`", "tags.`kdsearch.pareto`", "tags.`kdsearch.state`",
)  # fmt: skip


def _view(order: str, query: str) -> str:
    """A view of MLflow's table of runs, in the interface's own form; one that does not know it shows its default."""
    return json.dumps(
        {"selectedColumns": COLUMNS, "runsExpanded": {}, "orderByKey": order, "orderByAsc": True, "searchFilter": query,
         "startTime": "ALL", "lifecycleFilter": "Active", "datasetsFilter": [], "modelVersionFilter": "All Runs",
         "runsPinned": [], "runsHidden": []}
    )  # fmt: skip


EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # the interface opens with runs, not with traces
    "mlflow.sharedViewState.kdsearch": _view("attributes.start_time", ""),
    "mlflow.sharedViewState.kdsearch-frontier": _view("metrics.`cost/gflops`", "tags.`kdsearch.pareto` = 'true'"),
}
NOTE = """\
A study of kdsearch. Its trials are the runs below it: [all of them]({runs}?viewStateShareKey=kdsearch), and [the \
frontier]({runs}?viewStateShareKey=kdsearch-frontier), with mIoU, cost and state as columns. Under Artifacts, \
`frontier.html` is the frontier to explore, and `report.html` what came of the study, once it is over."""
