"""`kdsearch.evaluate` and `kdsearch evaluate` on a student of a run folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import kdsearch
from kdsearch.cli.main import main
from kdsearch.data.store.store import Store
from kdsearch.models.registry import build_network
from kdsearch.models.student import save_student
from tests.conftest import config


@pytest.fixture
def run(store: Store, tmp_path: Path) -> Path:
    """A folder that looks like a run's, with one student that was not trained."""
    torch.manual_seed(0)
    folder = tmp_path / "run" / "students" / "t0000"
    folder.mkdir(parents=True)
    alone = config()
    save_student(folder, build_network(alone.student, store.info), alone, store.info, (32, 64), {"val/miou": 0.1})
    (tmp_path / "run" / "space.yaml").write_text("name: x\n")
    return tmp_path / "run"


def test_default_rules_are_those_of_segment(run: Path) -> None:
    from kdsearch.data.registry import open_reader
    from kdsearch.train.evaluation.confusion import ConfusionMatrix

    folder = run / "students" / "t0000"
    result = kdsearch.evaluate(folder)
    student, reader = kdsearch.load_student(folder), open_reader(config().data)
    matrix = ConfusionMatrix(9, torch.device("cpu"))
    for key in reader.keys("val"):
        sample = reader.read("val", key)
        classes_hw = torch.from_numpy(student.segment(sample.image_hwc)).long()
        matrix.update(classes_hw, torch.from_numpy(sample.label_hw).long())
    assert (result.counts_kk == matrix.counts_kk.numpy()).all()
    assert kdsearch.evaluate(student, data="scenes").counts_kk.sum() > 0


def test_every_measurement_is_recorded_beside_the_study(run: Path, tmp_path: Path) -> None:
    folder = run / "students" / "t0000"
    first = kdsearch.evaluate(folder)
    second = kdsearch.evaluate(folder, protocol="cirkd", settings={"flip": True})
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert [line["student"] for line in lines] == ["t0000", "t0000"]
    assert [line["protocol"]["digest"] for line in lines] == [first.protocol.digest(), second.protocol.digest()]
    assert lines[0]["metrics"]["miou"] == first.miou
    assert first.protocol.digest() != second.protocol.digest()
    folder.rename(tmp_path / "elsewhere")
    kdsearch.evaluate(tmp_path / "elsewhere")
    assert not (tmp_path / "evaluations.jsonl").exists()


def test_predictions_and_page(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run / "students" / "t0000"
    ids, page = tmp_path / "new" / "ids", tmp_path / "pages" / "of" / "page.html"
    assert main(["evaluate", str(folder), "--json", "--predictions", str(ids), "--page", str(page)]) == 0
    (value,) = json.loads(capsys.readouterr().out)
    assert value["images"] == len(list(ids.iterdir())) == 5
    student = kdsearch.load_student(folder)
    from kdsearch.data.registry import open_reader

    reader = open_reader(config().data)
    for key in reader.keys("val"):
        wanted = student.segment(reader.read("val", key).image_hwc)
        assert (np.asarray(Image.open(ids / f"{key}.png")) == wanted).all()
    html = page.read_text()
    assert html.count("<img") == 2 * 3 * 5
    assert value["protocol"]["digest"] in html
    assert main(["evaluate", str(folder), "--predictions", str(ids)]) == 2
    assert "is not an empty folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "tset"], "scenes has no split 'tset'. Did you mean 'test'?"),
        (["--protocol", "cikd"], "unknown protocol 'cikd'. Did you mean 'cirkd'?"),
        (["--slide", "3"], "--slide 3: expected CROP,STRIDE"),
        (["--slide", "30x30,40x40"], "slide.stride: a stride of [40, 40] leaves pixels between windows"),
        (["--scales", "0.5,x"], "--scales 0.5,x: expected numbers"),
        (["--scales", "0"], "scales.0: Input should be greater than 0"),
        (["--data", "nope=/nowhere"], "unknown data set 'nope'"),
    ],
)
def test_wrong_requests(run: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run / "students" / "t0000"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (run / "evaluations.jsonl").exists()


def test_an_exported_onnx_file_measures_as_its_student(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    from kdsearch.export.formats import write_formats

    folder = run / "students" / "t0000"
    write_formats(folder, ("onnx",))
    student, onnx = kdsearch.evaluate(folder), kdsearch.evaluate(folder / "model.onnx")
    assert np.abs(student.counts_kk - onnx.counts_kk).sum() <= 0.001 * student.counts_kk.sum()
    assert main(["evaluate", str(folder / "model.onnx"), "--scales", "0.5"]) == 2
    assert "takes images of 32x64 alone, and this protocol gives it 16x32" in capsys.readouterr().err


def test_the_help_names_every_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    from kdsearch.config.protocol import PROTOCOLS

    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    listed = " ".join(capsys.readouterr().out.split()).partition("Protocols: ")[2].partition(".")[0]
    assert listed.split(", ") == list(PROTOCOLS)
