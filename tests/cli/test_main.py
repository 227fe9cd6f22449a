from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdsearch.cli.main import _parser, main
from kdsearch.cli.parser import Parser
from kdsearch.version import __version__

TRIAL = """
data: {name: scenes, size: [32, 64], options: {train: 8, val: 4, height: 32, width: 64}}
teacher: {arch: clnet, encoder: mit_b0, width: 8, steps: 2, train: {epochs: 1, batch_size: 4}}
student: {arch: pspnet, encoder: mobilenet_v2}
distill: {kd: {weight: 1.0}}
train: {epochs: 1, batch_size: 4}
"""


def test_importing_kdsearch_loads_nothing_heavy() -> None:
    code = "import sys, kdsearch; print(sorted({'torch', 'ray', 'mlflow', 'optuna', 'numpy'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom kdsearch.run import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    print('torch' in sys.modules, 'ray' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "exit status: 0 done" in answer.stdout
    assert answer.stdout.strip().endswith("False False")


def parsers(parser: Parser) -> Iterator[Parser]:
    """A parser, and those of all commands below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from parsers(below)


PARSERS = {parser.prog: parser for parser in parsers(_parser())}
METAVARS = {
    "SPACE", "RUN", "FILE", "DIR", "NAME", "NAME=PATH", "KEY=VALUE", "URI", "ADDR", "N", "F", "S", "METRIC<=X", "LIST",
    "DEVICE", "SHELL", "COMMAND", "ACTION", ("H", "W"),
}  # fmt: skip


@pytest.mark.parametrize("prog", PARSERS)
class TestHelp:
    def test_it_reads_well_at_80_columns(self, prog: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        lines = PARSERS[prog].format_help().splitlines()
        assert max(map(len, lines)) <= 80

    def test_it_says_what_it_does_and_how_it_ends(self, prog: str) -> None:
        parser = PARSERS[prog]
        assert parser.description
        assert parser.description.partition("\n")[0].endswith(".")
        assert parser.epilog is not None
        if parser.get_default("do") is None or prog == "kdsearch":
            assert " --help'" in parser.epilog
        else:
            assert f"  {prog}" in parser.epilog, "an example"
            assert "exit status: 0 done" in parser.epilog

    def test_its_arguments_are_explained_with_the_nouns_of_all_commands(self, prog: str) -> None:
        for action in PARSERS[prog]._actions:
            if isinstance(action, argparse._SubParsersAction):
                assert all(each.help for each in action._choices_actions)
                continue
            assert action.help
            if action.nargs != 0 and action.choices is None:
                assert (action.metavar or action.dest) in METAVARS

    def test_its_examples_are_understood(self, prog: str) -> None:
        parser, known = PARSERS[prog], PARSERS["kdsearch"]
        for line in re.findall(r"^  kdsearch (.*)", parser.epilog or "", re.M):
            command = re.split(r"   +| [|>] ", line)[0]
            assert known.parse_known_args(shlex.split(command))[1] == []


def test_without_a_command_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("usage: kdsearch ")


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"kdsearch {__version__}\n"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("rnu", "kdsearch: unknown command 'rnu'. Did you mean 'run'?"),
        ("data chekc x", "kdsearch data: unknown action 'chekc'. Did you mean 'check'?"),
        ("data", "kdsearch data: the following arguments are required: ACTION"),
        ("run clfd --trails 5", "kdsearch run: unknown option --trails. Did you mean '--trials'?"),
        ("run clfd --trial 5", "kdsearch run: unknown option --trial. Did you mean '--trials'?"),
        ("run clfd --trials=x", "kdsearch run: argument --trials: 'x' is not a whole number"),
        ("run clfd --trials 0", "kdsearch run: argument --trials: 0 is not a positive number"),
        ("spaces show clfd stc", "kdsearch spaces show: unexpected argument 'stc'"),
        ("--jsn", "kdsearch: unknown option --jsn."),
        ("export r --out x --best kne", "kdsearch export: argument --best: unknown 'kne'. Did you mean 'knee'?"),
    ],
)
def test_a_wrong_command_line_is_told_the_nearest_right_one(
    line: str, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(line.split())
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert first == error
    assert second == f"Try '{error.partition(':')[0]} --help'."
    assert out == ""


@pytest.mark.parametrize("name", ["run", "export"])
def test_python_m_is_the_same_command(name: str) -> None:
    command = [sys.executable, "-m", f"kdsearch.{name}", "--help"]
    environment = os.environ | {"COLUMNS": "80"}
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert out.splitlines()[0].startswith(f"usage: kdsearch {name} ")


@pytest.mark.parametrize(("word", "status"), [("done", 0), ("failed", 1), ("interrupted", 130)])
def test_with_json_a_study_prints_its_summary_and_nothing_else(
    word: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from kdsearch.api import search
    from kdsearch.api.study import Study
    from kdsearch.errors import StudyFailedError
    from kdsearch.io.run_folder import RunFolder
    from kdsearch.search.summary import StudySummary

    def stand_in(request: object, callbacks: object) -> Study:
        print("a table")
        os.write(1, b"a library\n")
        subprocess.run(["echo", "a worker"], check=True)
        StudySummary.from_dict({"space": "clfd", "status": word, "hypervolume": 0.5, "frontier": []}).write(
            tmp_path / "summary.json"
        )
        study = Study(RunFolder(tmp_path))
        if word == "failed":
            raise StudyFailedError("no trial was completed", study)
        return study

    monkeypatch.setattr(search, "run_study", stand_in)
    assert main(["run", "clfd", "--json"]) == status
    out, err = capfd.readouterr()
    printed = json.loads(out)
    assert (printed["run"], printed["status"], printed["hypervolume"]) == (str(tmp_path), word, 0.5)
    assert sorted(err.splitlines()) == ["a library", "a table", "a worker"]
    assert main(["run", "clfd"]) == status
    assert "a table" in capfd.readouterr().out


def test_an_error_leaves_standard_output_empty_with_json(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["spaces", "show", "clfb", "--json"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "kdsearch: unknown search space 'clfb'. Did you mean 'clfd'?\n"


def test_ctrl_c_ends_a_command_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(storage: str) -> None:
        raise KeyboardInterrupt  # a signal would be ignored where the tests run in the background

    monkeypatch.setattr("kdsearch.search.storage.listing.list_runs", interrupted)
    assert main(["runs"]) == 130
    assert capsys.readouterr().err == "kdsearch: interrupted\n"


@pytest.mark.parametrize("argument", ["spaces", "--help"])
def test_a_reader_that_goes_away_ends_a_command_without_a_traceback(argument: str) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "kdsearch.cli", argument]
    # Unbuffered, argparse would meet the broken pipe itself, and say nothing of it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env=environment, text=True, timeout=60)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_another_broken_connection_is_not_taken_for_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(storage: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("kdsearch.search.storage.listing.list_runs", broken)
    with pytest.raises(BrokenPipeError):
        main(["runs"])


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spaces", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["$schema"].endswith("2020-12/schema")
    assert "student" in json.dumps(schema)


def test_one_trial_trains_alone_and_its_student_loads(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from kdsearch import load_student

    (tmp_path / "trial.yaml").write_text(TRIAL)
    arguments = ["train", str(tmp_path / "trial.yaml"), "--storage", str(tmp_path / "runs")]
    assert main([*arguments, "--out", str(tmp_path / "student")]) == 0
    assert "teacher epoch 1/1" in capsys.readouterr().out
    student = load_student(tmp_path / "student")  # type: ignore[operator]
    assert student.info.classes[0] == "sky"
    # The teacher is there already the second time.
    assert main([*arguments, "--out", str(tmp_path / "again")]) == 0
    assert "teacher" not in capsys.readouterr().out
    assert main([*arguments, "--out", str(tmp_path / "again")]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_range_in_a_trial_is_an_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "trial.yaml").write_text(TRIAL.replace("weight: 1.0", "weight: {log: [0.1, 1]}"))
    assert main(["train", str(tmp_path / "trial.yaml"), "--out", str(tmp_path / "student")]) == 2
    assert "distill.kd.weight" in capsys.readouterr().err


SPACE = """
name: tiny
data: {name: scenes, size: [32, 64], options: {train: 8, val: 4, height: 32, width: 64}}
teacher: {arch: clnet, encoder: mit_b0, width: 8, steps: 2, train: {epochs: 1, batch_size: 4}}
student: {arch: pspnet, encoder: {choice: [mobilenet_v2, resnet18]}}
distill:
  kd: {weight: {log: [0.1, 10], default: 1}}
  at: {one_of: [null, {tap: c4}]}
train: {epochs: 1, batch_size: 4}
"""


def test_a_teacher_is_trained_evaluated_and_cached(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(SPACE)

    def teacher(action: str, *more: str) -> tuple[int, str, str]:
        arguments = ["teacher", action, str(tmp_path / "tiny.yaml"), "--storage", str(tmp_path / "runs"), *more]
        return main(arguments), *capsys.readouterr()

    status, _, error = teacher("evaluate")
    assert status == 2
    assert "not trained yet" in error
    assert "kdsearch teacher train" in error
    status, out, _ = teacher("train")
    assert status == 0
    assert "teacher epoch 1/1" in out
    status, out, error = teacher("train", "--json")
    assert json.loads(out).pop("trained") is False
    assert "exists already" in error
    status, out, error = teacher("evaluate", "--json")
    assert f"mIoU            {json.loads(out)['metrics']['val/miou']:.4f}" in error
    status, out, _ = teacher("evaluate")
    assert status == 0
    assert "mIoU            0." in out
    assert "  sky " in out
    status, out, _ = teacher("cache", "--set", "teacher.cache_format=uint8", "--set", "teacher.cache=auto")
    assert status == 0
    assert "c4, logits of 8 images, uint8" in out
    assert "teacher maps: 8/8 images" in out
    assert "of pixels change class" in out
    status, out, error = teacher("cache", "--json")
    (cache,) = json.loads(out)
    assert f"{cache['path']}: {cache['bytes'] / 1e6:.1f} MB" in error
    assert cache["errors"]["c4"]["rms_error"] > 0
    assert len(list((tmp_path / "runs" / ".cache" / "teacher-maps").iterdir())) == 2
    # A trial of its own takes what is there.
    trial = TRIAL.replace("steps: 2,", "steps: 2, cache: taps,")
    (tmp_path / "trial.yaml").write_text(trial)
    arguments = ["train", str(tmp_path / "trial.yaml"), "--storage", str(tmp_path / "runs")]
    assert main([*arguments, "--out", str(tmp_path / "student")]) == 0
    out = capsys.readouterr().out
    assert "teacher cache (taps): logits of 8 images" in out
    assert "teacher maps:" not in out


def test_a_space_without_a_teacher_or_a_term_has_no_maps(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = SPACE.splitlines()
    (tmp_path / "alone.yaml").write_text("\n".join(each for each in lines if "kd:" not in each and "at:" not in each
                                                   and not each.startswith(("teacher", "distill"))))  # fmt: skip
    arguments = [str(tmp_path / "alone.yaml"), "--storage", str(tmp_path / "runs")]
    assert main(["teacher", "cache", *arguments]) == 2
    assert "add a `teacher` section" in capsys.readouterr().err
