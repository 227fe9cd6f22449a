"""What the guides and the README show works: blocks of code run, commands parse, spaces load, links lead somewhere."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kdsearch
from kdsearch import plugins
from kdsearch.api.space import Space
from kdsearch.cli import main as cli
from kdsearch.config.space.overrides import overlay
from kdsearch.config.space.search_space import SearchSpace, load_space
from kdsearch.config.space.shipped import shipped_spaces
from kdsearch.config.space.yaml_tree import Tree, dump_yaml, parse_yaml
from kdsearch.data.store.store import Store
from kdsearch.errors import UserError
from tests.docs.blocks import PAGES, REPOSITORY, Block, blocks, commands, prose
from tests.export.cases import run_folder, student_folder

BASE = """
name: base
data: {name: scenes, size: [64, 96]}
teacher: {arch: fpn, encoder: resnet18}
student: {arch: fpn, encoder: resnet18}
"""
"""What sections of a space are laid over to make a whole one."""
OTHERS = {
    "cd", "cluster/study.sh", "docker", "export", "git", "helm", "kubectl", "make", "mlflow", "pip", "ray", "sbatch",
    "source",
}  # fmt: skip
"""Programs whose commands are not checked here."""
MODULES = {"kdsearch.run": "run", "kdsearch.export": "export"}
"""Modules that `python -m` runs, each with the command that it is."""


class ParsedError(Exception):
    """Raised in place of carrying out what was parsed."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which a page's blocks are tried: it has what the pages take for granted."""
    monkeypatch.chdir(tmp_path)
    for name in ("examples", "search_spaces", "cluster"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    plugins.modules.cache_clear()
    yield tmp_path
    plugins.modules.cache_clear()


def parsed(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """The options that a command line of kdsearch parses to; nothing is executed. Fails if the parser refuses it."""

    def stop(options: argparse.Namespace) -> None:
        raise ParsedError(options)

    with monkeypatch.context() as patch:
        patch.setattr(cli, "_carry_out", stop)
        with pytest.raises((ParsedError, SystemExit)) as raised:
            cli.main(arguments)
    assert isinstance(raised.value, ParsedError) or raised.value.code == 0, f"refused: {shlex.join(arguments)}"
    return getattr(raised.value, "options", argparse.Namespace())


def words(command: str) -> tuple[dict[str, str], list[str]]:
    """A command's environment and its words; `<name>` stands for a name."""
    found = shlex.split(re.sub(r"<([\w ]+)>", r"\1", command))
    count = next((i for i, word in enumerate(found) if not re.match(r"[A-Z_]+=", word)), len(found))
    return dict(word.split("=", 1) for word in found[:count]), found[count:]


def check_command(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment, found = words(command)
    with monkeypatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        match found:
            case ["ray", "job", "submit", *rest] if "--" in rest:
                study = rest[rest.index("--") + 1 :]
                if study[0] != "kdsearch-study":
                    check_command(shlex.join(study), patch)
            case ["kdsearch", *arguments]:
                check_options(parsed(arguments, patch))
            case ["python", "-m", module, *arguments] if module in MODULES:
                check_options(parsed([MODULES[module], *arguments], patch))
            case ["python", "-m", "mlflow" | "pytest", *_] | []:
                pass
            case ["python", file, *_]:
                assert (REPOSITORY / file).exists(), command
            case [program, *_]:
                assert program in OTHERS, f"no check for {command}"


def check_options(options: argparse.Namespace) -> None:
    """A space that a command names is there, and is valid with the command's profile, data and overrides."""
    source = getattr(options, "space", None)
    if source is None or getattr(options, "resume", False):
        return
    if source in shipped_spaces() or source.endswith(".yaml"):
        space = Space(source, profile=options.profile, data=getattr(options, "data", None))
        space.with_overrides(getattr(options, "overrides", []))


def load_block(text: str, where: str) -> SearchSpace:
    tree = parse_yaml(text, lambda line: f"{where}, line {line}")
    assert isinstance(tree, Tree)
    if "name" not in tree:
        text = dump_yaml(overlay(parse_yaml(BASE, lambda line: "base"), tree))
    path = Path("block.yaml")
    path.write_text(text)
    return load_space(path)


@pytest.fixture
def _results(folder: Path, store: Store) -> None:
    """What earlier commands of a page leave: the run folder `runs/first`, and a student of RGB-thermal images."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    student_folder(folder / "student", store)
    run_folder(folder, store)
    (folder / "runs").mkdir()
    run = (folder / "run").rename(folder / "runs" / "first")
    storage = JournalStorage(JournalFileBackend(str(run / "study.journal")))
    study = optuna.create_study(study_name="search", storage=storage, directions=["maximize", "minimize"])
    study.tell(study.ask(), [0.5, 0.1])


@pytest.mark.usefixtures("_results")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    image_hwc = np.random.default_rng(0).integers(0, 256, (90, 130, 4), np.uint8)
    names: dict[str, Any] = {"kdsearch": kdsearch, "image_hwc": image_hwc}
    printed = ""
    for block in blocks(page):
        capsys.readouterr()
        try:
            printed = check_block(block, names, printed, monkeypatch, capsys)
        except BaseException as error:
            error.add_note(f"in {block}:\n{block.text}")
            raise


def check_block(
    block: Block, names: dict[str, Any], printed: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:  # fmt: skip
    """Check one block; what the last commands printed."""
    match block.kind:
        case "python":
            exec(compile(block.text, str(block), "exec", dont_inherit=True), names)
            return capsys.readouterr().out
        case "space":
            load_block(block.text, str(block))
        case "file":
            path = Path(block.argument)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
            if path.suffix == ".yaml" and re.search(r"^name:", block.text, re.M):
                load_space(path)
        case "from":
            assert block.text in (REPOSITORY / block.argument).read_text(), f"{block.argument} has other code"
        case "commands" | "run slow":
            for command in commands(block.text):
                check_command(command, monkeypatch)
        case "run":
            for command in commands(block.text):
                run_here(command, monkeypatch)
            return capsys.readouterr().out
        case "output":
            for line in block.text.splitlines():
                assert re.sub(r"\s+", " ", line.strip()) in re.sub(r"[^\S\n]+", " ", printed), f"not printed: {line}"
    return printed


def run_here(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Carry out a command of kdsearch, or an `export`, in this process."""
    _, found = words(os.path.expandvars(command))
    if found[0] == "export":
        for name, value in (word.split("=", 1) for word in found[1:]):
            monkeypatch.setenv(name, value)
            if name == "PYTHONPATH":
                monkeypatch.syspath_prepend(value)
        return
    assert found[0] == "kdsearch", f"only commands of kdsearch can be run: {command}"
    assert cli.main(found[1:]) == 0, command


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("page", [page for page in PAGES if any(b.kind == "run slow" for b in blocks(page))], ids=str)
def test_blocks_that_train(page: Path, folder: Path) -> None:
    for block in blocks(page):
        if block.kind == "file":
            Path(block.argument).write_text(block.text)
        if block.kind != "run slow":
            continue
        for command in commands(block.text):
            environment, (program, *arguments) = words(f"{command} {block.argument}")
            assert program == "python"
            inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
            path = os.pathsep.join([str(REPOSITORY), inherited.get("PYTHONPATH", "")])
            ours = {"PYTHONPATH": path, "RAY_worker_niceness": "0"}
            done = subprocess.run(
                [sys.executable, *arguments], env=inherited | ours | environment, text=True, timeout=600,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "text",
    [
        "```rust\n```\n",
        "```text\nout\n```\n",
        "<!-- skip -->\n```console\nls\n```\n",
        "```yaml\na: b\n",
        "- x\n  ```\n  y\n  ```\n",
    ],
)
def test_a_block_that_nothing_checks_is_an_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(ValueError, match=r"page\.md"):
        blocks(tmp_path / "page.md")


@pytest.mark.parametrize(
    "command",
    [
        "kdsearch run clfd --trails 3", "python -m kdsearch.run clfd --set train.epoch=3", "kdsearch spaces shw clfd",
        "ray job submit -- python -m kdsearch.run clfdd.yaml", "kdsaerch run clfd", "python examples/gone.py",
    ],
)  # fmt: skip
def test_a_command_that_is_wrong_is_found(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((AssertionError, UserError)):
        check_command(command, monkeypatch)


LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, REPOSITORY / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page if not path else (page.parent / path).resolve()
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_every_guide_is_in_the_index() -> None:
    index = REPOSITORY / "docs" / "README.md"
    guides = {page.name for page in (REPOSITORY / "docs").glob("*.md")} - {index.name}
    assert guides <= set(LINK.findall(index.read_text()))


def test_the_drawing_is_small_and_holds_no_script() -> None:
    text = (REPOSITORY / "docs" / "images" / "concepts.svg").read_text()
    assert len(text) < 10_000
    assert not re.search(r"<script|href|on\w+=", text)
