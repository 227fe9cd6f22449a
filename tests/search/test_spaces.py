"""The shipped search spaces: every profile is valid, and every network and set of terms in them can be built."""

from __future__ import annotations

import pytest

from kdsearch.config.space.search_space import load_space, profile_names
from kdsearch.config.space.shipped import spaces_folder
from kdsearch.data.info import DatasetInfo
from kdsearch.data.readers import ade20k, camvid, cityscapes, coco_stuff, mfnet, scenes, voc
from kdsearch.distill.registry import registry
from kdsearch.models.cost import network_cost
from kdsearch.train.requirements import requirements_of

INFOS: dict[str, DatasetInfo] = {
    module.__name__.rpartition(".")[2]: module.INFO
    for module in (ade20k, camvid, cityscapes, coco_stuff, mfnet, scenes, voc)
}
SPACES = sorted(path.stem for path in spaces_folder().glob("*.yaml"))
PROFILES = [(name, profile) for name in SPACES for profile in [None, *profile_names(name)]]


def test_all_methods_have_a_space() -> None:
    assert set(SPACES) == {"afdcd", "baselines", "clfd", "frkd", "methods", "stc"}
    assert all("demo" in profile_names(name) for name in SPACES)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "profile"), PROFILES)
def test_all_of_a_space_can_be_built(name: str, profile: str | None) -> None:
    space = load_space(name, profile=profile)
    for corner, sample in space.corners():
        trial, info = sample.trial, INFOS[sample.trial.data.name]
        assert network_cost(trial.student, info, trial.data.size).gflops > 0, corner
        assert trial.teacher is not None
        assert requirements_of(trial, info) is not None, corner


def test_every_term_is_in_a_space() -> None:
    used = {
        term for name in SPACES for _, sample in load_space(name).corners() for term in sample.trial.distill
    }  # fmt: skip
    assert used == set(registry())


def test_a_reconstruction_says_so_in_its_description() -> None:
    for name in ("clfd", "frkd", "stc", "methods"):
        assert "econstruct" in load_space(name).description


@pytest.mark.parametrize("name", SPACES)
def test_a_space_is_valid_for_editors_too(name: str) -> None:
    import jsonschema

    from kdsearch.config.space.schema import json_schema
    from kdsearch.config.space.shipped import find_space
    from kdsearch.config.space.yaml_tree import parse_yaml, plain

    tree = plain(parse_yaml(find_space(name).read_bytes(), str))
    jsonschema.Draft202012Validator(json_schema()).validate(tree)


@pytest.mark.parametrize("name", SPACES)
def test_every_setting_has_an_effect(name: str) -> None:
    for profile in (None, *profile_names(name)):
        load_space(name, profile=profile).check_effects()
