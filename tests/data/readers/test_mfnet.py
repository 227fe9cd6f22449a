"""MFNet: subsets."""

from __future__ import annotations

import pytest

from kdsearch.config.data import DataConfig
from kdsearch.data.registry import open_reader
from kdsearch.errors import UserError


def test_mfnet_subsets_share_out_the_images(mfnet_folder):
    def keys(**options):
        config = DataConfig(name="mfnet", path=str(mfnet_folder), size=(24, 32), options=options)
        return open_reader(config).keys("train")

    assert keys(subset="day") == ["00000D", "00002D"]
    assert sorted(keys(subset="day") + keys(subset="night")) == keys()
    with pytest.raises(UserError, match="'day' or 'night'"):
        keys(subset="noon")


def with_flips(folder, names, made=False):
    text = (folder / "train.txt").read_text().split()
    (folder / "train.txt").write_text("".join(f"{name}\n{name}_flip\n" for name in text))
    for name in names if made else ():
        for kind in ("images", "labels"):
            (folder / kind / f"{name}_flip.png").write_bytes((folder / kind / f"{name}.png").read_bytes())
    return open_reader(DataConfig(name="mfnet", path=str(folder), size=(24, 32)))


def test_mirrored_copies_that_nobody_made_are_left_out_and_said(mfnet_folder):
    reader = with_flips(mfnet_folder, [])
    assert reader.keys("train") == ["00000D", "00001N", "00002D", "00003N"]
    [note] = reader.notes
    assert "train.txt: left out 4 names such as 00000D_flip: they are mirrored copies" in note


def test_mirrored_copies_that_were_made_stay(mfnet_folder):
    reader = with_flips(mfnet_folder, ["00000D", "00001N", "00002D", "00003N"], made=True)
    assert len(reader.keys("train")) == 8
    assert reader.notes == ()


def test_a_mirrored_copy_without_its_original_is_missing(mfnet_folder):
    (mfnet_folder / "train.txt").write_text("00000D\n00001N_flip\n")
    reader = open_reader(DataConfig(name="mfnet", path=str(mfnet_folder), size=(24, 32)))
    with pytest.raises(UserError, match=r"has no .*00001N_flip\.png; add the file"):
        reader.read("train", "00001N_flip")
