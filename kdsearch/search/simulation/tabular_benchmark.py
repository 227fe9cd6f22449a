"""A tabular benchmark: the learning curves of a finished study, interpolated for any configuration of its space."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdsearch.config.space.ranges import Choice, IntLog, Log, Range
from kdsearch.config.space.search_space import SearchSpace, flatten
from kdsearch.config.space.yaml_tree import parse_yaml
from kdsearch.config.trial import TrialConfig
from kdsearch.errors import UserError
from kdsearch.io.json_text import to_json
from kdsearch.io.targets import write_target
from kdsearch.search.trial_record import TrialRecord

Array = NDArray[np.float64]

LEAST_ROWS = 8
"""Minimum number of trials with a whole curve."""


@dataclass(frozen=True)
class TableRow:
    """A trained trial: its parameters, cost, seconds per epoch, and mIoU after each epoch."""

    params: dict[str, Any]
    cost: dict[str, float]
    seconds: float
    curve: list[float]


@dataclass(frozen=True)
class BenchmarkTable:
    """The trials of one study that were trained to their last epoch, and its space without paths."""

    space: dict[str, Any]
    rows: list[TableRow]

    def save(self, path: Path) -> None:
        rows = [to_json(vars(row)) for row in self.rows]
        write_target(path, f'{{"space": {to_json(self.space)},\n"rows": [\n' + ",\n".join(rows) + "\n]}\n")

    @classmethod
    def load(cls, path: Path) -> BenchmarkTable:
        content = json.loads(path.read_text())
        return cls(content["space"], [TableRow(**row) for row in content["rows"]])


class TabularBenchmark:
    """A `Benchmark` from a table: expected curves by a Gaussian process through its rows, noise like its residuals.

    The process has one length scale per parameter, found by marginal likelihood; a trial of another branch, which lacks
    a parameter, has the middle of its range. The process interpolates between rows and falls back to their mean far
    from them. So it lacks optima that no trial came near: compare searches on it, but do not read optima off it. Cost
    and time are those of the student in the table that differs in the fewest settings.

    `seed` draws other noise; for one seed, equal configurations have equal curves.
    """

    def __init__(self, table: BenchmarkTable, seed: int = 0) -> None:
        if len(table.rows) < LEAST_ROWS:
            raise UserError(
                f"A table needs at least {LEAST_ROWS} trials that were trained to their last epoch, found "
                f"{len(table.rows)}; run a study with more trials, or with search.stop=none."
            )
        self.space = SearchSpace(parse_yaml(json.dumps(table.space).encode(), lambda line: "table"), "table")
        self.rows, self.seed = table.rows, seed
        self.epochs = len(table.rows[0].curve)
        self._domains = {
            name: domain for name, domain in self.space.parameters().items()
            if len({str(row.params[name]) for row in self.rows if name in row.params}) > 1
        }  # fmt: skip
        self._students = [(_student(self.space.from_params(row.params).trial), row) for row in self.rows]
        self._seen: dict[str, TableRow] = {}
        curves = np.array([row.curve for row in table.rows])
        self._mean, self._spread = curves.mean(axis=0), curves.std(axis=0) + 1e-9
        self._fit((curves - self._mean) / self._spread)

    # ---- the benchmark -------------------------------------------------------------------------------------------

    def expected_curve(self, params: Mapping[str, Any]) -> Array:
        """mIoU after each epoch, without noise."""
        kernel = np.exp(-0.5 * self._distances([params], self.rows) @ self._inverse_length**2)
        curve: Array = np.clip(self._mean + self._spread * (kernel @ self._solved)[0], 0.0, 1.0)
        return curve

    def final_miou(self, trial: TrialRecord) -> float:
        """mIoU after the last epoch, without noise."""
        return float(self.expected_curve(trial.params)[-1])

    def curve(self, trial: TrialRecord) -> Array:
        """mIoU after each epoch, with noise."""
        digest = hashlib.sha256(f"{self.seed} {sorted(trial.params.items())}".encode()).digest()
        rng = np.random.default_rng(list(digest))
        noise = self._residuals[rng.integers(len(self._residuals))] * rng.choice((-1.0, 1.0))
        curve: Array = np.clip(self.expected_curve(trial.params) + noise, 0.0, 1.0)
        return curve

    def cost(self, config: TrialConfig) -> dict[str, float]:
        return self._nearest_student(config).cost

    def seconds(self, trial: TrialRecord) -> float:
        return self._nearest_student(trial.config).seconds

    def leave_one_out(self) -> Array:
        """mIoU after the last epoch of each row `[n]`, predicted from the other rows."""
        predicted: Array = self._mean[-1] + self._spread[-1] * self._left_out
        return predicted

    # ---- the Gaussian process ------------------------------------------------------------------------------------

    def _fit(self, values_ne: Array) -> None:
        from scipy.optimize import minimize

        squared_nnp = self._distances([row.params for row in self.rows], self.rows)
        n, epochs = values_ne.shape

        def covariance(theta: Array) -> Array:
            kernel = np.exp(-0.5 * squared_nnp @ np.exp(-2 * theta[:-1]))
            noisy: Array = kernel + np.exp(2 * theta[-1]) * np.eye(n)
            return noisy

        def cost(theta: Array) -> float:
            factor = np.linalg.cholesky(covariance(theta))
            white = np.linalg.solve(factor, values_ne)
            # Priors: length scales around the whole range, noise around a third of the spread.
            prior = 0.5 * float(np.sum(theta[:-1] ** 2) + (theta[-1] + 1.1) ** 2)
            return float(0.5 * np.sum(white**2) / epochs + np.sum(np.log(np.diag(factor)))) + prior

        bounds = [(-3.0, 3.0)] * len(self._domains) + [(-3.0, 0.5)]
        theta = minimize(cost, np.array([0.0] * len(self._domains) + [-1.1]), bounds=bounds).x
        inverse = np.linalg.inv(covariance(theta))
        self._inverse_length = np.exp(-theta[:-1])
        self._solved = inverse @ values_ne
        noise = math.exp(2 * theta[-1])
        residuals = noise * self._solved
        # A process that follows its rows closely leaves residuals smaller than the noise that it estimated.
        residuals *= math.sqrt(noise / max(float(np.mean(residuals**2)), 1e-12))
        self._residuals = residuals * self._spread
        self._left_out = values_ne[:, -1] - self._solved[:, -1] / np.diag(inverse)

    def _distances(self, params: Sequence[Mapping[str, Any]], rows: Sequence[TableRow]) -> Array:
        """Squared distances `[n, m, p]` in each parameter, at most 1."""
        result = np.zeros((len(params), len(rows), len(self._domains)))
        for p, (name, domain) in enumerate(self._domains.items()):
            right = [_scaled(domain, row.params.get(name)) for row in rows]
            for i, each in enumerate(params):
                left = _scaled(domain, each.get(name))
                result[i, :, p] = [_squared(left, b) for b in right]
        return result

    def _nearest_student(self, config: TrialConfig) -> TableRow:
        mine = _student(config)
        key = json.dumps(mine)
        if key not in self._seen:
            self._seen[key] = min(self._students, key=lambda pair: len(mine.items() ^ pair[0].items()))[1]
        return self._seen[key]


def _student(config: TrialConfig) -> dict[str, str]:
    return {name: str(value) for name, value in flatten(config).items() if name.startswith("student.")}


def _scaled(domain: Range, value: Any) -> float | str:
    """A number scaled to [0, 1] by its range, 0.5 if the trial has none; a category as it is, "" for none."""
    if isinstance(domain, Choice):
        return "" if value is None else str(value)
    if value is None:
        return 0.5
    if isinstance(domain, Log | IntLog):
        return math.log(value / domain.low) / math.log(domain.high / domain.low)
    return float((value - domain.low) / (domain.high - domain.low))


def _squared(a: float | str, b: float | str) -> float:
    """Squared distance. Categories are the corners of a simplex, none its origin, so all are distances in a space."""
    if isinstance(a, str) or isinstance(b, str):
        return float(a != b) * (1.0 if a and b else 0.5)
    return (a - b) ** 2
