"""Configuration of one trial: data, teacher, student, distillation terms and training, typed and validated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, SerializeAsAny, ValidationError, ValidationInfo, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from kdsearch.config.data import DataConfig
from kdsearch.config.networks import NetworkConfig, TeacherConfig
from kdsearch.config.strict import Strict, line_errors
from kdsearch.config.terms.base import TermConfig
from kdsearch.config.terms.registry import term_configs
from kdsearch.config.training import TrainConfig
from kdsearch.errors import did_you_mean


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
