from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kdsearch.cli.main import main
from kdsearch.config.space.search_space import load_space, profile_names
from kdsearch.config.space.shipped import shipped_spaces

SHIPPED = [(name, profile) for name in shipped_spaces() for profile in (None, *profile_names(name))]


def test_spaces_are_listed_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spaces"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAME", "DESCRIPTION"]
    assert [line.split()[0] for line in lines] == shipped_spaces()
    assert all(20 < len(line) <= 80 for line in lines)


def test_the_json_of_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spaces", "--json"]) == 0
    spaces = json.loads(capsys.readouterr().out)
    assert [set(each) for each in spaces] == [{"name", "description", "data", "profiles", "path"}] * len(spaces)
    clfd = next(each for each in spaces if each["name"] == "clfd")
    assert (clfd["data"], clfd["profiles"]) == ("mfnet", profile_names("clfd"))
    assert clfd["description"] == load_space("clfd").description


def test_listing_loads_no_torch() -> None:
    code = "import sys\nfrom kdsearch.cli.main import main\nmain(['spaces'])\nprint('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "False"


def test_a_space_is_shown_with_ranges_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spaces", "show", "clfd"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# profiles, shown with --profile NAME: demo")
    lines = [line.strip() for line in out.splitlines()]
    assert "weight: {log: [0.03, 3], default: 1}" in lines
    assert "encoder: {choice: [mobilenet_v2, resnet18], default: mobilenet_v2}" in lines, "a default that goes unsaid"
    assert "anchors_per_class: 64" in lines, "an option of a term that the file leaves at its default"
    assert lines.index("name: clfd") == 1
    assert all(len(line) <= 120 for line in lines[3:])


@pytest.mark.parametrize("flags", [["spaces", "show", "clfd", "--json"], ["spaces", "--json", "show", "clfd"]])
def test_a_space_as_json(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(flags) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["distill"]["clfd"]["tau"] == {"log": [0.03, 1], "default": 0.1}
    assert shown["profiles"] == profile_names("clfd")


@pytest.mark.parametrize(("name", "profile"), SHIPPED)
def test_what_is_shown_is_the_same_space(
    name: str, profile: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [] if profile is None else ["--profile", profile]
    assert main(["spaces", "show", name, *arguments]) == 0
    shown = tmp_path / "shown.yaml"
    shown.write_text(capsys.readouterr().out)
    space, again = load_space(name, profile=profile), load_space(shown)
    assert again.parameters() == space.parameters()
    assert list(again.corners()) == list(space.corners())
    assert (again.name, again.search, again.confirm) == (space.name, space.search, space.confirm)
    assert main(["spaces", "show", str(shown)]) == 0
    assert capsys.readouterr().out == "".join(shown.read_text().partition("name:")[1:]), "it is complete already"


def test_settings_inside_branches_are_written_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.yaml").write_text(
        "name: own\ndata: {name: scenes, size: [32, 64]}\nteacher: {arch: clnet, encoder: mit_b0}\n"
        "student: {one_of: [{arch: clnet}, {arch: fpn, encoder: {choice: [mobilenet_v2, resnet18]}}], default: fpn}\n"
        "distill: {at: {one_of: [null, {tap: c4}]}, kd: null}\n"
    )
    assert main(["spaces", "show", str(tmp_path / "own.yaml"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    clnet, fpn = shown["student"]["one_of"]
    assert (clnet["width"], fpn["options"], shown["student"]["default"]) == (64, {}, "fpn")
    off, on = shown["distill"]["at"]["one_of"]
    assert off is None
    assert (on["tap"], on["warmup_epochs"]) == ("c4", 0)
    assert shown["distill"]["at"]["default"] == "none"
    assert shown["distill"]["kd"] is None
    assert (shown["search"]["trials"], shown["confirm"]["seeds"]) == (100, 0)
