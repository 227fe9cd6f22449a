"""Confirmation of the frontier: repeats with other seeds, and controls that measure the gain of distillation.

The repeats of a frontier member are its configuration with other seeds; the control of a repeat is the same student
with the same training and seed, without teacher and terms. The mIoU of the search itself enters no number here: the
member was selected for it, so it is biased upwards.

Repeats and controls are looked up by configuration, not by the member that they were trained for: members with the same
student and training share their controls, and a member that is not distilled is its own control.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdsearch.config.search import ConfirmConfig
from kdsearch.config.space.flatten import trial_key
from kdsearch.config.trial import TrialConfig
from kdsearch.search.pareto import Costs, costs

if TYPE_CHECKING:
    from kdsearch.search.trial_record import TrialRecord

NAN = float("nan")
DRAWS = 20_000
"""Draws per `p_frontier`: its standard error is below 0.004."""


@dataclass(frozen=True)
class Confirmation:
    """One frontier member under other seeds. Numbers that the trainings so far do not give are NaN.

    `seeds` counts its complete repeats; `miou_mean` and `miou_std` (n - 1) are over them, `control_miou_mean` over its
    complete controls. `gain` is the mean over seeds of repeat minus control, `gain_std` the spread of these
    differences, `gain_low` to `gain_high` their 95 % interval by Student's t (from two seeds on). A member that is not
    distilled has no gain. `gain_of_class` is the mean difference in IoU by class. For `p_frontier` see that function.
    """

    seeds: int = 0
    miou_mean: float = NAN
    miou_std: float = NAN
    control_miou_mean: float = NAN
    gain: float = NAN
    gain_std: float = NAN
    gain_low: float = NAN
    gain_high: float = NAN
    p_frontier: float = NAN
    gain_of_class: Mapping[str, float] = field(default_factory=dict)

    def numbers(self) -> dict[str, float]:
        """The scalar fields by name."""
        return {name: value for name, value in vars(self).items() if name != "gain_of_class"}


def repeats(config: TrialConfig, confirm: ConfirmConfig) -> Iterator[tuple[TrialConfig, TrialConfig]]:
    """Each repeat of a frontier member's `config`, with its control.

    Results with cached teacher maps have to hold without them, so repeats run the teacher unless `confirm.cache`.
    """
    teacher = config.teacher if config.distill else None
    if teacher is not None and not confirm.cache:
        teacher = teacher.model_copy(update={"cache": "off", "cache_format": "fp16", "cache_top_k": 0})
    for seed in range(1, confirm.seeds + 1):
        train = config.train.model_copy(update={"seed": config.train.seed + seed})
        repeat = config.model_copy(update={"train": train, "teacher": teacher})
        yield repeat, repeat.model_copy(update={"teacher": None, "distill": {}})


def control_to_show(config: TrialConfig, records: Sequence[TrialRecord], confirm: ConfirmConfig) -> TrialRecord | None:
    """The complete control of a frontier member's `config` with the first seed: its weights are kept."""
    controls = {trial_key(r.config): r for r in records if r.stage == "control" and r.state == "COMPLETE"}
    if not controls:
        return None
    keys = (trial_key(control) for _, control in repeats(config, confirm))
    return next((controls[key] for key in keys if key in controls), None)


def confirmations(
    members: Sequence[TrialRecord],
    records: Sequence[TrialRecord],
    confirm: ConfirmConfig,
    objectives: Mapping[Any, str],
) -> dict[str, Confirmation]:
    """The confirmation of each of `members` by its id, from the repeats and controls among `records`."""
    trained = {
        trial_key(record.config): record.metrics
        for record in records
        if record.stage in ("confirm", "control") and record.state == "COMPLETE"
    }
    mious: list[list[float]] = []
    found = []
    for member in members:
        pairs = [
            (trained.get(trial_key(repeat)), trained.get(trial_key(control)))
            for repeat, control in repeats(member.config, confirm)
        ]
        mious.append([repeat["val/miou"] for repeat, _ in pairs if repeat is not None])
        controls = [control["val/miou"] for _, control in pairs if control is not None]
        both = [(repeat, control) for repeat, control in pairs if repeat is not None and control is not None]
        found.append((controls, both if member.config.distill else []))
    cost_names = [name for name in objectives if name != "miou"]
    costs_nm = costs([member.cost for member in members], {name: objectives[name] for name in cost_names})
    chances = p_frontier(mious, costs_nm)
    return {
        member.id: Confirmation(
            seeds=len(results),
            miou_mean=_mean(results),
            miou_std=_std(results),
            control_miou_mean=_mean(controls),
            **_gain([repeat["val/miou"] - control["val/miou"] for repeat, control in both]),
            p_frontier=chance,
            gain_of_class=_gain_of_class(both),
        )
        for member, results, (controls, both), chance in zip(members, mious, found, chances, strict=True)
    }


def p_frontier(mious: Sequence[Sequence[float]], costs_nm: Costs) -> list[float]:
    """For each candidate, the probability that no other one of equal or lower costs has a higher true mean mIoU.

    `mious` holds the results of each candidate, one per seed; `costs_nm` its costs, which are known exactly. Candidates
    without a result are not compared. A candidate that no other equals or undercuts in all costs has probability 1.

    A few seeds determine the spread of one candidate poorly, so all share one, pooled over the candidates with two
    results or more. Given the results, the true means are drawn from their posterior under flat priors: the variance
    as `s2 * df / chi2(df)`, each mean as normal around the mean of its results with that variance over their number.
    So between two candidates the difference follows Student's t. NaN where no candidate has two results.
    """
    chances = [NAN] * len(mious)
    known = [i for i, results in enumerate(mious) if len(results) > 0]
    freedom = sum(len(mious[i]) - 1 for i in known)
    if freedom == 0:
        return chances
    rng = np.random.default_rng(0)
    count_k = np.array([len(mious[i]) for i in known])
    mean_k = np.array([np.mean(mious[i]) for i in known])
    squares = sum(float(np.square(np.subtract(mious[i], mean)).sum()) for i, mean in zip(known, mean_k, strict=True))
    std_d = np.sqrt(squares / rng.chisquare(freedom, DRAWS))
    true_dk = mean_k + std_d[:, None] / np.sqrt(count_k) * rng.standard_normal((DRAWS, len(known)))
    costs_km = costs_nm[known]
    for at, i in enumerate(known):
        rival_k = (costs_km <= costs_km[at]).all(axis=1)
        beaten_d = (true_dk[:, rival_k] > true_dk[:, at, None]).any(axis=1)
        chances[i] = float(1 - beaten_d.mean())
    return chances


def _gain(differences: list[float]) -> dict[str, float]:
    mean, std, n = _mean(differences), _std(differences), len(differences)
    half = NAN
    if n >= 2:
        from scipy.stats import t

        half = float(t.ppf(0.975, n - 1)) * std / n**0.5
    return {"gain": mean, "gain_std": std, "gain_low": mean - half, "gain_high": mean + half}


def _gain_of_class(pairs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]) -> dict[str, float]:
    """Mean difference in the IoU of each class, over the seeds in which both have it."""
    names = sorted({name for repeat, _ in pairs for name in repeat if name.startswith("val/iou/")})
    gains = {}
    for name in names:
        differences: NDArray[np.float64] = np.array([r.get(name, NAN) - c.get(name, NAN) for r, c in pairs])
        if not np.isnan(differences).all():
            gains[name.removeprefix("val/iou/")] = float(np.nanmean(differences))
    return gains


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else NAN


def _std(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else NAN
