"""What the terminal shows while a study runs: one table that updates in place, or plain lines elsewhere."""

from __future__ import annotations

import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from kdsearch.config.search import main_cost
from kdsearch.io.run_folder import RunFolder

if TYPE_CHECKING:
    from kdsearch.config.space.search_space import SearchSpace
    from kdsearch.search.confirm import Confirmation
    from kdsearch.search.storage.study_storage import TrialRecord

PLAIN_WIDTH = 160
"""Columns of a table where the output is not a terminal."""

COLOR = {"RUNNING": "cyan", "COMPLETE": "green", "PRUNED": "bright_black", "FAIL": "red", "INFEASIBLE": "yellow"}
WORD = {"RUNNING": "running", "COMPLETE": "complete", "PRUNED": "stopped", "FAIL": "failed", "INFEASIBLE": "infeasible"}


class ConsoleCallback:
    """The terminal of a study, as a context manager.

    While it is open, everything else that this process and its libraries print (Ray, Tune, MLflow, warnings) goes to
    the run's log file, on the level of file descriptors, so that nothing tears the table.
    """

    def __init__(self, space: SearchSpace, run: RunFolder) -> None:
        self.space, self.run = space, run
        self.records: dict[str, TrialRecord] = {}
        self.member_ids: set[str] = set()
        self.slots = 1
        self.maps: Callable[[], tuple[int, int] | None] = lambda: None
        """Images whose teacher's maps are written, and of how many, while they are being written."""
        self._started = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> ConsoleCallback:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self._saved = [os.dup(1), os.dup(2)]
        self.console = Console(file=os.fdopen(os.dup(1), "w", encoding="utf-8"), highlight=False)
        if not self.console.is_terminal:
            self.console.width = PLAIN_WIDTH
        log = os.open(self.run.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        self.say(f"[bold]kdsearch[/] {self.space.name} -> {self.run.path}")
        self.say(f"[dim]log of Ray and the workers' errors: {self.run.log}[/]")
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._stop_live()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for target, saved in zip((1, 2), self._saved, strict=True):
            os.dup2(saved, target)
            os.close(saved)
        self.console.file.close()

    def say(self, text: str | Table) -> None:
        """Print text (with rich's markup) or a table; lines of text are never broken, so that they can be copied."""
        self.console.print(text, soft_wrap=isinstance(text, str))

    @contextmanager
    def progress(self, label: str) -> Iterator[Callable[[int, int], None]]:
        """A bar to be told (done, of how many)."""
        columns = [TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(label)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def begin(self, slots: int, records: Sequence[TrialRecord] = ()) -> None:
        """Trials may start, `slots` at a time; `records` are those that an earlier driver has trained."""
        self.slots = slots
        self.records |= {r.id: r for r in records if r.state not in ("RUNNING", "INFEASIBLE") and not r.origin}
        self.say(f"{self.space.search.trials} trials, {slots} at a time")
        if self.console.is_terminal:
            self._live = Live(
                console=self.console, refresh_per_second=4, get_renderable=self._render,
                redirect_stdout=False, redirect_stderr=False,  # what others print goes to the log
            )  # fmt: skip
            self._live.start()

    def capacity(self, slots: int) -> None:
        """The cluster has grown or shrunk."""
        self.slots = slots
        self.say(f"the cluster has changed: {slots} at a time")

    # ---- events --------------------------------------------------------------------------------------------------

    def on_trial_start(self, record: TrialRecord) -> None:
        self.records[record.id] = record
        if self._live is None:
            self.say(f"{record.id} starts: {_student(record)}, {_cost(record)}{_purpose(record)}")

    def on_trial_result(self, record: TrialRecord) -> None:
        epochs = record.config.train.epochs
        if self._live is None and record.stage == "teacher" and record.epoch % max(1, epochs // 5) == 0:
            self.say(f"teacher epoch {record.epoch}/{epochs}, mIoU {record.miou:.3f}")

    def on_trial_restart(self, record: TrialRecord, reason: str) -> None:
        self.say(f"[yellow]{record.id}: {escape(reason)}; it goes on from epoch {record.epoch}[/]")

    def on_trial_end(self, record: TrialRecord) -> None:
        if record.state == "FAIL":
            self.say(f"[red]{record.id} failed: {escape(record.reason)}[/]")
        elif self._live is None:
            self.say(
                f"{record.id} {WORD[record.state]} at epoch {record.epoch}/{record.config.train.epochs}, "
                f"mIoU {record.miou:.3f}, {_cost(record)}  ({self._headline()})"
            )

    def on_frontier(self, members: list[TrialRecord], volume: float) -> None:
        self.member_ids = {record.id for record in members}

    def finish(
        self, status: str, failure: str, members: list[TrialRecord], confirmed: Mapping[str, Confirmation], volume: float,
        notes: list[str],
    ) -> None:  # fmt: skip
        """The result: the frontier with each point's settings and file, and what can be done next."""
        self._stop_live()
        if members:
            self.say(_frontier_table(members, self.run, volume, main_cost(self.space.search.objectives)))
        if any(each.seeds for each in confirmed.values()):
            self.say(_confirmed_table(members, confirmed))
            self.say(_CONFIRMED_WORDS)
        run = shlex.quote(str(self.run.path))
        if status == "failed":
            self.say(f"[red]The study failed: {escape(failure)}.[/] Details: {self.run.log}")
        if status == "interrupted":
            self.say("[yellow]Interrupted; nothing is lost.[/]")
        if status != "done":
            storage = shlex.quote(str(self.run.path.parent))
            self.say("Go on with:")
            self.say(
                f"  python -m kdsearch.run {self.space.name} --resume --name {shlex.quote(self.run.path.name)} "
                f"--storage {storage}"
            )
        for line in notes:
            self.say(line)
        if members:
            self.say(f"export a student:  python -m kdsearch.export {run} --best knee --out student")

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
        records = list(self.records.values())
        wanted = [r for r in records if r.state == "RUNNING" or r.id in self.member_ids][-room:]
        rest = [r for r in records if r not in wanted]
        latest = rest[-(room - len(wanted)) :] if room > len(wanted) else []
        return [r for r in records if r in wanted or r in latest]

    def _headline(self) -> str:
        states = [r.state for r in self.records.values() if r.stage == "search"]
        over = len(states) - states.count("RUNNING")
        parts = [f"{over}/{self.space.search.trials} trials", f"{len(self.member_ids)} on the frontier"]
        if again := [r.state for r in self.records.values() if r.stage in ("confirm", "control")]:
            parts.append(f"repeats and controls: {len(again) - again.count('RUNNING')}")
        parts.append(f"{_clock(time.monotonic() - self._started)} elapsed")
        if not again and (left := self._seconds_left()) is not None:
            parts.append(f"about {_clock(left)} left{' of the search' * (self.space.confirm.seeds > 0)}")
        if (maps := self.maps()) is not None:
            parts.append(f"teacher's maps: {maps[0]} of {maps[1]} images")
        return ", ".join(parts)

    def _seconds_left(self) -> float | None:
        """Of the search, from the mean training time of the trials that are over; None before the first."""
        over = [r for r in self.records.values() if r.stage == "search" and r.state != "RUNNING"]
        if not over:
            return None
        mean = sum(r.seconds for r in over) / len(over)
        running = sum(min(r.seconds, mean) for r in self.records.values() if r.state == "RUNNING")
        return max(0.0, (self.space.search.trials - len(over)) * mean - running) / self.slots

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


_COLUMNS: list[tuple[str, Literal["left", "right", "center"]]] = [
    ("trial", "left"), ("student", "left"), ("GFLOPs", "right"), ("state", "left"), ("epoch", "right"),
    ("mIoU", "right"), ("frontier", "center"),
]  # fmt: skip


_CONFIRMED_WORDS = """\
[dim]repeats: mean mIoU ± standard deviation over other seeds, without the search's own: points are chosen for it
alone: the same student, settings and seeds without distillation
gain: repeats minus alone, seed by seed: mean ± half of the 95 % interval
P(frontier): probability that no other point of equal or lower cost is truly better, as far as the spread of seeds tells
[/]"""


def _frontier_table(members: list[TrialRecord], run: RunFolder, volume: float, cost: str) -> Table:
    timed = any("latency_ms" in record.cost for record in members)
    against = {"gflops": "FLOPs", "params_m": "parameters", "latency_ms": "latency"}[cost]
    title = f"Frontier: mIoU against {against} (hypervolume {volume:.4g})"
    table = Table(title=title, title_justify="left", box=None)
    for name in ("trial", "mIoU", *(["ms"] if timed else []), "GFLOPs", "params M"):
        table.add_column(name, justify="left" if name == "trial" else "right", no_wrap=True)
    table.add_column("settings")
    table.add_column("file", no_wrap=True)
    for record in members:
        settings = escape(", ".join(f"{name}={_short(value)}" for name, value in record.params.items()))
        table.add_row(
            record.id, f"{record.miou:.3f}", *([f"{record.cost['latency_ms']:.3g}"] if timed else []), _gflops(record),
            f"{record.cost['params_m']:.2f}",
            settings, str(run.student(record.id).relative_to(run.path)),
        )  # fmt: skip
    return table


def _confirmed_table(members: list[TrialRecord], confirmed: Mapping[str, Confirmation]) -> Table:
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


def _purpose(record: TrialRecord) -> str:
    """Why a trial that was not sampled is trained."""
    seed = record.config.train.seed
    return {
        "confirm": f"; {record.params.get('of')} again with seed {seed}",
        "control": f"; without distillation, seed {seed}",
    }.get(record.stage, "")


def _student(record: TrialRecord) -> str:
    student = record.config.student
    width = f" w{student.width}" if student.arch == "clnet" else ""
    method = f", {record.params['distill']}" if "distill" in record.params else ""  # where the method is searched
    return f"{student.arch} {student.encoder}{width}{method}"


def _cost(record: TrialRecord) -> str:
    text = f"{_gflops(record)} GFLOPs"
    return f"{text}, {record.cost['latency_ms']:.3g} ms" if "latency_ms" in record.cost else text


def _gflops(record: TrialRecord) -> str:
    return f"{record.cost['gflops']:.2f}"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
