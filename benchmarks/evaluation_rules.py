"""One student of CamVid under several rules of evaluation: the size of the labels, and that of the network's input.

    python benchmarks/evaluation_rules.py --data /data/CamVid [--weights FILE] [--epochs 8] [--out FILE]

Trains PSPNet on MobileNetV2 at 160x224 (batch 8, AdamW 1e-3), about two minutes per epoch on one busy core. `--weights`
are ImageNet weights of MobileNetV2; without them the student starts from random values.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import kdsearch
from kdsearch.models.student import read_metrics

RULES = {
    "`kdsearch`: images at 160x224, labels at 360x480": ("kdsearch", {}),
    "`native`: images and labels at 360x480": ("native", {}),
    "`native --scales 0.5`: images at 180x240, labels at 360x480": ("native", {"scales": [0.5]}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    trial = {
        "data": {"name": "camvid", "path": options.data, "size": [160, 224]},
        "student": {"arch": "pspnet", "encoder": "mobilenet_v2", "encoder_weights": options.weights},
        "train": {"epochs": options.epochs, "batch_size": 8, "lr": 1e-3},
    }
    lines = ["| rule | mIoU |", "|---|---|"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "student"
        kdsearch.train(trial, out=folder, storage=scratch, log=lambda line: print(line, flush=True))
        trained = read_metrics(folder)["val/miou"]
        lines.append(f"| `val/miou` of the training: images and labels at 160x224 | {trained:.4f} |")
        for title, (protocol, settings) in RULES.items():
            result = kdsearch.evaluate(folder, protocol=protocol, settings=settings)
            lines.append(f"| {title} | {result.miou:.4f} |")
            print(lines[-1], flush=True)
    table = "\n".join(lines) + "\n"
    print(table)
    if options.out is not None:
        options.out.write_text(table)


if __name__ == "__main__":
    main()
