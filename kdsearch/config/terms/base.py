"""Settings that every distillation term has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat

from kdsearch.config.strict import Strict


class TermConfig(Strict):
    """Base of the settings of every distillation term.

    Contract
    --------

    The settings of a term are a subclass with one field per hyper-parameter. Every field has a default and a
    description that states meaning, unit, published value and useful range. `TermConfig()` is valid: it is the first
    configuration that a search tries.

    Validation
    ----------

    A `model_validator` raises `ValueError`, with the remedy, for combinations of fields that cannot work, and calls
    `refuse_changed` for fields that have no effect in a mode. The error names the file and line of the search space.

    Imports
    -------

    Settings import neither torch nor `kdsearch.distill`: loading a search space stays cheap.
    """

    weight: PositiveFloat = Field(1.0, description="factor of the mean-normalised term in the total loss")
    warmup_epochs: NonNegativeInt = Field(0, description="epochs before the term counts")
    decay: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description="share of the training, at its end, over which the weight falls linearly to 0; usual values 0 and "
        "0.2",
    )

    def refuse_changed(self, fields: Iterable[str], where: str) -> None:
        """Raise `ValueError` for a field that differs from its default although it has no effect `where`."""
        for field in fields:
            if getattr(self, field) != type(self).model_fields[field].default:
                raise ValueError(f"'{field}' has no effect {where}")

    def weight_at(self, epoch: int, epochs: int) -> float:
        """The weight in an epoch, counted from 0, of a training of `epochs`."""
        if epoch < self.warmup_epochs:
            return 0.0
        return self.weight * min(1.0, (epochs - epoch) / (self.decay * epochs)) if self.decay else self.weight
