"""The base of every student and teacher."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from kdsearch.models.seg_output import SegOutput

DOES_NOT_RUN = (
    RuntimeError, AssertionError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, ImportError,
)  # fmt: skip
"""What the networks of libraries raise for settings and images that do not suit them."""


def reason_of(error: Exception) -> str:
    """The message of a library's error in one line of at most 200 characters, to stand inside a sentence."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= 200 else f"{text[:199]}…"


class Network(nn.Module, ABC):
    """A segmentation network: normalised images `[B, C, H, W]` in, `SegOutput` out.

    **Output.** `forward` returns logits `[B, K, h, w]` before up-sampling, and named taps `[B, C, h, w]`. For a given
    image size the shapes do not depend on the batch or the device, so that `models.cost.tap_shapes` finds them on the
    meta device.

    **Sizes.** `size_divisor` divides every height and width, in pixels, that the network accepts.

    **Detail heads.** `detail_taps` makes `forward` compute the detail heads (`bound*`, `bin*`) of a network that has
    them. They serve training and teaching alone and are off in evaluation, cost and export.

    **Weights.** `encoders` are the modules that encoder weights are loaded into. Every parameter receives a gradient
    from the logits or the supervised taps; `dropped` names the modules of a library's network that serve no output and
    were removed for that reason. `detail_heads` are the modules that run with `detail_taps` alone: they are no part of
    a student's cost. In eval mode the output is deterministic.

    `kdsearch.testing.networks.NetworkConformance` tests this contract.
    """

    detail_taps: bool = True
    size_divisor: int = 1
    dropped: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, image_bchw: Tensor) -> SegOutput:
        """Logits before up-sampling, and taps."""

    def detail_heads(self) -> list[nn.Module]:
        """The modules that serve training and teaching alone."""
        return []

    @abstractmethod
    def encoders(self) -> list[nn.Module]:
        """The encoders; those that share one `encoder_weights` have equal state-dict keys."""
