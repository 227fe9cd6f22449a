"""The model card of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdsearch.config.networks import network_name
from kdsearch.config.trial import TrialConfig
from kdsearch.export.formats import OPSET, Agreement
from kdsearch.search.choice import ChosenStudent
from kdsearch.search.summary import FrontierPoint

ABOUT = {
    "safetensors": "`model.safetensors` with `config.json`: for `kdsearch.load_student`",
    "onnx": f"`model.onnx`: opset {OPSET}, a batch of any length, normalised images in, logits out",
    "pt2": "`model.pt2`: `torch.export`, a batch of any length, normalised images in, logits out",
}


def card(
    source: ChosenStudent,
    trial: TrialConfig,
    config: Mapping[str, Any],
    metrics: Mapping[str, float],
    agreements: Mapping[str, Agreement],
    compared_on: str,
    latency_ms: Mapping[str, float],
    machine: str,
) -> str:
    """The model card as Markdown: results, costs, training, files and use.

    `trial`, `config` and `metrics` are the student's; `agreements` holds each written format except safetensors,
    `latency_ms` the time per runtime.
    """
    size = f"{config['size'][0]}x{config['size'][1]}"
    searched = "The weights are those of the trial of the search. " if source.space else ""
    rows = _rows(source, trial, config, size, latency_ms)
    classes = [
        (name, f"{metrics[f'val/iou/{name}']:.3f}")
        for name in config["dataset"]["classes"]
        if f"val/iou/{name}" in metrics
    ]
    files = [f"- {ABOUT[name]}" for name in ("safetensors", *agreements)]
    checked = [f"- {name}: {each}" for name, each in agreements.items()]
    compared = f"\nLoaded again and compared with PyTorch on {compared_on}:\n\n" + "\n".join(checked) if checked else ""
    return f"""# {network_name(trial.student)}, trained on {config["dataset"]["name"]}

A semantic segmentation network, found and distilled with kdsearch.

{_table(("", ""), rows)}

mIoU is the mean over the classes that occur, from one confusion matrix over the whole validation split, at {size}.
{searched}Latency is the median time for one image on {machine}.

{_table(("class", "IoU"), classes)}

## Files

{chr(10).join(files)}
- `preprocess.json`: size, scale, mean and standard deviation, classes and colours, for use without kdsearch
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


def _rows(
    source: ChosenStudent, trial: TrialConfig, config: Mapping[str, Any], size: str, latency_ms: Mapping[str, float]
) -> list[tuple[str, str]]:
    """Results, costs, training and origin of the student."""
    point = source.point
    distillation = "; ".join(_term(name, values) for name, values in config["trial"]["distill"].items())
    return [
        ("mIoU on val, in the search" if source.space else "mIoU on val", f"{point.miou:.4f}"),
        *_confirmed(point),
        (f"GFLOPs per image at {size} (2 x MAC)", f"{point.gflops:.3f}"),
        ("parameters", f"{point.params_m:.3f} M"),
        *((f"latency, {name}", f"{value:.1f} ms") for name, value in latency_ms.items()),
        ("teacher", network_name(trial.teacher.network()) if trial.teacher else "none"),
        ("distillation", distillation or "none"),
        ("epochs", str(trial.train.epochs)),
        *_origin(source),
        ("licence", "not stated; add your own. Data and initial weights may have their own terms."),
    ]


def _origin(source: ChosenStudent) -> list[tuple[str, str]]:
    if not source.space:
        return [("trained", f"without a study, kdsearch {source.version}, from {source.origin}")]
    return [
        ("study", f"`{source.study}` of the space `{source.space}`, kdsearch {source.version}"),
        ("trial", f"{source.point.trial}, from {source.origin}"),
        ("chosen", source.chosen),
    ]


def _confirmed(point: FrontierPoint) -> list[tuple[str, str]]:
    """Rows on repeats with other seeds, if there are any."""
    if not point.seeds or point.miou_mean is None:
        return []
    spread = "" if point.miou_std is None else f" ± {point.miou_std:.4f}"
    seeds = "1 other seed" if point.seeds == 1 else f"{point.seeds} other seeds"
    rows = [(f"the same with {seeds}: mIoU", f"{point.miou_mean:.4f}{spread}")]
    if point.gain is not None:
        known = point.gain_low is not None and point.gain_high is not None
        interval = f" (95 %: {point.gain_low:+.4f} to {point.gain_high:+.4f})" if known else ""
        rows.append(("gain over the same student without distillation", f"{point.gain:+.4f}{interval}"))
    return rows


def _term(name: str, values: Mapping[str, Any]) -> str:
    return f"{name} ({', '.join(f'{key} {value}' for key, value in values.items())})"


def _table(head: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    cells = [head, ("---", "---"), *((_cell(a), _cell(b)) for a, b in rows)]
    return "\n".join(f"| {a} | {b} |" for a, b in cells)


def _cell(text: str) -> str:
    """Text in one cell of a table: any character, on one line."""
    return " ".join(text.replace("|", "\\|").split())
