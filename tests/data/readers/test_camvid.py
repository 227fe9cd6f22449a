"""What is special about CamVid: three kinds of lists, one ignored id, next frames by sequence."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from kdsearch.config.data import DataConfig
from kdsearch.data.info import IGNORE_INDEX
from kdsearch.data.store.file_digests import content_of
from kdsearch.data.store.store import build_store
from kdsearch.errors import UserError
from tests.data.layouts import CAMVID_NAMES, opened, write_camvid, write_image, write_label


@pytest.mark.parametrize("lists", [None, "names", "paths"])
@pytest.mark.parametrize("end", [".png", ".jpg"])
def test_lists_of_both_kinds_and_none(tmp_path, lists, end):
    reader = opened("camvid", write_camvid(tmp_path / "set", lists, end))
    assert {split: reader.keys(split) for split in CAMVID_NAMES} == CAMVID_NAMES
    assert reader.read("train", "0006R0_f00930").image_hwc.shape == (24, 32, 3)


def test_label_11_is_ignored(tmp_path):
    reader = opened("camvid", write_camvid(tmp_path / "set"))
    raw = np.array(Image.open(tmp_path / "set" / "trainannot" / "0001TP_006690.png"))
    label = reader.read("train", "0001TP_006690").label_hw
    assert np.array_equal(label, np.where(raw == 11, IGNORE_INDEX, raw))
    assert {11, 0} <= set(np.unique(raw))


def test_next_frame_is_the_next_of_the_sequence(tmp_path):
    folder = write_camvid(tmp_path / "set")

    def next_of(split, key, **options):
        reader = opened("camvid", folder, flow="dis", **options)
        following = reader.read(split, key).next_image_hwc
        (match,) = [k for k in reader.keys(split) if np.array_equal(reader.read(split, k).image_hwc, following)]
        return match

    assert next_of("train", "0001TP_006690") == "0001TP_006720"
    assert next_of("train", "0001TP_006720") == "0001TP_006690"  # the last one: backwards
    assert next_of("train", "0006R0_f00930") == "0006R0_f00960"
    assert next_of("val", "0016E5_07963") == "0016E5_10000"  # by number, not by length of the name
    (folder / "train.txt").write_text("0006R0_f00930\n0006R0_f00960\n")
    (folder / "val.txt").write_text("\n".join(CAMVID_NAMES["val"]))
    with pytest.raises(UserError, match="sequence '0006R0' has 2 frames, a gap of 2 needs 4: lower gap"):
        opened("camvid", folder, flow="dis", gap=2)


def test_gap_of_two(tmp_path):
    folder = write_camvid(tmp_path / "set", "names")
    (folder / "train.txt").write_text("".join(f"{name}\n" for name in CAMVID_NAMES["val"]))
    (folder / "val.txt").unlink()
    for name in CAMVID_NAMES["val"]:
        for place in ("", "annot"):
            source, target = folder / f"val{place}" / f"{name}.png", folder / f"train{place}" / f"{name}.png"
            source.rename(target)
            source.with_name(f"x{name}.png").write_bytes(target.read_bytes())
    reader = opened("camvid", folder, flow="dis", gap=2)
    for key, following in zip(reader.keys("train"), [2, 3, 0, 1], strict=True):
        want = reader.read("train", reader.keys("train")[following]).image_hwc
        assert np.array_equal(reader.read("train", key).next_image_hwc, want)


def test_a_frame_alone_has_no_next(tmp_path):
    folder = write_camvid(tmp_path / "set", "names")
    (folder / "val.txt").write_text("0016E5_07959\n")
    opened("camvid", folder)
    with pytest.raises(UserError, match=r"'0016E5' has 1 frame, a gap of 1 needs 2: .*remove the sequence"):
        opened("camvid", folder, flow="dis")


def test_names_without_a_number(tmp_path):
    folder = write_camvid(tmp_path / "set")
    for place in ("val", "valannot"):
        (folder / place / "0016E5_07959.png").rename(folder / place / "street.png")
    with pytest.raises(UserError, match=r"val/street\.png is not named SEQUENCE_NUMBER.*flow: none"):
        opened("camvid", folder, flow="dis")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gap": 2}, "gap has no effect"),
        ({"flow": "raft"}, "needs flow_weights"),
        ({"flow": "dis", "flow_weights": "x.pth"}, "flow_weights has no effect"),
        ({"flow": "raft", "flow_weights": "x.pth"}, "set/x.pth'"),
        ({"flow": "farneback"}, "option 'flow'"),
        ({"flow": "dis", "gap": 0}, "option 'gap'"),
    ],
)
def test_options_are_checked(tmp_path, options, message):
    with pytest.raises(UserError) as error:
        opened("camvid", write_camvid(tmp_path / "set"), **options)
    assert message in str(error.value)


def test_without_opencv(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match=r"pip install kdsearch-seg\[flow\]"):
        opened("camvid", write_camvid(tmp_path / "set"), flow="dis")


def test_fingerprint_follows_flow(tmp_path):
    folder = write_camvid(tmp_path / "set")
    prints = {content_of(opened("camvid", folder, **o)).fingerprint for o in ({}, {"flow": "dis"})}
    assert len(prints) == 2


@pytest.mark.parametrize("what", ["train", "trainannot"])
def test_missing_folders(tmp_path, what):
    folder = write_camvid(tmp_path / "set")
    shutil.rmtree(folder / what)
    with pytest.raises(UserError, match=f"set/{what} does not exist"):
        opened("camvid", folder)


def test_files_without_a_partner(tmp_path):
    folder = write_camvid(tmp_path / "set", end=".jpg")
    (folder / "train" / "0001TP_006690.jpg").unlink()
    (folder / "trainannot" / "0001TP_006720.png").unlink()
    reader = opened("camvid", folder)
    with pytest.raises(UserError, match=r"annot/0001TP_006690\.png has no .*train/0001TP_006690\.jpg; add"):
        reader.read("train", "0001TP_006690")
    with pytest.raises(UserError, match=r"train/0001TP_006720\.jpg has no .*annot/0001TP_006720\.png; add"):
        reader.read("train", "0001TP_006720")


def test_a_name_in_both_splits(tmp_path):
    folder = write_camvid(tmp_path / "set")
    for place in ("", "annot"):
        source = folder / f"train{place}" / "0001TP_006690.png"
        (folder / f"val{place}" / source.name).write_bytes(source.read_bytes())
    with pytest.raises(UserError, match="'0001TP_006690' is in train and in val"):
        opened("camvid", folder)


def test_two_images_of_a_name(tmp_path):
    folder = write_camvid(tmp_path / "set")
    write_image(folder / "train" / "0001TP_006690.jpg")
    with pytest.raises(UserError, match="have the same name"):
        opened("camvid", folder)


def test_label_of_another_set(tmp_path):
    folder = write_camvid(tmp_path / "set")
    write_label(folder / "valannot" / "0016E5_07959.png", [0, 12, 30])
    with pytest.raises(UserError, match=r"0016E5_07959\.png: 12 is no label value of 'camvid'"):
        opened("camvid", folder).read("val", "0016E5_07959")


def test_store_keeps_frames_and_flow(tmp_path):
    folder = write_camvid(tmp_path / "set")
    config = DataConfig(name="camvid", path=str(folder), size=(12, 16), options={"flow": "dis"})
    split = build_store(config, tmp_path / "stores").split("train")
    assert split.next_images.shape == (5, 12, 16, 3)
    assert np.array_equal(split.next_images[0], split.images[1])
    assert split.flows.shape == (5, 12, 16, 2)
