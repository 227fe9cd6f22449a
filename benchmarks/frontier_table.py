"""The frontier of a study and its IoU per class, as Markdown.

    python benchmarks/frontier_table.py runs/NAME > benchmarks/results/NAME.md

For comparison the table has the teacher, and the prediction of the most frequent class at every pixel.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from kdsearch.config.networks import network_name
from kdsearch.config.space.search_space import load_space
from kdsearch.data.store.store import Store, build_store
from kdsearch.io.run_folder import RunFolder
from kdsearch.models.student import read_metrics, read_trial
from kdsearch.search.summary import StudySummary
from kdsearch.train.teacher import teacher_folder


def most_frequent_class(store: Store) -> dict[str, float]:
    """Metrics on val of the prediction of the training set's most frequent class at every pixel."""
    train, val = store.split("train").class_counts, store.split("val").class_counts
    frequent = int(np.argmax(train))
    ious = {name: 0.0 for name, count in zip(store.info.classes, val, strict=True) if count > 0}
    ious[store.info.classes[frequent]] = float(val[frequent] / val.sum())
    return {"val/miou": float(np.mean(list(ious.values())))} | {f"val/iou/{name}": iou for name, iou in ious.items()}


def rows(run: RunFolder, summary: StudySummary) -> tuple[Store, list[tuple[str, dict[str, float], dict[str, float]]]]:
    """Name, costs and metrics per line of the table."""
    config = load_space(run.space).default().trial
    store = build_store(config.data, run.stores)
    lines: list[tuple[str, dict[str, float], dict[str, float]]] = [
        ("most frequent class", {}, most_frequent_class(store))
    ]
    for point in summary.frontier:
        folder = run.student(point.trial)
        name = f"{point.trial} {network_name(read_trial(folder).student)}"
        lines.append((name, {"gflops": point.gflops, "params_m": point.params_m}, read_metrics(folder)))
    if config.teacher is not None and config.teacher.checkpoint is None:
        folder = teacher_folder(config, store, run.teachers)
        metrics = json.loads((folder / "metrics.json").read_text())
        lines.append((f"teacher {network_name(config.teacher.network())}", {}, metrics))
    return store, lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    path: Path = parser.parse_args().run.resolve()
    run = RunFolder(path)
    summary = StudySummary.read(run.summary)
    store, lines = rows(run, summary)
    counts = ", ".join(f"{count} {state.lower()}" for state, count in summary.trials.items())
    height, width = store.size
    print(f"# {path.name}: `{summary.space}` on {store.info.name} at {height}x{width}\n")
    print(f"{len(store.split('train'))} training and {len(store.split('val'))} validation images. Trials: {counts}.\n")
    columns = {"mIoU": "val/miou"} | {name: f"val/iou/{name}" for name in store.info.classes}
    if any("val/temporal_consistency" in metrics for _, _, metrics in lines):
        columns["temporal consistency"] = "val/temporal_consistency"
    print("| | GFLOPs | params M | " + " | ".join(columns) + " |")
    print("|---|---|---|" + "---|" * len(columns))
    for name, cost, metrics in lines:
        cells = [f"{cost[key]:.2f}" if key in cost else "" for key in ("gflops", "params_m")]
        cells += [f"{metrics[key]:.3f}" if key in metrics else "" for key in columns.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print("\n| point | settings |\n|---|---|")
    for point in summary.frontier:
        settings = ", ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in point.params.items())
        print(f"| {point.trial} | {settings} |")


if __name__ == "__main__":
    main()
