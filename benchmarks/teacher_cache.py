"""Time that a cached teacher saves per training step, and its effect on the student's mIoU.

    python benchmarks/teacher_cache.py --quick --out benchmarks/results/teacher_cache.md
    python benchmarks/teacher_cache.py --no-steps --data /data/camvid --weights /weights \\
      --out benchmarks/results/teacher_students.md

Steps: seconds of a whole training step (batch, teacher, student, terms, optimiser) without distillation, with a live
teacher and with its cached maps, of several pairs of networks, alternating in one run. Students: on real CamVid, the
mIoU of one configuration with several seeds, and of several configurations, under the live and the cached teacher;
Kendall's tau compares both orders of the configurations; `--ceiling` adds the tau of the live teacher with another
seed.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.teacher_steps import steps
from kdsearch.compat import ensure_torchvision

SPACE = Path(__file__).with_name("teacher_students.yaml")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="sizes for one CPU core: 96x128, batch 4")
    parser.add_argument("--size", type=int, nargs=2, help="height and width of the steps' images")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-steps", action="store_true", help="students alone")
    parser.add_argument("--data", help="folder of CamVid: train students on it ('scenes': on what the space names)")
    parser.add_argument("--weights", help="file or folder of ImageNet weights of mobilenet_v2")
    parser.add_argument("--space", default=str(SPACE), help="where the students' configurations come from")
    parser.add_argument("--profile")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="K=V")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--configs", type=int, default=8)
    parser.add_argument("--ceiling", action="store_true", help="each configuration once more, live with another seed")
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side, with one thread each")
    parser.add_argument("--storage", default="runs", help="keeps the data, the teacher, its maps, finished trainings")
    parser.add_argument("--out", type=Path, help="write the tables to this file")
    options = parser.parse_args()
    options.size = options.size or ([96, 128] if options.quick else [480, 640])
    options.batch = options.batch or (4 if options.quick else 8)
    ensure_torchvision()
    if options.device == "cpu":
        torch.set_num_threads(1)
    device = (
        f"{platform.machine()} CPU, CPU time of one thread" if options.device == "cpu" else torch.cuda.get_device_name()
    )
    height, width = options.size
    lines = [f"# A cached teacher\n\n{device}, torch {torch.__version__}.\n"]
    if not options.no_steps:
        lines[0] += f"Steps: {height}x{width}, batch {options.batch}, fp32, median of {options.repeats}.\n"
        with tempfile.TemporaryDirectory(prefix="teacher-cache-") as scratch:
            lines += steps(options, Path(scratch))
    if options.data:
        from benchmarks.teacher_students import students

        lines += ["", *students(options)]
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
