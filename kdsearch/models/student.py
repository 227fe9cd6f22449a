"""Trained students on disk: written by `save_student`, read by `load_student`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor, nn

from kdsearch.config.networks import NetworkConfig, without_weights
from kdsearch.config.trial import TrialConfig
from kdsearch.data.images import resize_image
from kdsearch.data.info import DatasetInfo
from kdsearch.errors import UserError
from kdsearch.io.json_text import to_json
from kdsearch.models.registry import build_network
from kdsearch.models.seg_output import SegOutput, upsampled_classes
from kdsearch.models.weights import load_network
from kdsearch.version import __version__

FORMAT = 1


class Student(nn.Module):
    """A segmentation network with its preprocessing.

    Images are uint8, 0 to 255, `[H, W, C]`, with C 3 (RGB) or 4 (RGB and thermal). `segment` returns the class ids of
    one image of any size; `predict` those of a batch of images `[B, H, W, C]` without resizing, so H and W must be
    multiples of the network's stride. `preprocess` converts such a batch to the input of `forward`: normalised images
    `[B, C, H, W]`. `size` is the height and width of training and evaluation.
    """

    def __init__(self, network: nn.Module, info: DatasetInfo, size: tuple[int, int]) -> None:
        super().__init__()
        self.network = network
        self.info = info
        self.size = size
        self.mean_c: Tensor
        self.std_c: Tensor
        self.register_buffer("mean_c", torch.tensor(info.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std_c", torch.tensor(info.std).view(1, -1, 1, 1), persistent=False)

    def preprocess(self, images_bhwc: NDArray[np.uint8]) -> Tensor:
        """Images scaled to [0, 1], minus mean, over standard deviation. `ValueError` for other types and shapes."""
        if images_bhwc.dtype != np.uint8:
            raise ValueError(f"expected uint8 images, 0 to 255, got {images_bhwc.dtype}: scale and convert them")
        if images_bhwc.ndim != 4 or images_bhwc.shape[-1] != self.info.channels:
            raise ValueError(f"expected uint8 images [B, H, W, {self.info.channels}], got {list(images_bhwc.shape)}")
        divisor = getattr(self.network, "size_divisor", 1)
        if images_bhwc.shape[1] % divisor or images_bhwc.shape[2] % divisor:
            raise ValueError(
                f"this network takes heights and widths that are multiples of {divisor}, not "
                f"{images_bhwc.shape[1]}x{images_bhwc.shape[2]}; `segment` takes any size"
            )
        image_bchw = torch.tensor(images_bhwc, device=self.mean_c.device).permute(0, 3, 1, 2).float() / 255
        normalised: Tensor = (image_bchw - self.mean_c) / self.std_c
        return normalised

    def forward(self, image_bchw: Tensor) -> Tensor:
        """Logits `[B, K, h, w]`, at the network's own resolution."""
        output: SegOutput = self.network(image_bchw)
        return output.logits

    @torch.no_grad()
    def predict(self, images_bhwc: NDArray[np.uint8]) -> Tensor:
        image_bchw = self.preprocess(images_bhwc)
        return upsampled_classes(self(image_bchw), image_bchw.shape[-2:])

    @torch.no_grad()
    def segment(self, image_hwc: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Class ids `[H, W]` of one image: it is resized to `size`, and the logits to the image's own size."""
        image_bchw = self.preprocess(resize_image(image_hwc, self.size)[None])
        native = torch.Size(image_hwc.shape[:2])
        classes: NDArray[np.uint8] = upsampled_classes(self(image_bchw), native)[0].to(torch.uint8).cpu().numpy()
        return classes


def save_student(
    folder: Path,
    network: nn.Module,
    config: TrialConfig,
    info: DatasetInfo,
    size: tuple[int, int],
    metrics: Mapping[str, float],
) -> None:
    """Write `model.safetensors`, `config.json` and `metrics.json` into `folder`.

    `network` is the student of the trial `config`, trained at `size` (height and width) on the data set of `info`.
    """
    from safetensors.torch import save_file

    state = {name: tensor.detach().contiguous().cpu() for name, tensor in network.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    content = {
        "format": FORMAT,
        "kdsearch": __version__,
        "network": without_weights(config.student).model_dump(mode="json"),
        "dataset": dataclasses.asdict(info),
        "size": list(size),
        "trial": config.model_dump(mode="json"),
    }
    (folder / "config.json").write_text(to_json(content, indent=2) + "\n")
    (folder / "metrics.json").write_text(to_json(dict(metrics), indent=2) + "\n")


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a student's folder; `UserError` if it is missing or of another format."""
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no student: {path.name} is missing.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); export the student again.") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise UserError(f"{path} is not a student of this version (format {FORMAT}); export it again.")
    return config


def read_metrics(folder: Path) -> dict[str, float]:
    """`metrics.json` of a student's folder, as numbers; `UserError` if it is missing or damaged."""
    path = folder / "metrics.json"
    try:
        return {str(name): float(value) for name, value in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); was the folder copied whole?") from error


def read_trial(folder: Path) -> TrialConfig:
    """The configuration that a student was trained with; `UserError` if this version cannot read it."""
    try:
        # As JSON: only there do strict types accept lists as tuples.
        return TrialConfig.model_validate_json(json.dumps(read_config(folder).get("trial")))
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder / 'config.json'} holds no trial of this version ({reason}).") from error


def load_student(folder: str | Path) -> Student:
    """The student in `folder` (`students/<trial>` of a run, or an export bundle), in eval mode on the CPU.

    Reads safetensors and JSON only, so a folder from elsewhere cannot run code. `UserError` for a folder without a
    complete student.
    """
    folder = Path(folder)
    config = read_config(folder)
    try:
        network_config: Any = TypeAdapter(NetworkConfig).validate_python(config["network"])
        dataset = dict(config["dataset"])
        for name in ("classes", "mean", "std"):
            dataset[name] = tuple(dataset[name])
        dataset["palette"] = tuple(tuple(color) for color in dataset["palette"])
        info = DatasetInfo(**dataset)
        height, width = (int(length) for length in config["size"])
    except (KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder / 'config.json'} does not describe a student ({reason}).") from error
    # A folder from elsewhere may name initial weights, which would be read or downloaded for nothing.
    network = build_network(without_weights(network_config), info, (height, width))
    load_network(network, folder / "model.safetensors")
    network.detail_taps = False  # detail heads serve training alone
    return Student(network, info, (height, width)).eval()
