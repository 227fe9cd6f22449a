"""The terminal of a study: one table that updates in place, or plain lines where the output is not a terminal."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Literal

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from kdsearch.config.metrics import METRICS, main_cost
from kdsearch.config.networks import network_name
from kdsearch.config.space.search_space import SearchSpace
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.callbacks import StudyCallback, StudyEnd, StudyInfo
from kdsearch.search.confirm import Confirmation
from kdsearch.search.trial_record import TrialRecord

PLAIN_WIDTH = 160
"""Columns of a table where the output is not a terminal."""

COLOR = {"RUNNING": "cyan", "COMPLETE": "green", "PRUNED": "bright_black", "FAIL": "red", "INFEASIBLE": "yellow"}
WORD = {"RUNNING": "running", "COMPLETE": "complete", "PRUNED": "stopped", "FAIL": "failed", "INFEASIBLE": "infeasible"}


class ConsoleCallback(StudyCallback):
    """Shows a study on a `rich` console, by default on standard output.

    On a terminal a table of trials updates in place; elsewhere each event is a line. Text is never broken into lines,
    so that commands and paths can be copied.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        if not self.console.is_terminal:
            self.console.width = PLAIN_WIDTH
        self.trials: dict[str, TrialRecord] = {}
        self.member_ids: set[str] = set()
        self.slots = 0
        self._progress = ""
        self._started = time.monotonic()
        self._live: Live | None = None
        self._bar: tuple[Progress, TaskID, str] | None = None

    def close(self) -> None:
        """Stop the display; called at the end of the study, and safe to call again."""
        self._stop_bar()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def print(self, text: str | Table) -> None:
        """Print text with rich's markup, or a table."""
        self.console.print(text, soft_wrap=isinstance(text, str))

    # ---- events --------------------------------------------------------------------------------------------------

    def on_study_start(self, study: StudyInfo) -> None:
        self.space: SearchSpace = study.space
        self.run = RunFolder(study.path)
        self.print(f"[bold]kdsearch[/] {study.space.name} -> {study.path}")
        self.print(f"[dim]log of Ray and the workers: {self.run.log}[/]")

    def on_message(self, text: str) -> None:
        self.print(escape(text))

    def on_progress(self, label: str, done: int, total: int) -> None:
        if self._live is not None:
            self._progress = "" if done >= total else f"{label}: {done} of {total}"
            return
        if self._bar is not None and self._bar[2] != label:
            self._stop_bar()
        if self._bar is None and done < total and self.console.is_terminal:
            columns = [TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
            progress = Progress(*columns, console=self.console, transient=True)
            progress.start()
            self._bar = progress, progress.add_task(label), label
        if self._bar is not None:
            self._bar[0].update(self._bar[1], completed=done, total=total)
            if done >= total:
                self._stop_bar()

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar[0].stop()
            self._bar = None

    def on_trials_restored(self, trials: Sequence[TrialRecord]) -> None:
        self.trials |= {t.id: t for t in trials if t.state not in ("RUNNING", "INFEASIBLE") and not t.origin}

    def on_slots(self, slots: int) -> None:
        if self.slots:
            self.print(f"the cluster has changed: {slots} at a time")
        else:
            self.print(f"{self.space.search.trials} trials, {slots} at a time")
            self._start_live()
        self.slots = slots

    def _start_live(self) -> None:
        if self.console.is_terminal and not self.console.is_jupyter:
            self._live = Live(
                console=self.console, refresh_per_second=4, get_renderable=self._render,
                redirect_stdout=False, redirect_stderr=False,
            )  # fmt: skip
            self._live.start()

    def on_trial_start(self, trial: TrialRecord) -> None:
        self.trials[trial.id] = trial
        if self._live is None:
            self.print(f"{trial.id} starts: {_student(trial)}, {_cost(trial)}{_purpose(trial)}")

    def on_trial_result(self, trial: TrialRecord) -> None:
        epochs = trial.config.train.epochs
        if self._live is None and trial.stage == "teacher" and trial.epoch % max(1, epochs // 5) == 0:
            self.print(f"teacher epoch {trial.epoch}/{epochs}, mIoU {trial.miou:.3f}")

    def on_trial_restart(self, trial: TrialRecord, reason: str) -> None:
        self.print(f"[yellow]{trial.id}: {escape(reason)}; it goes on from epoch {trial.epoch}[/]")

    def on_trial_end(self, trial: TrialRecord) -> None:
        if trial.state == "FAIL":
            self.print(f"[red]{trial.id} failed: {escape(trial.reason)}[/]")
        elif self._live is None:
            self.print(
                f"{trial.id} {WORD[trial.state]} at epoch {trial.epoch}/{trial.config.train.epochs}, "
                f"mIoU {trial.miou:.3f}, {_cost(trial)}  ({self._headline()})"
            )

    def on_frontier(self, members: Sequence[TrialRecord], hypervolume: float) -> None:
        self.member_ids = {member.id for member in members}

    def on_study_end(self, end: StudyEnd) -> None:
        self.close()
        if end.members:
            self.print(_frontier_table(end.members, self.run, end.hypervolume, main_cost(self.space.search.objectives)))
        if any(each.seeds for each in end.confirmed.values()):
            self.print(_confirmed_table(end.members, end.confirmed))
            self.print(_CONFIRMED_WORDS)
        run = shlex.quote(str(self.run.path))
        if end.status == "failed":
            self.print(f"[red]The study failed: {escape(end.failure)}.[/] Details: {self.run.log}")
        if end.status == "interrupted":
            self.print("[yellow]Interrupted; nothing is lost.[/]")
        if end.status != "done":
            self.print("Resume it with:")
            self.print(
                f"  python -m kdsearch.run {self.space.name} --resume --name {shlex.quote(self.run.path.name)} "
                f"--storage {shlex.quote(str(self.run.path.parent))}"
            )
        for note in end.notes:
            self.print(escape(note))
        if end.members:
            self.print(f"export a student:  python -m kdsearch.export {run} --best knee --out student")

    # ---- rendering -----------------------------------------------------------------------------------------------

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name, justify in _COLUMNS:
            table.add_column(name, justify=justify, no_wrap=True)
        for record in self._visible():
            color = COLOR[record.state]
            table.add_row(
                record.id, _student(record), _gflops(record), f"[{color}]{WORD[record.state]}[/]",
                f"{record.epoch}/{record.config.train.epochs}", "" if record.epoch == 0 else f"{record.miou:.3f}",
                "[bold magenta]●[/]" if record.id in self.member_ids else "",
            )  # fmt: skip
        return Group(Text(self._headline(), style="bold"), table)

    def _visible(self) -> list[TrialRecord]:
        """What fits on the screen: running trials, the frontier, then the latest of the rest, in order of start."""
        room = max(4, self.console.size.height - 5)
        records = list(self.trials.values())
        wanted = [r for r in records if r.state == "RUNNING" or r.id in self.member_ids][-room:]
        rest = [r for r in records if r not in wanted]
        latest = rest[-(room - len(wanted)) :] if room > len(wanted) else []
        return [r for r in records if r in wanted or r in latest]

    def _headline(self) -> str:
        states = [r.state for r in self.trials.values() if r.stage == "search"]
        over = len(states) - states.count("RUNNING")
        parts = [f"{over}/{self.space.search.trials} trials", f"{len(self.member_ids)} on the frontier"]
        if again := [r.state for r in self.trials.values() if r.stage in ("confirm", "control")]:
            parts.append(f"repeats and controls: {len(again) - again.count('RUNNING')}")
        parts.append(f"{_clock(time.monotonic() - self._started)} elapsed")
        if not again and (left := self._seconds_left()) is not None:
            parts.append(f"about {_clock(left)} left{' of the search' * (self.space.confirm.seeds > 0)}")
        if self._progress:
            parts.append(self._progress)
        return ", ".join(parts)

    def _seconds_left(self) -> float | None:
        """Of the search, from the mean training time of the trials that are over; None before the first."""
        over = [r for r in self.trials.values() if r.stage == "search" and r.state != "RUNNING"]
        if not over:
            return None
        mean = sum(r.seconds for r in over) / len(over)
        running = sum(min(r.seconds, mean) for r in self.trials.values() if r.state == "RUNNING")
        return max(0.0, (self.space.search.trials - len(over)) * mean - running) / max(1, self.slots)


_COLUMNS: list[tuple[str, Literal["left", "right", "center"]]] = [
    ("trial", "left"), ("student", "left"), ("GFLOPs", "right"), ("state", "left"), ("epoch", "right"),
    ("mIoU", "right"), ("frontier", "center"),
]  # fmt: skip


_CONFIRMED_WORDS = """\
[dim]repeats: mean mIoU ± standard deviation over other seeds, without the seed that the point was chosen for
alone: the same student, settings and seeds without distillation
gain: repeats minus alone, seed by seed: mean ± half of the 95 % interval
P(frontier): probability that no other point of equal or lower cost is truly better, as far as the spread of seeds tells
[/]"""


def _frontier_table(members: Sequence[TrialRecord], run: RunFolder, volume: float, cost: str) -> Table:
    shown = [METRICS[name] for name in ("latency_ms", "gflops", "params_m") if any(name in m.cost for m in members)]
    title = f"Frontier: mIoU against {METRICS[cost].axis} (hypervolume {volume:.4g})"
    table = Table(title=title, title_justify="left", box=None)
    for name in ("trial", "mIoU", *(metric.column for metric in shown)):
        table.add_column(name, justify="left" if name == "trial" else "right", no_wrap=True)
    table.add_column("settings")
    table.add_column("file", no_wrap=True)
    for member in members:
        settings = escape(", ".join(f"{name}={_short(value)}" for name, value in member.params.items()))
        table.add_row(
            member.id, f"{member.miou:.3f}", *(metric.format(member.cost[metric.name]) for metric in shown), settings,
            str(run.student(member.id).relative_to(run.path)),
        )  # fmt: skip
    return table


def _confirmed_table(members: Sequence[TrialRecord], confirmed: Mapping[str, Confirmation]) -> Table:
    """Each point under other seeds; "-" for what is not known."""
    table = Table(title="\nTrained again with other seeds", title_justify="left", box=None)
    for name in ("trial", "seeds", "repeats", "alone", "gain", "P(frontier)"):
        table.add_column(name, justify="left" if name == "trial" else "right", no_wrap=True)
    for record in members:
        point = confirmed[record.id]
        table.add_row(
            record.id, str(point.seeds), _known(point.miou_mean, ".3f", point.miou_std),
            _known(point.control_miou_mean, ".3f"),
            _known(point.gain, "+.3f", (point.gain_high - point.gain_low) / 2), _known(point.p_frontier, ".2f"),
        )  # fmt: skip
    return table


def _known(value: float, form: str, spread: float = math.nan) -> str:
    """`value ± spread`, as far as they are known."""
    if math.isnan(value):
        return "-"
    return f"{value:{form}}" + ("" if math.isnan(spread) else f" ± {spread:.3f}")


def _purpose(trial: TrialRecord) -> str:
    """Why a trial that was not sampled is trained."""
    seed = trial.config.train.seed
    return {
        "confirm": f"; {trial.params.get('of')} again with seed {seed}",
        "control": f"; without distillation, seed {seed}",
    }.get(trial.stage, "")


def _student(trial: TrialRecord) -> str:
    method = f", {trial.params['distill']}" if "distill" in trial.params else ""  # where the method is searched
    return f"{network_name(trial.config.student)}{method}"


def _cost(trial: TrialRecord) -> str:
    return ", ".join(METRICS[name].text(trial.cost[name]) for name in ("gflops", "latency_ms") if name in trial.cost)


def _gflops(trial: TrialRecord) -> str:
    return METRICS["gflops"].format(trial.cost["gflops"])


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
