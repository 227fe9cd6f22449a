"""CLNet's decoder of fused features: boundary and region details guide the semantics (Guo et al., KBS 2024: DGSD)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdsearch.data.map_grid import resize_map
from kdsearch.models.networks.blocks import conv_bn_relu
from kdsearch.models.seg_output import SegOutput

Size = tuple[int, int]


class Boundary(nn.Module):
    """Edge feature of one step, from the two fusions of highest resolution and the step before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shallow = conv_bn_relu(width, width)
        self.deep = conv_bn_relu(width, width)
        self.before = conv_bn_relu(width, width)
        self.guided = conv_bn_relu(2 * width, width)
        self.agreed = conv_bn_relu(width, width)
        self.out = conv_bn_relu(width, width)

    def forward(self, fusions: list[Tensor], before_bchw: Tensor, size: Size) -> Tensor:
        shallow_bchw = self.shallow(resize_map(fusions[0], size))
        deep_bchw = self.deep(resize_map(fusions[1], size))
        guided_bchw = self.guided(torch.cat((self.before(before_bchw), shallow_bchw), 1))
        return self.out(guided_bchw + self.agreed(shallow_bchw * deep_bchw))  # type: ignore[no-any-return]


class Binary(nn.Module):
    """Foreground feature of a step, from the two fusions of lowest resolution and the step before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.third = conv_bn_relu(width, width)
        self.fourth = conv_bn_relu(width, width)
        self.gate = conv_bn_relu(2 * width, width)
        self.out = conv_bn_relu(2 * width, width)

    def forward(self, fusions: list[Tensor], before_bchw: Tensor, size: Size) -> Tensor:
        third_bchw = self.third(resize_map(fusions[2], size))
        fourth_bchw = self.fourth(resize_map(fusions[3], size))
        gate_bchw = self.gate(torch.cat((third_bchw, fourth_bchw), 1))
        return self.out(torch.cat(((third_bchw + fourth_bchw) * gate_bchw, before_bchw), 1))  # type: ignore[no-any-return]


class Semantic(nn.Module):
    """Semantic feature of a step, from both details and the step before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.binary = conv_bn_relu(width, width)
        self.boundary = conv_bn_relu(width, width)
        self.before = conv_bn_relu(width, width)
        self.out = conv_bn_relu(3 * width, width)

    def forward(self, binary_bchw: Tensor, boundary_bchw: Tensor, before_bchw: Tensor) -> Tensor:
        parts = (self.binary(binary_bchw), self.boundary(boundary_bchw), self.before(before_bchw))
        return self.out(torch.cat(parts, 1))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Two or three steps at strides 8, 4, 2, then a head at twice the last step's resolution.

    The steps share their binary and semantic weights, as the published code runs them; each has its own boundary.
    Detail logits `[B, 2, H, W]` come out of batch normalisation and ReLU and so are never negative.
    """

    def __init__(self, width: int, classes: int, steps: int) -> None:
        super().__init__()
        self.boundaries = nn.ModuleList(Boundary(width) for _ in range(steps))
        self.binary = Binary(width)
        self.semantic = Semantic(width)
        self.bound_heads = nn.ModuleList(conv_bn_relu(width, 2) for _ in range(steps))
        self.bin_heads = nn.ModuleList(conv_bn_relu(width, 2) for _ in range(steps))
        self.refine = conv_bn_relu(width, width, bias=True)
        self.classifier = nn.Conv2d(width, classes, 3, padding=1)

    def forward(self, fusions: list[Tensor], size: Size, details: bool) -> SegOutput:
        """Logits and taps `con*`, `head` and, with `details`, `bound*` and `bin*`, from fusions 1 to 4.

        `size` is the image's height and width.
        """
        taps: dict[str, Tensor] = {}
        feat_bchw = fusions[3]
        for index, boundary in enumerate(self.boundaries):
            step_size = _at_stride(size, 8 >> index)
            before_bchw = resize_map(feat_bchw, step_size)
            boundary_bchw = boundary(fusions, before_bchw, step_size)
            binary_bchw = self.binary(fusions, before_bchw, step_size)
            feat_bchw = self.semantic(binary_bchw, boundary_bchw, before_bchw)
            taps[f"con{index + 1}"] = feat_bchw
            if details:
                taps[f"bound{index + 1}"] = self.bound_heads[index](resize_map(boundary_bchw, size))
                taps[f"bin{index + 1}"] = self.bin_heads[index](resize_map(binary_bchw, size))
        head_size = _at_stride(size, 8 >> len(self.boundaries))
        taps["head"] = self.refine(resize_map(feat_bchw, head_size))
        return SegOutput(self.classifier(taps["head"]), taps)


def _at_stride(size: Size, stride: int) -> Size:
    """Height and width of a map at `stride`, rounded up as strided convolutions with padding do."""
    return -(-size[0] // stride), -(-size[1] // stride)
