"""The report's sentences: what the numbers of a study say, and what they do not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from kdsearch.report.results import Point, Results, TrialRow
from kdsearch.search.latency.report import UNIT

STATE_WORDS = {
    "COMPLETE": "trained to the end", "PRUNED": "stopped early", "FAIL": "failed",
    "INFEASIBLE": "infeasible", "RUNNING": "running",
}  # fmt: skip
STATUS_WORDS = {
    "running": "It was still running when this page was made.",
    "interrupted": "It was interrupted; what there was then is shown.",
    "failed": "It ended with a failure.",
}


def summary(results: Results) -> Iterator[str]:
    """The study in a few sentences."""
    counts = Counter(trial.state for trial in results.search)
    states = [f"{counts[state]} {words}" for state, words in STATE_WORDS.items() if counts[state]]
    yield (
        f"The study searched {_count(sum(counts.values()), 'configuration')} of the space {results.space}: "
        + (", ".join(states) or "none was started yet")
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
    return f"{trial.cost(results.main_cost):.3g} {UNIT[results.main_cost]}"


def gain(point: Point) -> str:
    """What distillation gained a point, as far as repeats and controls tell."""
    found, low, high = (point.known(name) for name in ("gain", "gain_low", "gain_high"))
    seeds = int(point.confirmed.get("seeds", 0))
    if not seeds:
        return "Its mIoU is the one it was chosen for, which is biased upwards: it was not repeated with other seeds."
    mean = point.known("miou_mean")
    text = f"Trained again with {_count(seeds, 'other seed')}, {point.trial.id} reaches mIoU {mean:.3f} on average."
    if found is None:
        return text + " What distillation gained it is not known: it has no control, or is not distilled."
    text += f" Over the same student alone, distillation changed its mIoU by {found:+.3f}"
    if low is None or high is None:
        return text + ", from one seed, which says nothing about chance."
    text += f" (95 % interval {low:+.3f} to {high:+.3f}): "
    if low > 0:
        return text + "a gain, beyond what the spread of seeds explains."
    return text + ("a loss." if high < 0 else "the interval includes zero, so with these seeds no gain is shown.")


def importance(results: Results) -> str:
    """How the shares of settings are to be read."""
    complete = sum(trial.state == "COMPLETE" for trial in results.search)
    if not results.importance:
        if complete >= 20:
            return "Which settings matter is not known here: that is estimated from the run folder."
        return "Which settings matter is not estimated: it takes 20 complete trials at the least."
    text = (
        "Percentages: the share of each setting in what sets the best trials apart (PED-ANOVA), for each objective and "
        "for the frontier as a whole; costs depend on the student alone. A setting that the search hardly varied has "
        "little."
    )
    return text + (f" They are rough: there are {complete} complete trials." if complete < 50 else "")


def interval(point: Point) -> str:
    """The gain with its interval for a table."""
    found, low, high = (point.known(name) for name in ("gain", "gain_low", "gain_high"))
    if found is None:
        return "–"
    return f"{found:+.3f}" + ("" if low is None or high is None else f" [{low:+.3f}, {high:+.3f}]")


def spread(point: Point) -> str:
    """Mean and standard deviation of the repeats, and how many seeds they are from, for a table."""
    mean, std, seeds = point.known("miou_mean"), point.known("miou_std"), int(point.confirmed.get("seeds", 0))
    return "–" if mean is None else f"{mean:.3f}" + ("" if std is None else f" ± {std:.3f}") + f" ({seeds})"


def failures(results: Results) -> list[tuple[str, str, int, list[str]]]:
    """What trials failed of, and why configurations were infeasible: state, reason, how often, some of their ids."""
    found: dict[tuple[str, str], list[str]] = {}
    for trial in results.trials:
        if trial.state in ("FAIL", "INFEASIBLE"):
            found.setdefault((trial.state, trial.reason[:1000] or "no reason is on record"), []).append(trial.id)
    words = {"FAIL": "failed", "INFEASIBLE": "infeasible"}
    ordered = sorted(found.items(), key=lambda item: (item[0][0], -len(item[1])))
    return [(words[state], reason, len(ids), ids[:6]) for (state, reason), ids in ordered[:40]]


def stopping(results: Results) -> str:
    """What early stopping saved, and what its audit found, in words."""
    stopped = [trial for trial in results.search if trial.state == "PRUNED"]
    if not stopped:
        return "No trial was stopped early."
    saved = sum(trial.epochs - trial.epoch for trial in stopped)
    asked = sum(trial.epochs for trial in results.search if trial.state in ("PRUNED", "COMPLETE"))
    text = (
        f"{_count(len(stopped), 'trial')} stopped early; that saved {saved} of {asked} epochs of the search "
        f"({saved / asked:.0%})."
    )
    audit = results.summary.get("stopping")
    if isinstance(audit, dict) and {"complete", "wrong"} <= set(audit):
        text += (
            f" To audit it, {audit['complete']} trials that would have been stopped ran on: {audit['wrong']} of them "
            "ended on the frontier."
        )
    return text


def classes(results: Results) -> list[str]:
    """Classes that a gain is known of, in a fixed order."""
    return sorted({name for point in results.points for name in point.gain_of_class})


def largest_gain(results: Results) -> float:
    """The largest gain or loss of a class, for the colours."""
    return max((abs(value) for point in results.points for value in point.gain_of_class.values()), default=0.0)


def training_time(results: Results) -> list[tuple[str, int, float]]:
    """Stage in words, how many trials it had, and the sum of their training times in seconds."""
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
    """What the study ran on; of an older one kdsearch's version alone."""
    known = results.summary.get("versions")
    if not isinstance(known, dict):
        known = {"kdsearch": results.summary.get("kdsearch", "of an unknown version")}
    return [(str(name), str(version)) for name, version in known.items()]


def setting(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)
