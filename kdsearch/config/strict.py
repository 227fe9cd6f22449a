"""Base of every configuration model; errors of nested models keep their location."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from kdsearch.errors import did_you_mean

T = TypeVar("T")
Listed = Annotated[T, BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]
"""A tuple that is written as a list. Its items stay strict: text is never read as a number."""


class Strict(BaseModel):
    """Base of every configuration: unknown keys are errors, instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _name_the_nearest_key(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(value)
        except ValidationError as error:
            details = [_with_nearest_key(detail, list(cls.model_fields)) for detail in error.errors()]
            raise ValidationError.from_exception_data(cls.__name__, list(line_errors(details))) from None


def line_errors(details: list[ErrorDetails], prefix: tuple[int | str, ...] = ()) -> Iterator[InitErrorDetails]:
    """The same errors, with `prefix` before their location, as input of a new `ValidationError`."""
    for detail in details:
        # A custom error, because pydantic formats its own kinds with its own texts.
        error = PydanticCustomError(
            detail["type"],
            "{message}",
            {**detail.get("ctx", {}), "message": detail["msg"]},
        )
        yield InitErrorDetails(type=error, loc=(*prefix, *detail["loc"]), input=detail["input"])


def _with_nearest_key(detail: ErrorDetails, known: list[str]) -> ErrorDetails:
    if detail["type"] == "extra_forbidden" and len(detail["loc"]) == 1:
        detail["msg"] = f"unknown key.{did_you_mean(str(detail['loc'][0]), known)}"
    return detail
