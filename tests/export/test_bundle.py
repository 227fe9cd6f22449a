"""Bundles of run folders made by hand: their files, their card, and the agreement of each format with PyTorch."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import kdsearch.export.formats as formats_module
from kdsearch.cli.main import main
from kdsearch.config.space.trial_file import load_trial
from kdsearch.data.store.store import Store, build_store
from kdsearch.models.student import load_student
from tests.conftest import config, distilled
from tests.export.cases import POINT, run_folder

ROOT = Path(__file__).parents[2]
CONFIRMED = {
    "seeds": 2, "miou_mean": 0.45, "miou_std": 0.0707, "control_miou_mean": 0.375, "gain": 0.075, "gain_std": 0.0354,
    "gain_low": -0.2427, "gain_high": 0.3927, "p_frontier": 1.0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdsearch.export.timing.SECONDS", 0.0)


def export(arguments: list[str]) -> int:
    return main(["export", *arguments])


def bundle(folder: Path, store: Store, point: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """`metrics.json` and the model card of the exported `point` of a study with this one student."""
    assert export([str(run_folder(folder, store, point)), "--out", str(folder / "out")]) == 0
    load_student(folder / "out")
    return json.loads((folder / "out" / "metrics.json").read_text()), (folder / "out" / "README.md").read_text()


def test_a_confirmed_student_carries_its_mean_and_gain(tmp_path: Path, store: Store) -> None:
    metrics, card = bundle(tmp_path, store, POINT | CONFIRMED)
    assert metrics == {"val/miou": 0.5, "val/iou/road": 0.5} | {
        f"confirm/{name}": value for name, value in CONFIRMED.items() if name != "gain_std"
    }
    assert "| mIoU on val, in the search | 0.5000 |\n| the same with 2 other seeds: mIoU | 0.4500 ± 0.0707 |\n" in card
    assert "| gain over the same student without distillation | +0.0750 (95 %: -0.2427 to +0.3927) |\n" in card
    assert "| chosen | best miou, by mean mIoU of repeats with other seeds |\n" in card


@pytest.mark.parametrize("unknown", [{}, dict.fromkeys(CONFIRMED) | {"seeds": 0}])
def test_a_student_without_repeats_says_nothing_of_them(unknown: dict[str, Any], tmp_path: Path, store: Store) -> None:
    metrics, card = bundle(tmp_path, store, POINT | unknown)
    assert metrics["val/miou"] == 0.5
    assert metrics.get("confirm/miou_mean") is None
    assert "other seed" not in card
    assert "biased upwards" in card
    assert "None" not in card


def test_one_repeat_has_no_spread(tmp_path: Path, store: Store) -> None:
    one = dict.fromkeys(CONFIRMED) | {"seeds": 1, "miou_mean": 0.45, "gain": 0.02}
    _, card = bundle(tmp_path, store, POINT | one)
    assert "| the same with 1 other seed: mIoU | 0.4500 |\n" in card
    assert "| gain over the same student without distillation | +0.0200 |\n" in card


def test_a_bundle_tells_how_to_use_and_to_train_the_student(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = distilled()
    run = run_folder(tmp_path, store, trial=trial)
    assert export([str(run), "--out", str(tmp_path / "out"), "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["bundle"] == str(tmp_path / "out")
    assert written["formats"]["safetensors"]["pixels"] == 1
    assert written["latency_ms"]["PyTorch"] > 0
    assert load_trial(tmp_path / "out" / "trial.yaml") == trial
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| road | 0.500 |" in card
    assert "| teacher | clnet mit_b0 w8 |" in card
    assert "clfd (weight 0.5, " in card
    assert "| latency, PyTorch | " in card
    preprocess = json.loads((tmp_path / "out" / "preprocess.json").read_text())
    assert preprocess["size"] == [32, 64]
    assert preprocess["output_size"] == [8, 16]
    assert preprocess["output_stride"] == [4, 4]
    assert preprocess["ignore_index"] == 255
    assert preprocess["channels"] == ["red", "green", "blue", "thermal"]
    assert (preprocess["mean"], preprocess["classes"]) == (list(store.info.mean), list(store.info.classes))


def test_what_cannot_be_exported(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = run_folder(tmp_path, store), str(tmp_path / "out")
    for arguments, message in [
        ([str(tmp_path / "absent")], "is not a run folder"),
        ([str(run), "--formats", "tflite"], "--formats tflite: unknown format; this version writes"),
        ([str(run), "--budget", "gflops<=0.01"], "No student is within gflops<=0.01. The cheapest has 0.1 GFLOPs."),
        ([str(run), "--budget", "gflops<=1.2.3"], "expected METRIC<=NUMBER"),
        ([str(run), "--tracking-uri", "sqlite:///x.db"], "--tracking-uri is for runs:/ID"),
        (["models:/a/b/c"], "expected runs:/RUN_ID"),
        (["models:/a/1"], "Name the tracking server: --tracking-uri"),
    ]:
        assert export([*arguments, "--out", out]) == 2
        assert message in capsys.readouterr().err
    assert export([str(run), "--out", str(run)]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert export([str(run), "--formats", "onnx", "--out", out]) == 2
    assert "needs the package onnx: pip install 'kdsearch-seg[export]'" in capsys.readouterr().err
    assert not Path(out).exists()


def test_a_format_that_computes_something_else_is_refused(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_folder(tmp_path, store)
    original = formats_module.runner

    def off(folder: Path, name: str) -> Any:
        exact = original(folder, name)
        return lambda image_bchw: exact(image_bchw) * np.float32(1.01)

    monkeypatch.setattr(formats_module, "runner", off)
    assert export([str(run), "--out", str(tmp_path / "out")]) == 1
    assert "differs from the student" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_image_of_any_size_is_segmented_at_its_own(tmp_path: Path, store: Store) -> None:
    student = load_student(run_folder(tmp_path, store) / "students" / "t0000")
    image = store.split("val").images[0]
    assert np.array_equal(student.segment(image), student.predict(image[None])[0].numpy())
    large = np.asarray(image).repeat(2, 0).repeat(3, 1)[:-1]
    assert student.segment(large).shape == (63, 192)
    with pytest.raises(ValueError, match="expected uint8 images, 0 to 255, got float32"):
        student.segment(image.astype(np.float32) / 255)
    with pytest.raises(ValueError, match=r"expected uint8 images \[B, H, W, 4\]"):
        student.segment(image[..., :3])
    with pytest.raises(ValueError, match="multiples of 32, not 40x64; `segment` takes any size"):
        student.predict(np.zeros((1, 40, 64, 4), np.uint8))


STUDENTS: list[dict[str, Any]] = [
    {"arch": "clnet", "encoder": "mit_b0", "width": 8},
    {"arch": "fpn", "encoder": "mobilenet_v2"},
    {"arch": "pspnet", "encoder": "resnet18"},
    {"arch": "deeplabv3plus", "encoder": "mobilenet_v2"},
    {"arch": "segformer", "encoder": "mit_b0"},
]


@pytest.mark.slow
@pytest.mark.parametrize("student", STUDENTS, ids=lambda student: f"{student['arch']}-{student['encoder']}")
def test_onnx_and_pt2_compute_the_same(
    student: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = config(data={"name": "scenes", "size": [64, 96], "options": {"train": 1, "val": 3}}, student=student)
    store = build_store(trial.data, tmp_path / ".cache" / "data")
    run = run_folder(tmp_path, store, trial=trial)
    assert export([str(run), "--formats", "onnx,pt2", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    for name in ("safetensors", "onnx", "pt2"):
        assert f"{name}: 100.000 % of pixels get the same class" in said
    assert "on 3 validation images of scenes" in said
    card = (tmp_path / "out" / "README.md").read_text()
    assert "opset 20" in card
    assert "| latency, onnxruntime | " in card


@pytest.mark.slow
def test_the_examples_agree(tmp_path: Path, store: Store) -> None:
    run = run_folder(tmp_path, store)
    assert export([str(run), "--formats", "onnx", "--out", str(tmp_path / "out")]) == 0
    images = tmp_path / "images"
    images.mkdir()
    for index in range(2):
        image = np.asarray(store.split("val").images[index]).repeat(2, 0).repeat(2, 1)
        Image.fromarray(image, "RGBA").save(images / f"{index}.png")
    (tmp_path / "none" / "torch").mkdir(parents=True)
    (tmp_path / "none" / "torch" / "__init__.py").write_text(
        "raise ImportError('this example is to run without torch')"
    )
    paths = os.environ.get("PYTHONPATH", "")
    for example, path in (("segment_folder", paths), ("segment_onnx", f"{tmp_path / 'none'}:{paths}")):
        command = [sys.executable, str(ROOT / "examples" / f"{example}.py"), str(tmp_path / "out"), str(images)]
        subprocess.run(
            [*command, "--out", str(tmp_path / example)], check=True, env=os.environ | {"PYTHONPATH": path}
        )  # fmt: skip
    for index in range(2):
        torch_hw, onnx_hw = (
            np.asarray(Image.open(tmp_path / example / f"{index}_classes.png"))
            for example in ("segment_folder", "segment_onnx")
        )
        assert torch_hw.shape == (64, 128)
        assert (torch_hw == onnx_hw).mean() > 0.999
        overlay = Image.open(tmp_path / "segment_folder" / f"{index}_overlay.png")
        assert overlay.size == (128, 64)
