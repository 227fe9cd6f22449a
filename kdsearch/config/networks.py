"""Settings of networks: the `student` and `teacher` sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from kdsearch.config.paths import FilePath
from kdsearch.config.strict import Strict
from kdsearch.config.training import TrainConfig


class CLNetConfig(Strict):
    """CLNet (Guo et al., KBS 2024): two-stream RGB-thermal network with a detail-guided decoder."""

    arch: Literal["clnet"]
    encoder: Literal["mit_b0", "mit_b1", "mit_b2", "mit_b3", "mit_b4", "mit_b5"] = "mit_b2"
    encoder_weights: FilePath | None = Field(None, description="file or folder of encoder weights; none: random")
    shared_encoder: bool = Field(True, description="one Siamese encoder for both modalities (the student's form)")
    width: PositiveInt = Field(64, description="channels of the fusion and the decoder")
    steps: Literal[2, 3] = Field(3, description="decoder steps; 2 stops at stride 4")


SmpArch = Literal[
    "unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet", "deeplabv3", "deeplabv3plus", "pan", "upernet",
    "segformer",
]  # fmt: skip


class SmpConfig(Strict):
    """A decoder of segmentation_models_pytorch on any of its encoders (`tu-NAME` takes a timm encoder)."""

    arch: SmpArch
    encoder: str
    encoder_weights: FilePath | None = Field(
        None, description="file or folder of encoder weights, 'imagenet' for smp's own download, none: random"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the smp constructor")


class TwoBranchConfig(Strict):
    """A CNN and a transformer side by side, their logits fused (spatial consistency distillation; reconstructed)."""

    arch: Literal["two_branch"]
    cnn: SmpConfig
    transformer: SmpConfig
    fuse: Literal["mean_prob", "gate", "max_conf"] = Field(
        "mean_prob",
        description="mean of the probabilities; a learned gate per pixel; or the branch of lower entropy",
    )

    @property
    def encoder(self) -> str:
        return f"{self.cnn.encoder}+{self.transformer.encoder}"


class TeacherFields(Strict):
    """Settings of a teacher beside those of its network."""

    checkpoint: FilePath | None = Field(
        None,
        description="trained weights: a file (.safetensors, or a state_dict in .pt, .pth or .ckpt), or a folder that "
        "smp's save_pretrained or kdsearch has written; none: train a teacher",
    )
    train: TrainConfig = Field(default_factory=TrainConfig, description="training of a teacher without a checkpoint")
    cache: Literal["off", "logits", "taps", "auto"] = Field(
        "off",
        description="source of the teacher's maps: off: a forward pass at every step; logits, or taps (all that the "
        "terms of the space read): maps of whole, un-jittered images, written once and cropped with each view; "
        "auto: taps or logits if they fit into a quarter of the free disk",
    )
    cache_format: Literal["fp16", "uint8"] = Field(
        "fp16",
        description="number format of cached maps; uint8: 256 levels between minimum and maximum of each channel",
    )
    cache_top_k: NonNegativeInt = Field(
        0,
        description="largest logits cached per pixel, in fp16; the others share the remaining probability; 0: all",
    )

    @model_validator(mode="after")
    def _cache_options_need_a_cache(self) -> Self:
        if self.cache == "off" and (self.cache_format != "fp16" or self.cache_top_k):
            raise ValueError(
                "cache_format and cache_top_k have no effect with cache off; set cache to auto, or leave them out"
            )
        return self


class CLNetTeacher(CLNetConfig, TeacherFields):
    """CLNet as a teacher; the published one has two encoders (`shared_encoder: false`)."""

    def network(self) -> CLNetConfig:
        return CLNetConfig(**self.model_dump(include=set(CLNetConfig.model_fields)))


class SmpTeacher(SmpConfig, TeacherFields):
    """A segmentation_models_pytorch network as a teacher."""

    def network(self) -> SmpConfig:
        return SmpConfig(**self.model_dump(include=set(SmpConfig.model_fields)))


class TwoBranchTeacher(TwoBranchConfig, TeacherFields):
    """Two branches as a teacher. All three fusions are trained at once, so `fuse` may be searched."""

    def network(self) -> TwoBranchConfig:
        return TwoBranchConfig(**self.model_dump(include=set(TwoBranchConfig.model_fields)))


AnyNetwork = CLNetConfig | SmpConfig | TwoBranchConfig
NetworkConfig = Annotated[AnyNetwork, Field(discriminator="arch")]
TeacherConfig = Annotated[CLNetTeacher | SmpTeacher | TwoBranchTeacher, Field(discriminator="arch")]


def without_weights(config: AnyNetwork) -> AnyNetwork:
    """The network alone, without the settings of a teacher and without the source of its initial weights."""
    if isinstance(config, CLNetTeacher | SmpTeacher | TwoBranchTeacher):
        config = config.network()
    if isinstance(config, TwoBranchConfig):
        branches = {"cnn": config.cnn, "transformer": config.transformer}
        return config.model_copy(update={name: without_weights(branch) for name, branch in branches.items()})
    return config.model_copy(update={"encoder_weights": None})


def network_name(config: AnyNetwork) -> str:
    """The name of a network in tables and messages: `fpn mobilenet_v2`, `clnet mit_b0 w32`, `two_branch a+b`."""
    return _name(config.arch, config.encoder, config.width if isinstance(config, CLNetConfig) else None)


def network_name_of(settings: Mapping[str, Any], prefix: str = "student") -> str:
    """`network_name` from flat settings by dotted name, such as `student.arch`, as MLflow stores them."""
    names = [name for name in settings if name.startswith(f"{prefix}.") and name.endswith(".encoder")]
    arch = settings.get(f"{prefix}.arch", "")
    width = settings.get(f"{prefix}.width") if arch == "clnet" else None
    return _name(arch, "+".join(str(settings[name]) for name in names), width)


def _name(arch: str, encoder: str, width: Any) -> str:
    return " ".join(filter(None, (arch, encoder, f"w{width}" if width else "")))
