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
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.naive_terms import ROWS, Row
from benchmarks.term_costs import Result, measure, naive_needs, student_step_ms
from benchmarks.term_scenes import CLASSES, TINY, Scene, Setting, difference

PAIR_GOAL, SHARE_GOAL = 10, 10
NOISE = 0.05
"""Relative difference in time that does not count as slower."""


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
    """One line per goal: met or not, and the terms that miss it."""
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
