from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdsearch.config.space.ranges import Choice, Int, IntLog, Log, Range, Uniform
from kdsearch.config.space.search_space import load_space
from kdsearch.config.space.shipped import shipped_spaces, spaces_folder
from kdsearch.config.trial import TrialConfig
from kdsearch.errors import UserError
from tests.config.conftest import SPACE, Contrast, Load, Soft


def test_what_a_space_holds(load: Load) -> None:
    space = load()
    assert (space.name, space.description) == ("small", "a space for tests")
    assert (space.search.trials, space.search.rungs, space.confirm.seeds) == (12, (1, 3), 3)


def test_parameters(load: Load) -> None:
    assert load().parameters() == {
        "student": Choice(("clnet", "fpn"), "clnet"),
        "student[clnet].encoder": Choice(("mit_b0", "mit_b1"), "mit_b1"),
        "student[clnet].width": Int(16, 64, 40),
        "student[fpn].encoder": Choice(("resnet18", "mobilenet_v2"), "resnet18"),
        "student[fpn].options": Choice(({}, {"decoder_channels": [64, 32]}), {}),
        "distill.soft.weight": Log(0.01, 100, 1.0),
        "distill.soft.temperature": Uniform(1.0, 9.0, 5.0),
        "distill.contrast": Choice(("none", "proto", "pixel"), "proto"),
        "distill.contrast[proto].tau": Log(0.03, 1.0, 0.1),
        "distill.contrast[pixel].queue": IntLog(4, 64, 16),
        "train.lr": Log(2e-5, 6e-4, 6e-5),
    }


def test_default_is_the_published_point(load: Load) -> None:
    sample = load().default()
    assert sample.params == {
        "student": "clnet",
        "student[clnet].encoder": "mit_b1",
        "student[clnet].width": 40,
        "distill.soft.weight": 1.0,
        "distill.soft.temperature": 5.0,
        "distill.contrast": "proto",
        "distill.contrast[proto].tau": 0.1,
        "train.lr": 6e-5,
    }
    assert sample.trial.student.encoder == "mit_b1"
    assert sample.trial.train.lr == 6e-5
    assert sample.trial.distill == {
        "soft": Soft(weight=1.0, temperature=5.0),
        "contrast": Contrast(mode="proto", tau=0.1),
    }


def test_only_parameters_of_the_taken_branches_are_asked_for(load: Load) -> None:
    asked = []

    def suggest(name: str, domain: Range) -> Any:
        asked.append(name)
        return {"student": "fpn", "distill.contrast": "none"}.get(name, domain.default)

    sample = load().sample(suggest)
    assert asked == [
        "student", "student[fpn].encoder", "student[fpn].options",
        "distill.soft.weight", "distill.soft.temperature", "distill.contrast", "train.lr",
    ]  # fmt: skip
    assert sample.trial.student.arch == "fpn"
    assert list(sample.trial.distill) == ["soft"]


def test_options_that_are_no_scalars_go_by_their_json_text(load: Load) -> None:
    text = '{"decoder_channels": [64, 32]}'
    given = load().sample(
        lambda name, domain: {"student": "fpn", "student[fpn].options": text}.get(name, domain.default)
    )
    option = load().from_params({"student": "fpn", "student[fpn].options": {"decoder_channels": [64, 32]}})
    assert given == option
    assert given.params["student[fpn].options"] == text
    assert given.trial.model_dump()["student"]["options"] == {"decoder_channels": [64, 32]}


def test_what_is_not_among_the_options(load: Load) -> None:
    with pytest.raises(UserError, match=r"^space.yaml: student: 'unet' is not one of 'clnet', 'fpn'$"):
        load().from_params({"student": "unet"})


def test_a_sample_that_is_no_trial(load: Load) -> None:
    with pytest.raises(UserError, match=r"^space.yaml:9: student\[clnet\].width: should be greater than 0, got -1$"):
        load().from_params({"student[clnet].width": -1})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data())
def test_any_sample_is_a_trial_that_its_parameters_rebuild(load: Load, data: st.DataObject) -> None:
    def suggest(name: str, domain: Range) -> Any:
        if isinstance(domain, Choice):
            return data.draw(st.sampled_from(domain.categories), label=name)
        if isinstance(domain, Int | IntLog):
            return data.draw(st.integers(domain.low, domain.high), label=name)
        return data.draw(st.floats(domain.low, domain.high), label=name)

    space = load()
    sample = space.sample(suggest)
    assert set(sample.params) <= set(space.parameters())
    assert space.from_params(sample.params) == sample
    assert TrialConfig.model_validate(sample.trial.model_dump(mode="json")) == sample.trial
    assert TrialConfig.model_validate_json(sample.trial.model_dump_json()) == sample.trial


@pytest.mark.parametrize("profile", [None, "quick"])
def test_a_resolved_space_is_the_same_space(load: Load, profile: str | None) -> None:
    space = load(profile=profile, overrides=["train.lr={log: [1e-5, 1e-3]}", "student={arch: fpn, encoder: x}"])
    again = load(space.to_yaml())
    assert again.resolved() == space.resolved()
    assert again.parameters() == space.parameters()
    assert again.default() == space.default()
    assert again.search == space.search
    assert "profiles" not in space.resolved()


def test_nested_branches_and_labels(load: Load) -> None:
    text = SPACE.replace(
        "    - arch: fpn\n",
        "    - one_of:\n"
        "        - {arch: {choice: [unet, linknet]}, encoder: resnet18}\n"
        "        - {arch: pan, encoder: {choice: [a, b]}}\n"
        "        - {arch: pan, encoder: c}\n"
        "      default: 2\n"
        "    - arch: fpn\n",
    )
    space = load(text)
    names = space.parameters()
    assert names["student"] == Choice(("clnet", "1", "fpn"), "clnet")
    assert names["student[1]"] == Choice(("0", "1", "2"), "2")
    assert names["student[1][0].arch"] == Choice(("unet", "linknet"), "unet")
    sample = space.from_params({"student": "1", "student[1]": "1", "student[1][1].encoder": "b"})
    assert (sample.trial.student.arch, sample.trial.student.encoder) == ("pan", "b")
    assert space.from_params({"student": "1"}).trial.student.encoder == "c"


def test_a_whole_distill_section_may_be_switched_off(load: Load) -> None:
    text = "name: x\ndata: {name: scenes, size: [8, 8]}\nteacher: {arch: clnet}\nstudent: {arch: clnet}\n"
    assert load(text + "distill: {one_of: [{}, {soft: {}}]}").from_params({"distill": "soft"}).trial.distill == {
        "soft": Soft()
    }
    assert load(text + "distill: {soft: null}").default().trial.distill == {}


def test_sets_of_terms_are_called_by_their_terms(load: Load) -> None:
    text = "name: x\ndata: {name: scenes, size: [8, 8]}\nteacher: {arch: clnet}\nstudent: {arch: clnet}\n"
    space = load(text + "distill: {one_of: [{soft: {weight: {log: [0.1, 1]}}}, {soft: {}, hard: null}, null]}")
    assert list(space.parameters()) == ["distill", "distill[soft].soft.weight"]
    assert space.parameters()["distill"].options == ("soft", "soft+hard", "none")
    assert space.from_params({"distill": "none"}).trial.distill == {}
    optional = load(text + "distill: {soft: {one_of: [null, {weight: {log: [0.1, 1]}}]}}")
    assert list(optional.parameters()) == ["distill.soft", "distill.soft[on].weight"]
    assert optional.parameters()["distill.soft"].options == ("none", "on")


def test_augmentation_may_be_searched(load: Load) -> None:
    text = SPACE.replace("options: {n: 8}", "augment: {jitter: {uniform: [0, 1]}, scale: {choice: [[1, 1], [0.5, 2]]}}")
    assert {"data.augment.jitter", "data.augment.scale"} <= set(load(text).parameters())


def test_source_by_path_and_by_name(load: Load, in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load()
    shipped = in_folder / "shipped"
    shipped.mkdir()
    (shipped / "toy.yaml").write_text(SPACE)
    monkeypatch.setattr("kdsearch.config.space.shipped.spaces_folder", lambda: shipped)
    assert load_space("toy").name == "small"
    assert load_space(in_folder / "space.yaml").name == "small"
    assert load_space("./space.yaml").name == "small"
    with pytest.raises(UserError, match=r"^unknown search space 'toi'. Did you mean 'toy'\?$"):
        load_space("toi")
    with pytest.raises(UserError, match=r"^nowhere.yaml: no such file.$"):
        load_space("nowhere.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_spaces())
def test_shipped_spaces_are_valid_in_every_profile(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real terms
    text = (spaces_folder() / f"{name}.yaml").read_text()
    profiles = parse_profiles(text)
    for profile in [None, *profiles]:
        space = load_space(name, profile=profile)
        assert space.name == name
        assert space.default().trial


def parse_profiles(text: str) -> list[str]:
    from kdsearch.config.space.yaml_tree import parse_yaml

    return list(parse_yaml(text, str).get("profiles", {}))
