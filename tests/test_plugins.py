"""Terms and readers from outside the package: named by the user alone, checked, and known to workers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from kdsearch import plugins
from kdsearch.cli.main import main
from kdsearch.config.data import DataConfig
from kdsearch.config.space.search_space import load_space
from kdsearch.data.registry import open_reader
from kdsearch.distill.registry import registry
from kdsearch.errors import UserError

EXAMPLE = "examples.term.zscore_kd"
SPACE = str(Path(__file__).parent.parent / "examples" / "term" / "space.yaml")

Make = Callable[[str, str], str]


@pytest.fixture(autouse=True)
def _forget() -> None:
    plugins.modules.cache_clear()


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Write a plug-in of some name and name it in the environment."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.setenv(plugins.VARIABLE, name)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return make


def test_a_term_is_there_when_it_is_named_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="unknown term"):
        load_space(SPACE)
    monkeypatch.setenv(plugins.VARIABLE, EXAMPLE)
    trial = load_space(SPACE).default().trial
    assert trial.distill["zscore_kd"].weight == 9
    assert "kd" in registry()


def test_its_hyper_parameters_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(plugins.VARIABLE, EXAMPLE)
    with pytest.raises(UserError, match=r"temprature.*Did you mean 'temperature'"):
        load_space(SPACE, overrides=["distill={zscore_kd: {temprature: 2}}"])


def test_an_installed_package_names_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = metadata.EntryPoint("zscore", EXAMPLE, plugins.GROUP)
    monkeypatch.setattr(metadata, "entry_points", lambda group: [entry] if group == plugins.GROUP else [])
    assert "zscore_kd" in registry()


def test_a_reader(make: Make) -> None:
    make(
        "grey",
        "from kdsearch.data.readers.scenes import Scenes\n\nclass Grey(Scenes): pass\n\nREADERS = {'grey': Grey}\n",
    )
    reader = open_reader(DataConfig(name="grey", size=(32, 64), options={"train": 2, "val": 1}))
    assert len(reader.keys("train")) == 2
    assert type(reader).__name__ == "Grey"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has none of TERMS, READERS, SAMPLERS, STOP_RULES, CALLBACKS"),
        ("TERMS = [int]\n", "no class of Term with a name"),
        ("from kdsearch.distill.base import Term\nTERMS = [Term]\n", "no class of Term with a name"),
        ("from kdsearch.distill.terms.kd import KD\nTERMS = [KD]\n", "there is a 'kd' already"),
    ],
)
def test_a_module_that_is_no_plug_in(make: Make, text: str, message: str) -> None:
    make("odd_plugin", text)
    with pytest.raises(UserError, match=message):
        registry()


def test_a_reader_cannot_take_the_name_of_another(make: Make) -> None:
    make("odd_reader", "READERS = {'camvid': object}\n")
    with pytest.raises(UserError, match="there is a 'camvid' already"):
        open_reader(DataConfig(name="scenes", size=(32, 64)))


def test_a_module_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(plugins.VARIABLE, "no.such.thing")
    assert main(["spaces", "show", "clfd"]) == 2
    assert "there is no module 'no.such.thing'; install it" in capsys.readouterr().err


def test_what_a_plug_in_itself_lacks_is_not_hidden(make: Make) -> None:
    make("needs_more", "import no_such_package\nTERMS = []\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        registry()


@pytest.mark.parametrize("key", ["plugins: [hostile]", "plugin: hostile", "distill: {hostile: {weight: 1}}"])
def test_a_space_imports_nothing(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    make("hostile", f"open({str(tmp_path / 'ran')!r}, 'w')\nTERMS = []\n")
    monkeypatch.delenv(plugins.VARIABLE)
    (tmp_path / "space.yaml").write_text(
        "name: hostile\ndata: {name: scenes, size: [32, 64]}\nteacher: {arch: fpn, encoder: resnet18}\n"
        f"student: {{arch: fpn, encoder: resnet18}}\n{key}\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        load_space("space.yaml")
    assert not (tmp_path / "ran").exists()
