"""The frontier of a study and its IoU a class, as Markdown.

    python benchmarks/frontier_table.py runs/NAME > benchmarks/results/NAME.md

Beside the students stand their teacher and the prediction of the commonest class everywhere, so that a reader sees
what was learnt.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from kdsearch.config.space.search_space import load_space
from kdsearch.data.store.store import Store, build_store
from kdsearch.io.run_folder import RunFolder
from kdsearch.train.teacher import teacher_folder


def commonest_class(store: Store) -> dict[str, float]:
    """Metrics on val of predicting the training set's commonest class at every pixel."""
    train, val = store.split("train").class_counts, store.split("val").class_counts
    common = int(np.argmax(train))
    ious = {name: 0.0 for name, count in zip(store.info.classes, val, strict=True) if count > 0}
    ious[store.info.classes[common]] = float(val[common] / val.sum())
    return {"val/miou": float(np.mean(list(ious.values())))} | {f"val/iou/{name}": iou for name, iou in ious.items()}


def rows(run: RunFolder) -> tuple[Store, list[tuple[str, dict[str, Any], dict[str, float]]]]:
    """Name, cost and metrics of each line of the table."""
    config = load_space(run.space).default().trial
    store = build_store(config.data, run.stores)
    lines: list[tuple[str, dict[str, Any], dict[str, float]]] = [("commonest class", {}, commonest_class(store))]
    for point in json.loads(run.summary.read_text())["frontier"]:
        metrics = json.loads((run.student(point["trial"]) / "metrics.json").read_text())
        student = json.loads((run.student(point["trial"]) / "config.json").read_text())["network"]
        lines.append((f"{point['trial']} {student['arch']} {student['encoder']}", point, metrics))
    if config.teacher is not None and config.teacher.checkpoint is None:
        folder = teacher_folder(config, store, run.teachers)
        metrics = json.loads((folder / "metrics.json").read_text())
        lines.append((f"teacher {config.teacher.arch} {config.teacher.encoder}", {}, metrics))
    return store, lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    path: Path = parser.parse_args().run.resolve()
    run = RunFolder(path)
    store, lines = rows(run)
    summary = json.loads(run.summary.read_text())
    counts = ", ".join(f"{count} {state.lower()}" for state, count in summary["trials"].items())
    height, width = store.size
    print(f"# {path.name}: `{summary['space']}` on {store.info.name} at {height}x{width}\n")
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
    for point in summary["frontier"]:
        settings = ", ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in point["params"].items())
        print(f"| {point['trial']} | {settings} |")


if __name__ == "__main__":
    main()
