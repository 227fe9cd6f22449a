"""`python -m kdsearch.export RUN`: write a student of a finished study as a bundle that stands alone."""

from __future__ import annotations

import argparse
import json
import operator
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from kdsearch.errors import UserError, did_you_mean
from kdsearch.run_folder import write_folder_atomically

FORMATS = ("safetensors",)
CONFIRMED = ("seeds", "miou_mean", "miou_std", "control_miou_mean", "gain", "gain_low", "gain_high", "p_frontier")
"""What a frontier point in `summary.json` says of repeats and controls (null where it does not), for the bundle."""

OPERATORS = {"<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt}

EXAMPLES = """examples:
  python -m kdsearch.export runs/clfd-20260101-120000 --best miou --out student
  python -m kdsearch.export runs/clfd-20260101-120000 --budget 'gflops<=5' --out student

read it back:  kdsearch.load_student("student")"""


def export(run: Path, best: str, budget: str | None, formats: tuple[str, ...], out: Path) -> Path:
    """Write the chosen frontier student of `run` to `out`, read it back and compare. Returns `out`.

    `best` is `"miou"` (most accurate) or `"knee"` (best compromise), among those within `budget` (`"gflops<=5"`).
    """
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"--formats {name}: this version writes {', '.join(FORMATS)}.")
    summary = _summary(run)
    point = choose(summary["frontier"], best, budget)
    student = run / "students" / point["trial"]
    if not student.is_dir():
        raise UserError(
            f"The student {point['trial']} is missing from {student.parent}; was the run folder copied whole?"
        )
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; give another --out.")
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    write_folder_atomically(out, lambda folder: _write(student, folder, point, summary))
    _compare(student, out)
    return out


def choose(frontier: list[dict[str, Any]], best: str, budget: str | None) -> dict[str, Any]:
    """The point of the frontier that `best` and `budget` name."""
    import numpy as np

    from kdsearch.search.frontier import knee

    points = [point for point in frontier if _within(point, budget)]
    if not points:
        cheapest = min(frontier, key=lambda point: point["gflops"], default=None)
        hint = f" The cheapest has {cheapest['gflops']:.3g} GFLOPs." if cheapest else " The frontier is empty."
        raise UserError(f"No student is within {budget or 'the frontier'}.{hint}")
    if best == "miou":
        return max(points, key=lambda point: point["miou"])
    return points[knee(np.array([[-point["miou"], point["gflops"]] for point in points]))]


def _within(point: dict[str, Any], budget: str | None) -> bool:
    if budget is None:
        return True
    match = re.fullmatch(r"\s*(\w+)\s*(<=|<|>=|>)\s*([\d.]+)\s*", budget)
    if match is None:
        raise UserError(f"--budget {budget!r}: expected METRIC<=NUMBER, for example 'gflops<=5'.")
    name, sign, bound = match.groups()
    if name not in ("miou", "gflops", "params_m"):
        raise UserError(
            f"--budget {budget!r}: unknown metric '{name}'.{did_you_mean(name, ['miou', 'gflops', 'params_m'])}"
        )
    return bool(OPERATORS[sign](point[name], float(bound)))


def _summary(run: Path) -> dict[str, Any]:
    try:
        summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    except FileNotFoundError as error:
        raise UserError(f"{run} is not a run folder: it has no summary.json.") from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{run / 'summary.json'} is damaged ({error}); `--resume` the study to write it again."
        ) from error
    for point in summary["frontier"]:
        # A name from a file becomes part of a path.
        if not re.fullmatch(r"t\d+", str(point["trial"])):
            raise UserError(f"{run / 'summary.json'} names a student {point['trial']!r}; that is no trial's name.")
    return summary


def _write(student: Path, folder: Path, point: dict[str, Any], summary: dict[str, Any]) -> None:
    from kdsearch.student import read_config

    config = read_config(student)
    for name in ("model.safetensors", "config.json"):
        shutil.copyfile(student / name, folder / name)
    metrics = json.loads((student / "metrics.json").read_text())
    metrics |= {f"confirm/{name}": point[name] for name in CONFIRMED if point.get(name) is not None}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    dataset = config["dataset"]
    preprocess = {
        "channels": ["red", "green", "blue", "thermal"][: dataset["channels"]],
        "scale": 1 / 255,
        "mean": dataset["mean"],
        "std": dataset["std"],
        "size": config["size"],
        "classes": dataset["classes"],
        "palette": dataset["palette"],
    }
    (folder / "preprocess.json").write_text(json.dumps(preprocess, indent=2) + "\n")
    (folder / "README.md").write_text(_card(point, config, metrics, summary))


def _card(point: dict[str, Any], config: dict[str, Any], metrics: dict[str, float], summary: dict[str, Any]) -> str:
    """The model card: what the student is, what it reaches and costs, how it was trained, how to use it."""
    network, trial = config["network"], config["trial"]
    teacher = trial["teacher"]
    iou = "\n".join(
        f"| {name} | {metrics[f'val/iou/{name}']:.3f} |"
        for name in config["dataset"]["classes"]
        if f"val/iou/{name}" in metrics
    )
    terms = ", ".join(trial["distill"]) or "none"
    return f"""# {network["arch"]} {network["encoder"]}, trained on {config["dataset"]["name"]}

A semantic segmentation network distilled by kdsearch {summary["kdsearch"]}: trial {point["trial"]} of the study
`{summary["space"]}`.

| | |
|---|---|
| mIoU on val | {point["miou"]:.4f} |{_confirmed_lines(point)}
| GFLOPs an image at {config["size"][0]}x{config["size"][1]} (2 x MAC) | {point["gflops"]:.3f} |
| parameters | {point["params_m"]:.3f} M |
| teacher | {teacher["arch"] + " " + teacher["encoder"] if teacher else "none"} |
| distillation terms | {terms} |
| epochs | {trial["train"]["epochs"]} |

mIoU is the mean over the classes that occur, from one confusion matrix over the whole split, at that size.

| class | IoU |
|---|---|
{iou}

## Use

```python
import kdsearch

student = kdsearch.load_student("path/to/this/folder")
classes_bhw = student.predict(images_bhwc)  # uint8 images, {config["dataset"]["channels"]} channels
```

`preprocess.json` says how images are prepared, for use without kdsearch. All settings of the trial: `config.json`.
"""


def _confirmed_lines(point: dict[str, Any]) -> str:
    """Lines of the card's table on repeats with other seeds; none where there were none."""
    if not point.get("seeds"):
        return ""
    spread = "" if point["miou_std"] is None else f" ± {point['miou_std']:.4f}"
    seeds = "1 other seed" if point["seeds"] == 1 else f"{point['seeds']} other seeds"
    lines = f"\n| the same with {seeds}: mIoU | {point['miou_mean']:.4f}{spread} |"
    if point["gain"] is not None:
        low, high = point["gain_low"], point["gain_high"]
        interval = "" if low is None else f" (95 %: {low:+.4f} to {high:+.4f})"
        lines += f"\n| gain over the same student without distillation | {point['gain']:+.4f}{interval} |"
    return lines


def _compare(student: Path, bundle: Path) -> None:
    """Read the bundle back; its logits must equal the student's on seeded random images, to the bit."""
    import numpy as np
    import torch

    from kdsearch.student import load_student

    first, second = load_student(student), load_student(bundle)
    images = np.random.default_rng(0).integers(0, 256, (2, *first.size, first.info.channels), dtype=np.uint8)
    with torch.no_grad():
        if not torch.equal(first(first.preprocess(images)), second(second.preprocess(images))):
            raise RuntimeError(f"the bundle {bundle} does not compute what {student} computes")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m kdsearch.export", description=__doc__, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder of a study")
    parser.add_argument("--best", choices=("miou", "knee"), default="miou", help="which point of the frontier")
    parser.add_argument("--budget", metavar="'METRIC<=X'", help="only points within it, for example 'gflops<=5'")
    parser.add_argument("--formats", default="safetensors", help="comma-separated: " + ", ".join(FORMATS))
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder to write")
    options = parser.parse_args(argv)
    try:
        out = export(options.run, options.best, options.budget, tuple(options.formats.split(",")), options.out)
    except UserError as error:
        print(f"kdsearch: {error}", file=sys.stderr)
        return 2
    print(f"wrote {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
