"""Time and memory of every distillation term against its naive form, and against the student's own training step.

    python benchmarks/terms.py [--batch 2] [--size 32 64] [--device cpu] [--only clfd] [--out FILE]
    python benchmarks/terms.py --double

Networks are stand-ins: random maps of the shapes of DeepLabV3-R101 (teacher) and DeepLabV3-R18 (student), 19 classes.
`--size` is that of the logits, one eighth of the image's; a GPU's default is Cityscapes' 64 x 128 at batch 8. Both
forms take turns in one run, forward and backward, and must agree: the run fails where a value or gradient differs by
more than 1e-4. `--double` only compares, in fp64 on tiny maps, to 1e-9. Memory is the most held beyond the networks'
outputs; on a CPU, terms over pairs of places are weighed on maps twice as high and wide, as these are what a GPU would
hold. The share is that of the term's time in the student's forward, cross-entropy, backward and SGD step.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.memory import peak_extra_bytes
from benchmarks.naive.adversarial import second_loss
from benchmarks.naive_terms import ROWS, Naive, Row
from kdsearch.data.info import IGNORE_INDEX, DatasetInfo
from kdsearch.distill import registry
from kdsearch.distill.base import FramePair, Shapes, Term
from kdsearch.distill.sampling import RandomState
from kdsearch.models.output import SegOutput

CLASSES = 19
STAGES = {"c1": (64, 256, 2), "c2": (128, 512, 1), "c3": (256, 1024, 1), "c4": (512, 2048, 1), "head": (128, 256, 1)}
TAPS = STAGES | {"wide": (2048, 2048, 1)}
TAPS |= {f"{kind}{index}": (2, 2, 8) for kind in ("bound", "bin") for index in (1, 2, 3)}
"""Channels of the student's and the teacher's map, and its size in units of the logits'."""

PAIR_GOAL, SHARE_GOAL = 10, 10
NOISE = 0.05
"""Difference in time, as a share, that is not called slower."""
SECONDS_A_ROW = 10
"""After so long no further repeat of a row is started, once there are three (one of a generator)."""


@dataclass(frozen=True)
class Setting:
    """Shapes and type of one measurement; `tiny` divides the channels by 16 and takes a row's settings for that."""

    batch: int
    size: tuple[int, int]
    device: torch.device
    dtype: torch.dtype = torch.float32
    tiny: bool = False

    @property
    def classes(self) -> int:
        return 5 if self.tiny else CLASSES

    def shapes(self, row: Row, side: int) -> Shapes:
        height, width = self.size
        shapes = {"logits": (self.classes, height, width)}
        for tap in (*STAGES, *row.taps):
            channels, scale = TAPS[tap][side], TAPS[tap][2]
            if self.tiny and channels > 16:
                channels //= 16
            shapes[tap] = (channels, scale * height, scale * width)
        return shapes

    def info(self) -> DatasetInfo:
        names = tuple(f"class {index}" for index in range(self.classes))
        return DatasetInfo("random", names, ((0, 0, 0),) * self.classes, 3, (0.5,) * 3, (0.5,) * 3, video=True)


class Scene:
    """One row's term and random inputs."""

    def __init__(self, row: Row, setting: Setting) -> None:
        self.row, self.setting = row, setting
        torch.manual_seed(0)
        kind = registry()[row.term]
        config = kind.Config(**row.config | (row.tiny if setting.tiny else {}))
        shapes_s, shapes_t = (setting.shapes(row, side) for side in (0, 1))
        for tap in row.teacher_taps:
            shapes_t[tap] = shapes_t["head"]
        self.term = kind(config, shapes_s, shapes_t, setting.info()).to(setting.device, setting.dtype)
        shapes_s = {name: shapes_s[name] for name in ("logits", *row.taps)}
        shapes_t = {name: shapes_t[name] for name in ("logits", *row.taps, *row.teacher_taps)}
        self.student, self.teacher = self._output(shapes_s, True), self._output(shapes_t, False)
        self.target = self._labels()
        self.frames = self._frames(shapes_s, shapes_t) if row.video else None
        if row.ours is second_loss:
            self.term.eval()  # spectral norms stand still, so that both forms see the same
            ours(self.term, self.student, self.teacher, self.target, self.frames)
            self.term.requires_grad_(True)

    def _draw(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.setting.device, dtype=self.setting.dtype)

    def _output(self, shapes: Shapes, student: bool) -> SegOutput:
        maps = {name: self._draw(self.setting.batch, *shape).requires_grad_(student) for name, shape in shapes.items()}
        return SegOutput(maps.pop("logits"), maps)

    def _labels(self) -> Tensor:
        """Labels of the image, in blocks; one block in twenty is ignored."""
        block = 4 if self.setting.tiny else 32
        blocks = [8 * extent // block for extent in self.setting.size]
        target = torch.randint(self.setting.classes, (self.setting.batch, *blocks))
        target[torch.rand(target.shape) < 0.05] = IGNORE_INDEX
        return target.repeat_interleave(block, 1).repeat_interleave(block, 2).to(self.setting.device)

    def _frames(self, shapes_s: Shapes, shapes_t: Shapes) -> FramePair:
        batch, size = self.setting.batch, [8 * extent for extent in self.setting.size]
        image = self._draw(batch, 3, *size) / 4
        return FramePair(
            self._output(shapes_s, True),
            self._output(shapes_t, False),
            4 * self._draw(batch, 2, *size),
            image,
            image + self._draw(batch, 3, *size) / 16,
        )

    @property
    def forms(self) -> tuple[Naive, Naive]:
        return self.row.ours or ours, self.row.naive

    def leaves(self) -> dict[str, Tensor]:
        """What gets a gradient, by name."""
        leaves = {f"student.{name}": tap for name, tap in self.student.taps.items()}
        leaves["student.logits"] = self.student.logits
        if self.frames is not None:
            leaves |= {f"later.{name}": tap for name, tap in self.frames.student.taps.items()}
            leaves["later.logits"] = self.frames.student.logits
        return leaves | {name: value for name, value in self.term.named_parameters() if value.requires_grad}

    def clear(self) -> None:
        for tensor in (*self.leaves().values(), *self.term.parameters()):
            tensor.grad = None

    def step(self, form: Naive) -> Tensor:
        value = form(self.term, self.student, self.teacher, self.target, self.frames)
        value.backward()
        return value.detach()


def ours(
    term: Term, student: SegOutput, teacher: SegOutput, target_bhw: Tensor, frames: FramePair | None = None
) -> Tensor:
    value: Tensor = term(student, teacher, target_bhw, frames)
    return value


def difference(scene: Scene) -> float:
    """The greatest relative difference of both forms in the value and in any gradient, from the same state."""
    rngs = [(module, module.get_extra_state()) for module in scene.term.modules() if isinstance(module, RandomState)]
    buffers = {name: buffer.clone() for name, buffer in scene.term.named_buffers()}
    results = []
    for form in scene.forms:
        for module, state in rngs:
            module.set_extra_state(state)
        with torch.no_grad():
            for name, buffer in scene.term.named_buffers():
                buffer.copy_(buffers[name])
        scene.clear()
        value = scene.step(form)
        results.append([value, *(leaf.grad for leaf in scene.leaves().values())])
    scene.clear()
    return max(_relative(a, b) for a, b in zip(*results, strict=True))


def _relative(a: Tensor | None, b: Tensor | None) -> float:
    if a is None or b is None:
        rest = b if a is None else a
        return 0.0 if rest is None or not rest.any() else float("inf")
    scale = float(b.abs().max())
    error = float((a - b).abs().max())
    return error / scale if scale > 0 else error


@dataclass(kw_only=True)
class Result:
    """What was measured of one row: milliseconds, and bytes at `memory_setting`; none where that does not fit."""

    row: Row
    setting: Setting
    memory_setting: Setting
    ours_ms: float
    ours_bytes: int
    naive_ms: float | None
    naive_bytes: int | None
    difference: float | None
    student_ms: float
    estimate: int | None

    @property
    def share(self) -> float:
        return 100 * self.ours_ms / self.student_ms

    @property
    def speedup(self) -> float | None:
        return None if self.naive_ms is None else self.naive_ms / self.ours_ms

    @property
    def saving(self) -> float:
        """Naive bytes over ours; where the naive form does not fit, by its formula."""
        naive = naive_needs(self.row, self.memory_setting) if self.naive_bytes is None else self.naive_bytes
        return naive / max(self.ours_bytes, 1)


def measure(row: Row, setting: Setting, repeats: int, student_ms: float) -> Result:
    scene = Scene(row, setting)
    fits = naive_fits(row, setting)
    forms = scene.forms if fits else scene.forms[:1]
    apart = difference(scene) if fits else None
    least, times = 1 if row.generator else 3, [[] for _ in forms]
    started = time.perf_counter()
    for index in range(repeats + 1):
        for form, taken in zip(forms, times, strict=True):
            scene.clear()
            taken.append(seconds(lambda form=form: scene.step(form), setting.device))
        if index >= least and time.perf_counter() - started > SECONDS_A_ROW:
            break
    medians = [1e3 * statistics.median(taken[1:]) for taken in times]

    memory_setting = setting
    if row.pairs and setting.device.type == "cpu":
        memory_setting = dataclasses.replace(setting, size=tuple(2 * extent for extent in setting.size))
        scene = Scene(row, memory_setting)
    held = []
    for form in scene.forms[: 1 + naive_fits(row, memory_setting)]:
        scene.clear()
        held.append(peak_extra_bytes(lambda form=form: scene.step(form), setting.device))
    return Result(
        row=row,
        setting=setting,
        memory_setting=memory_setting,
        ours_ms=medians[0],
        ours_bytes=held[0],
        naive_ms=medians[1] if len(medians) > 1 else None,
        naive_bytes=held[1] if len(held) > 1 else None,
        difference=apart,
        student_ms=student_ms,
        estimate=None if row.ours else scene.term.estimate_bytes(setting.batch),
    )


def naive_needs(row: Row, setting: Setting) -> int:
    """Bytes of the naive form's pair matrices; 0 where it has none to speak of."""
    height, width = setting.size
    return row.needs(setting.batch, height * width) if row.needs else 0


def naive_fits(row: Row, setting: Setting) -> bool:
    return naive_needs(row, setting) < 0.85 * free_bytes(setting.device)


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """Wall time on a GPU; on a CPU that of the one thread, which other programs do not lengthen by much."""
    if device.type == "cpu":
        started = time.process_time()
        function()
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info()[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def student_step_ms(setting: Setting, repeats: int) -> float:
    """Milliseconds of the student's own training step in fp32: forward, cross-entropy, backward, SGD."""
    from kdsearch.config.trial import SmpConfig
    from kdsearch.models.factory import build

    torch.manual_seed(0)
    config = SmpConfig(arch="deeplabv3", encoder="resnet18", options={"decoder_channels": 128})
    network = build(config, setting.info()).to(setting.device)
    size = [8 * extent for extent in setting.size]
    image = torch.randn(setting.batch, 3, *size, device=setting.device)
    target = torch.randint(CLASSES, (setting.batch, *size), device=setting.device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        logits = F.interpolate(network(image).logits, size, mode="bilinear", align_corners=True)
        F.cross_entropy(logits, target).backward()
        optimizer.step()

    taken = [seconds(step, setting.device) for _ in range(repeats + 1)]
    return 1e3 * statistics.median(taken[1:])


def table(results: Sequence[Result], common: Setting) -> list[str]:
    lines = [
        "| term | ours, ms | naive, ms | time, naive / ours | ours, MB | naive, MB | memory, naive / ours "
        "| share of the student's step, % | estimate / measured |",
        "|---|" + "---:|" * 8,
    ]
    for result in results:
        label = result.row.label
        if result.setting != common:
            label += f" ({shape(result.setting)})"
        elif result.memory_setting != common:
            label += f" (memory: {shape(result.memory_setting)})"
        needs = f"needs {naive_needs(result.row, result.memory_setting) / 1e9:.0f} GB"
        cells = [
            f"{result.ours_ms:.1f}",
            "does not fit" if result.naive_ms is None else f"{result.naive_ms:.1f}",
            "-" if result.speedup is None else f"{result.speedup:.2f}",
            f"{result.ours_bytes / 1e6:.1f}",
            needs if result.naive_bytes is None else f"{result.naive_bytes / 1e6:.1f}",
            f"{result.saving:.1f}",
            f"{result.share:.1f}",
            "-" if result.estimate is None else f"{result.estimate / max(result.ours_bytes, 1):.2f}",
        ]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def shape(setting: Setting) -> str:
    return " x ".join(map(str, (setting.batch, *setting.size)))


def goals(results: Sequence[Result]) -> list[str]:
    """A line a goal: whether it was met, and by whom it was not."""
    slower = [f"{r.row.label} ({r.speedup:.2f})" for r in results if r.speedup is not None and r.speedup < 1 - NOISE]
    larger = [f"{r.row.label} ({r.saving:.1f})" for r in results if r.row.pairs and r.saving < PAIR_GOAL]
    costly = [f"{r.row.label} ({r.share:.0f} %)" for r in results if not r.row.generator and r.share > SHARE_GOAL]

    def line(goal: str, misses: list[str]) -> str:
        return f"- {goal}: {'met' if not misses else 'not met by ' + ', '.join(misses)}"

    return [
        line(f"every term as fast as its naive form, within {100 * NOISE:.0f} %", slower),
        line(f"terms over pairs in at most 1/{PAIR_GOAL} of the naive memory", larger),
        line(f"no term but generators above {SHARE_GOAL} % of the student's step", costly),
    ]


def header(options: argparse.Namespace, common: Setting) -> list[str]:
    height, width = common.size
    device = f"{platform.machine()} CPU, CPU time of 1 thread"
    if common.device.type == "cuda":
        device = torch.cuda.get_device_name()
    return [
        "# Time and memory of the distillation terms",
        "",
        f"{device}, torch {torch.__version__}, fp32; batch "
        f"{common.batch}, logits {CLASSES} x {height} x {width}, images {8 * height} x {8 * width}; maps of "
        "DeepLabV3-R18 (c4 512, head 128 channels) and DeepLabV3-R101 (2048, 256). Rows at other shapes name them. "
        f"Forward and backward, median of {options.repeats} alternating repeats, fewer of slow rows.",
        "",
        "```",
        f"python benchmarks/terms.py {' '.join(options.command)}".rstrip(),
        "```",
        "",
    ]


def check(rows: Sequence[Row]) -> list[str]:
    """Compare in fp64 on tiny maps; the rows that differ."""
    wrong = []
    for row in rows:
        apart = difference(Scene(row, TINY))
        print(f"{row.label}: {apart:.1e}")
        if not apart <= 1e-9:
            wrong.append(f"{row.label} ({apart:.1e})")
    return wrong


TINY = Setting(2, (8, 12), torch.device("cpu"), torch.float64, tiny=True)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--size", type=int, nargs=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--only", nargs="+", help="terms whose name contains one of these")
    parser.add_argument("--double", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    options.command = arguments
    rows = [row for row in ROWS if not options.only or any(name in row.label for name in options.only)]
    if options.double:
        wrong = check(rows)
    else:
        device = torch.device(options.device)
        if device.type == "cpu":
            torch.set_num_threads(1)
        default = (8, (64, 128)) if device.type == "cuda" else (2, (32, 64))
        common = Setting(options.batch or default[0], tuple(options.size or default[1]), device)
        wrong = run(rows, common, options)
    if wrong:
        sys.exit(f"These forms disagree, so one of them is wrong (greatest relative difference): {', '.join(wrong)}")


def run(rows: Sequence[Row], common: Setting, options: argparse.Namespace) -> list[str]:
    students: dict[Setting, float] = {}
    results = []
    for row in rows:
        shrink = row.cpu_shrink if common.device.type == "cpu" else 1
        setting = dataclasses.replace(common, size=tuple(extent // shrink for extent in common.size))
        if setting not in students:
            students[setting] = student_step_ms(setting, min(options.repeats, 3))
            print(f"student's step at {setting.size}: {students[setting]:.0f} ms", file=sys.stderr)
        started = time.perf_counter()
        result = measure(row, setting, options.repeats, students[setting])
        results.append(result)
        apart = "not compared" if result.difference is None else f"{result.difference:.1e} apart"
        print(f"{row.label}: {apart}, {time.perf_counter() - started:.1f} s", file=sys.stderr)
    compared = [r for r in results if r.difference is not None]
    lines = header(options, common)
    for setting, step_ms in students.items():
        lines.append(f"The student's step takes {step_ms:.0f} ms at {shape(setting)}.")
    lines += ["", *table(results, common), "", *goals(results), ""]
    if compared:
        most = max(compared, key=lambda r: r.difference or 0)
        lines.append(f"Greatest relative difference of a value or gradient: {most.difference:.1e} ({most.row.label}).")
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")
    return [f"{r.row.label} ({r.difference:.1e})" for r in compared if not (r.difference or 0) <= r.row.tolerance]


if __name__ == "__main__":
    main(sys.argv[1:])
