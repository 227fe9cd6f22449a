"""Images a second, CPU time and resident memory of the store against other ways to read CamVid, in one run.

    python benchmarks/data.py --data /data/camvid [--size 360 480] [--workers 2] [--device cuda] [--out results/data.md]

The other way is the usual one: a `torch.utils.data.Dataset` that opens an image and its label, scales, crops and flips
them with Pillow, behind a `DataLoader` with worker processes. All give normalised float32 batches of one size on the
device. Colour jitter is off everywhere. Hugging Face `datasets` is not compared: it is no dependency.

Memory is the proportional set size (PSS) that Linux reports: a page that n processes map counts 1/n for each.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kdsearch.config.trial import Augment, DataConfig
from kdsearch.data.info import IGNORE_INDEX
from kdsearch.data.loader import Batches
from kdsearch.data.reader import open_reader
from kdsearch.data.store import Store, build_store

Images = Iterable[tuple[Tensor, Tensor]]
GOAL_SPEED, GOAL_MEMORY = 10, 1.3

READ_ALL = """
import gc, json, sys
from kdsearch.data.store import Store
store = Store.open(sys.argv[1])
kept = []
for name in ("train", "val"):
    split = store.split(name)
    for array in (split.images, split.labels):
        if sys.argv[2] == "copy":
            kept.append(array.copy())
        else:
            kept.append(int(array[..., ::64].sum()))  # touches every page
if sys.argv[2] == "copy":
    del store, split, array
    gc.collect()
print("ready", flush=True)
sys.stdin.readline()
"""


class Files(Dataset[tuple[Tensor, Tensor]]):
    """The usual Dataset: one image and one label file a sample."""

    def __init__(self, config: DataConfig, split: str, views: bool) -> None:
        reader: Any = open_reader(config)
        self.files = [reader.files(split, key)[:2] for key in reader.keys(split)]
        self.size, self.views, self.scale = config.size, views, config.augment.scale
        self.mean, self.std = (torch.tensor(v)[:, None, None] for v in (reader.info.mean, reader.info.std))
        self.table = np.full(256, IGNORE_INDEX, np.uint8)
        self.table[: reader.info.num_classes] = np.arange(reader.info.num_classes)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = (Image.open(path) for path in self.files[index])
        image = image.convert("RGB")
        height, width = self.size
        if not self.views:
            image, label = image.resize((width, height)), label.resize((width, height), Image.Resampling.NEAREST)
        else:
            zoom = random.uniform(*self.scale)
            scaled = (round(width * zoom), round(height * zoom))
            image = image.resize(scaled, Image.Resampling.BILINEAR)
            label = label.resize(scaled, Image.Resampling.NEAREST)
            left, top = (
                round((side - crop) * random.random()) for side, crop in zip(scaled, (width, height), strict=True)
            )
            box = (left, top, left + width, top + height)  # beyond the borders Pillow gives 0
            image, label = image.crop(box), label.crop(box)
            if random.random() < 0.5:
                image, label = (i.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for i in (image, label))
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        return (pixels - self.mean) / self.std, torch.from_numpy(self.table[np.array(label)]).long()


class Measured:
    """Best wall time of the epochs, with the CPU time of this process and its workers in that epoch."""

    def __init__(self, name: str, images: Callable[[int], Images], device: torch.device) -> None:
        self.name, self._images, self._device = name, images, device
        self.seconds, self.cpu, self.images = float("inf"), 0.0, 0

    def run(self, epoch: int) -> None:
        cpu, start, images = _cpu(), time.perf_counter(), 0
        for image, label in self._images(epoch):
            images += len(image.to(self._device)) * (len(label.to(self._device)) > 0)
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        if seconds < self.seconds:
            self.seconds, self.cpu, self.images = seconds, _cpu() - cpu, images

    @property
    def speed(self) -> float:
        return self.images / self.seconds

    @property
    def cpu_ms(self) -> float:
        return 1000 * self.cpu / self.images

    def row(self, usual: Measured) -> str:
        share = 100 * self.cpu / self.seconds / (os.cpu_count() or 1)
        ratios = f"{self.speed / usual.speed:.1f} | {usual.cpu_ms / self.cpu_ms:.1f}"
        return f"| {self.name} | {self.speed:.0f} | {share:.0f} % | {self.cpu_ms:.2f} | {ratios} |"


def _cpu() -> float:
    """CPU seconds of this process and of its ended children."""
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def speed(config: DataConfig, store: Store, args: argparse.Namespace) -> list[str]:
    """The tables of training views and of plain reading, and whether the goal is met."""
    device = torch.device(args.device)
    train = Batches(store.split("train"), store.info, config, args.batch_size, 0, device=device)

    def columns(batches: Any) -> Images:
        return ((batch.image_bchw, batch.label_bhw) for batch in batches)

    def files(views: bool) -> Images:
        return DataLoader(
            Files(config, "train", views), args.batch_size, shuffle=views, num_workers=args.workers, drop_last=True,
            pin_memory=device.type == "cuda",
        )  # fmt: skip

    def taken() -> Images:
        split = store.split("train")
        order = np.random.default_rng(0).permutation(len(split))
        for start in range(0, len(order) - args.batch_size + 1, args.batch_size):
            rows = order[start : start + args.batch_size]
            yield torch.from_numpy(split.images[rows]), torch.from_numpy(split.labels[rows])

    lines: list[str] = []
    verdicts: list[str] = []
    cases: dict[str, tuple[bool, dict[str, Callable[[int], Images]]]] = {
        "Training batches: random scale, crop and flip": (
            True, {"store, `Batches.train`": lambda epoch: columns(train.train(epoch))}
        ),
        "Whole images, no views: what reading alone costs": (
            False,
            {
                "store, `Batches.val`": lambda epoch: columns(
                    Batches(store.split("train"), store.info, config, args.batch_size, 0, device=device).val()
                ),
                "store, bytes as `Batches` takes them": lambda epoch: taken(),
            },
        ),
    }  # fmt: skip
    for title, (views, forms) in cases.items():
        usual = Measured(f"files, {args.workers} workers", lambda epoch, views=views: files(views), device)
        measured = [Measured(name, form, device) for name, form in forms.items()]
        for epoch in range(args.epochs):  # in turns: what else the machine does meets all of them
            for each in (usual, *measured):
                each.run(epoch)
        lines += [
            "",
            f"**{title}**",
            "",
            "| reader | images/s | CPU share | CPU ms an image | images/s: x files | CPU: x less |",
            "|---|---|---|---|---|---|",
            *(m.row(usual) for m in (usual, *measured)),
        ]
        for m in measured:
            ratio = m.speed / usual.speed
            verdicts.append(
                f"- {m.name}: {ratio:.1f} times the files' images/s, goal {GOAL_SPEED}: {_met(ratio >= GOAL_SPEED)}"
            )
    return [*lines, "", *verdicts]


def memory(store: Store, processes: int) -> list[str]:
    """PSS of processes that share the store, against as many with copies of their own."""
    one, shared = sum(_pss(store, 1, "map")), _pss(store, processes, "map")
    copies = _pss(store, processes, "copy")
    pixels = sum(facts["bytes"] for facts in store.meta["splits"].values()) / 2**20
    ratio = sum(shared) / one
    return [
        "",
        f"**Memory of {processes} processes that have read all of it** (the store has {pixels:.0f} MiB)",
        "",
        "| form | PSS together, MiB | x one process |",
        "|---|---|---|",
        f"| one process, store | {one:.0f} | 1.00 |",
        f"| {processes} processes, one store | {sum(shared):.0f} | {ratio:.2f} |",
        f"| {processes} processes, a copy each | {sum(copies):.0f} | {sum(copies) / one:.2f} |",
        "",
        f"- {processes} processes: {ratio:.2f} times one, goal {GOAL_MEMORY}: {_met(ratio <= GOAL_MEMORY)}",
    ]


def _pss(store: Store, processes: int, how: str) -> list[float]:
    """PSS in MiB of each of `processes` processes, all of which have read the whole store."""
    command = [sys.executable, "-c", READ_ALL, str(store.path), how]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    try:
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        return [_pss_of(process.pid) for process in running]
    finally:
        for process in running:
            process.communicate("\n")


def _pss_of(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this system reports no PSS")


def _met(met: bool) -> str:
    return "met" if met else "**not met**"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of CamVid")
    parser.add_argument("--size", nargs=2, type=int, default=[360, 480])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--epochs", type=int, default=3, help="the best of them counts")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--note", default="", help="a sentence on the machine, for the file")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    size = (args.size[0], args.size[1])
    config = DataConfig(name="camvid", path=args.data, size=size, augment=Augment(jitter=0.0))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        store = build_store(config, folder)
        seconds = time.perf_counter() - start
        counts = json.dumps({name: len(store.split(name)) for name in ("train", "val")})
        lines = [
            "# The store against files",
            "",
            f"CamVid {counts} at {size[0]}x{size[1]}, batches of {args.batch_size} on {args.device}, "
            f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} torch threads, best of {args.epochs} epochs. "
            f"Building the store took {seconds:.1f} s. {args.note}".rstrip(),
            *memory(store, args.processes),  # first: pages that this process maps would count less for others
            *speed(config, store, args),
        ]
    lines += ["", "Hugging Face `datasets` is left out: it is no dependency, and was not installed."]
    text = "\n".join([*lines, "", "```", f"python benchmarks/data.py --data CAMVID --device {args.device}", "```", ""])
    print(text)
    if args.out is not None:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
