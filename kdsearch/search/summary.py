"""`summary.json` of a run folder: one model that writes it and that every reader uses.

Plain dataclasses, so that listing runs loads no library for validation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, cast, get_args

from kdsearch.config.metrics import METRICS, main_cost
from kdsearch.errors import UserError
from kdsearch.io.atomic import write_json
from kdsearch.io.json_text import with_nulls
from kdsearch.io.run_folder import RunFolder
from kdsearch.search.callbacks import Status

PACKAGES = (
    "torch", "segmentation-models-pytorch", "timm", "ray", "optuna", "mlflow", "pyarrow", "safetensors",
)  # fmt: skip
"""Packages whose versions are part of a summary: results depend on them."""
LARGEST = 64 * 2**20
"""Bytes of a `summary.json` that is read; a study of thousands of trials writes some hundred thousand."""


@dataclass(frozen=True)
class FrontierPoint:
    """One member of the frontier: its results, its costs, and the numbers of its repeats and controls.

    A number that is not known (yet) is None; a NaN becomes None. Raises `ValueError` for other values than a study
    writes.
    """

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
    gain_of_class: Mapping[str, float] = field(default_factory=dict)
    student: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self, "trial", str)
        RunFolder(Path("run")).student(self.trial)  # a name from a file becomes part of a path
        for name in ("miou", "gflops", "params_m"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        for name in _OPTIONAL_NUMBERS:
            value = getattr(self, name)
            known = value is not None and not (isinstance(value, float) and math.isnan(value))
            object.__setattr__(self, name, _number(name, value) if known else None)
        if self.seeds is not None:
            object.__setattr__(self, "seeds", int(self.seeds))
        for name in ("gain_of_class", "params"):
            _check(self, name, Mapping)
        gains = {name: gain for name, gain in self.gain_of_class.items() if gain is not None}
        object.__setattr__(self, "gain_of_class", {name: _number(name, gain) for name, gain in gains.items()})

    def value(self, metric: str) -> float | None:
        """A metric of the table `METRICS` by name; None where the study did not measure it."""
        assert metric in METRICS
        return cast("float | None", getattr(self, metric))


_OPTIONAL_NUMBERS = (
    "latency_ms", "seeds", "miou_mean", "miou_std", "control_miou_mean", "gain", "gain_std", "gain_low", "gain_high",
    "p_frontier",
)  # fmt: skip


@dataclass(frozen=True)
class StudySummary:
    """The results of a study so far. Fields that older versions did not write have defaults.

    `searched` trials of the search are over, of `asked`. `stopping` is the audit of early stopping, `reference` the
    corner of the hypervolume, `latency` the measurement before training (see `LatencyReport`), `tracking` the calls
    that MLflow lacks at the end, None where it has all. Raises `ValueError` for other values than a study writes.
    """

    space: str
    kdsearch: str = "of an unknown version"
    status: Status = "running"
    objectives: Mapping[str, str] = field(default_factory=lambda: {"miou": "max", "gflops": "min"})
    trials: Mapping[str, int] = field(default_factory=dict)
    searched: int | None = None
    asked: int | None = None
    hypervolume: float = 0.0
    stopping: Mapping[str, Any] | None = None
    teacher_miou: float | None = None
    store: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    reference: Mapping[str, float] | None = None
    latency: Mapping[str, Any] | None = None
    tracking: Mapping[str, Any] | None = None
    frontier: Sequence[FrontierPoint] = ()

    def __post_init__(self) -> None:
        for name in ("space", "kdsearch"):
            _check(self, name, str)
        if self.status not in get_args(Status):
            raise ValueError(f"status: {self.status!r} is none of {', '.join(get_args(Status))}")
        for name in ("objectives", "trials", "versions"):
            _check(self, name, Mapping)
        for name in ("stopping", "reference", "latency", "tracking"):
            _check(self, name, Mapping | None)
        for name in ("searched", "asked"):
            _check(self, name, int | None)
        _check(self, "store", str | None)
        _check(self, "hypervolume", int | float)
        _check(self, "teacher_miou", int | float | None)
        for point in self.frontier:
            if point.value(self.main_cost) is None:
                raise ValueError(f"frontier: {point.trial} has no {self.main_cost}")

    @property
    def main_cost(self) -> str:
        """The cost that the frontier is drawn against."""
        return main_cost(self.objectives)

    @property
    def best_miou(self) -> float | None:
        return max((point.miou for point in self.frontier), default=None)

    def point(self, trial_id: str) -> FrontierPoint | None:
        """The member of the frontier with this id."""
        return next((point for point in self.frontier if point.trial == trial_id), None)

    def to_dict(self) -> dict[str, Any]:
        """The content of the file; a number that is not finite becomes null, since JSON has none."""
        return cast("dict[str, Any]", with_nulls(asdict(self)))

    @classmethod
    def from_dict(cls, content: Any) -> StudySummary:
        """The summary in the content of a file; keys of later versions are ignored. Raises `ValueError`."""
        values = _known(cls, content)
        points = values.get("frontier")
        if not isinstance(points, list):
            raise ValueError("frontier: it is missing, or is no list")
        return cls(**{**values, "frontier": [FrontierPoint(**_known(FrontierPoint, point)) for point in points]})

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> StudySummary:
        """The summary in `path`. Raises `OSError`, and `ValueError` with the bare reason; see `read`."""
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it is larger than {LARGEST >> 20} MB")
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            raise ValueError("it is not valid JSON") from None
        return cls.from_dict(content)

    @classmethod
    def read(cls, path: Path) -> StudySummary:
        """The summary in `path`. Raises `UserError` where there is none, or it is damaged or of another program."""
        try:
            return cls.load(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError(f"{path.parent} is not a run folder: it has no {path.name}.") from error
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}).") from error
        except ValueError as error:
            reason = str(error).rstrip(".")
            raise UserError(
                f"{path} is no summary of a study ({reason}); continue the study with --resume to write it again."
            ) from error

    @classmethod
    def read_or_empty(cls, path: Path, space: str) -> StudySummary:
        """`read`, or for a study that has not written its summary yet an empty one of status `running`."""
        return cls.read(path) if path.exists() else cls(space=space)


def versions() -> dict[str, str]:
    """The versions of kdsearch, Python and `PACKAGES`; plug-ins by the names of their modules."""
    import platform
    from importlib import metadata

    from kdsearch import plugins
    from kdsearch.version import __version__

    known = {"kdsearch": __version__, "python": platform.python_version()}
    known |= {name: metadata.version(name) for name in PACKAGES}
    modules = ", ".join(module.__name__ for module in plugins.modules(plugins.named()))
    return known | ({"plug-ins": modules} if modules else {})


def _known(kind: type[FrontierPoint] | type[StudySummary], content: Any) -> dict[str, Any]:
    """The fields of `kind` in a JSON object. Raises `ValueError` where it is none, or a field is missing."""
    if not isinstance(content, Mapping):
        raise ValueError("not a JSON object")
    values = {each.name: content[each.name] for each in fields(kind) if each.name in content}
    required = ("space",) if kind is StudySummary else ("trial", "miou", "gflops", "params_m")
    for name in required:
        if values.get(name) is None:
            raise ValueError(f"{name}: it is missing")
    return values


def _check(owner: object, name: str, kind: Any) -> None:
    value = getattr(owner, name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{name}: {value!r:.80} is of the wrong type")


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name}: {value!r:.80} is not a number")
    return value
