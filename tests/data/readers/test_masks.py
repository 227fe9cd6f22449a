"""Masks as other tools write them: read right or refused, never as another class."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from kdsearch.data.info import IGNORE_INDEX
from kdsearch.errors import UserError
from tests.data.layouts import SIZE, opened, save, write_image

IDS = "classes: [a, b, c, d]\n"
COLOURS = {0: (128, 64, 128), 1: (0, 0, 142), 2: (220, 20, 60)}
NAMED = "classes:\n" + "".join(f"- {{name: {'abc'[i]}, colour: {list(c)}}}\n" for i, c in COLOURS.items())


def png(pixels, bits, kind=0, palette=()):
    """A PNG with `bits` per sample, whose samples are stored as they are; `kind` 0 is gray, 3 has a palette."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b""
    for row in pixels:
        text = "".join(f"{value:0{bits}b}" for value in row)
        rows += b"\0" + int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")
    header = struct.pack(">IIBBBBB", len(pixels[0]), len(pixels), bits, kind, 0, 0, 0)
    colours = chunk(b"PLTE", bytes(value for colour in palette for value in colour)) if palette else b""
    body = chunk(b"IHDR", header) + colours + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.fixture
def write(tmp_path):
    """Writes a set with the masks `train` and `val` (bytes, or a Pillow image) and returns its labels."""

    def write(classes, **masks):
        folder = tmp_path / "set"
        for split, mask in {"train": None, "val": None, **masks}.items():
            path = folder / "labels" / split / "x.png"
            write_image(folder / "images" / split / "x.png", seed=len(split))
            path.parent.mkdir(parents=True)
            mask = masks.get("train") if mask is None else mask
            if isinstance(mask, bytes):
                path.write_bytes(mask)
            else:
                mask.save(path, "PNG")
        (folder / "classes.yaml").write_text(classes)
        return lambda split="train": opened("folder", folder).read(split, "x").label_hw

    return write


@pytest.fixture
def label():
    values = np.random.default_rng(0).integers(0, 4, SIZE, dtype=np.uint8)
    values.ravel()[:4] = range(4)
    return values


def indexed(label, palette):
    image = Image.fromarray(label, "P")
    image.putpalette([value for colour in palette for value in colour])
    return image


class TestDepth:
    def test_one_bit(self, write, label):
        assert np.array_equal(write(IDS, train=Image.fromarray(label > 1))(), label > 1)

    def test_one_bit_where_white_is_a_class(self, write, label):
        read = write("classes: [a, {name: b, id: 255}]\n", train=Image.fromarray(label > 1))
        assert np.array_equal(read(), label > 1)

    def test_one_bit_among_eight_may_have_been_255(self, write, label):
        read = write(IDS, train=Image.fromarray(label), val=Image.fromarray(label > 1))
        assert np.array_equal(read(), label)
        with pytest.raises(UserError, match=r"x\.png has 1 bit per pixel, of which 1 may also be 255; save all masks"):
            read("val")

    def test_one_bit_of_which_both_readings_are_classes(self, write, label):
        read = write("classes: [a, b, {name: c, id: 255}]\n", train=Image.fromarray(label > 1))
        with pytest.raises(UserError, match="1 may also be 255"):
            read()

    @pytest.mark.parametrize("bits", [2, 4])
    def test_few_bits_of_ids(self, write, label, bits):
        assert np.array_equal(write(IDS, train=png(label, bits))(), label)

    def test_few_bits_of_spread_values(self, write, label):
        spread = "classes: [{name: a, id: 0}, {name: b, id: 85}, {name: c, id: 170}, {name: d, id: 255}]\n"
        assert np.array_equal(write(spread, train=png(label, 2))(), label)

    def test_sixteen_bits(self, write, label):
        assert np.array_equal(write(IDS, train=Image.fromarray(label.astype(np.uint16)))(), label)

    def test_sixteen_bits_of_spread_values(self, write, label):
        assert np.array_equal(write(IDS, train=Image.fromarray(label.astype(np.uint16) * 257))(), label)

    def test_sixteen_bits_of_other_values_are_refused(self, write, label):
        with pytest.raises(UserError, match=r"I;16 pixels; save it with 8 bits: 1000 is no label value"):
            write(IDS, train=Image.fromarray(label.astype(np.uint16) * 1000))()

    def test_sixteen_bits_in_each_channel_lose_small_ids(self, write, label):
        cv2 = pytest.importorskip("cv2")
        _, data = cv2.imencode(".png", np.dstack([label.astype(np.uint16)] * 3))
        with pytest.raises(UserError, match="16 bits in each of its channels"):
            write(IDS, train=data.tobytes())()


class TestChannels:
    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
    def test_gray_in_many_channels(self, write, label, mode):
        assert np.array_equal(write(IDS, train=Image.fromarray(label).convert(mode))(), label)

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_transparent_pixels_are_refused(self, write, label, mode):
        image = Image.fromarray(label).convert(mode)
        image.putalpha(Image.fromarray(np.where(label > 2, 0, 255).astype(np.uint8)))
        with pytest.raises(UserError, match=r"x\.png has transparent pixels, whose class is unknown; save it"):
            write(IDS, train=image)()

    def test_colours_without_classes_are_named(self, write, label):
        colours = np.array([*COLOURS.values(), (0, 0, 0)], np.uint8)[label]
        with pytest.raises(UserError, match=r"x\.png has 3 channels; .* colour in .*classes\.yaml: .*\(0, 0, 142\)"):
            write(IDS, train=Image.fromarray(colours))()

    def test_a_mode_that_holds_no_ids(self, write, label):
        buffer = io.BytesIO()
        Image.fromarray(label).convert("CMYK").save(buffer, "TIFF")
        with pytest.raises(UserError, match="has CMYK pixels, which are no class ids"):
            write(IDS, train=buffer.getvalue())()


class TestColours:
    @pytest.fixture
    def label(self, label):
        return label % 3

    @pytest.fixture
    def shown(self, label):
        return np.array(list(COLOURS.values()), np.uint8)[label]

    @pytest.mark.parametrize("mode", ["RGB", "RGBA"])
    def test_they_are_translated(self, write, label, shown, mode):
        assert np.array_equal(write(NAMED, train=Image.fromarray(shown).convert(mode))(), label)

    def test_a_palette_of_them_is_translated_whatever_its_order(self, write, label, shown):
        image = Image.fromarray(shown).quantize(8)
        assert np.array_equal(write(NAMED, train=image)(), label)

    def test_ignored_colours(self, write, label, shown):
        shown[label == 2] = (0, 0, 0)
        read = write(NAMED + "ignore: [[0, 0, 0]]\n", train=Image.fromarray(shown))
        assert np.array_equal(read(), np.where(label == 2, IGNORE_INDEX, label))

    def test_unknown_ones_are_refused_with_their_number(self, write, shown):
        shown[:2, :3], shown[3, 3] = (1, 2, 3), (9, 9, 9)
        message = (
            r"x\.png has 3 channels; .*ignore in .*classes\.yaml: \(1, 2, 3\) of 6 .*, \(9, 9, 9\) of 1 .*7 of 768"
        )
        with pytest.raises(UserError, match=message):
            write(NAMED, train=Image.fromarray(shown))()

    def test_a_black_mask_that_lost_its_channels_is_no_class(self, write, shown):
        read = write(NAMED, train=Image.fromarray(shown), val=Image.fromarray(np.zeros(SIZE, np.uint8)))
        with pytest.raises(UserError, match="is gray among masks of colours"):
            read("val")

    def test_ids_stay_ids_in_a_set_that_gives_colours_for_pictures(self, write, label):
        assert np.array_equal(write(NAMED, train=Image.fromarray(label))(), label)

    def test_a_palette_that_contradicts_the_classes(self, write, label):
        palette = [COLOURS[1], COLOURS[0], (7, 7, 7)]
        with pytest.raises(UserError, match=r"entry 0 of its palette has the colour .* of another class"):
            write(NAMED, train=indexed(label, palette))()


class TestPalettes:
    COLOURS = ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))

    def test_indices_of_one_palette_are_ids(self, write, label):
        assert np.array_equal(write(IDS, train=indexed(label, self.COLOURS))(), label)

    def test_a_shorter_palette_of_the_same_colours(self, write, label):
        read = write(IDS, train=indexed(label, self.COLOURS), val=indexed(label % 2, self.COLOURS[:2]))
        assert np.array_equal(read("val"), label % 2)

    def test_palettes_that_disagree_were_renumbered(self, write, label):
        read = write(IDS, train=indexed(label, self.COLOURS), val=indexed(label % 2, self.COLOURS[::3]))
        with pytest.raises(UserError, match=r"entry 1 of the palette is \(128, 0, 0\) in x\.png and \(128, 128, 0\)"):
            read("val")

    def test_grays_that_are_classes_were_renumbered(self, write, label):
        with pytest.raises(UserError, match="a palette of grays, of which 1 may also be 3; save all masks"):
            write(IDS, train=png(label % 2, 1, 3, [(0, 0, 0), (3, 3, 3)]))()

    def test_grays_of_which_one_is_ignored_among_gray_masks(self, write, label):
        read = write(IDS, train=Image.fromarray(label), val=png(label % 2, 1, 3, [(0, 0, 0), (255, 255, 255)]))
        with pytest.raises(UserError, match="1 may also be 255"):
            read("val")

    def test_grays_are_values_where_indices_are_none(self, write, label):
        spread = "classes: [{name: a, id: 10}, {name: b, id: 20}]\n"
        assert np.array_equal(write(spread, train=png(label % 2, 1, 3, [(10, 10, 10), (20, 20, 20)]))(), label % 2)

    def test_grays_made_to_be_seen(self, write, label):
        grays = [(value, value, value) for value in (0, 85, 170, 255)]
        assert np.array_equal(write(IDS, train=indexed(label, grays))(), label)

    def test_voc_renumbered_is_read_by_its_colours(self, tmp_path):
        from tests.data.layouts import write_voc

        folder = write_voc(tmp_path / "set")
        official = opened("voc", folder).info.palette
        save(folder / "SegmentationClass" / "2007_000033.png", np.zeros(SIZE, np.uint8))
        label = np.where(np.arange(SIZE[1]) % 2, 1, 0)[None].repeat(SIZE[0], 0).astype(np.uint8)
        indexed(label, (official[15], official[8])).save(folder / "SegmentationClass" / "2007_000033.png")
        assert np.array_equal(opened("voc", folder).read("val", "2007_000033").label_hw, np.where(label, 8, 15))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_files_under_another_name_are_refused(write, label, kind):
    buffer = io.BytesIO()
    Image.fromarray(label).save(buffer, kind)
    with pytest.raises(UserError, match=rf"x\.png is a {kind} image, whose compression .*; make it anew as PNG"):
        write(IDS, train=buffer.getvalue())()


def test_masks_with_an_orientation_are_refused(write, label):
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(label).save(buffer, "PNG", exif=exif)
    with pytest.raises(UserError, match=r"x\.png has an orientation in its EXIF.*; save the mask as it is shown"):
        write(IDS, train=buffer.getvalue())()


def test_255_can_be_a_class(write):
    label = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), SIZE)
    read = write("classes: [background, {name: thing, id: 255}]\n", train=Image.fromarray(label))
    assert np.array_equal(read(), label // 255)
