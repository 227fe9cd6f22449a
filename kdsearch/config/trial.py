"""What one trial is: data, teacher, student, distillation terms and training, typed and validated. No torch here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from kdsearch.config.strict import Listed, Strict, line_errors
from kdsearch.config.terms import term_configs
from kdsearch.errors import did_you_mean
from kdsearch.io.secrets import refuse_passwords

Size = Listed[tuple[PositiveInt, PositiveInt]]
Scalar = bool | int | float | str


def _absolute(path: str) -> str:
    """Local paths as absolute ones: workers run in folders of their own. A URI must hold no password."""
    refuse_passwords([path])
    return path if path == "imagenet" or "://" in path else os.path.abspath(os.path.expanduser(path))


FilePath = Annotated[str, AfterValidator(_absolute)]


class Augment(Strict):
    """Random views of the training images."""

    scale: Listed[tuple[PositiveFloat, PositiveFloat]] = Field((0.5, 2.0), description="range of the random zoom")
    flip: Annotated[float, Field(ge=0, le=1)] = Field(0.5, description="probability of a horizontal flip")
    jitter: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5,
        description="strength of brightness, contrast and saturation jitter on RGB; brightness only on thermal",
    )
    motion: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.08,
        description="with frames 'views': how far apart two views of an image lie, as a share of the view; "
        "zoom and rotation (radians) differ by as much",
    )


class DataConfig(Strict):
    """The data set, and the size at which it is stored, trained and evaluated."""

    name: str = Field(description="reader: mfnet, scenes, ...")
    path: FilePath | None = Field(None, description="folder of the data set; built-in sets have none")
    size: Size = Field(description="height and width in pixels of stored images; evaluation size")
    crop: Size | None = Field(None, description="height and width of the training view; size when not given")
    options: dict[str, Scalar] = Field(default_factory=dict, description="keyword arguments of the reader")
    augment: Augment = Augment()
    frames: Literal["auto", "video", "views"] = Field(
        "auto",
        description="what terms that need video read: the next frame of a video set, or a second view of the same "
        "image, with exact flow; auto: video where the data set is one",
    )
    consistency: bool = Field(
        False, description="report val/temporal_consistency; needs a video set, and validates on its next frames too"
    )


class TrainConfig(Strict):
    """How a network is trained. The poly learning-rate schedule always spans all `epochs`."""

    epochs: PositiveInt = 200
    batch_size: PositiveInt = Field(8, description="images a step, over all ranks of the trial")
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: PositiveFloat = 6e-5
    weight_decay: NonNegativeFloat = 1e-2
    poly_power: PositiveFloat = 0.9
    precision: Literal["fp32", "bf16"] = "fp32"
    class_weights: Literal["none", "enet"] = Field(
        "none", description="enet: 1/ln(1.02 + class frequency) in the task loss (ENet, 2016)"
    )
    detail_weight: NonNegativeFloat = Field(
        1.0, description="weight of the supervised boundary and binary losses, for networks with detail heads"
    )
    aux_weight: NonNegativeFloat = Field(
        0.0, description="weight of the cross-entropy of an auxiliary FCN head on tap c3, in training alone; usual 0.4"
    )
    edge_width: Literal[3, 5, 7] = Field(5, description="width in pixels of the boundary label")
    terms_grad_clip: PositiveFloat = Field(15.0, description="gradient-norm limit of the terms' own parameters")
    seed: NonNegativeInt = 0


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
        description="mean of the probabilities; a learned gate for each pixel; or the branch of lower entropy",
    )

    @property
    def encoder(self) -> str:
        return f"{self.cnn.encoder}+{self.transformer.encoder}"


class TeacherFields(Strict):
    """What a teacher has beside its network."""

    checkpoint: FilePath | None = Field(
        None,
        description="trained weights: a file (.safetensors, or a state_dict in .pt or .pth), or a folder that smp's "
        "save_pretrained or kdsearch has written; none: train one",
    )
    train: TrainConfig = Field(default_factory=TrainConfig, description="how it is trained when it has no checkpoint")
    cache: Literal["off", "logits", "taps", "auto"] = Field(
        "off",
        description="where students read the teacher's maps: off: asked at every step; logits, or taps (all that the "
        "terms of the space read): from its maps of whole, un-jittered images, written once and cropped with each "
        "view; auto: taps or logits where they fit a quarter of the free disk",
    )
    cache_format: Literal["fp16", "uint8"] = Field(
        "fp16", description="numbers of cached maps; uint8: 256 levels between the least and greatest of each channel"
    )
    cache_top_k: NonNegativeInt = Field(
        0,
        description="cached logits a pixel, the largest, in fp16; the others share what probability is left; 0: all",
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
    """The network alone: without what a teacher has beside it, and without where its first weights come from."""
    if isinstance(config, CLNetTeacher | SmpTeacher | TwoBranchTeacher):
        config = config.network()
    if isinstance(config, TwoBranchConfig):
        branches = {"cnn": config.cnn, "transformer": config.transformer}
        return config.model_copy(update={name: without_weights(branch) for name, branch in branches.items()})
    return config.model_copy(update={"encoder_weights": None})


class TermConfig(Strict):
    """Base of the hyper-parameters of every distillation term."""

    weight: PositiveFloat = Field(1.0, description="factor of the mean-normalised term in the total loss")
    warmup_epochs: NonNegativeInt = Field(0, description="epochs before the term counts")
    decay: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="share of the training, at its end, over which the weight falls linearly to 0; usual 0 or 0.2"
    )

    def refuse_changed(self, fields: Iterable[str], where: str) -> None:
        """Raise `ValueError` for a field that was changed from its default although it has no effect `where`."""
        for field in fields:
            if getattr(self, field) != type(self).model_fields[field].default:
                raise ValueError(f"'{field}' has no effect {where}")

    def weight_at(self, epoch: int, epochs: int) -> float:
        """The weight in an epoch, counted from 0, of a training of `epochs`."""
        if epoch < self.warmup_epochs:
            return 0.0
        return self.weight * min(1.0, (epochs - epoch) / (self.decay * epochs)) if self.decay else self.weight


class TrialConfig(Strict):
    """One trial. `distill` maps a term's name to its hyper-parameters; each is validated by that term's `Config`."""

    data: DataConfig
    teacher: TeacherConfig | None = Field(None, description="none: the student trains alone")
    student: NetworkConfig
    distill: dict[str, SerializeAsAny[TermConfig]] = Field(
        default_factory=dict, description="terms of the loss beside the task loss, by name; none: plain training"
    )
    train: TrainConfig = TrainConfig()

    @field_validator("distill", mode="before")
    @classmethod
    def _read_terms(cls, value: Any) -> Any:
        return _read_terms(value) if isinstance(value, Mapping) and value else value

    @field_validator("distill")
    @classmethod
    def _need_a_teacher(cls, value: dict[str, TermConfig], info: ValidationInfo) -> dict[str, TermConfig]:
        if value and info.data.get("teacher", ...) is None:
            raise ValueError("distillation needs a teacher: add a `teacher` section, or remove the terms")
        return value


def _read_terms(terms: Mapping[str, Any]) -> dict[str, TermConfig]:
    """Each term's hyper-parameters as that term's own `Config`; all errors of all terms in one `ValidationError`."""
    known = term_configs()
    read: dict[str, TermConfig] = {}
    errors: list[InitErrorDetails] = []
    for name, value in terms.items():
        if name not in known:
            message = f"unknown term.{did_you_mean(name, list(known))}"
            unknown = PydanticCustomError("unknown_term", "{message}", {"message": message})
            errors.append(InitErrorDetails(type=unknown, loc=(name,), input=value))
        elif isinstance(value, known[name]):
            read[name] = value
        else:
            try:
                read[name] = known[name].model_validate(value, strict=True)
            except ValidationError as error:
                errors.extend(line_errors(error.errors(), prefix=(name,)))
    if errors:
        raise ValidationError.from_exception_data("distill", errors)
    return read
