"""TIFF of every kind against tifffile, which shares no code with the reader: the same values, or the true reason."""

import itertools
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from emitdiff.errors import EmitDiffError
from emitdiff.scans.masks import read_mask
from emitdiff.scans.reading import read_scan

HEIGHT, WIDTH = 37, 45
COMPRESSIONS = [None, "lzw", "zlib", "packbits", "lzma", "zstd"]
NUMBERS = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]


def noise(dtype, *shape):
    draw = np.random.default_rng(0)
    shape = shape or (HEIGHT, WIDTH)
    if np.dtype(dtype).kind == "f":
        return draw.normal(0, 100, shape).astype(dtype)
    span = np.iinfo(dtype)
    return draw.integers(span.min, span.max, shape, dtype=dtype, endpoint=True)


def check(path, array, **how):
    """Written by tifffile, read by both."""
    tifffile.imwrite(path, array, **how)
    scan = read_scan(path)
    np.testing.assert_array_equal(np.squeeze(scan.values), np.squeeze(tifffile.imread(path)))
    assert scan.image().dtype == np.uint8
    return scan


@pytest.mark.parametrize(("dtype", "order"), itertools.product(NUMBERS, "<>"))
def test_every_number(tmp_path, dtype, order):
    check(tmp_path / "a.tif", noise(dtype), byteorder=order, photometric="minisblack", bigtiff=order == ">")


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "f4", "f8"])
@pytest.mark.parametrize("order", "<>")
def test_every_packing_with_its_predictor(tmp_path, compression, dtype, order):
    how = {"compression": compression, "byteorder": order, "photometric": "minisblack"}
    check(tmp_path / "a.tif", noise(dtype), **how, rowsperstrip=7)
    check(tmp_path / "b.tif", noise(dtype), **how, tile=(16, 32))
    if compression not in {None, "packbits"}:
        check(tmp_path / "c.tif", noise(dtype), **how, predictor=True, rowsperstrip=7)
        check(tmp_path / "d.tif", noise(dtype), **how, predictor=True, tile=(16, 32))


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("how", [{}, {"tile": (16, 16)}, {"compression": "zlib", "predictor": True, "rowsperstrip": 5}])
def test_colour_lies_together_or_apart(tmp_path, dtype, planar, how):
    shape = (HEIGHT, WIDTH, 3) if planar == "contig" else (3, HEIGHT, WIDTH)
    path, array = tmp_path / "a.tif", noise(dtype, *shape)
    tifffile.imwrite(path, array, photometric="rgb", planarconfig=planar, **how)
    expected = array if planar == "contig" else np.moveaxis(array, 0, -1)
    np.testing.assert_array_equal(read_scan(path).values[0], expected)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i2", "f4"])
def test_what_begins_with_white_is_turned_round(tmp_path, dtype):
    """TIFF 6.0, PhotometricInterpretation 0: the lowest value is white."""
    array = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="miniswhite")
    scan = read_scan(tmp_path / "a.tif")
    if dtype[0] == "u":
        np.testing.assert_array_equal(scan.values[0], np.iinfo(dtype).max - array)
    image = read_scan(tmp_path / "a.tif").image().astype(int)
    assert image[0, 0, 0] > image[-1, -1, 0]


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_numbers_that_fill_no_bytes(tmp_path, bits):
    array = noise("u2") >> (16 - bits)
    tifffile.imwrite(tmp_path / "a.tif", array, bitspersample=bits, photometric="minisblack")
    np.testing.assert_array_equal(read_scan(tmp_path / "a.tif").values[0], array)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_channels_without_a_meaning_are_slices(tmp_path, dtype):
    for count in (2, 5):
        array = noise(dtype, HEIGHT, WIDTH, count)
        tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", planarconfig="contig")
        scan = read_scan(tmp_path / "a.tif")
        np.testing.assert_array_equal(scan.values, np.moveaxis(array, -1, 0))
        assert scan.warnings == (f"The {count} channels of the file are shown as slices.",)


def test_opacity_is_no_channel(tmp_path):
    array = noise("u2", HEIGHT, WIDTH, 2)
    tifffile.imwrite(
        tmp_path / "a.tif", array, photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"]
    )
    scan = read_scan(tmp_path / "a.tif")
    np.testing.assert_array_equal(scan.values[0], array[..., 0])
    assert "Transparency" in scan.warnings[0]
    array = noise("u2", HEIGHT, WIDTH, 4)
    array[..., 3] = 65535
    tifffile.imwrite(tmp_path / "b.tif", array, photometric="rgb", extrasamples=["unassalpha"])
    scan = read_scan(tmp_path / "b.tif")
    assert scan.warnings == ()
    np.testing.assert_array_equal(scan.values[0], array[..., :3])
    tifffile.imwrite(tmp_path / "c.tif", array, photometric="rgb", extrasamples=["unspecified"])
    assert "1 further channel" in read_scan(tmp_path / "c.tif").warnings[0]


def test_colours_multiplied_by_their_opacity_are_as_before(tmp_path):
    colours = noise("u2", HEIGHT, WIDTH, 3)
    opacity = np.full((HEIGHT, WIDTH, 1), 32768, np.uint16)
    stored = np.concatenate([np.rint(colours * (32768 / 65535)).astype(np.uint16), opacity], -1)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["assocalpha"])
    assert np.abs(read_scan(tmp_path / "a.tif").values[0].astype(int) - colours).max() <= 1


def test_a_stack_of_imagej_has_the_tags_of_its_first_image_alone(tmp_path):
    array = noise("u2", 6, HEIGHT, WIDTH)
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, metadata={"axes": "ZYX"})
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        first = file.pages[0]
        order, next_place = file.byteorder, first.offset + 2 + 12 * len(first.tags)
    content[next_place : next_place + 4] = bytes(4)  # as for files of more than 4 GB
    (tmp_path / "b.tif").write_bytes(content)
    assert order in "<>"
    scan = read_scan(tmp_path / "b.tif")
    np.testing.assert_array_equal(scan.values, array)
    (tmp_path / "c.tif").write_bytes(content[: first.dataoffsets[0] + 4 * HEIGHT * WIDTH * 2])
    with pytest.raises(EmitDiffError, match="damaged"):
        read_scan(tmp_path / "c.tif")


def test_thumbnails_and_transparency_masks_are_no_slices(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(noise("u2"), photometric="minisblack")
        file.write(noise("u2"), photometric="minisblack", subfiletype=1)
        file.write(noise("u2"), photometric="minisblack")
    scan = read_scan(tmp_path / "a.tif")
    assert scan.num_slices == 2 and "1 further picture" in scan.warnings[0]


REFUSED = {
    "compressed with JPEG 2000": {"compression": "jpeg2000", "photometric": "minisblack"},
    "compressed with JPEG XL": {"compression": "jpegxl", "photometric": "minisblack"},
    "colours in CIELab": {"photometric": "cielab"},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_not_read_is_named_and_not_called_damaged(tmp_path, reason):
    shape = (HEIGHT, WIDTH, 3) if "CIELab" in reason else (HEIGHT, WIDTH)
    tifffile.imwrite(tmp_path / "a.tif", noise("u1", *shape), **REFUSED[reason])
    with pytest.raises(EmitDiffError, match=f"'a.tif' .*{reason}, which is not read. Save it as") as caught:
        read_scan(tmp_path / "a.tif")
    assert "damaged" not in str(caught.value)


def test_numbers_that_are_not_read_are_named(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise("f4").astype("c8"), photometric="minisblack")
    with pytest.raises(EmitDiffError, match="complex"):
        read_scan(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", noise("u1", HEIGHT, WIDTH, 3), photometric="ycbcr", subsampling=(1, 1))
    content = (tmp_path / "b.tif").read_bytes()
    half = struct.pack("<HHIHH", 530, 3, 2, 2, 2)
    assert struct.pack("<HHIHH", 530, 3, 2, 1, 1) in content
    (tmp_path / "b.tif").write_bytes(content.replace(struct.pack("<HHIHH", 530, 3, 2, 1, 1), half))
    with pytest.raises(EmitDiffError, match="YCbCr"):
        read_scan(tmp_path / "b.tif")


def test_ycbcr_without_compression(tmp_path):
    colours = np.asarray(Image.radial_gradient("L").convert("RGB").resize((WIDTH, HEIGHT)))
    stored = np.asarray(Image.fromarray(colours).convert("YCbCr"))
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="ycbcr", subsampling=(1, 1))
    assert np.abs(read_scan(tmp_path / "a.tif").values[0].astype(int) - colours).max() <= 2


def test_whatever_is_cut_off_is_damaged(tmp_path):
    for place, how in enumerate(({}, {"compression": "zlib"}, {"tile": (16, 16)})):
        path = tmp_path / f"{place}.tif"
        tifffile.imwrite(path, noise("i2"), photometric="minisblack", **how)
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(EmitDiffError, match="damaged"):
            read_scan(path)


def test_a_mask_in_wide_numbers_is_a_mask(tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), np.int64)
    mask[3:9, 4:20] = 2
    tifffile.imwrite(tmp_path / "a.tif", mask, photometric="minisblack")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), mask)
