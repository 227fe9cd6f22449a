"""Decoders of segmentation_models_pytorch on any of its encoders, with their taps."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from kdsearch.compat import ensure_torchvision
from kdsearch.config.networks import SmpConfig
from kdsearch.data.info import DatasetInfo
from kdsearch.errors import UserError, did_you_mean
from kdsearch.models.network import DOES_NOT_RUN, Network, reason_of
from kdsearch.models.seg_output import SegOutput

OWN = ("encoder_name", "encoder_weights", "in_channels", "classes", "activation", "upsampling", "aux_params")
"""Constructor arguments that the trial determines, or that affect only the unused up-sampled logits."""


class SmpNetwork(Network):
    """An smp network that returns its logits before up-sampling, with taps, without hooks.

    Taps: `c1`..`c4` are the last four non-empty stages of the encoder (`c4` the last; fewer with a smaller
    `encoder_depth`), `head` is the input of the classifier. State-dict keys are smp's own.

    Sizes must be multiples of the encoder's stride, except for `unet`. In training mode `deeplabv3` and `deeplabv3plus`
    need two images per batch, because they normalise a map of one pixel.

    Raises `UserError` for an unknown encoder or option, and where smp refuses the combination.
    """

    def __init__(self, config: SmpConfig, info: DatasetInfo) -> None:
        super().__init__()
        ensure_torchvision()
        import segmentation_models_pytorch as smp

        constructor = smp.MODEL_ARCHITECTURES_MAPPING[config.arch]
        check_encoder(config.encoder)
        check_options(config.arch, config.options, constructor)
        try:
            network = constructor(
                encoder_name=config.encoder,
                encoder_weights=None,
                in_channels=info.channels,
                classes=info.num_classes,
                **config.options,
            )
        except DOES_NOT_RUN as error:
            options = f" with options {config.options}" if config.options else ""
            raise UserError(
                f"smp cannot build {config.arch} on {config.encoder}{options} ({reason_of(error)}). Take another "
                "encoder, arch (deeplabv3, deeplabv3plus and pan need an encoder that can be dilated) or options."
            ) from error
        self.encoder: nn.Module = network.encoder
        self.decoder: nn.Module = network.decoder
        self.segmentation_head = nn.Sequential(network.segmentation_head[0])
        self.size_divisor = network.encoder.output_stride if network.requires_divisible_input_shape else 1

    def encoders(self) -> list[nn.Module]:
        return [self.encoder]

    def forward(self, image_bchw: Tensor) -> SegOutput:
        features: list[Tensor] = self.encoder(image_bchw)
        head_bchw = self.decoder(features)
        stages = [feat_bchw for feat_bchw in features[1:] if feat_bchw.shape[1] > 0][-4:]
        taps = {f"c{index}": feat_bchw for index, feat_bchw in enumerate(stages, start=5 - len(stages))}
        taps["head"] = head_bchw
        return SegOutput(self.segmentation_head(head_bchw), taps)


def check_encoder(name: str) -> None:
    """Raise `UserError`, with the nearest names, unless smp or (after `tu-`) timm has the encoder."""
    import difflib

    import timm
    from segmentation_models_pytorch.encoders import get_encoder_names

    if name.startswith("tu-"):
        if timm.is_model(name.removeprefix("tu-")):
            return
        known = [f"tu-{model}" for model in timm.list_models()]
    else:
        known = get_encoder_names()
        if name in known:
            return
        known += [f"tu-{model}" for model in timm.list_models()]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    hint = (
        f"Did you mean {' or '.join(repr(match) for match in close)}?"
        if close
        else "segmentation_models_pytorch.encoders.get_encoder_names() and, behind 'tu-', timm.list_models() list them."
    )
    raise UserError(f"There is no encoder '{name}'. {hint}")


def check_options(arch: str, options: dict[str, Any], constructor: type) -> None:
    """Raise `UserError` for an option that the smp constructor lacks, or that users cannot set."""
    parameters = inspect.signature(constructor).parameters.values()
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name not in OWN]
    if "encoder_output_stride" not in known:
        known.append("output_stride")  # the constructor passes it to the encoder
    for option in options:
        if option in OWN:
            raise UserError(
                f"'{option}' is not an option of {arch}: the trial determines it, or it affects only steps "
                "that kdsearch omits (up-sampling and activation of the logits). Remove it."
            )
        if option not in known:
            raise UserError(f"{arch} has no option '{option}'.{did_you_mean(option, known)}")
