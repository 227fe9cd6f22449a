from __future__ import annotations

from typing import Any

import pytest

from kdsearch.config.space.ranges import Choice, IntLog, Log, Uniform
from kdsearch.errors import UserError
from tests.config.conftest import SPACE, Contrast, Load


def test_profile(load: Load) -> None:
    space = load(profile="quick")
    tree = space.resolved()
    assert tree["data"] == {"name": "other", "size": [32, 32]}, "another reader: nothing of the old one is left"
    assert tree["teacher"] == {"arch": "clnet", "encoder": "mit_b0", "shared_encoder": False, "width": 32}
    assert tree["student"] == {"arch": "unet", "encoder": "resnet18"}, "a one_of is replaced whole"
    assert tree["train"] == {"lr": 1e-3, "epochs": 9}, "a range is replaced whole"
    assert list(space.default().trial.distill) == ["soft"]
    assert (space.search.trials, space.search.rungs) == (2, (1, 3))


@pytest.mark.parametrize(
    ("over", "section", "expected"),
    [
        ("teacher: {arch: fpn, encoder: a}", "teacher", {"arch": "fpn", "encoder": "a"}),
        ("teacher: {arch: clnet, steps: 2}", "teacher",
         {"arch": "clnet", "encoder": "mit_b0", "shared_encoder": False, "steps": 2}),
        ("teacher: null", "teacher", None),
        ("data: {name: scenes, size: [8, 8]}", "data", {"name": "scenes", "size": [8, 8], "options": {"n": 8}}),
        ("data: {options: {m: 1}}", "data", {"name": "scenes", "size": [64, 96], "options": {"n": 8, "m": 1}}),
        ("train: {lr: {log: [1e-3, 1e-2]}}", "train", {"lr": {"log": [1e-3, 1e-2]}, "epochs": 9}),
        ("train: {one_of: [{lr: 1}, {lr: 2}]}", "train", {"one_of": [{"lr": 1}, {"lr": 2}]}),
        ("student: {arch: fpn, encoder: b}", "student", {"arch": "fpn", "encoder": "b"}),
    ],
)  # fmt: skip
def test_overlay_rules(load: Load, over: str, section: str, expected: Any) -> None:
    text = f"{SPACE}  other: {{distill: null, {over}}}\n"
    assert load(text, profile="other").resolved()[section] == expected


def test_profile_errors(load: Load) -> None:
    with pytest.raises(UserError, match=r"^small has no profile 'quik'. Did you mean 'quick'\?$"):
        load(profile="quik")
    with pytest.raises(UserError) as error:
        load(profile="broken")
    assert str(error.value) == ("space.yaml:35 (profile broken): train.epoch: unknown key. Did you mean 'epochs'?")
    load()  # a profile that is not asked for does not count
    with pytest.raises(UserError, match=r"^space.yaml:1: profiles: should map names to sections"):
        load("profiles: [a]")
    with pytest.raises(UserError, match=r"^space.yaml:36 \(profile inner\): profiles: only the space file itself"):
        load(f"{SPACE}  inner: {{profiles: {{}}}}\n", profile="inner")


def test_data(load: Load) -> None:
    other = load(data=("mfnet", "/data/MFNet")).resolved()["data"]
    assert other == {"name": "mfnet", "size": [64, 96], "path": "/data/MFNet"}
    same = load(data=("scenes", "x")).resolved()["data"]
    assert same == {"name": "scenes", "size": [64, 96], "options": {"n": 8}, "path": "x"}
    with pytest.raises(UserError, match=r"^data mfnet=/x: data.size: missing key$"):
        load("name: a\nstudent: {arch: clnet}\n", data=("mfnet", "/x"))


def test_data_is_laid_over_the_profile_and_overrides_over_both(load: Load) -> None:
    space = load(profile="quick", data=("mfnet", "/a"), overrides=["data.path=/b", "train.lr=2e-3"])
    assert space.resolved()["data"] == {"name": "mfnet", "size": [32, 32], "path": "/b"}
    assert space.default().trial.train.lr == 2e-3


@pytest.mark.parametrize(
    ("override", "name", "expected"),
    [
        ("train.lr={uniform: [1e-3, 1]}", "train.lr", Uniform(1e-3, 1.0, 0.5005)),
        ("distill.soft.temperature={log: [1, 4], default: 4}", "distill.soft.temperature", Log(1.0, 4.0, 4.0)),
        ("student[clnet].encoder={choice: [mit_b5]}", "student[clnet].encoder", Choice(("mit_b5",), "mit_b5")),
        ("student.encoder={choice: [mit_b5]}", "student[fpn].encoder", Choice(("mit_b5",), "mit_b5")),
        ("student.encoder={choice: [mit_b5]}", "student[clnet].encoder", Choice(("mit_b5",), "mit_b5")),
        ("distill.contrast.queue={int_log: [1, 4]}", "distill.contrast[pixel].queue", IntLog(1, 4, 2)),
        ("distill.contrast[proto].queue={int_log: [1, 4]}", "distill.contrast[proto].queue", IntLog(1, 4, 2)),
    ],
)
def test_set_a_range(load: Load, override: str, name: str, expected: Any) -> None:
    assert load(overrides=[override]).parameters()[name] == expected


@pytest.mark.parametrize(
    ("override", "section", "field", "expected"),
    [
        ("train.lr=6e-5", "train", "lr", 6e-5),
        ("train.optimizer=sgd", "train", "optimizer", "sgd"),
        ("data.crop=[32, 32]", "data", "crop", (32, 32)),
        ("data.augment.flip=0", "data", "augment.flip", 0),
        ("data.path=/a=b", "data", "path", "/a=b"),
        ("teacher.train.epochs=3", "teacher", "train.epochs", 3),
        ("student[clnet].steps=2", "student", "steps", 2),
        ("student={arch: unet, encoder: yes}", "student", "encoder", "yes"),
        ("student[clnet]={arch: pan, encoder: b}", "student", "encoder", "b"),
    ],
)
def test_set_a_value(load: Load, override: str, section: str, field: str, expected: Any) -> None:
    value = getattr(load(overrides=[override]).default().trial, section)
    for key in field.split("."):
        value = getattr(value, key)
    assert value == expected


def test_set_terms_and_search(load: Load) -> None:
    assert list(load(overrides=["distill.soft=null"]).default().trial.distill) == ["contrast"]
    assert load(overrides=["distill=null"]).default().trial.distill == {}
    branch = load(overrides=["distill.contrast={one_of: [{mode: pixel}, null]}", "distill.contrast[pixel]={tau: 2}"])
    assert branch.default().trial.distill["contrast"] == Contrast(tau=2)
    off = SPACE.replace("soft: {weight: {log: [0.01, 100]}, temperature: {uniform: [1, 9]}}", "soft: null")
    assert load(off, overrides=["distill.soft.weight=2"]).default().trial.distill["soft"].weight == 2
    assert load(overrides=["search.trials=3", "search.trials=4"]).search.trials == 4


def test_an_override_of_one_alias_leaves_the_other(load: Load) -> None:
    text = "name: x\ndata: {name: scenes, size: [8, 8]}\nteacher: &net {arch: clnet}\nstudent: *net\n"
    trial = load(text, overrides=["student.width=8"]).default().trial
    assert (trial.student.model_dump()["width"], trial.teacher and trial.teacher.model_dump()["width"]) == (8, 64)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lr", "set train.lr: should have the form set section.key=value"),
        ("=3", "set =3: should have the form set section.key=value"),
        ("train..lr=3", "should have the form"),
        ("student[clnet.encoder=3", "should have the form"),
        ("train.lr=[1", "set train.lr=[1: not valid YAML"),
        ("train.lr.x=1", "set train.lr.x=1: train.lr is a value, not a section: it has no key 'x'"),
        ("train.epochs.x=1", "train.epochs is a value, not a section"),
        ("student[clnt].width=1", "student has no branch 'clnt'. Did you mean 'clnet'?"),
        ("train[a].lr=1", "train has no branch 'a'. It has no branches."),
        ("distill.contrast[none].tau=1", "distill.contrast[none] is a value, not a section"),
        (
            "student.steps=2",
            "no branch of student has 'steps'; to add it to one, name the branch: student[clnet].steps",
        ),
        ("trian.lr=1", "set trian.lr=1: trian: unknown key. Did you mean 'train'?"),
        ("train.lrr=1", "set train.lrr=1: train.lrr: unknown key. Did you mean 'lr'?"),
        ("train.lr=fast", "set train.lr=fast: train.lr: should be a valid number, got 'fast'"),
        ("train.lr={log: [0, 1]}", "set train.lr={log: [0, 1]}: train.lr: log cannot start at 0"),
        ("train={lr: 1, epoch: 2}", "set train={lr: 1, epoch: 2}: train.epoch: unknown key. Did you mean 'epochs'?"),
        ("student={arch: fpn}", "set student={arch: fpn}: student.encoder: missing key"),
        ("profiles.a.b=1", "set profiles.a.b=1: profiles: only the space file itself holds profiles"),
    ],
)
def test_set_errors(load: Load, override: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        load(overrides=[override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
