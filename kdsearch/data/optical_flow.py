"""Optical flow between two frames of a data set without flow of its own: DIS (OpenCV) or RAFT (torchvision).

A flow is float32 `[H, W, 2]`, (x, y) in pixels: `first(p)` shows what `second(p + flow(p))` shows.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from kdsearch.compat import ensure_torchvision
from kdsearch.errors import UserError
from kdsearch.io.digests import digest_of
from kdsearch.io.state_dict import load_state, read_state

FlowName = Literal["none", "dis", "raft"]


class Flow(Protocol):
    """Estimates flow; may be called from several threads. `facts` identify the method and its weights."""

    facts: tuple[object, ...]

    def __call__(self, first_hwc: NDArray[np.uint8], second_hwc: NDArray[np.uint8]) -> NDArray[np.float32]: ...


def open_flow(root: Path, name: FlowName, weights: str | None, gap: int = 1) -> Flow | None:
    """The estimator of a reader's options `flow`, `flow_weights` (relative to the data folder `root`) and `gap`.

    None for "none". `UserError` for options without effect, weights that do not load, and a missing OpenCV.
    """
    if name == "none" and gap != 1:
        raise UserError("gap has no effect without next frames; set flow to dis or raft, or remove gap")
    if name != "raft" and weights is not None:
        raise UserError("flow_weights has no effect without RAFT; set flow: raft, or remove flow_weights")
    if name == "raft":
        if weights is None:
            raise UserError("flow: raft needs flow_weights, the file of torchvision's weights; without one, use dis")
        return Raft(root / Path(weights).expanduser())
    return Dis() if name == "dis" else None


class Dis:
    """Dense Inverse Search with OpenCV's medium preset (Kroeger et al., ECCV 2016), on grey images."""

    def __init__(self) -> None:
        try:
            import cv2
        except ImportError:
            raise UserError("flow: dis needs OpenCV; install it with: pip install kdsearch-seg[flow]") from None
        self.facts: tuple[object, ...] = ("dis", "medium", cv2.__version__)
        self._local = threading.local()  # an estimator keeps its buffers between calls

    def __call__(self, first_hwc: NDArray[np.uint8], second_hwc: NDArray[np.uint8]) -> NDArray[np.float32]:
        import cv2

        if not hasattr(self._local, "estimator"):
            self._local.estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        first, second = (
            cv2.cvtColor(np.ascontiguousarray(image[..., :3]), cv2.COLOR_RGB2GRAY) for image in (first_hwc, second_hwc)
        )
        flow: NDArray[np.float32] = self._local.estimator.calc(first, second, None)
        return flow


class Raft:
    """RAFT (Teed and Deng, ECCV 2020), large or small according to torchvision's `weights`; on a GPU if available."""

    def __init__(self, weights: Path) -> None:
        import torch

        ensure_torchvision()
        from torchvision.models.optical_flow import raft_large, raft_small

        large = any(key.removeprefix("module.").startswith("mask_predictor.") for key in read_state(weights))
        self._network: Any = (raft_large if large else raft_small)(weights=None)
        load_state(self._network, weights)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network.eval().to(self._device)
        self._lock = threading.Lock()  # the cost volume grows with the square of the pixels: one at a time
        self.facts: tuple[object, ...] = ("raft", digest_of(weights))

    def __call__(self, first_hwc: NDArray[np.uint8], second_hwc: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch
        from torch.nn import functional

        height, width = first_hwc.shape[:2]
        frames_bchw = torch.from_numpy(np.stack((first_hwc, second_hwc))[..., :3]).permute(0, 3, 1, 2)
        with self._lock, torch.inference_mode():
            frames_bchw = frames_bchw.to(self._device).float() / 127.5 - 1
            # RAFT works at stride 8 and halves that three times: sides are multiples of 8, and 128 at least.
            bottom, right = (max(128, -(-side // 8) * 8) - side for side in (height, width))
            frames_bchw = functional.pad(frames_bchw, (0, right, 0, bottom), mode="replicate")
            flow_b2hw = self._network(frames_bchw[:1], frames_bchw[1:])[-1]
            flow_hw2 = flow_b2hw[0, :, :height, :width].permute(1, 2, 0).contiguous()
        flow: NDArray[np.float32] = flow_hw2.cpu().numpy()
        return flow
