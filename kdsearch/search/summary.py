"""`summary.json` of a run folder: one model that writes it and that every reader uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from kdsearch.config.metrics import COSTS, main_cost
from kdsearch.errors import UserError
from kdsearch.io.atomic import write_json
from kdsearch.io.run_folder import RunFolder

LARGEST = 64 * 2**20
"""Bytes of a `summary.json` that is read; a study of thousands of trials writes some hundred thousand."""


class FrontierPoint(BaseModel):
    """One member of the frontier. What repeats and controls do not say (yet) is None."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    trial: str
    miou: float
    gflops: float
    params_m: float
    latency_ms: float | None = None
    seeds: int | None = None
    miou_mean: float | None = None
    miou_std: float | None = None
    control_miou_mean: float | None = None
    gain: float | None = None
    gain_std: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    p_frontier: float | None = None
    gain_of_class: dict[str, float] = Field(default_factory=dict)
    student: str | None = None
    params: dict[str, Any] = Field(default_factory=dict)

    @field_validator("trial")
    @classmethod
    def _is_an_id(cls, trial: str) -> str:
        RunFolder(Path("run")).student(trial)  # a name from a file becomes part of a path
        return trial

    def value(self, metric: str) -> float | None:
        """A metric by name; None where the study did not measure it."""
        value = getattr(self, metric, None)
        return None if value is None else float(value)


class StudySummary(BaseModel):
    """What a study found so far. Fields that older versions did not write have defaults, so their files stay readable.

    `searched` of the `asked` trials of the search are over. `facts` of the run, such as the store, the versions of
    packages and the latencies, are fields of their own.
    """

    model_config = ConfigDict(extra="allow")

    kdsearch: str = "of an unknown version"
    space: str
    status: Literal["running", "done", "interrupted", "failed"] = "running"
    objectives: dict[str, str] = Field(default_factory=lambda: {"miou": "max", "gflops": "min"})
    trials: dict[str, int] = Field(default_factory=dict)
    searched: int | None = None
    asked: int | None = None
    hypervolume: float = 0.0
    stopping: dict[str, Any] | None = None
    teacher_miou: float | None = None
    store: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    reference: dict[str, float] | None = None
    latency: dict[str, Any] | None = None
    frontier: list[FrontierPoint] = Field(default_factory=list)

    @property
    def main_cost(self) -> str:
        """The cost that the frontier is drawn against."""
        return main_cost(self.objectives)

    @property
    def best_miou(self) -> float | None:
        return max((point.miou for point in self.frontier), default=None)

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all. JSON never holds NaN: such numbers are refused by the model."""
        write_json(path, self.model_dump(mode="json", exclude_none=False))

    @classmethod
    def read(cls, path: Path) -> StudySummary:
        """The summary in `path`. Raises `UserError` where there is none, or it is damaged or of another program."""
        try:
            if path.stat().st_size > LARGEST:
                raise UserError(f"{path} is larger than {LARGEST >> 20} MB; no study writes that.")
            content = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError(f"{path.parent} is not a run folder: it has no {path.name}.") from error
        except UserError:
            raise
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is damaged ({error}); `--resume` the study to write it again.") from error
        try:
            summary = cls.model_validate(content)
            main = summary.main_cost
            for point in summary.frontier:
                if main in COSTS and point.value(main) is None:
                    raise ValueError(f"{point.trial} has no {main}")
        except (ValidationError, ValueError) as error:
            reason = _first_problem(error)
            raise UserError(
                f"{path} is no summary of a study ({reason}); `--resume` the study to write it again."
            ) from error
        return summary

    @classmethod
    def read_or_empty(cls, path: Path, space: str) -> StudySummary:
        """`read`, or for a study that has not written its summary yet an empty one of status `running`."""
        return cls.read(path) if path.exists() else cls(space=space)


def _first_problem(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)
