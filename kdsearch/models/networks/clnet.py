"""CLNet: a two-stream RGB-thermal network with a detail-guided decoder (Guo, Zhou, Liu, KBS 292, 2024)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdsearch.compat import ensure_torchvision
from kdsearch.config.networks import CLNetConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.data.map_grid import resize_map
from kdsearch.errors import UserError
from kdsearch.models.network import Network
from kdsearch.models.networks.clnet_decoder import Decoder
from kdsearch.models.networks.clnet_fusion import Fusion
from kdsearch.models.seg_output import SegOutput


class CLNet(Network):
    """CLNet for images of four channels, RGB and thermal.

    The student of the paper shares one encoder between the modalities, the teacher has two; the rest is the same.
    The encoder is smp's MiT, with its stochastic depth of 0 to 0.1 over the blocks. Any height and width of 32 pixels
    or more is accepted. Parameters that the published code creates and never uses (2,596,068 at width 64)
    are not created.

    With 3 decoder steps logits come out at full resolution, as published; with 2 at stride 2.

    Taps: `c1`..`c4` (encoder stages at strides 4, 8, 16, 32, RGB plus thermal), `con1`..`con{steps}` (decoder
    semantics, `width` channels), `f` (fusions 1 and 2 at stride 8), `sem` (fusions 3 and 4, in this order for student
    and teacher, at stride 32), `head` (before the classifier) and, while `detail_taps` is set, `bound1`.., `bin1`..
    (2-class logits at full resolution, not negative).

    Raises `UserError` for a data set without a thermal channel.
    """

    def __init__(self, config: CLNetConfig, info: DatasetInfo) -> None:
        super().__init__()
        if info.channels != 4:
            raise UserError(
                f"clnet needs a thermal channel, and {info.name} has {info.channels} channels: "
                "take an smp network such as fpn, or an RGB-thermal data set."
            )
        ensure_torchvision()
        from segmentation_models_pytorch.encoders import get_encoder

        self.encoder = get_encoder(config.encoder)
        self.thermal_encoder = None if config.shared_encoder else get_encoder(config.encoder)
        channels = self.encoder.out_channels[-4:]
        self.fusions = nn.ModuleList(Fusion(level + 1, channels[level], config.width) for level in range(4))
        self.decoder = Decoder(config.width, info.num_classes, config.steps)

    def encoders(self) -> list[nn.Module]:
        return [self.encoder] if self.thermal_encoder is None else [self.encoder, self.thermal_encoder]

    def detail_heads(self) -> list[nn.Module]:
        return [self.decoder.bound_heads, self.decoder.bin_heads]

    def forward(self, image_bchw: Tensor) -> SegOutput:
        size = (image_bchw.shape[-2], image_bchw.shape[-1])
        rgb, thermal = self._encode(image_bchw)
        fusions: list[Tensor] = []
        for level, fusion in enumerate(self.fusions):
            fusions.append(fusion(rgb[level], thermal[level], fusions[-1] if fusions else None))
        output = self.decoder(fusions, size, self.detail_taps)
        assert isinstance(output, SegOutput)
        for level in range(4):
            output.taps[f"c{level + 1}"] = rgb[level] + thermal[level]
        stride8 = (fusions[0].shape[-2], fusions[0].shape[-1])
        output.taps["f"] = torch.cat((fusions[0], resize_map(fusions[1], stride8)), 1)
        output.taps["sem"] = torch.cat((fusions[2], fusions[3]), 1)
        return output

    def _encode(self, image_bchw: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Stages at strides 4, 8, 16, 32 of both modalities; a shared encoder runs once on both."""
        rgb_b3hw = image_bchw[:, :3]
        thermal_b3hw = image_bchw[:, 3:].expand_as(rgb_b3hw)
        if self.thermal_encoder is not None:
            return self.encoder(rgb_b3hw)[-4:], self.thermal_encoder(thermal_b3hw)[-4:]
        stages = self.encoder(torch.cat((rgb_b3hw, thermal_b3hw)))[-4:]
        # Sliced, since torch.export cannot derive the number of parts of `chunk` for a dynamic batch size.
        batch = image_bchw.shape[0]
        return [stage_bchw[:batch] for stage_bchw in stages], [stage_bchw[batch:] for stage_bchw in stages]
