"""The samplers of a search, by name, each with its own options."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveInt,
    Tag,
    ValidationError,
    model_validator,
)

from kdsearch.config.named import PLUGIN_TAG, PluginName
from kdsearch.config.strict import Strict, line_errors

Probability = Annotated[float, Field(ge=0, le=1)]


class TPEConfig(Strict):
    """Tree-structured Parzen estimator; with several objectives the multi-objective form (Ozaki et al., 2022)."""

    name: Literal["tpe"] = "tpe"
    n_startup_trials: NonNegativeInt = Field(10, description="random trials before the first that the model proposes")
    n_ei_candidates: PositiveInt = Field(24, description="candidates per draw")
    multivariate: bool = Field(False, description="model the parameters that all trials have jointly, not one by one")
    group: bool = Field(False, description="multivariate within each branch of the space; needs multivariate")
    constant_liar: bool = Field(True, description="penalise candidates near running trials")
    history: Annotated[int, Field(ge=50)] = Field(
        400, description="trials in the model: one quarter the best, the others the latest; bounds the time per draw"
    )

    @model_validator(mode="after")
    def _groups_are_multivariate(self) -> Self:
        if self.group and not self.multivariate:
            raise ValueError("group has no effect without multivariate; set multivariate to true as well")
        return self


class NSGA2Config(Strict):
    """Genetic algorithm with non-dominated sorting (Deb et al., 2002)."""

    name: Literal["nsga2"]
    population_size: Annotated[int, Field(ge=2)] = Field(
        50, description="trials per generation; the first generation is random"
    )
    mutation_prob: Probability | None = Field(None, description="none: one mutated parameter per child on average")
    crossover_prob: Probability = 0.9
    swapping_prob: Probability = 0.5


class GPConfig(Strict):
    """Gaussian process; with several objectives by expected hypervolume improvement.

    It models the parameters that all trials have; those inside branches are drawn at random.
    """

    name: Literal["gp"]
    n_startup_trials: NonNegativeInt = Field(10, description="random trials before the first that the model proposes")
    deterministic_objective: bool = Field(False, description="repeated trials give the same mIoU")
    history: Annotated[int, Field(ge=50)] = Field(
        150, description="trials in the model: one quarter the best, the others the latest; time grows with its cube"
    )


class RandomConfig(Strict):
    """Independent draws."""

    name: Literal["random"]


class QMCConfig(Strict):
    """Quasi-random sequence, more even than random draws; parameters inside branches are drawn at random."""

    name: Literal["qmc"]
    qmc_type: Literal["sobol", "halton"] = "sobol"
    scramble: bool = Field(False, description="shuffle the sequence by search.seed")


SAMPLER = PluginName("sampler", ("tpe", "nsga2", "gp", "random", "qmc"), "SAMPLERS")
"""Names of samplers: built-in ones, and the keys of `SAMPLERS` of plug-ins."""


class PluginSamplerConfig(Strict):
    """A sampler that a plug-in names in `SAMPLERS`, with its options.

    An entry of `SAMPLERS` is an Optuna sampler class, its import path `package.module:Class`, or a class with a
    pydantic model `Config`. The options are keyword arguments of the class; `Config`, if present, validates them here.
    """

    name: Annotated[str, PluginName("sampler", (), "SAMPLERS")] = Field(description="key of SAMPLERS in a plug-in")
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the sampler")

    @model_validator(mode="after")
    def _options_are_valid(self) -> Self:
        config = getattr(SAMPLER.plugins()[self.name], "Config", None)
        if isinstance(config, type) and issubclass(config, BaseModel):
            try:
                config.model_validate(self.options)
            except ValidationError as error:
                errors = list(line_errors(error.errors(), prefix=("options",)))
                raise ValidationError.from_exception_data(self.name, errors) from None
        return self


BuiltInSampler = TPEConfig | NSGA2Config | GPConfig | RandomConfig | QMCConfig
AnySampler = BuiltInSampler | PluginSamplerConfig


def _named(value: Any) -> Any:
    """`tpe` as `{name: tpe}`; options without a name belong to the default sampler."""
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, dict):
        return value
    value = {"name": "tpe", **value}
    if isinstance(value["name"], str):
        SAMPLER.check(value["name"])
    return value


def _tag(value: Any) -> str:
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return name if name in SAMPLER.own else PLUGIN_TAG


_Tagged = Annotated[
    Annotated[TPEConfig, Tag("tpe")]
    | Annotated[NSGA2Config, Tag("nsga2")]
    | Annotated[GPConfig, Tag("gp")]
    | Annotated[RandomConfig, Tag("random")]
    | Annotated[QMCConfig, Tag("qmc")]
    | Annotated[PluginSamplerConfig, Tag(PLUGIN_TAG)],
    Discriminator(_tag),
]
SamplerConfig = Annotated[_Tagged, BeforeValidator(_named, json_schema_input_type=Annotated[str, SAMPLER] | _Tagged)]
