"""Masks as picture programs save them: what they can mean one thing by is taken, the rest refused with what to do."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageDraw

from emitdiff.errors import EmitDiffError
from emitdiff.scans.masks import read_mask
from emitdiff.scans.reading import read_scan

BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (128, 0, 0)


def disk(width=64, height=48) -> np.ndarray:
    """0 and 1: a disk, and a bar that ends at the border."""
    picture = Image.new("L", (width, height))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((10, 8, 40, 38), fill=1)
    draw.rectangle((50, 30, 63, 44), fill=1)
    return np.asarray(picture)


def palette_picture(indices: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    picture = Image.fromarray(indices.astype(np.uint8), "P")
    picture.putpalette([channel for colour in colours for channel in colour])
    return picture


def rgba(colour: np.ndarray, alpha: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([np.broadcast_to(colour, (*alpha.shape, 3)), alpha]).astype(np.uint8))


def read(tmp_path, picture: Image.Image, name="mask.png", **how) -> np.ndarray:
    picture.save(tmp_path / name, **how)
    return read_mask(tmp_path / name)


@pytest.mark.parametrize(
    "picture",
    [
        Image.fromarray(disk() * 255),
        Image.fromarray(disk() > 0),
        Image.fromarray(disk().astype(np.uint16) * 65535),
        Image.fromarray(np.dstack([disk() * 255] * 3)),
        palette_picture(disk(), BLACK, WHITE),
        palette_picture(1 - disk(), WHITE, BLACK),
        palette_picture(disk(), BLACK, RED),
        palette_picture(disk(), BLACK, (1, 1, 1)),
        Image.fromarray(disk() * 255).convert("RGB").quantize(2),
        rgba(WHITE, disk() * 255),
        rgba(BLACK, disk() * 255),
        rgba(RED, disk() * 255),
        rgba(RED, disk() * 128),
        rgba(np.dstack([disk() * 255] * 3), np.full(disk().shape, 255)),
        rgba(np.dstack([disk() * 255] * 3), np.full(disk().shape, 128)),
        rgba(np.dstack([disk() * 255] * 3), disk() * 255),
        Image.merge("LA", [Image.new("L", (64, 48), 255), Image.fromarray(disk() * 255)]),
    ],
    ids=lambda picture: picture.mode,
)
def test_two_classes_are_taken_however_they_are_drawn(tmp_path, picture):
    np.testing.assert_array_equal(read(tmp_path, picture), disk())


@pytest.mark.parametrize("name", ["mask.jpg", "mask.webp", "mask.tif"])
@pytest.mark.parametrize("quality", [60, 75, 95])
def test_black_and_white_survives_lossy_compression(tmp_path, name, quality):
    how = {"compression": "jpeg"} if name == "mask.tif" else {}
    np.testing.assert_array_equal(read(tmp_path, Image.fromarray(disk() * 255), name, quality=quality, **how), disk())


@pytest.mark.parametrize("name", ["mask.jpg", "mask.webp", "mask.tif"])
@pytest.mark.parametrize("levels", [(0, 1), (0, 1, 2), (0, 128, 255), (0, 220, 255), (0, 80, 160, 240)])
def test_anything_else_that_was_compressed_with_loss_is_refused(tmp_path, name, levels):
    values = np.repeat(np.take(levels, np.arange(48) * len(levels) // 48)[:, None], 64, 1).astype(np.uint8)
    how = {"compression": "jpeg"} if name == "mask.tif" else {}
    with pytest.raises(EmitDiffError, match="compression has changed the values.*as PNG"):
        read(tmp_path, Image.fromarray(values), name, quality=80, **how)


def test_an_empty_mask_may_be_a_jpeg(tmp_path):
    assert not read(tmp_path, Image.new("L", (64, 48)), "mask.jpg").any()


def test_a_lossless_webp_is_taken_as_it_is(tmp_path):
    np.testing.assert_array_equal(read(tmp_path, Image.fromarray(disk() * 7), "mask.webp", lossless=True), disk() * 7)


VOC = [BLACK, RED, (0, 128, 0), (128, 128, 0)]


@pytest.mark.parametrize("used", [(0, 1, 2, 3), (1, 3), (2,)])
def test_a_palette_that_begins_with_black_gives_its_indices(tmp_path, used):
    indices = np.repeat(np.array(used)[:, None], 9, 1)
    assert np.unique(read(tmp_path, palette_picture(indices, *VOC))).tolist() == list(used)
    tifffile.imwrite(
        tmp_path / "mask.tif", indices.astype(np.uint8), photometric="palette",
        colormap=np.pad(np.array(VOC, np.uint16).T * 257, ((0, 0), (0, 252))),
    )  # fmt: skip
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.tif"), indices)


@pytest.mark.parametrize(
    "colours",
    [
        [WHITE, RED, BLACK],  # by how often they come
        [RED, BLACK],
        [BLACK, (128,) * 3, WHITE],  # may be the classes 0, 1, 2 or 0, 128, 255
        [BLACK, (77,) * 3, (13,) * 3],  # ids that a program has packed into a palette
        [BLACK, BLACK, BLACK],
    ],
)
def test_a_palette_that_does_not_say_what_is_background_is_refused(tmp_path, colours):
    indices = np.repeat(np.arange(len(colours))[:, None], 9, 1)
    with pytest.raises(EmitDiffError, match="does not say which colour is which class.*as grey PNG"):
        read(tmp_path, palette_picture(indices, *colours))


def test_the_transparent_index_of_a_palette_is_background(tmp_path):
    picture = palette_picture(np.repeat(np.arange(3)[:, None], 9, 1), WHITE, RED, (0, 128, 0))
    assert np.unique(read(tmp_path, picture, transparency=0)).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("picture", "sentence"),
    [
        (rgba(RED, np.zeros((9, 9))), "wholly transparent"),
        (rgba(RED, np.tile(np.arange(0, 255, 28)[:9], (9, 1))), "half transparent in places"),
        (
            rgba(np.tile(np.array([RED, (0, 128, 0)] * 4), (8, 1, 1)), np.tile([255, 0, 255, 255] * 2, (8, 1))),
            "in colour",
        ),
    ],
)
def test_transparency_that_may_mean_several_things_is_refused(tmp_path, picture, sentence):
    with pytest.raises(EmitDiffError, match=sentence):
        read(tmp_path, picture)


def test_transparency_of_16_bits_is_looked_at_too(tmp_path):
    bgra = np.dstack([np.full((*disk().shape, 3), 65535), disk().astype(np.uint16) * 65535]).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "mask.png"), bgra)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), disk())


def write_png(path, values: np.ndarray, depth: int, colour_type: int = 0):
    """Grey of `depth` bits, which Pillow does not write; or, of colour type 4, grey of 16 bits with transparency."""
    rows = [np.unpackbits(row[:, None], axis=1)[:, 8 - depth :].ravel() for row in values] if depth < 8 else values
    lines = b"".join(b"\0" + (np.packbits(row).tobytes() if depth < 8 else row.astype(">u2").tobytes()) for row in rows)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, colour_type, 0, 0, 0)),
              (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]  # fmt: skip
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    ))  # fmt: skip
    return path


def test_grey_and_transparency_of_16_bits(tmp_path):
    values = np.dstack([np.full(disk().shape, 65535), disk().astype(np.uint16) * 65535]).astype(np.uint16)
    np.testing.assert_array_equal(read_mask(write_png(tmp_path / "mask.png", values, 16, 4)), disk())


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_grey_of_few_bits_is_black_and_white_or_refused(tmp_path, depth):
    path = write_png(tmp_path / "mask.png", disk() * (2**depth - 1), depth)
    np.testing.assert_array_equal(read_mask(path), disk())
    if depth > 1:  # 1 of 3 is 85 as a shade of grey, and class 1 for whoever wrote ids
        with pytest.raises(EmitDiffError, match=f"grey values of {depth} bits.*with 8 bits"):
            read_mask(write_png(tmp_path / "mask.png", disk(), depth))


def test_smooth_edges_are_refused(tmp_path):
    large = Image.fromarray(disk() * 255).resize((40, 30), Image.Resampling.BILINEAR)
    with pytest.raises(EmitDiffError, match="255 beside .* smooth edges.*hard edges"):
        read(tmp_path, large)
    few = np.repeat(np.array([0, 64, 128, 191, 255], np.uint8)[:, None], 9, 1)
    with pytest.raises(EmitDiffError, match="255 beside 3 other"):
        read(tmp_path, Image.fromarray(few))


@pytest.mark.parametrize("mode", ["L", "P"])
def test_255_beside_classes_is_no_class(tmp_path, mode):
    """Pascal VOC has it for what is to be ignored."""
    indices = np.repeat(np.array([0, 1, 2, 255])[:, None], 9, 1)
    picture = palette_picture(indices, *VOC, *[BLACK] * 251, (224, 224, 192)) if mode == "P" else None
    with pytest.raises(EmitDiffError, match="255 for what is to be ignored"):
        read(tmp_path, picture or Image.fromarray(indices.astype(np.uint8)))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32])
def test_254_classes_are_a_mask_and_a_photograph_is_none(tmp_path, kind):
    classes = np.repeat(np.repeat(np.arange(255).reshape(15, 17), 4, 0), 4, 1).astype(kind)
    tifffile.imwrite(tmp_path / "mask.tif", classes)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.tif"), classes)
    noise = np.random.default_rng(0).normal(120, 20, (64, 64))
    tifffile.imwrite(tmp_path / "photo.tif", cv2.GaussianBlur(noise, (5, 5), 0).clip(0, 254).astype(kind))
    with pytest.raises(EmitDiffError, match="looks like an image"):
        read_mask(tmp_path / "photo.tif")


def test_a_picture_of_few_shades_is_no_mask_either(tmp_path):
    """30 values were taken for 30 classes."""
    noise = np.random.default_rng(0).integers(0, 30, (64, 64), np.uint8)
    with pytest.raises(EmitDiffError, match="looks like an image"):
        read(tmp_path, Image.fromarray(noise))


def test_a_transparent_tiff_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "mask.tif", np.asarray(rgba(WHITE, disk() * 255)), photometric="rgb",
                     extrasamples=["unassalpha"])  # fmt: skip
    with pytest.raises(EmitDiffError, match="partly transparent"):
        read_mask(tmp_path / "mask.tif")


def test_a_mask_is_turned_upright_as_its_image_is(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(disk() * 255).save(tmp_path / "mask.png", exif=exif)
    Image.fromarray(disk() * 200).save(tmp_path / "image.png", exif=exif)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), read_scan(tmp_path / "image.png").values[0] > 0)


def turned_png(path, array):
    """A PNG of 16-bit samples that EXIF says to turn clockwise: no program here writes one, so byte by byte."""
    cv2.imwrite(str(path), array)
    content = path.read_bytes()
    exif = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + bytes(4)
    chunk = b"eXIf" + exif
    chunk = struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(content[:33] + chunk + content[33:])  # behind the header
    return path


def test_deep_pngs_and_their_masks_are_turned_as_exif_says(tmp_path):
    colour = np.random.default_rng(0).integers(0, 65535, (12, 20, 3)).astype(np.uint16)
    scan = read_scan(turned_png(tmp_path / "a.png", colour))
    assert scan.size == (20, 12) and "EXIF" in scan.warnings[0]
    np.testing.assert_array_equal(scan.values[0], np.rot90(colour[..., ::-1], -1))
    transparent = np.dstack([np.full((48, 64, 3), 65535), disk().astype(np.uint16) * 65535]).astype(np.uint16)
    np.testing.assert_array_equal(read_mask(turned_png(tmp_path / "b.png", transparent)), np.rot90(disk(), -1))


@pytest.mark.parametrize("name", ["mask.png", "mask.webp"])
def test_an_animation_is_no_mask(tmp_path, name):
    first, second = (Image.fromarray(array * 255) for array in (disk(), 1 - disk()))
    with pytest.raises(EmitDiffError, match="2 pictures .an animation.*Save the one that is meant"):
        read(tmp_path, first, name, save_all=True, append_images=[second], lossless=True)


def test_a_tiff_mask_with_pages_of_several_sizes_is_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "mask.tif") as writer:
        writer.write(disk())
        writer.write(disk(width=80))
    with pytest.raises(EmitDiffError, match="pages of several sizes"):
        read_mask(tmp_path / "mask.tif")
