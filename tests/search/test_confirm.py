"""What is computed from repeats and controls: against hand computations, with gaps, and through a whole study."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdsearch.config.search import ConfirmConfig
from kdsearch.config.space.search_space import SearchSpace, load_space, trial_key
from kdsearch.config.trial import TrialConfig
from kdsearch.search.callbacks import StudyCallback
from kdsearch.search.confirm import Confirmation, confirmations, p_frontier, repeats
from kdsearch.search.controller import StudyController
from kdsearch.search.stopping.rung_state import RungState
from kdsearch.search.storage.study_storage import StudyStorage
from kdsearch.search.trial_record import Outcome, Stage, TrialRecord
from tests.search.conftest import SPACE, cost_of

OBJECTIVES = {"miou": "max", "gflops": "min"}


def trial(space: SearchSpace, **params: Any) -> TrialConfig:
    return space.from_params(params).trial


def member(config: TrialConfig, number: int, gflops: float) -> TrialRecord:
    return TrialRecord(
        f"t{number:04d}", "search", "COMPLETE", config, {}, {"gflops": gflops}, metrics={"val/miou": 0.9}
    )


def trained(
    config: TrialConfig, stage: Stage, miou: float, state: Outcome = "COMPLETE", of: str = "t0000", **iou: float
) -> TrialRecord:
    metrics = {"val/miou": miou} | {f"val/iou/{name}": value for name, value in iou.items()}
    return TrialRecord(f"{stage}{miou}", stage, state, config, {"of": of}, {}, metrics=metrics)


def of_seeds(config: TrialConfig, confirm: ConfirmConfig, *pairs: tuple[float, float]) -> list[TrialRecord]:
    """Repeats and controls with these mIoUs, seed by seed."""
    records = []
    for (repeat, control), (first, second) in zip(repeats(config, confirm), pairs, strict=True):
        records += [trained(repeat, "confirm", first), trained(control, "control", second)]
    return records


def known(confirmation: Confirmation) -> Mapping[str, float]:
    """The numbers that are not NaN."""
    return {name: value for name, value in confirmation.numbers().items() if not math.isnan(value)}


def test_mean_spread_and_gain_as_computed_by_hand(space: SearchSpace) -> None:
    config, confirm = trial(space, **{"student.encoder": "resnet18"}), ConfirmConfig(seeds=3)
    point = member(config, 0, 3.0)
    records = [point, *of_seeds(config, confirm, (0.50, 0.44), (0.53, 0.49), (0.56, 0.48))]
    found = confirmations([point], records, confirm, OBJECTIVES)["t0000"]
    # Differences 0.06, 0.04, 0.08: mean 0.06, spread 0.02; t(0.975, 2) is 4.30265.
    half = 4.30265 * 0.02 / math.sqrt(3)
    assert found.numbers() == pytest.approx(
        {
            "seeds": 3, "miou_mean": 0.53, "miou_std": 0.03, "control_miou_mean": 0.47, "gain": 0.06,
            "gain_std": 0.02, "gain_low": 0.06 - half, "gain_high": 0.06 + half, "p_frontier": 1.0,
        },
        rel=1e-5,
    )  # fmt: skip


def test_what_is_missing_is_nan_and_one_seed_has_no_spread(space: SearchSpace) -> None:
    config, confirm = trial(space), ConfirmConfig(seeds=2)
    point = member(config, 0, 3.0)
    (first, alone), (second, second_alone) = repeats(config, confirm)

    def look(*records: TrialRecord) -> Mapping[str, float]:
        return known(confirmations([point], [point, *records], confirm, OBJECTIVES)["t0000"])

    assert look() == {"seeds": 0}
    assert look(trained(first, "confirm", 0.5)) == {"seeds": 1, "miou_mean": 0.5}
    one = {"seeds": 1, "miou_mean": 0.5, "control_miou_mean": 0.4, "gain": pytest.approx(0.1)}
    pair = [trained(first, "confirm", 0.5), trained(alone, "control", 0.4)]
    assert look(*pair) == one
    assert look(*pair, trained(second, "confirm", 0.1, "FAIL")) == one
    # The second control counts for the controls' mean, but without its repeat for no gain.
    other = look(*pair, trained(second_alone, "control", 0.2))
    assert other == one | {"control_miou_mean": pytest.approx(0.3)}


def test_gains_of_classes_are_over_the_seeds_that_have_the_class(space: SearchSpace) -> None:
    config, confirm = trial(space), ConfirmConfig(seeds=2)
    point = member(config, 0, 3.0)
    (first, alone), (second, second_alone) = repeats(config, confirm)
    records = [
        trained(first, "confirm", 0.5, road=0.8, car=0.3, cat=0.1), trained(alone, "control", 0.4, road=0.7, car=0.5),
        trained(second, "confirm", 0.6, road=0.9), trained(second_alone, "control", 0.5, road=0.6, car=0.2),
    ]  # fmt: skip
    found = confirmations([point], records, confirm, OBJECTIVES)["t0000"]
    assert found.gain_of_class == pytest.approx({"road": 0.2, "car": -0.2})


def test_a_control_is_found_by_its_configuration_whomever_it_was_trained_for(space: SearchSpace) -> None:
    confirm = ConfirmConfig(seeds=1)
    weak, strong = (trial(space, **{"distill.kd.weight": weight}) for weight in (0.5, 5.0))
    other = trial(space, **{"distill.kd.weight": 5.0, "train.lr": 2e-3})
    (first, alone), (second, same_alone), (third, other_alone) = (
        next(repeats(c, confirm)) for c in (weak, strong, other)
    )
    assert trial_key(alone) == trial_key(same_alone) != trial_key(other_alone)
    members = [member(weak, 0, 1.0), member(strong, 1, 2.0), member(other, 2, 3.0)]
    records = [
        trained(alone, "control", 0.4, of="t0000"), trained(first, "confirm", 0.5, of="t0000"),
        trained(second, "confirm", 0.6, of="t0001"), trained(third, "confirm", 0.7, of="t0002"),
    ]  # fmt: skip
    found = confirmations(members, records, confirm, OBJECTIVES)
    assert [found[m.id].gain for m in members[:2]] == pytest.approx([0.1, 0.2])
    assert math.isnan(found["t0002"].gain), "another learning rate is another control"


def test_the_control_has_nothing_of_the_distillation_and_the_same_seed(space: SearchSpace) -> None:
    config = trial(space)
    for seed, (repeat, control) in enumerate(repeats(config, ConfirmConfig(seeds=2)), start=1):
        assert repeat.train.seed == control.train.seed == seed
        assert (control.student, control.train, control.data) == (repeat.student, repeat.train, config.data)
        assert (control.teacher, control.distill) == (None, {})
        assert repeat.distill == config.distill


def test_a_member_without_distillation_is_its_own_control_and_has_no_gain(space: SearchSpace) -> None:
    confirm = ConfirmConfig(seeds=2)
    plain = trial(space).model_copy(update={"distill": {}})
    (first, control), (second, _) = repeats(plain, confirm)
    assert trial_key(first) == trial_key(control)
    point = member(plain, 0, 3.0)
    records = [trained(first, "confirm", 0.4), trained(second, "control", 0.6)]
    found = known(confirmations([point], records, confirm, OBJECTIVES)["t0000"])
    assert set(found) == {"seeds", "miou_mean", "miou_std", "control_miou_mean", "p_frontier"}
    assert found["miou_mean"] == found["control_miou_mean"] == pytest.approx(0.5)


# ---- the probability of being on the frontier --------------------------------------------------------------------


def test_two_candidates_as_students_t_has_it() -> None:
    from scipy.stats import t

    cheap, dear = [0.50, 0.54, 0.52], [0.53, 0.55, 0.57]
    chances = p_frontier([cheap, dear], np.array([[1.0], [2.0]]))
    assert chances[0] == 1.0, "nothing is as cheap"
    # Means 0.52 and 0.55, both spreads 0.02, pooled 0.02 with 4 degrees of freedom.
    exact = t.cdf((0.55 - 0.52) / (0.02 * math.sqrt(2 / 3)), 4)
    assert chances[1] == pytest.approx(exact, abs=0.01)
    assert p_frontier([dear, cheap], np.array([[1.0], [2.0]]))[1] == pytest.approx(1 - exact, abs=0.01)
    assert p_frontier([cheap, dear], np.array([[1.0], [2.0]])) == chances, "the draws have a fixed seed"


def test_only_rivals_of_equal_or_lower_costs_count() -> None:
    low, high = [0.30, 0.31], [0.60, 0.61]
    assert p_frontier([low, high], np.array([[1.0, 5.0], [2.0, 4.0]])) == [1.0, 1.0], "neither is as cheap in both"
    better, worse = p_frontier([high, low], np.array([[1.0], [1.0]]))
    assert better > 0.98
    assert worse < 0.02
    assert better + worse == pytest.approx(1.0)


def test_candidates_without_results_do_not_compete_and_single_results_borrow_the_spread() -> None:
    costs = np.array([[1.0], [2.0], [3.0]])
    chances = p_frontier([[0.5, 0.6], [], [0.58]], costs)
    assert math.isnan(chances[1])
    assert chances[0] == 1.0
    assert 0.5 < chances[2] < 0.7, "0.03 ahead where one result has a spread of 0.07"
    assert all(math.isnan(chance) for chance in p_frontier([[0.5], [0.6], [0.7]], costs))
    assert p_frontier([], costs[:0]) == []


def test_where_miou_is_the_only_objective_all_compete(space: SearchSpace) -> None:
    confirm = ConfirmConfig(seeds=2)
    dear, cheap = (trial(space, **{"student.encoder": name}) for name in ("resnet18", "mobilenet_v2"))
    members = [member(dear, 0, 3.0), member(cheap, 1, 1.0)]
    records = [*of_seeds(dear, confirm, (0.6, 0.5), (0.61, 0.5)), *of_seeds(cheap, confirm, (0.3, 0.2), (0.31, 0.2))]
    found = confirmations(members, records, confirm, {"miou": "max"})
    assert found["t0000"].p_frontier > 0.98
    assert found["t0001"].p_frontier < 0.02


def test_probabilities_come_true_as_often_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdsearch.search.confirm.DRAWS", 500)
    rng = np.random.default_rng(5)
    said, came_true = [], []
    for _ in range(600):
        truth = rng.normal(0, 0.02, 4)
        results = [list(mean + rng.normal(0, 0.015, 3)) for mean in truth]
        said += p_frontier(results, np.arange(4.0)[:, None])
        came_true += [not (truth[:i] > truth[i]).any() for i in range(4)]
    chance_n, true_n = np.array(said), np.array(came_true)
    for low, high in ((0.0, 0.2), (0.2, 0.8), (0.8, 1.0)):
        among = (chance_n >= low) & (chance_n < high)
        assert among.sum() > 200
        assert true_n[among].mean() == pytest.approx(chance_n[among].mean(), abs=0.06)


# ---- through a study ---------------------------------------------------------------------------------------------


MIOU = {"resnet18": 0.6, "mobilenet_v2": 0.3}


def pretend(config: TrialConfig) -> float:
    """An mIoU as training might give it: the student's own, what distillation adds, and the seed's share."""
    gain = 0.01 * config.distill["kd"].weight if config.distill else 0.0
    return MIOU.get(config.student.encoder, 0.0) + gain + 0.01 * config.train.seed


def carry_out(path: Path, space: SearchSpace) -> tuple[StudyController, list[TrialRecord]]:
    """Run a study to its end without Ray; also what was trained, in order."""
    storage = StudyStorage.open(path, space, cost_of)
    rungs = RungState(space.search.rungs, space.search.objectives, space.search.stop, space.search.reduction)
    controller = StudyController(space, storage, rungs, {"gflops": 10.0, "params_m": 10.0}, None, True, StudyCallback())
    handed_out = []
    while isinstance(each := controller.next_trial(), TrialRecord):
        handed_out.append(each)
        for epoch in range(1, each.config.train.epochs + 1):
            controller.on_report(each.id, epoch, {"val/miou": pretend(each.config)})
        controller.on_trial_end(each.id, None)
    assert each == "done"
    storage.close()
    return controller, handed_out


def test_a_study_with_two_seeds_and_its_extension_trains_only_what_is_new(tmp_path: Path) -> None:
    text = SPACE.replace("rungs: [2], reduction: 2", "stop: none") + "confirm: {seeds: 2}\n"
    text = text.replace("kd: {weight: {log: [0.1, 10], default: 1}}", "kd: {weight: 1.0}")
    (tmp_path / "short.yaml").write_text(text.replace("trials: 8", "trials: 1"))
    (tmp_path / "long.yaml").write_text(text.replace("trials: 8", "trials: 10"))
    first, handed_out = carry_out(tmp_path / "study.journal", load_space(tmp_path / "short.yaml"))
    (point,) = first.members()
    assert point.config.student.encoder == "resnet18"
    assert [r.stage for r in handed_out] == ["search"] + ["confirm", "control"] * 2

    # A cheaper student joins the frontier; it alone is confirmed now.
    second, handed_out = carry_out(tmp_path / "study.journal", load_space(tmp_path / "long.yaml"))
    cheap, dear = second.members()
    assert (cheap.config.student.encoder, dear.id) == ("mobilenet_v2", point.id)
    assert [r.stage for r in handed_out] == ["search"] * 9 + ["confirm", "control"] * 2
    assert {r.params["of"] for r in handed_out[9:]} == {cheap.id}

    found = second.confirmed()
    for each, mean in ((cheap, 0.325), (dear, 0.625)):
        assert known(found[each.id]) == pytest.approx(
            {
                "seeds": 2, "miou_mean": mean, "miou_std": 0.01 / math.sqrt(2), "control_miou_mean": mean - 0.01,
                "gain": 0.01, "gain_std": 0.0, "gain_low": 0.01, "gain_high": 0.01, "p_frontier": 1.0,
            },
            abs=1e-3,
        )  # fmt: skip

    # Nothing is left to do, and the journal alone gives the same.
    third, handed_out = carry_out(tmp_path / "study.journal", load_space(tmp_path / "long.yaml"))
    assert handed_out == []
    assert third.confirmed() == found


def test_a_better_point_with_the_same_student_takes_the_controls_that_are_there(tmp_path: Path) -> None:
    text = SPACE.replace("rungs: [2], reduction: 2", "stop: none") + "confirm: {seeds: 2}\n"
    text = text.replace("{choice: [resnet18, resnet34, mobilenet_v2]}", "resnet18")
    text = text.replace("{log: [1.0e-4, 1.0e-2], default: 1.0e-3}", "1.0e-3")
    (tmp_path / "short.yaml").write_text(text.replace("trials: 8", "trials: 1"))
    (tmp_path / "long.yaml").write_text(text)
    first, _ = carry_out(tmp_path / "study.journal", load_space(tmp_path / "short.yaml"))
    second, handed_out = carry_out(tmp_path / "study.journal", load_space(tmp_path / "long.yaml"))
    (old,), (new,) = first.members(), second.members()
    assert new.id != old.id
    assert [r.stage for r in handed_out] == ["search"] * 7 + ["confirm"] * 2
    controls = second.storage.complete("control")
    assert [r.params["of"] for r in controls] == [old.id] * 2
    found = second.confirmed()[new.id]
    assert (found.seeds, found.control_miou_mean) == (2, pytest.approx(0.615))
    assert found.gain == pytest.approx(new.miou - 0.6)


def test_what_is_not_distilled_is_not_trained_twice(tmp_path: Path) -> None:
    text = SPACE.replace("distill: {kd: {weight: {log: [0.1, 10], default: 1}}}", "distill: {}")
    text = text.replace("trials: 8", "trials: 1")
    (tmp_path / "plain.yaml").write_text(text + "confirm: {seeds: 2}\n")
    controller, handed_out = carry_out(tmp_path / "study.journal", load_space(tmp_path / "plain.yaml"))
    assert [(r.stage, r.config.train.seed) for r in handed_out] == [("search", 0), ("confirm", 1), ("confirm", 2)]
    (found,) = controller.confirmed().values()
    assert found.control_miou_mean == found.miou_mean == pytest.approx(0.615)
    assert math.isnan(found.gain)
