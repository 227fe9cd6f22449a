from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from kdsearch.cli.main import main
from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.data.store.store import Store
from kdsearch.errors import UserError
from kdsearch.planning import disk, estimate, measure, probe
from kdsearch.planning.choose import draw, representatives
from kdsearch.planning.measure import Measured, drawn_store, measurable
from kdsearch.planning.units import duration, size
from tests.conftest import TEACHER, config, distilled

SPACE = """
name: tiny
data: {name: scenes, size: [32, 64], options: {train: 40, val: 10, height: 32, width: 64}}
teacher: {arch: clnet, encoder: mit_b0, width: 8, steps: 2, train: {epochs: 2, batch_size: 4}}
student:
  one_of:
    - {arch: fpn, encoder: {choice: [tu-mobilenetv3_small_050, mobilenet_v2]}}
    - {arch: pspnet, encoder: resnet18}
distill:
  one_of:
    - {kd: {weight: {log: [0.1, 10], default: 1}}}
    - {at: {tap: c3}}
    - null
train: {epochs: 9, batch_size: 4}
search: {trials: 6, rungs: [3], stop: pareto, reduction: 2}
confirm: {seeds: 2}
"""


@pytest.fixture
def space(tmp_path: Path) -> SearchSpace:
    (tmp_path / "tiny.yaml").write_text(SPACE)
    return load_space(tmp_path / "tiny.yaml")


def gflops(trial: object) -> dict[str, float]:
    encoder = trial.student.encoder  # type: ignore[attr-defined]
    return {"gflops": {"tu-mobilenetv3_small_050": 1.0, "mobilenet_v2": 3.0, "resnet18": 2.0}[encoder], "params_m": 1.0}


def test_what_is_measured_holds_every_student_and_every_set_of_terms(space: SearchSpace) -> None:
    chosen = representatives(draw(space, gflops))
    names = [name for name, _, _ in chosen]
    assert names[:2] == ["default", "dearest"]
    assert {cost for name, _, cost in chosen if name in ("default", "cheapest")} == {1.0}
    assert next(cost for name, _, cost in chosen if name == "dearest") == 3.0
    assert {frozenset(sample.trial.distill) for _, sample, _ in chosen} == {frozenset({"kd"}), frozenset({"at"}),
                                                                           frozenset()}  # fmt: skip
    assert {sample.trial.student.encoder for _, sample, _ in chosen} == {"tu-mobilenetv3_small_050", "mobilenet_v2",
                                                                         "resnet18"}  # fmt: skip


def test_bounds_on_what_trials_report_are_left_for_the_study(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(SPACE)
    bound = load_space(tmp_path / "tiny.yaml", overrides=['search.constraints={"val/iou/person": ">= 0.5"}'])
    assert len(draw(bound, gflops)) == 201


def test_a_space_none_of_whose_trials_can_be_built_is_refused_with_the_reason(space: SearchSpace) -> None:
    def refuse(trial: object) -> dict[str, float]:
        raise UserError("it needs a thermal channel")

    with pytest.raises(UserError, match="can be trained: it needs a thermal channel"):
        draw(space, refuse)


def setting(slots: int = 2, ranks: int = 1, gpus: float = 0.0) -> estimate.Setting:
    return estimate.Setting(train=40, val=10, ranks=ranks, slots=slots, gpus=gpus)


def model_of(space: SearchSpace, **changes: float) -> estimate.Model:
    """Every student takes 1 s an image and 0.5 s to validate, the teacher 2 s, every term 3 s, the rest 1 s."""
    model = estimate.Model(setting(**changes))  # type: ignore[arg-type]
    for _, sample, cost in representatives(draw(space, gflops)):
        terms = dict.fromkeys(sample.trial.distill, 3.0)
        whole = 7.0 if terms else 1.0
        model.add(sample.trial, cost, Measured(4, alone=1.0, val=0.5, whole=whole, teacher=2.0, terms=terms))
    return model


def test_a_trial_is_the_sum_of_its_parts(space: SearchSpace) -> None:
    trial = space.default().trial
    epoch = 40 * (1 + 2 + 3 + 1) + 10 * 0.5
    assert model_of(space).epoch(trial, 1.0) == epoch
    assert model_of(space).epoch(trial, 1.0, cached=True) == epoch - 40 * 2
    assert model_of(space, ranks=2).epoch(trial, 1.0) == epoch / 2
    assert model_of(space, gpus=0.5).epoch(trial, 1.0) == 2 * epoch
    alone = trial.model_copy(update={"teacher": None, "distill": {}})
    assert model_of(space).epoch(alone, 1.0) == 40 + 5
    assert estimate.full_seconds(model_of(space), trial, 1.0) == 9 * epoch + estimate.TURNAROUND_S


def test_a_student_that_was_not_measured_lies_between_those_that_were(space: SearchSpace) -> None:
    model = estimate.Model(setting())
    for params, cost, seconds in (({}, 1.0, 1.0), ({"student": "pspnet"}, 3.0, 2.0)):
        sample = space.from_params(params)
        model.add(sample.trial, cost, Measured(4, alone=seconds, val=seconds, whole=seconds))
    other = space.from_params({"student[fpn].encoder": "mobilenet_v2"}).trial
    assert model.image(other, 2.0)["student"] == pytest.approx(1.5)


def test_stages_add_up_and_early_stopping_is_a_range(space: SearchSpace) -> None:
    assert estimate.least_share(space, 9) == pytest.approx((3 + 6 / 2) / 9)
    drawn = [(space.default(), 1.0)]
    model = model_of(space)
    teacher, search, confirm = estimate.stages(space, model, drawn, teacher_s=100.0, confirm=True)
    full = 9 * 285 + estimate.TURNAROUND_S
    assert teacher.slot_s == (100.0, 100.0)
    assert search.slot_s == pytest.approx((6 * full * 6 / 9, 6 * full))
    assert search.wall_s == pytest.approx((3 * full * 6 / 9, 3 * full))
    alone = 9 * 45 + estimate.TURNAROUND_S
    assert confirm.trainings == 2 * 5 * 2
    assert confirm.slot_s[0] == pytest.approx(5 * 2 * (full + alone))


def test_a_forecast_may_stop_all_but_the_first(tmp_path: Path) -> None:
    halving = (3 + 3 / 3 + 3 / 9) / 9  # of nine epochs, at rungs 3 and 6, with reduction 3
    opening = 8 * 3 * 3
    for trials, share in ((6, halving), (100, (opening * halving + (100 - opening) * 3 / 9) / 100)):
        text = SPACE.replace("trials: 6, rungs: [3], stop: pareto, reduction: 2", f"trials: {trials}, rungs: [3, 6]")
        (tmp_path / "tiny.yaml").write_text(text)
        assert estimate.least_share(load_space(tmp_path / "tiny.yaml"), 9) == pytest.approx(share)


def test_measuring_needs_no_weights_and_no_cache() -> None:
    teacher = {**TEACHER, "encoder_weights": "imagenet", "checkpoint": "/nowhere.pt", "cache": "taps"}
    student = {"arch": "fpn", "encoder": "mobilenet_v2", "encoder_weights": "imagenet"}
    trial = measurable(config(student=student, teacher=teacher, distill={"kd": {}}), 2)
    assert trial.teacher is not None
    assert (trial.student.encoder_weights, trial.teacher.encoder_weights) == (None, None)  # type: ignore[union-attr]
    assert (trial.teacher.checkpoint, trial.teacher.cache, trial.train.batch_size) == (None, "off", 2)


def test_a_measured_step_has_all_its_parts(store: Store, tmp_path: Path) -> None:
    drawn = drawn_store(tmp_path / "store", store.info, (32, 64), 4)
    said: list[str] = []
    result = measure.measure(distilled(), drawn.path, tmp_path, 2, 4, torch.device("cpu"), said.append)
    assert result.images == 2
    assert set(result.terms) == {"dsrd", "clfd"}
    assert min(result.alone, result.val, result.teacher, *result.terms.values()) > 0
    assert result.whole > result.alone
    assert {"student", "teacher", "activations", "dsrd", "clfd"} <= result.memory.keys()
    # Activations and terms are those of a batch of 4, whatever was timed.
    again = measure.measure(distilled(), drawn.path, tmp_path, 4, 4, torch.device("cpu"), said.append)
    assert again.memory["activations"] == pytest.approx(result.memory["activations"], rel=0.1)
    assert again.memory["clfd"] == result.memory["clfd"]
    assert "the term clfd" in said


def hang(pipe: object, store: Path, scratch: Path) -> None:
    pipe.send("ready")  # type: ignore[attr-defined]
    job = pipe.recv()  # type: ignore[attr-defined]
    pipe.send(("part", "the term cirkd"))  # type: ignore[attr-defined]
    if job.name == "dies":
        raise SystemExit(9)
    time.sleep(600 if job.name == "hangs" else 0)
    pipe.send(Measured(2, 1.0, 1.0, 1.0))  # type: ignore[attr-defined]


@pytest.mark.slow
def test_what_takes_too_long_or_dies_is_said_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(probe, "_serve", hang)
    jobs = [probe.Job(name, "", 2, 8) for name in ("hangs", "dies", "works")]
    results = [result for _, result in probe.run_jobs(jobs, tmp_path, tmp_path, 10.0, 300.0, lambda _: None)]
    assert results[0] == "the term cirkd did not end within 10 s, with 2 images"
    assert results[1] == "the term cirkd ended the process, probably for want of memory"
    assert isinstance(results[2], Measured)
    (late,) = (result for _, result in probe.run_jobs(jobs[:1], tmp_path, tmp_path, 1.0, -1.0, lambda _: None))
    assert late == "not measured: the time for measuring is over"


def test_disk_is_counted_for_the_whole_data_set(space: SearchSpace, store: Store, tmp_path: Path) -> None:
    drawn = drawn_store(tmp_path / "store", store.info, (32, 64), 2)
    few, notes = disk.usage(space, drawn, {"train": 40, "val": 10}, tmp_path, 2, 5)
    many, _ = disk.usage(space, drawn, {"train": 400, "val": 100}, tmp_path, 2, 5)
    assert many["data store"] == 10 * few["data store"]
    assert many["teacher maps, taps"] == pytest.approx(10 * few["teacher maps, taps"])
    assert few["teacher maps, logits"] < few["teacher maps, taps"]
    assert many["checkpoints"] == few["checkpoints"]
    assert notes["teacher maps, taps"] == "not taken; teacher.cache=auto would"


@pytest.mark.slow
def test_a_plan_starts_and_leaves_nothing(
    space: SearchSpace, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("a plan starts no Ray"))
    arguments = ["plan", str(tmp_path / "tiny.yaml"), "--slots", "2", "--seconds", "40"]
    assert main([*arguments, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["images"] == {"train": 40, "val": 10}
    assert [stage["name"] for stage in plan["stages"]][-2:] == ["search", "confirm"]
    assert plan["rows"][0]["full_s"] > 9 * plan["rows"][0]["epoch_s"]
    assert 0 < plan["teacher_share"] < 1
    low, high = plan["total"]["slot_s"]
    assert low < high
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "full training" in shown
    assert "every rung stops all that it may" in shown


def test_a_plan_refuses_what_a_study_would(
    capsys: pytest.CaptureFixture[str], space: SearchSpace, tmp_path: Path
) -> None:
    path = str(tmp_path / "tiny.yaml")
    assert main(["plan", path, "--workers-per-trial", "3"]) == 2
    assert "does not divide over 3 workers" in capsys.readouterr().err
    assert main(["plan", path, "--set", "search.constraints={gflops: '<= 0.000001'}"]) == 2
    assert "keeps its constraints" in capsys.readouterr().err


def test_times_and_sizes_read_well() -> None:
    assert [duration(s) for s in (0.0042, 1.5, 80, 600, 3 * 3600, 3 * 86400)] == [
        "4.2 ms", "1.5 s", "80 s", "10 min", "3 h", "3 days",
    ]  # fmt: skip
    assert [size(n) for n in (5e5, 2.2e7, 3.1e9, 2e12)] == ["0.5 MB", "22 MB", "3.1 GB", "2 TB"]
