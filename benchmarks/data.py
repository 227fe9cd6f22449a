"""Images a second, CPU time and resident memory of the store against other ways to read CamVid, in one run.

    python benchmarks/data.py --data /data/camvid [--size 360 480] [--workers 2] [--device cuda] [--out results/data.md]

The other ways are the usual ones, all behind a `DataLoader` with worker processes: a `torch.utils.data.Dataset` that
opens an image and its label, and Hugging Face `datasets` memory-mapped, with the files' bytes or with decoded pixels
(`pip install kdsearch-seg[bench]`, else it is left out). Their views are torchvision's v2 transforms, on Pillow images
or on tensors: scale, crop, flip, colour jitter, with the ranges of kdsearch's defaults. All give normalised float32
batches of one size on the device.

Memory is the proportional set size (PSS) that Linux reports: a page that n processes map counts 1/n for each.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kdsearch.compat import ensure_torchvision
from kdsearch.config.data import DataConfig
from kdsearch.data.info import IGNORE_INDEX, DatasetInfo
from kdsearch.data.loader import Batches
from kdsearch.data.registry import open_reader
from kdsearch.data.store.store import Store, build_store

Images = Iterable[tuple[Tensor, Tensor]]
GOAL_SPEED, GOAL_MEMORY = 10, 1.3

READ_ALL = """
import gc, json, sys
from kdsearch.data.store.store import Store
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


def usual_transform(config: DataConfig, info: DatasetInfo, on_tensors: bool, views: bool) -> Any:
    """torchvision's way to what `Batches` does: takes a Pillow image and a mask of class ids, gives tensors."""
    from torchvision.transforms import v2
    from torchvision.tv_tensors import Image as ImageTensor
    from torchvision.tv_tensors import Mask

    augment, bilinear = config.augment, v2.InterpolationMode.BILINEAR
    steps: list[Any] = [v2.ToImage()] if on_tensors else []
    if views:
        steps += [
            v2.ScaleJitter(config.size, augment.scale, interpolation=bilinear, antialias=not on_tensors),
            v2.RandomCrop(config.crop, pad_if_needed=True, fill={Mask: IGNORE_INDEX, Image.Image: 0, ImageTensor: 0}),
            v2.RandomHorizontalFlip(augment.flip),
            v2.ColorJitter(augment.jitter, augment.jitter, augment.jitter),
        ]
    else:
        steps.append(v2.Resize(config.size, interpolation=bilinear, antialias=not on_tensors))
    steps += [v2.ToImage(), v2.ToDtype({ImageTensor: torch.float32, Mask: torch.int64}, scale=True)]
    return v2.Compose([*steps, v2.Normalize(info.mean, info.std)])


class Usual(Dataset[tuple[Tensor, Tensor]]):
    """The usual Dataset: `pair(index)` gives image and class ids, as Pillow images or arrays; then torchvision."""

    def __init__(self, pair: Callable[[int], tuple[Any, Any]], count: int, transform: Any) -> None:
        self.pair, self.count, self.transform = pair, count, transform

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        from torchvision.tv_tensors import Mask

        image, label = self.pair(index)
        image, mask = self.transform(image, Mask(torch.from_numpy(np.array(label))))
        return image, mask.as_subclass(Tensor)


class Files:
    """One image and one label file per sample."""

    def __init__(self, config: DataConfig) -> None:
        reader: Any = open_reader(config)
        self.files = [reader.files("train", key)[:2] for key in reader.keys("train")]
        self.table = np.full(256, IGNORE_INDEX, np.uint8)
        self.table[: reader.info.num_classes] = np.arange(reader.info.num_classes)

    def __call__(self, index: int) -> tuple[Image.Image, NDArray[np.uint8]]:
        image, label = (Image.open(path) for path in self.files[index])
        return image.convert("RGB"), self.table[np.array(label)]


def hugging_face(files: Files, store: Store, folder: str) -> dict[str, Callable[[int], tuple[Any, Any]]]:
    """The training split in `datasets`, memory-mapped: the files' bytes, and decoded pixels. {} if not installed."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1")
    try:
        import datasets
    except ImportError:
        return {}
    split, (height, width) = store.split("train"), store.size
    names = {"image": [str(image) for image, _ in files.files], "label": [str(label) for _, label in files.files]}
    encoded = datasets.Dataset.from_dict(names, datasets.Features(dict.fromkeys(names, datasets.Image())))
    encoded.save_to_disk(f"{folder}/encoded")  # embeds the files' bytes
    image, label = datasets.Array3D((height, width, 3), "uint8"), datasets.Array2D((height, width), "uint8")
    decoded = datasets.Dataset.from_generator(
        lambda: ({"image": split.images[i], "label": split.labels[i]} for i in range(len(split))),
        datasets.Features({"image": image, "label": label}), cache_dir=folder,
    )  # fmt: skip
    encoded, decoded = datasets.load_from_disk(f"{folder}/encoded"), decoded.with_format("numpy")

    def from_bytes(index: int) -> tuple[Any, Any]:
        row = encoded[index]
        return row["image"].convert("RGB"), files.table[np.array(row["label"])]

    def from_pixels(index: int) -> tuple[Any, Any]:
        row = decoded[index]
        return row["image"], row["label"]

    return {"`datasets`, files' bytes": from_bytes, "`datasets`, decoded pixels": from_pixels}


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


def speed(config: DataConfig, store: Store, args: argparse.Namespace, folder: str) -> list[str]:
    """The tables of training views and of whole images, and whether the goal is met."""
    device, split, files = torch.device(args.device), store.split("train"), Files(config)
    count = min(args.images, len(split))
    others = hugging_face(files, store, folder)
    whole = "whole images, as for validation"
    crops = {f"training batches, crop {h}x{w}": (h, w) for h, w in (tuple(args.crop), store.size)}

    lines: list[str] = [] if others else ["", "Hugging Face `datasets` is left out: it is not installed."]
    verdicts: list[str] = []
    for title, crop in {**crops, whole: None}.items():
        case = config.model_copy(update={"crop": crop or store.size})
        views = crop is not None

        def store_batches(epoch: int, case: DataConfig = case, views: bool = views) -> Images:
            batches = Batches(split, store.info, case, args.batch_size, 0, device=device)
            steps = islice(batches.train(epoch) if views else batches.val(), count // args.batch_size)
            return ((batch.image_bchw, batch.label_bhw) for batch in steps)

        def usual(pair: Any, on_tensors: bool, case: DataConfig = case, views: bool = views) -> Callable[[int], Images]:
            data = Usual(pair, count, usual_transform(case, store.info, on_tensors, views))
            return lambda epoch: DataLoader(
                data, args.batch_size, shuffle=views, num_workers=args.workers, drop_last=True,
                pin_memory=device.type == "cuda",
            )  # fmt: skip

        forms = {"files, v2 on Pillow": usual(files, False)}
        if views:
            forms["files, v2 on tensors"] = usual(files, True)
        forms |= {name: usual(pair, True) for name, pair in others.items()}
        forms["store, `Batches`"] = store_batches
        measured = [Measured(name, form, device) for name, form in forms.items()]
        for epoch in range(args.epochs):  # in turns: what else the machine does meets all of them
            for each in measured:
                each.run(epoch)
        reference = max((m for m in measured if m.name.startswith("files")), key=lambda m: m.speed)
        lines += [
            "",
            f"**{title[0].upper()}{title[1:]}** (ratios to the faster of the readers of files)",
            "",
            "| reader | images/s | CPU share | CPU ms an image | images/s: x files | CPU: x less |",
            "|---|---|---|---|---|---|",
            *(m.row(reference) for m in measured),
        ]
        ratio, cpu = measured[-1].speed / reference.speed, reference.cpu_ms / measured[-1].cpu_ms
        verdicts.append(
            f"- {title}: the store gives {ratio:.1f} times the images/s of the files, goal {GOAL_SPEED}: "
            f"{_met(ratio >= GOAL_SPEED)}; with 1/{cpu:.1f} of their CPU time"
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
    parser.add_argument("--crop", nargs=2, type=int, default=[256, 256], help="training view, beside the whole size")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--images", type=int, default=1_000_000, help="at most so many an epoch")
    parser.add_argument("--epochs", type=int, default=3, help="the best of them counts")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--note", default="", help="a sentence on the machine, for the file")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    size = (args.size[0], args.size[1])
    config = DataConfig(name="camvid", path=args.data, size=size)
    ensure_torchvision()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        store = build_store(config, folder)
        seconds = time.perf_counter() - start
        counts = json.dumps({name: len(store.split(name)) for name in ("train", "val")})
        lines = [
            "# The store against files",
            "",
            f"CamVid {counts} at {size[0]}x{size[1]}, batches of {args.batch_size} on {args.device}, "
            f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} torch threads, "
            f"{args.workers} workers of the other readers, "
            f"best of {args.epochs} epochs of {min(args.images, len(store.split('train')))} images. "
            f"Building the store took {seconds:.1f} s. {args.note}".rstrip(),
            *memory(store, args.processes),  # first: pages that this process maps would count less for others
            *speed(config, store, args, folder),
        ]
    command = f"python benchmarks/data.py --data CAMVID --device {args.device} --epochs {args.epochs}"
    if args.images < len(store.split("train")):
        command += f" --images {args.images}"
    text = "\n".join([*lines, "", "```", command, "```", ""])
    print(text)
    if args.out is not None:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
