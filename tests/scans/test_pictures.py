"""PNG, JPEG and TIFF are shown as they are, or with their contrast."""

import struct

import cv2
import numpy as np
import pytest
from PIL import Image
from scan_files import ramp, write_dicom, write_nifti

from emitdiff.errors import EmitDiffError
from emitdiff.scans.geometry import Window
from emitdiff.scans.masks import read_mask
from emitdiff.scans.reading import read_scan


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_8_bit_pictures_are_shown_as_they_are(tmp_path, suffix, mode):
    array = np.random.default_rng(0).integers(0, 256, (17, 23) if mode == "L" else (17, 23, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / f"a.{suffix}", lossless=True)
    scan = read_scan(tmp_path / f"a.{suffix}")
    assert (scan.kind, scan.num_slices, scan.size, scan.windows) == ("image", 1, (17, 23), {})
    assert scan.window_used() is None and scan.spacing is None
    np.testing.assert_array_equal(scan.image(), array if mode == "RGB" else np.repeat(array[..., None], 3, -1))


@pytest.mark.parametrize("mode", ["1", "P", "RGBA", "CMYK", "LA"])
def test_every_8_bit_mode_becomes_rgb(tmp_path, mode):
    picture = Image.radial_gradient("L").convert("RGB").convert(mode)
    picture.save(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"))
    image = read_scan(tmp_path / ("a.tif" if mode == "CMYK" else "a.png")).image()
    assert image.shape == (256, 256, 3) and image.dtype == np.uint8 and image.std() > 20


def test_the_content_decides_and_not_the_suffix(tmp_path):
    Image.new("RGB", (9, 7), "red").save(tmp_path / "really.png")
    (tmp_path / "really.png").rename(tmp_path / "a.jpg")
    assert read_scan(tmp_path / "a.jpg").image()[0, 0].tolist() == [255, 0, 0]
    write_nifti(tmp_path / "a.nii", np.zeros((4, 5, 6), np.int16))
    (tmp_path / "a.nii").rename(tmp_path / "b.dcm")
    assert read_scan(tmp_path / "b.dcm").kind == "nifti"
    write_dicom(tmp_path / "c.png", ramp())
    assert read_scan(tmp_path / "c.png").kind == "dicom"


def test_jpeg_is_turned_as_exif_says(tmp_path):
    array = np.zeros((16, 32, 3), np.uint8)
    array[:, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    Image.fromarray(array).save(tmp_path / "a.jpg", exif=exif, quality=95)
    scan = read_scan(tmp_path / "a.jpg")
    assert scan.size == (32, 16) and "EXIF" in scan.warnings[0]
    assert scan.image()[:12].mean() > 250 and scan.image()[20:].mean() < 5


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_keeps_its_contrast(tmp_path, suffix):
    array = ramp(top=4000)
    array[0, 0] = 65535  # one hot pixel must not make the rest black
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), array)
    scan = read_scan(tmp_path / f"a.{suffix}")
    assert list(scan.windows) == ["automatic", "full range"]
    low, high = np.percentile(array, (0.5, 99.5))
    assert scan.window_used() == Window((low + high) / 2, high - low)
    image = scan.image()[..., 0]
    assert image[0, 1] == 0 and image[-1, -1] == 255 and 120 < image[10, 0] < 135
    assert scan.image(0, "full range").mean() < 10
    assert scan.image(0, Window(2000, 2)).mean() == pytest.approx(127, abs=3)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_colour_keeps_its_contrast_and_order(tmp_path, suffix):
    array = np.zeros((20, 30, 3), np.uint16)
    array[..., 0], array[..., 2] = ramp(top=4000), 1000
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), array[..., ::-1])
    scan = read_scan(tmp_path / f"a.{suffix}")
    assert scan.values.dtype == np.uint16
    np.testing.assert_array_equal(scan.values[0], array)
    np.testing.assert_allclose(scan.image()[-1, -1], [255, 0, 64], atol=1)


@pytest.mark.parametrize("turn", [np.ndarray.copy, np.fliplr, lambda a: a[::-1, ::-1], np.flipud, np.transpose,
                                  lambda a: np.rot90(a, -1), lambda a: a[::-1, ::-1].T, np.rot90])  # fmt: skip
def test_a_tiff_is_turned_as_its_orientation_says(tmp_path, turn, request):
    orientation = 1 + request.node.callspec.indices["turn"]
    array = np.random.default_rng(0).integers(0, 256, (17, 23), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "a.tif", tiffinfo={274: orientation})
    np.testing.assert_array_equal(read_scan(tmp_path / "a.tif").values[0], turn(array))


def deep_tiff(array, orientation):
    """An uncompressed TIFF of 16-bit colour, byte by byte: neither Pillow nor OpenCV writes an orientation."""
    height, width, _ = array.shape
    tags = {256: width, 257: height, 259: 1, 262: 2, 274: orientation, 277: 3, 278: height, 279: array.nbytes, 284: 1}
    offset = 8 + 2 + 12 * (len(tags) + 2) + 4
    entries = {tag: (4, 1, value) for tag, value in tags.items()}
    entries |= {258: (3, 3, offset), 273: (4, 1, offset + 6)}
    directory = b"".join(struct.pack("<HHII", tag, *entries[tag]) for tag in sorted(entries))
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4)
    return head + struct.pack("<HHH", 16, 16, 16) + array.astype("<u2").tobytes()


@pytest.mark.parametrize("orientation", [1, 3])
def test_16_bit_colour_tiff_is_turned_once(tmp_path, orientation):
    array = np.zeros((8, 16, 3), np.uint16)
    array[:, :8] = 4000
    (tmp_path / "a.tif").write_bytes(deep_tiff(array, orientation))
    first = 4000 if orientation == 1 else 0
    values = read_scan(tmp_path / "a.tif").values[0]
    assert values[0, 0].tolist() == [first] * 3 and values[0, -1].tolist() == [4000 - first] * 3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_pages_of_a_tiff_are_slices(tmp_path, dtype):
    pages = [Image.fromarray(np.full((5, 6), 40 * page, dtype)) for page in range(4)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=[*pages[1:], Image.new("L", (3, 2))])
    scan = read_scan(tmp_path / "a.tif")
    assert scan.num_slices == 4 and "1 further" in scan.warnings[0]
    assert [scan.values[index].mean() for index in range(4)] == [0, 40, 80, 120]
    path = scan.save_mask({2: np.full((5, 6), 7)}, tmp_path / "out")
    assert path.name == "a_mask.tif" and read_mask(path, (5, 6), index=2).max() == 7
    assert read_mask(path, index=1).max() == 0
    with pytest.raises(EmitDiffError, match="4 slices"):
        read_mask(path)


def deep_pages(order, big, giant):
    """Three pages of 16-bit colour, a TIFF or BigTIFF; the one numbered `giant` says that it is 60,000 pixels wide."""
    word, kind = ("Q", 16) if big else ("I", 4)
    content = b"II" if order == "<" else b"MM"
    content += struct.pack(order + "HHHQ", 43, 8, 0, 16) if big else struct.pack(order + "HI", 42, 8)
    for page in range(3):
        pixels, bits = np.full((6, 5, 3), 1000 * page, order + "u2").tobytes(), struct.pack(order + "4H", 16, 16, 16, 0)
        at = len(content) + (16 + 9 * 20 if big else 6 + 9 * 12)  # what lies behind the tags: bits, then pixels
        side = 60_000 if page == giant else 0
        tags = {256: side or 5, 257: side or 6, 258: at, 259: 1, 262: 2, 273: at + 8, 277: 3, 278: 6, 279: len(pixels)}
        content += struct.pack(order + ("Q" if big else "H"), len(tags))
        for tag, value in tags.items():
            short = tag == 258
            content += struct.pack(f"{order}HH{word}", tag, 3 if short else kind, 3 if short else 1)
            content += bits if short and big else struct.pack(order + word, value)
        content += struct.pack(order + word, at + 8 + len(pixels) if page < 2 else 0) + bits + pixels
    return content


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
@pytest.mark.parametrize("giant", [1, 2])
def test_a_giant_among_deep_pages_is_never_decoded(tmp_path, order, big, giant):
    (tmp_path / "a.tif").write_bytes(deep_pages(order, big, giant))
    scan = read_scan(tmp_path / "a.tif")
    assert scan.values.shape == (2, 6, 5, 3) and "1 further" in scan.warnings[0]
    assert [int(page.mean()) for page in scan.values] == [1000 * page for page in range(3) if page != giant]


def test_float_tiff_with_nan(tmp_path):
    array = np.linspace(-1, 1, 600, dtype=np.float32).reshape(20, 30)
    array[3, 3] = np.nan
    Image.fromarray(array).save(tmp_path / "a.tif")
    scan = read_scan(tmp_path / "a.tif")
    assert "NaN" in scan.warnings[0] and scan.image()[3, 3, 0] == 0 and scan.image().max() == 255


def test_a_constant_picture_is_no_error(tmp_path):
    Image.fromarray(np.full((8, 8), 300, np.uint16)).save(tmp_path / "a.png")
    assert read_scan(tmp_path / "a.png").image().shape == (8, 8, 3)


def test_transparency_and_animation_are_said(tmp_path):
    Image.new("RGBA", (4, 4), (9, 9, 9, 0)).save(tmp_path / "a.png")
    assert "Transparency" in read_scan(tmp_path / "a.png").warnings[0]
    frames = [Image.new("RGB", (4, 4), (level, 0, 0)) for level in (10, 200)]
    frames[0].save(tmp_path / "b.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert "1 further" in read_scan(tmp_path / "b.webp").warnings[0]


def test_slices_and_windows_that_are_not_there(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    scan = read_scan(tmp_path / "a.png")
    for ask in (lambda: scan.image(1), lambda: scan.image(-1), lambda: scan.image(0, "lung")):
        with pytest.raises(EmitDiffError, match="'a.png' has"):
            ask()
    for window in (Window(0, 0), Window(0, float("nan")), Window(0, float("inf")), Window(float("nan"), 100)):
        with pytest.raises(EmitDiffError, match="width above 0"):
            scan.image(0, window)
