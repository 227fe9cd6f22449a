"""Lists and file names as other systems write them."""

from __future__ import annotations

import unicodedata

import pytest

from kdsearch.errors import UserError
from tests.data.layouts import opened, write_image, write_label

PLAIN = ["a1", "a2", "a3"]


def write(root, names, train=None, val="v\n", end=".png", encoding="utf-8"):
    """A set with lists; `names` are of train, `train` the text of its list (default: the names)."""
    for seed, name in enumerate([*names, "v"]):
        write_image(root / "images" / f"{name}{end}", seed)
        write_label(root / "labels" / f"{name}.png", [0, 1], seed)
    text = "".join(f"{name}\n" for name in names) if train is None else train
    (root / "train.txt").write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    (root / "val.txt").write_text(val)
    (root / "classes.yaml").write_text("classes: [a, b]\n")
    return root


def keys(root):
    reader = opened("folder", root)
    found = reader.keys("train")
    for key in found:
        reader.read("train", key)
    return found


@pytest.mark.parametrize(
    "names",
    [
        ["train photo 1", "train photo 2"],
        ["a#1", "#2", "b # c"],
        ["it's", '"quoted"', "a,b", "c;d", "e'"],
        ["photo.v1", "photo.v2.final", "x.jpg y"],
        ["a\\b", "100%", "[x]", "(1)", "~"],
        ["Straße", "größe 2"],
    ],
)
@pytest.mark.parametrize("end", ["", ".png"])
def test_names_may_hold_anything(tmp_path, names, end):
    assert keys(write(tmp_path / "set", names, "".join(f"{name}{end}\n" for name in names))) == names


@pytest.mark.parametrize(
    "text",
    [
        "a1.png\r\na2.png\r\na3.png\r\n",
        "a1\ra2\ra3",
        "\n a1 \n\n\ta2\na3",
        "# the images\na1\na2\n#a0\na3\n",
        "a1  # good\na2\na3 # blurred\n",
        '"a1.png"\n"a2.png"\n"a3.png"\n',
        '"a1.png","labels/a1.png"\n"a2.png","labels/a2.png"\n"a3.png","labels/a3.png"\n',
        "a1,1\na2,0\na3,1\n",
        "a1;x\na2;x\na3;x\n",
        "a1\tx y\na2\tx y\na3\tx y\n",
        "a1  1\na2 -1\na3  0\n",
        "images/a1.png labels/a1.png\nimages/a2.png labels/a2.png\nimages/a3.png labels/a3.png\n",
        "C:\\data\\images\\a1.png\nC:\\data\\images\\a2.png\nC:\\data\\images\\a3.png\n",
        "C:\\my data\\a1.PNG C:\\my data\\m\\a1.png\nC:\\my data\\a2.PNG x\nC:\\my data\\a3.PNG x\n",
        "/abs/my data/a1.png\n/abs/my data/a2.png\n./a3.png\n",
        "A1.PNG\nA2.PNG\nA3.PNG\n",
        "a1.tif\na2.tif\na3.tif\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_lists_of_other_systems(tmp_path, text, encoding):
    assert keys(write(tmp_path / "set", PLAIN, text, encoding=encoding)) == PLAIN


def test_a_list_of_old_windows(tmp_path):
    names = ["Straße", "a"]
    assert keys(write(tmp_path / "set", names, encoding="cp1252")) == names


@pytest.mark.parametrize("listed", ["NFC", "NFD"])
@pytest.mark.parametrize("image", ["NFC", "NFD"])
@pytest.mark.parametrize("label", ["NFC", "NFD"])
def test_composed_and_decomposed_names_are_the_same(tmp_path, listed, image, label):
    name, folder = "größe", tmp_path / "set"
    write(folder, [], unicodedata.normalize(listed, name))
    write_image(folder / "images" / f"{unicodedata.normalize(image, name)}.png")
    write_label(folder / "labels" / f"{unicodedata.normalize(label, name)}.png", [0, 1])
    assert keys(folder) == [name]


def test_a_missing_name_is_reported_and_not_taken_for_another(tmp_path):
    folder = write(tmp_path / "set", ["photo", "photo 1", "photo 2"], "photo 1\nphoto 2\nphoto 3\n")
    reader = opened("folder", folder)
    assert reader.keys("train") == ["photo 1", "photo 2", "photo 3"]
    with pytest.raises(UserError, match=r"photo 3\.png"):
        reader.read("train", "photo 3")


def test_a_label_in_another_case_is_not_taken_from_its_own_image(tmp_path):
    folder = write(tmp_path / "set", ["x", "X"])
    (folder / "labels" / "x.png").unlink()
    with pytest.raises(UserError, match=r"x\.png"):
        opened("folder", folder).read("train", "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", r"train\.txt is not a text file; write one name per line"),
        ("a1\na2\na1\n", r"train\.txt names 'a1' more than once; remove"),
        ("a1.png\na1.jpg\n", r"train\.txt names 'a1' more than once; remove"),
        ("# only a comment\n", r"train\.txt names no image; write one name"),
        ("n" * 300, r"train\.txt: 'n{40}' is no file name; write one name"),
        ("/\n", r"train\.txt: '' is no file name"),
        ("v\n", r"'v' is in train and in val; remove it"),
    ],
)
def test_lists_that_are_none(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        opened("folder", write(tmp_path / "set", PLAIN, text))


def test_a_folder_in_place_of_a_list(tmp_path):
    folder = write(tmp_path / "set", PLAIN)
    (folder / "train.txt").unlink()
    (folder / "train.txt").mkdir()
    with pytest.raises(UserError, match=r"train\.txt cannot be read \(Is a directory\)"):
        opened("folder", folder)


class TestFilesBeside:
    def test_hidden_files_are_left_out(self, tmp_path):
        folder = write(tmp_path / "set", PLAIN)
        for list_ in ("train.txt", "val.txt"):
            (folder / list_).unlink()
        for kind in ("images", "labels"):
            for split, names in (("train", PLAIN), ("val", ["v"])):
                (folder / kind / split).mkdir()
                for name in names:
                    (folder / kind / f"{name}.png").rename(folder / kind / split / f"{name}.png")
                for junk in (".DS_Store", "._a1.png", "Thumbs.db", "desktop.ini"):
                    (folder / kind / split / junk).write_bytes(b"x")
                checkpoints = folder / kind / split / ".ipynb_checkpoints"
                checkpoints.mkdir()
                (checkpoints / "a1-checkpoint.png").write_bytes(b"x")
                (folder / kind / split / "old.png").mkdir()
        assert keys(folder) == PLAIN

    def test_a_converted_copy_is_refused(self, tmp_path):
        folder = write(tmp_path / "set", PLAIN)
        for name in PLAIN[:2]:
            write_image(folder / "images" / f"{name}.jpg")
        with pytest.raises(UserError, match=r"a1\.jpg and a1\.png have the same name \(2 names have several.*; remove"):
            opened("folder", folder)

    def test_the_list_may_tell_which_is_meant(self, tmp_path):
        folder = write(tmp_path / "set", PLAIN, "a1.png\na2.png\na3.png\n")
        write_image(folder / "images" / "a1.jpg")
        assert opened("folder", folder).files("train", "a1")[0].name == "a1.png"

    def test_other_endings_are_named(self, tmp_path):
        folder = write(tmp_path / "set", PLAIN)
        for path in list((folder / "labels").iterdir()):
            path.rename(path.with_suffix(".jpg"))
        with pytest.raises(UserError, match=r"labels holds no file that ends with \.png \(but \.jpg\)"):
            opened("folder", folder)
