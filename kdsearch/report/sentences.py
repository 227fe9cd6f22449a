"""The sentences of the report, and its numbers as text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from markupsafe import Markup

from kdsearch.config.metrics import METRICS
from kdsearch.report.results import MemberRow, Results, TrialRow

STATE_WORDS = {
    "COMPLETE": "trained to the end", "PRUNED": "stopped early", "FAIL": "failed",
    "INFEASIBLE": "infeasible", "RUNNING": "running",
}  # fmt: skip
STATUS_WORDS = {
    "running": "It was still running when this page was written.",
    "interrupted": "It was interrupted; this page shows its results up to then.",
    "failed": "It failed.",
}


def summary(results: Results) -> Iterator[str]:
    """The study in a few sentences."""
    counts = Counter(trial.state for trial in results.search)
    states = [f"{counts[state]} {words}" for state, words in STATE_WORDS.items() if counts[state]]
    yield (
        f"The study searched {_count(sum(counts.values()), 'configuration')} of the space {results.space}: "
        + (", ".join(states) or "none has started yet")
        + ". "
        + STATUS_WORDS.get(results.status, "")
    )
    if not results.points:
        yield "No trial is complete yet, so there is no frontier."
        return
    first, last = results.points[0].trial, results.points[-1].trial
    if len(results.points) == 1:
        yield (
            f"One student dominates all others: {first.id} ({first.student}), mIoU {first.miou:.3f} at "
            f"{_cost(results, first)}."
        )
    else:
        yield (
            f"{len(results.points)} students are on the frontier, from mIoU {first.miou:.3f} at "
            f"{_cost(results, first)} ({first.id}) to mIoU {last.miou:.3f} at {_cost(results, last)} ({last.id})."
        )
    knee = results.knee()
    assert knee is not None
    text = f"The best compromise is {knee.trial.id}, {knee.trial.student}, with {knee.trial.params_m:.2f} M parameters"
    if results.teacher_miou:
        text += (
            f"; its mIoU is {knee.trial.miou / results.teacher_miou:.0%} of the teacher's {results.teacher_miou:.3f}"
        )
    yield text + "."
    if results.latency is not None and results.latency.spearman is not None:
        yield (
            f"The rank correlation of latency on {results.latency.device} with FLOPs, over the students of the space, "
            f"is {results.latency.spearman:.2f}."
        )
    yield gain(knee)


def _cost(results: Results, trial: TrialRow) -> str:
    return f"{trial.cost(results.main_cost):.3g} {METRICS[results.main_cost].unit}"


def gain(point: MemberRow) -> str:
    """The gain of a point by distillation, with its interval over the seeds."""
    found, low, high = (point.known(name) for name in ("gain", "gain_low", "gain_high"))
    seeds = int(point.confirmed.get("seeds", 0))
    if not seeds:
        return "It was not repeated with other seeds: its mIoU is that of the search, which is biased upwards."
    mean = point.known("miou_mean")
    text = f"Trained again with {_count(seeds, 'other seed')}, {point.trial.id} reaches mIoU {mean:.3f} on average."
    if found is None:
        return text + " Its gain by distillation is not known: it has no control, or is not distilled."
    text += f" Over the same student alone, distillation changed its mIoU by {found:+.3f}"
    if low is None or high is None:
        return text + ", from one seed, which gives no interval."
    text += f" (95 % interval {low:+.3f} to {high:+.3f}): "
    if low > 0:
        return text + "a gain that the spread over seeds does not explain."
    return text + ("a loss." if high < 0 else "the interval includes zero, so these seeds show no gain.")


def importance(results: Results) -> str:
    """How to read the importance of the settings, or why there is none."""
    from kdsearch.search.storage.reader import ENOUGH_TRIALS

    complete = sum(trial.state == "COMPLETE" for trial in results.search)
    if not results.importance:
        if complete >= ENOUGH_TRIALS:
            return "The importance of the settings is estimated from the run folder, which is not at hand here."
        return f"The importance of the settings is not estimated: that needs {ENOUGH_TRIALS} complete trials."
    text = (
        "Percentages: the share of each setting in the difference between the best trials and the others (PED-ANOVA), "
        "per objective and for the frontier as a whole. Costs depend on the student alone. A setting that the search "
        "hardly varied has a small share."
    )
    return text + (f" With {complete} complete trials they are rough." if complete < 50 else "")


def interval(point: MemberRow) -> str:
    """The gain with its interval for a table."""
    found, low, high = (point.known(name) for name in ("gain", "gain_low", "gain_high"))
    if found is None:
        return "–"
    return f"{found:+.3f}" + ("" if low is None or high is None else f" [{low:+.3f}, {high:+.3f}]")


def spread(point: MemberRow) -> str:
    """Mean and standard deviation of the repeats, and the number of seeds, for a table."""
    mean, std, seeds = point.known("miou_mean"), point.known("miou_std"), int(point.confirmed.get("seeds", 0))
    return "–" if mean is None else f"{mean:.3f}" + ("" if std is None else f" ± {std:.3f}") + f" ({seeds})"


def failures(results: Results) -> list[tuple[str, str, int, list[str]]]:
    """Reasons of failed and infeasible trials: state, reason, number of trials, some of their ids."""
    found: dict[tuple[str, str], list[str]] = {}
    for trial in results.trials:
        if trial.state in ("FAIL", "INFEASIBLE"):
            found.setdefault((trial.state, trial.reason[:1000] or "no reason was recorded"), []).append(trial.id)
    words = {"FAIL": "failed", "INFEASIBLE": "infeasible"}
    ordered = sorted(found.items(), key=lambda item: (item[0][0], -len(item[1])))
    return [(words[state], reason, len(ids), ids[:6]) for (state, reason), ids in ordered[:40]]


def stopping(results: Results) -> str:
    """The epochs that early stopping saved, and the result of its audit."""
    stopped = [trial for trial in results.search if trial.state == "PRUNED"]
    if not stopped:
        return "No trial was stopped early."
    saved = sum(trial.epochs - trial.epoch for trial in stopped)
    asked = sum(trial.epochs for trial in results.search if trial.state in ("PRUNED", "COMPLETE"))
    text = (
        f"{_count(len(stopped), 'trial')} stopped early, which saved {saved} of {asked} epochs of the search "
        f"({saved / asked:.0%})."
    )
    audit = results.summary.stopping
    if audit is not None and {"complete", "wrong"} <= set(audit):
        text += (
            f" As an audit, {audit['complete']} trials were trained to the end although the rule would have stopped "
            f"them: {audit['wrong']} of them ended on the frontier."
        )
    return text


def classes(results: Results) -> list[str]:
    """Classes whose gain is known, in a fixed order."""
    return sorted({name for point in results.points for name in point.gain_of_class})


def largest_gain(results: Results) -> float:
    """The largest gain or loss of a class, for the colours."""
    return max((abs(value) for point in results.points for value in point.gain_of_class.values()), default=0.0)


def gain_style(gain: float, largest: float) -> Markup:
    """Background of a cell: orange below zero, blue above, white at zero; distinct with any colour vision."""
    share = min(1.0, abs(gain) / largest) if largest > 0 else 0.0
    end = (5, 113, 176) if gain >= 0 else (230, 97, 1)
    red, green, blue = (round(255 + share * 0.75 * (channel - 255)) for channel in end)
    return Markup("background:rgb({},{},{})").format(red, green, blue)


def training_time(results: Results) -> list[tuple[str, int, float]]:
    """Stage in words, its number of trials, and the sum of their training times in seconds."""
    words = {"search": "search", "confirm": "repeats", "control": "controls"}
    rows = []
    for stage, name in words.items():
        trials = [trial for trial in results.trials if trial.stage == stage]
        if trials:
            rows.append((name, len(trials), math.fsum(trial.seconds for trial in trials)))
    return rows


def duration(seconds: float) -> str:
    """`42 s`, `3.5 min` or `2.1 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def versions(results: Results) -> list[tuple[str, str]]:
    """Packages and versions that the study ran on; of a study of version 0.1 that of kdsearch alone."""
    known = results.summary.versions or {"kdsearch": results.summary.kdsearch}
    return [(str(name), str(version)) for name, version in known.items()]


def setting(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)
