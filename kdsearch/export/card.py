"""The model card of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdsearch.export.formats import OPSET, Agreement
from kdsearch.export.source import Source
from kdsearch.search.choice import Point

ABOUT = {
    "safetensors": "`model.safetensors` with `config.json`: for `kdsearch.load_student`",
    "onnx": f"`model.onnx`: opset {OPSET}, a batch of any length, normalised images in, logits out",
    "pt2": "`model.pt2`: `torch.export`, a batch of any length, normalised images in, logits out",
}


def card(
    source: Source,
    config: Mapping[str, Any],
    metrics: Mapping[str, float],
    agreements: Mapping[str, Agreement],
    compared_on: str,
    latency_ms: Mapping[str, float],
    machine: str,
) -> str:
    """What the student is, what it reaches and costs, how it was trained, what the files hold and how to use them.

    `config` and `metrics` are the student's; `agreements` holds each written format but safetensors; `latency_ms` the
    runtimes.
    """
    network, trial, point = config["network"], config["trial"], source.point
    teacher, size = trial["teacher"], f"{config['size'][0]}x{config['size'][1]}"
    rows = [
        ("mIoU on val, in the search", f"{point['miou']:.4f}"),
        *_confirmed(point),
        (f"GFLOPs an image at {size} (2 x MAC)", f"{point['gflops']:.3f}"),
        ("parameters", f"{point['params_m']:.3f} M"),
        *((f"latency, {name}", f"{value:.1f} ms") for name, value in latency_ms.items()),
        ("teacher", f"{teacher['arch']} {_encoder(teacher)}" if teacher else "none"),
        ("distillation", "; ".join(_term(name, values) for name, values in trial["distill"].items()) or "none"),
        ("epochs", str(trial["train"]["epochs"])),
        ("study", f"`{source.study}` of the space `{source.space}`, kdsearch {source.version}"),
        ("trial", f"{point['trial']}, from {source.origin}"),
        ("chosen", source.chosen),
        ("licence", "not stated; yours to add. Data and initial weights may have terms of their own."),
    ]
    classes = [
        (name, f"{metrics[f'val/iou/{name}']:.3f}")
        for name in config["dataset"]["classes"]
        if f"val/iou/{name}" in metrics
    ]
    files = [f"- {ABOUT[name]}" for name in ("safetensors", *agreements)]
    checked = [f"- {name}: {each}" for name, each in agreements.items()]
    compared = f"\nLoaded again and compared with PyTorch on {compared_on}:\n\n" + "\n".join(checked) if checked else ""
    return f"""# {network["arch"]} {_encoder(network)}, trained on {config["dataset"]["name"]}

A semantic segmentation network, found and distilled with kdsearch.

{_table(("", ""), rows)}

mIoU is the mean over the classes that occur, from one confusion matrix over the whole validation split, at {size}. The
weights are those of the search's own training. Latency is the median on one image on {machine}.

{_table(("class", "IoU"), classes)}

## Files

{chr(10).join(files)}
- `preprocess.json`: size, scale, mean and deviation, classes and colours, for use without kdsearch
- `trial.yaml`: all settings of the training
{compared}

## Use

```python
import kdsearch

student = kdsearch.load_student("path/to/this/folder")
classes_hw = student.segment(image_hwc)  # one uint8 image of any size, {config["dataset"]["channels"]} channels
```

## Train it again

```
kdsearch train trial.yaml --out again
```
"""


def _confirmed(point: Point) -> list[tuple[str, str]]:
    """Rows on repeats with other seeds; none where there were none."""
    if not point.get("seeds"):
        return []
    spread = "" if point["miou_std"] is None else f" ± {point['miou_std']:.4f}"
    seeds = "1 other seed" if point["seeds"] == 1 else f"{point['seeds']} other seeds"
    rows = [(f"the same with {seeds}: mIoU", f"{point['miou_mean']:.4f}{spread}")]
    if point["gain"] is not None:
        low, high = point["gain_low"], point["gain_high"]
        interval = "" if low is None else f" (95 %: {low:+.4f} to {high:+.4f})"
        rows.append(("gain over the same student without distillation", f"{point['gain']:+.4f}{interval}"))
    return rows


def _encoder(network: Mapping[str, Any]) -> str:
    if network["arch"] == "two_branch":
        return f"{network['cnn']['encoder']}+{network['transformer']['encoder']}"
    return str(network["encoder"])


def _term(name: str, values: Mapping[str, Any]) -> str:
    return f"{name} ({', '.join(f'{key} {value}' for key, value in values.items())})"


def _table(head: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    cells = [head, ("---", "---"), *((_cell(a), _cell(b)) for a, b in rows)]
    return "\n".join(f"| {a} | {b} |" for a, b in cells)


def _cell(text: str) -> str:
    """Text in one cell of a table, whatever it holds."""
    return " ".join(text.replace("|", "\\|").split())
