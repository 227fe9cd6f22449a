from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kdsearch.cli import main

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


def test_spaces_are_listed_and_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["spaces", "list"]) == 0
    assert "clfd" in capsys.readouterr().out
    assert main(["spaces", "show", "clfd", "--profile", "demo"]) == 0
    shown = tmp_path / "shown.yaml"
    shown.write_text(capsys.readouterr().out)
    assert main(["spaces", "show", str(shown)]) == 0
    assert capsys.readouterr().out == shown.read_text()
    assert main(["spaces", "show", "clfb"]) == 2
    assert "Did you mean 'clfd'?" in capsys.readouterr().err


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
    assert "it is there already" in teacher("train")[1]
    status, out, _ = teacher("evaluate")
    assert status == 0
    assert "mIoU            0." in out
    assert "  sky " in out
    status, out, _ = teacher("cache", "--set", "teacher.cache_format=uint8", "--set", "teacher.cache=auto")
    assert status == 0
    assert "c4, logits of 8 images, uint8" in out
    assert "teacher maps: 8/8 images" in out
    assert "of pixels change class" in out
    assert teacher("cache")[0] == 0
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
