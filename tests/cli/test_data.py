"""`kdsearch data check` and `kdsearch data build`."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kdsearch.cli.main import main
from kdsearch.data.check.picture import overlay
from kdsearch.data.info import DatasetInfo
from kdsearch.data.registry import open_reader
from kdsearch.data.store.file_digests import content_of
from kdsearch.data.store.store import Store
from tests.data.layouts import write_mfnet


@pytest.fixture
def mfnet_folder(tmp_path):
    return write_mfnet(tmp_path / "mfnet")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def damage(folder):
    """A missing, a damaged, an out-of-range and another wrong sample."""
    (folder / "images" / "00000D.png").unlink()
    image = folder / "images" / "00001N.png"
    image.write_bytes(image.read_bytes()[:80])
    Image.fromarray(np.full((24, 32), 77, np.uint8)).save(folder / "labels" / "00002D.png")
    Image.fromarray(np.zeros((24, 31), np.uint8)).save(folder / "labels" / "00004D.png")


def test_a_good_set(here, mfnet_folder, capsys):
    assert main(["data", "check", f"mfnet={mfnet_folder}", "--picture", "seen.png"]) == 0
    shown = capsys.readouterr().out
    assert "nothing wrong" in shown
    assert "24x32" in shown
    assert Image.open("seen.png").size[0] > 900


def test_json_agrees_with_the_files(here, mfnet_folder, capsys):
    assert main(["data", "check", f"mfnet={mfnet_folder}", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)  # and nothing else on standard output
    labels = np.stack([np.asarray(Image.open(mfnet_folder / "labels" / f"0000{i}{'DN'[i % 2]}.png")) for i in range(4)])
    train = report["splits"]["train"]
    assert train["class_pixels"] == np.bincount(labels.ravel(), minlength=9).tolist()
    assert train["sizes"] == [{"height": 24, "width": 32, "images": 4}]
    assert (train["images"], train["pixels"], train["ignored_pixels"]) == (4, labels.size, 0)
    assert report["problems"] == []
    assert report["picture"] == "mfnet-check.png"


def test_problems_are_counted_by_kind_and_end_with_1(here, mfnet_folder, capsys):
    damage(mfnet_folder)
    assert main(["data", "check", f"mfnet={mfnet_folder}", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    counts = report["problem_counts"]
    assert counts["missing"] == counts["damaged"] == counts["out of range"] == {"train": 1, "val": 0}
    assert counts["other"] == {"train": 0, "val": 1}
    assert {p["key"]: p["kind"] for p in report["problems"]} == {
        "00000D": "missing", "00001N": "damaged", "00002D": "out of range", "00004D": "other",
    }  # fmt: skip
    assert report["splits"]["train"]["readable"] == 1
    assert main(["data", "check", f"mfnet={mfnet_folder}"]) == 1
    shown = capsys.readouterr().out
    assert "4 of 6 samples cannot be used" in shown
    assert "00000D.png" in shown
    assert main(["data", "build", f"mfnet={mfnet_folder}", "--size", "24", "32"]) == 1
    assert "4 of 6 samples" in capsys.readouterr().err


def test_nothing_can_be_read(here, capsys):
    folder = write_mfnet(here / "set")
    for path in (folder / "images").iterdir():
        path.unlink()
    assert main(["data", "check", f"mfnet={folder}"]) == 1
    assert "6 of 6" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "mfnet"], "needs a folder"),
        (["check", "mfnet="], "expected NAME=PATH"),
        (["check", "mfnt=/x"], "Did you mean 'mfnet'"),
        (["check", "mfnet=/no/such"], "does not exist"),
        (["check", "scenes", "--option", "trian=4"], "Did you mean 'train'"),
        (["check", "scenes", "--option", "train"], "expected NAME=VALUE"),
        (["check", "scenes", "--option", "train=[1]"], "not a single value"),
        (["check", "scenes", "--option", "train=zero"], "option 'train'"),
        (["check", "scenes", "--picture", "a.doc"], "not a picture format"),
        (["check", "scenes", "--picture", "no/a.png"], "does not exist"),
        (["build", "scenes", "--size", "8", "8", "--set", "data.size=[1, 2]"], "only data.options."),
        (["build", "scenes", "--size", "8", "8", "--storage", "nope://x"], "give a local folder, or a URI"),
    ],
)
def test_wrong_requests_end_with_2(here, capsys, arguments, message):
    assert main(["data", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("kdsearch: ")
    assert message in error
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("size", [[], ["--size", "8"], ["--size", "0", "8"]])
def test_a_store_needs_a_size(size):
    with pytest.raises(SystemExit) as error:
        main(["data", "build", "scenes", *size])
    assert error.value.code == 2


def test_a_built_store_is_the_one_that_a_study_opens(here, capsys):
    from kdsearch.config.data import DataConfig
    from kdsearch.io.run_folder import RunFolder

    options = ["--option", "train=3", "--option", "val=2", "--option", "height=48", "--set", "data.options.width=64"]
    assert main(["data", "build", "scenes", "--size", "24", "32", *options, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    store = Store.open(facts["store"])
    assert facts["images"] == {"train": 3, "val": 2}
    values = {"train": 3, "val": 2, "height": 48, "width": 64}
    config = DataConfig(name="scenes", size=(24, 32), options=values)
    assert store.fingerprint == content_of(open_reader(config)).fingerprint
    assert store.path.parent == RunFolder.at("runs", "any").stores
    assert main(["data", "build", "scenes", "--size", "24", "32", *options]) == 0
    assert "3 train, 2 val, 24x32" in capsys.readouterr().out


def test_thermal_and_flow_are_shown(here):
    arguments = ["data", "check", "scenes", "--option", "train=2", "--option", "val=1"]
    assert main([*arguments, "--picture", "seen.png"]) == 0
    assert Image.open("seen.png").size[0] > 2 * 4 * 320


def test_overlay_mixes_colours_and_hatches_what_has_no_class():
    info = DatasetInfo("x", ("a", "b"), ((200, 0, 0), (0, 100, 0)), 3, (0, 0, 0), (1, 1, 1))
    label = np.array([[0, 1] + [255] * 8], np.uint8)
    seen = overlay(np.full((1, 10, 3), 100, np.uint8), label, info)
    assert seen[0, 0].tolist() == [155, 45, 45]
    assert seen[0, 1].tolist() == [45, 100, 45]
    assert {tuple(pixel) for pixel in seen[0, 2:]} == {(100, 100, 100), (255, 255, 255)}


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom kdsearch.cli.main import main\n"
        "try:\n    main(['data', 'check', '--help'])\nexcept SystemExit:\n"
        "    print(sorted({'torch', 'numpy', 'PIL', 'pyarrow', 'rich'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "exit status: 0" in answer.stdout
    assert answer.stdout.strip().endswith("[]")
