"""A wrong request ends at once with exit status 2 and one clear sentence, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdsearch.run import main
from tests.end_to_end.conftest import Start

SMALL = ["--set", "data.size=[32, 64]"]


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The sentence with which `kdsearch.run` refuses these arguments."""
    assert main(list(arguments)) == 2
    captured = capfd.readouterr()
    assert "Traceback" not in captured.out + captured.err
    _, said, sentence = captured.err.partition("kdsearch: ")
    assert said
    return sentence


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def mfnet(tmp_path: Path) -> Path:
    """A small data set in MFNet's layout, whole and right."""
    root = tmp_path / "mfnet"
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    names = [f"{i:05d}D" for i in range(6)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (48, 64, 4), dtype=np.uint8)).save(root / "images" / f"{name}.png")
        Image.fromarray(rng.integers(0, 9, (48, 64), dtype=np.uint8)).save(root / "labels" / f"{name}.png")
    (root / "train.txt").write_text("\n".join(names[:4]) + "\n")
    (root / "val.txt").write_text("\n".join(names[4:]) + "\n")
    return root


def data(mfnet: Path) -> list[str]:
    return ["clfd", "--data", f"mfnet={mfnet}", *SMALL]


def test_missing_folder(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    message = refused(capfd, "clfd", "--data", "mfnet=/nowhere/mfnet")
    assert "/nowhere/mfnet does not exist" in message
    assert "--data mfnet=FOLDER" in message
    assert not (tmp_path / "runs").exists()


def test_data_without_a_name(capfd: pytest.CaptureFixture[str]) -> None:
    assert "expected NAME=PATH" in refused(capfd, "clfd", "--data", "/data/mfnet")


def test_image_without_label(capfd: pytest.CaptureFixture[str], mfnet: Path, tmp_path: Path) -> None:
    (mfnet / "labels" / "00002D.png").unlink()
    assert "labels/00002D.png" in refused(capfd, *data(mfnet))
    assert not (tmp_path / "runs").exists()


def test_label_out_of_range(capfd: pytest.CaptureFixture[str], mfnet: Path) -> None:
    Image.fromarray(np.full((48, 64), 77, dtype=np.uint8)).save(mfnet / "labels" / "00001D.png")
    message = refused(capfd, *data(mfnet))
    assert "labels/00001D.png" in message
    assert "77" in message


def test_truncated_png(capfd: pytest.CaptureFixture[str], mfnet: Path) -> None:
    path = mfnet / "images" / "00003D.png"
    path.write_bytes(path.read_bytes()[:400])
    assert "images/00003D.png" in refused(capfd, *data(mfnet))


def test_unknown_space(capfd: pytest.CaptureFixture[str]) -> None:
    assert "unknown search space 'clfb'. Did you mean 'clfd'?" in refused(capfd, "clfb")


def test_unknown_profile(capfd: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'demo'?" in refused(capfd, "clfd", "--profile", "demoo")


def test_unknown_key(capfd: pytest.CaptureFixture[str], space: Path) -> None:
    space.write_text(space.read_text().replace("clfd: {weight:", "clfd: {wieght:"))
    assert "tiny.yaml:14: distill.clfd.wieght: unknown key. Did you mean 'weight'?" in refused(capfd, str(space))


def test_bad_range(capfd: pytest.CaptureFixture[str]) -> None:
    message = refused(capfd, "clfd", "--set", "distill.clfd.weight={log: [0, 3]}")
    assert "distill.clfd.weight" in message
    assert "log" in message


def test_a_term_that_some_trial_could_not_feed(capfd: pytest.CaptureFixture[str], space: Path) -> None:
    message = refused(capfd, str(space), "--set", "distill.clfd.layers={choice: [auto, sem]}")
    assert "with distill.clfd.layers=sem: clfd: layers 'sem' are not taps of both networks" in message


def test_video_of_single_images(capfd: pytest.CaptureFixture[str], mfnet: Path) -> None:
    message = refused(capfd, *data(mfnet), "--set", "data.frames=video")
    assert "the data set mfnet has single images: set data.frames to views" in message


def test_unreachable_tracking_server(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    message = refused(capfd, "clfd", "--tracking-uri", "http://127.0.0.1:9", "--name", "x")
    assert "http://127.0.0.1:9 does not answer" in message
    assert not (tmp_path / "runs" / "x").exists()


def test_unwritable_run_folder(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    message = refused(capfd, "clfd", "--storage", str(tmp_path / "file"))
    assert "cannot be written" in message
    assert "--storage" in message


def test_name_that_is_a_path(capfd: pytest.CaptureFixture[str]) -> None:
    assert "one plain folder name" in refused(capfd, "clfd", "--name", "../elsewhere")


def test_nothing_to_resume(capfd: pytest.CaptureFixture[str]) -> None:
    assert "no study of clfd to resume" in refused(capfd, "clfd", "--resume")


def test_a_bound_on_a_class_that_is_not_in_the_data_set(capfd: pytest.CaptureFixture[str], space: Path) -> None:
    message = refused(capfd, str(space), "--set", "search.constraints={val/iou/perso: '>= 0.5'}")
    assert "no trial reports 'val/iou/perso'. Did you mean 'val/iou/person'?" in message
    message = refused(capfd, str(space), "--set", "search.constraints={val/temporal_consistency: '>= 0.5'}")
    assert "data.consistency: true" in message


def test_an_option_that_the_sampler_does_not_have(capfd: pytest.CaptureFixture[str], space: Path) -> None:
    message = refused(capfd, str(space), "--set", "search.sampler={name: tpe, multivarate: true}")
    assert "search.sampler.multivarate: unknown key. Did you mean 'multivariate'?" in message
    assert "Did you mean 'nsga2'?" in refused(capfd, str(space), "--set", "search.sampler=nsga")


def test_nothing_to_start_warm_from(capfd: pytest.CaptureFixture[str], space: Path, tmp_path: Path) -> None:
    message = refused(capfd, str(space), "--warm-start", str(tmp_path), "--name", "x")
    assert f"--warm-start {tmp_path}: it holds no study" in message
    assert not (tmp_path / "runs" / "x").exists()


def test_extending_what_is_not_resumed(capfd: pytest.CaptureFixture[str], space: Path) -> None:
    assert "add --resume" in refused(capfd, str(space), "--extend", str(space))


def test_size_that_the_networks_cannot_take(capfd: pytest.CaptureFixture[str]) -> None:
    message = refused(capfd, "clfd", "--set", "student={arch: fpn, encoder: resnet18}", "--set", "data.size=[70, 100]")
    assert "multiples of 32" in message
    assert "64x96" in message


def test_a_batch_that_does_not_divide_over_the_ranks(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    message = refused(capfd, "clfd", "--workers-per-trial", "3")
    assert "train.batch_size 8 does not divide over 3 workers a trial: use 6" in message
    assert not (tmp_path / "runs").exists()


def test_unknown_encoder(capfd: pytest.CaptureFixture[str]) -> None:
    message = refused(capfd, "clfd", "--set", "student={arch: fpn, encoder: resnet81}")
    assert "resnet81" in message
    assert "Did you mean 'resnet18'" in message


@pytest.mark.ray
def test_a_demand_that_the_cluster_can_never_meet(start: Start, tmp_path: Path) -> None:
    batches = ["--set", "train.batch_size=64", "--set", "teacher.train.batch_size=64"]
    process = start("clfd", "--workers-per-trial", "64", "--name", "x", *batches)
    assert process.finish(120) == 2
    assert "A trial needs 64 worker(s)" in process.output
    assert "lower --workers-per-trial" in process.output
    assert "Traceback" not in process.output
    assert not (tmp_path / "runs" / "x").exists()
