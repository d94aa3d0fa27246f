import contextlib
import gzip
import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib

import cv2
import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from PIL.ExifTags import Base
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_voi_lut
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from emitdiff import dicom, scans
from emitdiff.errors import EmitDiffError
from emitdiff.scans import Window, read_mask, read_scan, read_scan_mask, read_slice_mask

AXIAL = [1, 0, 0, 0, 1, 0]
SECRETS = {"PatientName": "Secret^Name", "PatientID": "Secret-4711", "InstitutionName": "Secret Hospital"}


def ramp(height=20, width=30, top=4000):
    return np.linspace(0, top, height * width).reshape(height, width).astype(np.uint16)


def dicom_dataset(pixels, **elements):
    """A real DICOM data set around grey (H, W), (F, H, W) or colour (H, W, 3) pixels."""
    pixels = np.ascontiguousarray(pixels)
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.Modality = "OT"
    dataset.Rows, dataset.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    if pixels.ndim == 3 and not colour:
        dataset.NumberOfFrames = len(pixels)
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for keyword, value in (SECRETS | elements).items():
        setattr(dataset, keyword, value)
    return dataset


def write_dicom(path, pixels, **elements):
    dicom_dataset(pixels, **elements).save_as(path, enforce_file_format=True)
    return path


def write_series(folder, count=5, step=(0, 0, 2.5), orientation=AXIAL, shuffle=True, **elements):
    """Slice i is filled with 100 * i; the numbers in the files and their names are in another order than space."""
    folder.mkdir(exist_ok=True)
    series = generate_uid()
    order = np.random.default_rng(0).permutation(count) if shuffle else np.arange(count)
    for number, place in enumerate(order):
        write_dicom(
            folder / f"{number:03d}.dcm",
            np.full((6, 8), 100 * place, np.int16),
            **{
                "Modality": "CT",
                "SeriesInstanceUID": series,
                "InstanceNumber": number + 1,
                "ImagePositionPatient": list(np.array([10.0, 20.0, 30.0]) + place * np.array(step)),
                "ImageOrientationPatient": orientation,
                "PixelSpacing": [0.5, 0.75],
                "RescaleSlope": 1,
                "RescaleIntercept": -1024,
            }
            | elements,
        )
    return folder


def write_nifti(path, array, affine=None, image_class=nibabel.Nifti1Image):
    nibabel.save(image_class(array, np.eye(4) if affine is None else affine), path)
    return path


# ---- pictures


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


# ---- DICOM


def test_ct_windows_are_those_of_the_standard(tmp_path):
    values = ramp(top=4095)
    elements = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 35, "WindowWidth": 350}
    scan = read_scan(write_dicom(tmp_path / "a.dcm", values, **elements, PixelSpacing=[0.5, 0.75], SliceThickness=3))
    assert (scan.kind, scan.modality, scan.spacing) == ("dicom", "CT", (3, 0.5, 0.75))
    assert list(scan.windows) == ["as stored", "soft tissue", "lung", "brain", "bone", "automatic", "full range"]
    assert scan.window_used() == Window(35, 350) and scan.window_used(0, "lung") == Window(-600, 1500)
    hounsfield = values.astype(np.float64) - 1024
    for name, (centre, width) in {"as stored": (35, 350), "lung": (-600, 1500), "bone": (400, 1800)}.items():
        dataset = dicom_dataset(np.zeros((1, 1), np.uint8), WindowCenter=centre, WindowWidth=width)
        expected = np.rint(apply_voi_lut(hounsfield, dataset))
        assert np.abs(scan.image(0, name)[..., 0] - expected).max() <= 1


def test_ct_without_a_stored_window_shows_soft_tissue(tmp_path):
    scan = read_scan(write_dicom(tmp_path / "a.dcm", ramp(), Modality="CT", RescaleIntercept=-1024, RescaleSlope=1))
    assert next(iter(scan.windows)) == "soft tissue"
    np.testing.assert_array_equal(scan.image(), scan.image(0, Window(40, 400)))


def test_windows_carry_the_names_in_the_file(tmp_path):
    elements = {"WindowCenter": [600, 40], "WindowWidth": [1600, 80], "WindowCenterWidthExplanation": ["WIDE", ""]}
    scan = read_scan(write_dicom(tmp_path / "a.dcm", ramp(), Modality="MR", **elements))
    assert scan.modality == "MRI"
    assert list(scan.windows) == ["wide", "as stored 2", "automatic", "full range"]


def test_monochrome1_is_inverted(tmp_path):
    elements = {"Modality": "DX", "PhotometricInterpretation": "MONOCHROME1"}
    deep = read_scan(write_dicom(tmp_path / "a.dcm", ramp(), **elements))
    assert deep.modality == "X-ray" and deep.image()[0, 0, 0] == 255 and deep.image()[-1, -1, 0] == 0
    flat = read_scan(write_dicom(tmp_path / "b.dcm", np.array([[0, 100, 255]], np.uint8), **elements))
    assert flat.image()[0, :, 0].tolist() == [255, 155, 0]


def test_voi_look_up_table(tmp_path):
    table = Dataset()
    table.LUTDescriptor = [256, 0, 16]
    table.LUTData = (np.arange(256) ** 2).astype(np.uint16).tobytes()
    table["LUTData"].VR = "OW"
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    scan = read_scan(write_dicom(tmp_path / "a.dcm", values, VOILUTSequence=[table], Modality="DX"))
    expected = np.arange(256).reshape(16, 16) ** 2 / 257
    assert np.abs(scan.image()[..., 0] - expected).max() <= 1


def test_modality_look_up_table_and_sigmoid(tmp_path):
    table = Dataset()
    table.LUTDescriptor = [256, 0, 16]
    table.ModalityLUTType = "US"
    table.LUTData = (np.arange(256) * 10).astype(np.uint16).tobytes()
    table["LUTData"].VR = "OW"
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    scan = read_scan(write_dicom(tmp_path / "a.dcm", values, ModalityLUTSequence=[table]))
    np.testing.assert_array_equal(scan.values[0], values.astype(np.float32) * 10)
    curve = {"WindowCenter": 128, "WindowWidth": 100, "VOILUTFunction": "SIGMOID"}
    image = read_scan(write_dicom(tmp_path / "b.dcm", values, **curve)).image()[..., 0]
    expected = 255 / (1 + np.exp(-4 * (values.astype(float) - 128) / 100))
    assert np.abs(image - expected).max() <= 1.01


def test_colour_dicom(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (12, 14, 3), dtype=np.uint8)
    scan = read_scan(write_dicom(tmp_path / "a.dcm", rgb, Modality="US"))
    assert scan.modality == "Ultrasound" and scan.windows == {}
    np.testing.assert_array_equal(scan.image(), rgb)
    ybr = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    scan = read_scan(write_dicom(tmp_path / "b.dcm", ybr, PhotometricInterpretation="YBR_FULL"))
    assert np.abs(scan.image().astype(int) - rgb).max() <= 3


def test_palette_dicom(tmp_path):
    indices = np.array([[0, 1, 2]], np.uint8)
    elements = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, column in zip(("Red", "Green", "Blue"), ((255, 0, 10), (0, 255, 20), (0, 0, 30)), strict=True):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        elements[f"{name}PaletteColorLookupTableData"] = (np.array([*column, 0]) * 257).astype("<u2").tobytes()
    scan = read_scan(write_dicom(tmp_path / "a.dcm", indices, **elements))
    assert scan.image()[0].tolist() == [[255, 0, 0], [0, 255, 0], [10, 20, 30]]


def test_8_bit_grey_dicom_is_shown_as_it_is(tmp_path):
    values = np.array([[3, 100, 250]], np.uint8)
    scan = read_scan(write_dicom(tmp_path / "a.dcm", values, Modality="US"))
    assert scan.windows == {} and scan.image()[0, :, 0].tolist() == [3, 100, 250]
    path = scan.save_mask(np.array([[0, 1, 2]]), tmp_path / "out")
    assert path.name == "a_mask.png" and read_mask(path).tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("syntax", ["rle", "jpeg2000"])
def test_compressed_dicom(tmp_path, syntax):
    values = ramp(64, 64)
    dataset = dicom_dataset(values, Modality="MR")
    if syntax == "rle":
        dataset.compress(pydicom.uid.RLELossless)
    else:
        stream = io.BytesIO()
        Image.fromarray(values).save(stream, "JPEG2000")
        dataset.PixelData = pydicom.encaps.encapsulate([stream.getvalue()])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_scan(tmp_path / "a.dcm").values[0], values)


def test_compressed_data_that_cannot_be_decoded_is_a_sentence(tmp_path):
    dataset = dicom_dataset(ramp())
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xf7" + bytes(40)])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(EmitDiffError, match="JPEG-LS.*gdcmconv --raw"):
        read_scan(tmp_path / "a.dcm")


def test_multi_frame_dicom(tmp_path):
    frames = np.stack([np.full((4, 5), value, np.uint8) for value in (10, 20, 30)])
    scan = read_scan(write_dicom(tmp_path / "a.dcm", frames, Modality="US"))
    assert [int(scan.image(index).max()) for index in range(3)] == [10, 20, 30]


def test_enhanced_multi_frame_is_sorted_and_scaled_per_frame(tmp_path):
    def item(**elements):
        dataset = Dataset()
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        return dataset

    heights, slopes = (5.0, 0.0, 2.5), (1, 2, 3)
    per_frame = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[0.0, 0.0, height])],
            PixelValueTransformationSequence=[item(RescaleSlope=slope, RescaleIntercept=0)],
        )
        for height, slope in zip(heights, slopes, strict=True)
    ]
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=AXIAL)],
        PixelMeasuresSequence=[item(PixelSpacing=[1.0, 2.0], SliceThickness=2.5)],
    )
    frames = np.full((3, 4, 5), 100, np.uint16)
    elements = {"PerFrameFunctionalGroupsSequence": per_frame, "SharedFunctionalGroupsSequence": [shared]}
    scan = read_scan(write_dicom(tmp_path / "a.dcm", frames, Modality="MR", **elements))
    assert [float(scan.values[index].mean()) for index in range(3)] == [200, 300, 100]
    assert scan.spacing == (2.5, 1, 2) and scan.geometry is not None


@pytest.mark.parametrize("pack", [False, True])
def test_a_series_is_sorted_along_its_normal(tmp_path, pack):
    folder = write_series(tmp_path / "series")
    (folder / "readme.txt").write_text("not DICOM")
    if pack:
        with zipfile.ZipFile(tmp_path / "series.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in folder.iterdir():
                archive.write(path, f"../../{path.name}")  # a name that would leave the folder, were it unpacked
    before = sorted(tmp_path.parent.rglob("*"))
    scan = read_scan(tmp_path / ("series.zip" if pack else "series"))
    assert scan.num_slices == 5 and scan.spacing == (2.5, 0.5, 0.75)
    assert [float(page.mean()) for page in scan.values] == [-1024, -924, -824, -724, -624]
    assert any("1 file(s)" in warning for warning in scan.warnings)
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_a_sagittal_series_is_sorted_too(tmp_path):
    sagittal = [0, 1, 0, 0, 0, -1]
    scan = read_scan(write_series(tmp_path / "series", orientation=sagittal, step=(-3, 0, 0)))
    assert [float(page.mean()) for page in scan.values] == [-1024, -924, -824, -724, -624]


def test_a_dicom_mask_lands_on_the_voxel_in_the_patient(tmp_path):
    scan = read_scan(write_series(tmp_path / "series", Modality="MR"))
    mask = np.zeros((6, 8), np.uint8)
    mask[4, 1] = 3
    path = scan.save_mask({2: mask}, tmp_path)
    image = nibabel.load(path)
    assert path.name == "series_mask.nii.gz" and image.shape == (8, 6, 5) and image.get_data_dtype() == np.uint8
    voxel = np.argwhere(np.asarray(image.dataobj) == 3)
    assert len(voxel) == 1
    left, posterior, superior = 10 + 1 * 0.75, 20 + 4 * 0.5, 30 + 2 * 2.5  # DICOM is LPS+
    np.testing.assert_allclose(nibabel.affines.apply_affine(image.affine, voxel[0]), [-left, -posterior, superior])


def test_what_is_odd_about_a_series_is_said(tmp_path):
    folder = write_series(tmp_path / "series")
    write_series(tmp_path / "other", count=2)
    for path in (tmp_path / "other").iterdir():
        path.rename(folder / f"other_{path.name}")
    (folder / "001.dcm").unlink()
    warnings = " ".join(read_scan(folder).warnings)
    assert "largest of 2 series" in warnings and "4 slices" in warnings
    gap = write_series(tmp_path / "gap", shuffle=False)
    (gap / "002.dcm").unlink()
    assert "not evenly spaced" in " ".join(read_scan(gap).warnings)
    cine = read_scan(write_series(tmp_path / "cine", step=(0, 0, 0)))
    assert "one position" in cine.warnings[0] and cine.geometry is None


def test_burned_in_text_is_a_warning(tmp_path):
    assert "burned" in read_scan(write_dicom(tmp_path / "a.dcm", ramp(), BurnedInAnnotation="YES")).warnings[0]
    assert read_scan(write_dicom(tmp_path / "b.dcm", ramp(), BurnedInAnnotation="NO")).warnings == ()


def test_nobody_is_named(tmp_path, caplog, capfd):
    folder = write_series(tmp_path / "series", BurnedInAnnotation="YES", ImageComments="Secret comment")
    scan = read_scan(folder)
    saved = scan.save_mask(np.zeros((5, 6, 8), np.uint8), tmp_path)
    broken = tmp_path / "broken.dcm"
    broken.write_bytes((folder / "000.dcm").read_bytes()[:-50])
    with pytest.raises(EmitDiffError) as caught:
        read_scan(broken)
    texts = [pickle.dumps(scan), repr(scan).encode(), gzip.decompress(saved.read_bytes()), str(caught.value).encode()]
    texts += [caplog.text.encode(), "".join(capfd.readouterr()).encode()]
    assert not any(b"ecret" in text for text in texts)


# ---- NIfTI

ORIENTATIONS = ["RAS", "LPS", "LAS", "PIR", "SAL", "ASR", "IPL"]


def patient(shape=(7, 9, 11)):
    """RAS+ voxels: bright at the patient's right, brighter at the front, brightest at the head."""
    values = np.zeros(shape, np.int16)
    values[-2:], values[:, -2:], values[:, :, -1] = 100, 200, 300
    return values


def in_orientation(values, codes, affine=None):
    """The same patient, stored with the axes that `codes` name."""
    image = nibabel.Nifti1Image(values, np.diag([1.0, 1.5, 3.0, 1.0]) if affine is None else affine)
    target = nibabel.orientations.axcodes2ornt(codes)
    return image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), target))


@pytest.mark.parametrize("codes", ORIENTATIONS)
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_nifti_is_shown_as_radiologists_do(tmp_path, codes, suffix):
    nibabel.save(in_orientation(patient(), codes), tmp_path / f"a.{suffix}")
    scan = read_scan(tmp_path / f"a.{suffix}")
    assert (scan.kind, scan.num_slices, scan.size) == ("nifti", 11, (9, 7))
    assert scan.spacing == pytest.approx((3.0, 1.5, 1.0)) and "axial" in scan.orientation
    slice_ = scan.values[0]
    assert slice_[-1, 0] == 100 and slice_[-1, -1] == 0  # the patient's right is on the left
    assert slice_[0, -1] == 200  # front up
    assert (scan.values[-1] == 300).all()  # from foot to head


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_a_nifti_mask_goes_back_to_the_voxel_it_was_drawn_on(tmp_path, codes):
    values = np.random.default_rng(0).permutation(7 * 9 * 11).reshape(7, 9, 11).astype(np.int16)
    oblique = nibabel.affines.from_matvec(
        nibabel.eulerangles.euler2mat(0.2, 0.1, 0.3) @ np.diag([1.0, 1.5, 3.0]), [-40, 12, 7]
    )
    source = in_orientation(values, codes, oblique)
    source.header.set_xyzt_units("mm")
    nibabel.save(source, tmp_path / "case.v2.nii.gz")
    scan = read_scan(tmp_path / "case.v2.nii.gz")
    drawn = {3: scan.values[3] == scan.values[3, 4, 2], 8: (scan.values[8] > 300).astype(np.uint8) * 2}
    path = scan.save_mask(drawn, tmp_path / "out")
    saved = nibabel.load(path)
    assert path.name == "case.v2_mask.nii.gz" and saved.shape == source.shape
    assert bytes(saved.header["descrip"]).startswith(b"Research use only")
    np.testing.assert_allclose(saved.affine, source.affine, atol=1e-6)
    assert nibabel.aff2axcodes(saved.affine) == tuple(codes)
    written, stored = np.asarray(saved.dataobj), np.asarray(source.dataobj)
    assert stored[written == 1].tolist() == [int(scan.values[3, 4, 2])]
    assert sorted(stored[written == 2]) == sorted(scan.values[8][scan.values[8] > 300].astype(int))
    again = read_scan(path)
    np.testing.assert_array_equal(again.values[8], drawn[8])
    np.testing.assert_array_equal(read_mask(path, scan.size, index=8), drawn[8])


def test_q_and_s_forms_go_back_as_they_were(tmp_path):
    image = nibabel.Nifti1Image(patient(), None)
    image.header.set_qform(np.diag([-1.0, 1, 2, 1]), code=1)
    image.header.set_sform(np.diag([-1.0, 1, 2, 1]) + np.eye(4, k=3) * 5, code=4)
    nibabel.save(image, tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    source, saved = (nibabel.load(path).header for path in (tmp_path / "a.nii", scan.save_mask({}, tmp_path)))
    for field in ("qform_code", "sform_code", "srow_x", "quatern_b", "qoffset_x", "pixdim"):
        np.testing.assert_array_equal(source[field], saved[field])


def test_a_slice_in_another_plane_is_shown_in_it(tmp_path):
    scan = read_scan(write_nifti(tmp_path / "a.nii", patient()[:, :1]))  # coronal
    assert scan.size == (11, 7) and "coronal" in scan.orientation
    assert scan.image(0)[0].min() == 255  # head up
    flat = read_scan(write_nifti(tmp_path / "b.nii", patient()[:, :, 0]))
    assert flat.size == (9, 7) and nibabel.load(flat.save_mask({}, tmp_path)).shape == (7, 9)


def test_nifti_2_and_scaled_values(tmp_path):
    image = nibabel.Nifti2Image(patient(), np.eye(4))
    image.header.set_slope_inter(2, 5)
    nibabel.save(image, tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    assert scan.values.dtype == np.float32 and set(np.unique(scan.values)) == {5, 205, 405, 605}


def test_a_fourth_dimension_of_one_is_kept_in_the_mask(tmp_path):
    scan = read_scan(write_nifti(tmp_path / "a.nii", patient()[..., None]))
    assert scan.num_slices == 11 and nibabel.load(scan.save_mask({}, tmp_path)).shape == (7, 9, 11, 1)


def test_one_range_for_the_whole_volume(tmp_path):
    values = np.zeros((10, 10, 10), np.float32) + np.arange(10, dtype=np.float32) * 100
    scan = read_scan(write_nifti(tmp_path / "a.nii", values))
    assert [int(scan.image(index)[0, 0, 0]) for index in (0, 5, 9)] == [0, 142, 255]


def test_hounsfield_units_get_the_windows_of_ct(tmp_path):
    values = np.full((20, 20, 5), -1024, np.int16)
    values[5:15, 5:15] = 40
    scan = read_scan(write_nifti(tmp_path / "a.nii", values))
    assert next(iter(scan.windows)) == "soft tissue" and "Hounsfield" in scan.warnings[-1]
    assert scan.image(0)[10, 10, 0] == 128
    assert "lung" not in read_scan(write_nifti(tmp_path / "b.nii", patient())).windows


def test_nan_in_a_volume_is_shown_and_said(tmp_path):
    values = patient().astype(np.float32)
    values[0, 0, 0], values[1, 1, 1] = np.nan, np.inf
    scan = read_scan(write_nifti(tmp_path / "a.nii", values))
    assert "2 values are NaN or infinite" in " ".join(scan.warnings) and np.isfinite(scan.values).all()


def test_an_unusable_orientation_is_said_and_kept(tmp_path):
    image = nibabel.Nifti1Image(patient(), None)
    image.header["sform_code"] = 1  # with rows of zeros
    nibabel.save(image, tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    assert "cannot be used" in scan.warnings[0]
    assert nibabel.load(scan.save_mask({}, tmp_path)).shape == (7, 9, 11)
    nibabel.save(nibabel.Nifti1Image(patient(), None), tmp_path / "b.nii")
    assert "does not say" in read_scan(tmp_path / "b.nii").warnings[0]


# ---- masks


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[0, 255]], np.uint8), [0, 1]),
        (np.array([[255, 255]], np.uint8), [1, 1]),
        (np.array([[0, 1]], np.uint8), [0, 1]),
        (np.array([[0, 13]], np.uint8), [0, 13]),
        (np.array([[0, 7]], np.uint16), [0, 7]),
        (np.array([[[0] * 3, [255] * 3]], np.uint8), [0, 1]),
        (np.array([[False, True]]), [0, 1]),
    ],
)
def test_masks_become_class_ids(tmp_path, array, expected):
    Image.fromarray(array).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png", (1, 2))
    assert mask.dtype == np.uint8 and mask[0].tolist() == expected


def test_a_palette_mask_gives_its_indices(tmp_path):
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png").tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.array([[[255, 0, 0], [0, 0, 0]]], np.uint8), "in colour"),
        (np.arange(40, dtype=np.uint8)[None], "40 distinct values"),
        (np.array([[0, 300]], np.uint16), "not class ids"),
        (np.array([[0, 0.5]], np.float32), "not class ids"),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path, array, sentence):
    Image.fromarray(array).save(tmp_path / "mask.tif")
    with pytest.raises(EmitDiffError, match=sentence):
        read_mask(tmp_path / "mask.tif")


def write_pages(path, values):
    pages = [Image.fromarray(np.full((6, 5), value, np.uint8)) for value in values]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    return path


def test_a_mask_with_slices_is_read_at_the_slice_of_its_scan(tmp_path):
    scan = read_scan(write_pages(tmp_path / "scan.tif", (10, 20, 30)))
    assert read_slice_mask(write_pages(tmp_path / "mask.tif", (0, 1, 2)), scan, 2).max() == 2
    Image.new("L", (5, 6), 1).save(tmp_path / "page.png")
    assert read_slice_mask(tmp_path / "page.png", scan, 2).max() == 1
    with pytest.raises(EmitDiffError, match="2 slice.*image 3"):
        read_slice_mask(write_pages(tmp_path / "short.tif", (0, 1)), scan, 1)


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PSR"])
def test_a_nifti_mask_is_laid_over_its_scan_in_the_patient(tmp_path, codes):
    labels = (np.random.default_rng(0).random((7, 9, 11)) > 0.5).astype(np.uint8)
    nibabel.save(in_orientation(patient(), "LAS"), tmp_path / "scan.nii")
    nibabel.save(in_orientation(labels, "LAS"), tmp_path / "same.nii")
    nibabel.save(in_orientation(labels, codes), tmp_path / "mask.nii.gz")
    expected = read_scan(tmp_path / "same.nii").values[4]
    np.testing.assert_array_equal(
        read_slice_mask(tmp_path / "mask.nii.gz", read_scan(tmp_path / "scan.nii"), 4), expected
    )


def test_a_whole_mask_is_laid_over_its_scan(tmp_path):
    scan = read_scan(write_series(tmp_path / "series"))
    drawn = np.random.default_rng(0).integers(0, 2, (scan.num_slices, *scan.size)).astype(np.uint8)
    np.testing.assert_array_equal(read_scan_mask(scan.save_mask(drawn, tmp_path / "out"), scan), drawn)
    Image.fromarray(drawn[0] * 255).save(tmp_path / "one.png")
    with pytest.raises(EmitDiffError, match="of one slice"):
        read_scan_mask(tmp_path / "one.png", scan)


def test_a_mask_that_lies_elsewhere_is_refused(tmp_path):
    stored = in_orientation(patient(), "LAS")
    scan = read_scan(write_nifti(tmp_path / "scan.nii", stored.dataobj, stored.affine))
    mask = np.zeros((7, 9, 11), np.uint8)
    shifted = stored.affine + np.eye(4, k=3) * 5
    for array, affine in (
        (mask, np.eye(4)), (mask, shifted), (mask[:, :, :4], stored.affine), (mask[:, :, :1], stored.affine)
    ):  # fmt: skip
        with pytest.raises(EmitDiffError, match="does not lie where"):
            read_slice_mask(write_nifti(tmp_path / "mask.nii", array, affine), scan, 2)


def test_what_save_mask_writes_is_read_again_over_a_sagittal_series(tmp_path):
    """As NIfTI it would be shown in axial slices: only its place in the patient brings it back."""
    scan = read_scan(write_series(tmp_path / "series", step=(2.5, 0, 0), orientation=[0, 1, 0, 0, 0, -1]))
    drawn = np.zeros(scan.size, np.uint8)
    drawn[1, 2:5] = 3
    path = scan.save_mask({3: drawn}, tmp_path / "out")
    np.testing.assert_array_equal(read_slice_mask(path, scan, 3), drawn)
    assert not read_slice_mask(path, scan, 1).any()


@pytest.mark.parametrize("pages", [1, 2])
def test_a_mask_of_a_picture_says_what_it_may_be_used_for(tmp_path, pages):
    first, *others = [Image.new("L", (6, 5), 9 * page) for page in range(pages)]
    first.save(tmp_path / "scan.tif", save_all=True, append_images=others)
    path = read_scan(tmp_path / "scan.tif").save_mask({0: np.ones((5, 6), np.uint8)}, tmp_path)
    with Image.open(path) as mask:
        said = mask.text["Comment"] if path.suffix == ".png" else mask.tag_v2[Base.ImageDescription]
    assert said == "Research use only, not a medical device."


def test_a_mask_of_another_size_is_refused(tmp_path):
    Image.new("L", (4, 3)).save(tmp_path / "mask.png")
    with pytest.raises(EmitDiffError, match="4 x 3 pixels, its image 6 x 5"):
        read_mask(tmp_path / "mask.png", (5, 6))
    scan = read_scan(tmp_path / "mask.png")
    for wrong in (np.zeros((4, 3)), {1: np.zeros((3, 4))}, np.zeros((2, 3, 4)), np.full((3, 4), -1)):
        with pytest.raises(EmitDiffError):
            scan.save_mask(wrong, tmp_path)


# ---- bad files


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def giant_png(width=60000, height=60000):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + pixels + png_chunk(b"IEND", b"")


def nifti_bytes(array=None, **fields):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16) if array is None else array, np.eye(4))
    content = bytearray(image.to_bytes())
    header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + bytes(content[348:])


def dicom_bytes(**elements):
    stream = io.BytesIO()
    dicom_dataset(ramp(), **elements).save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def picture_bytes(kind, size=(64, 64)):
    stream = io.BytesIO()
    Image.effect_noise(size, 80).save(stream, kind)
    return stream.getvalue()


def deep_bytes(suffix):
    array = np.random.default_rng(0).integers(0, 4000, (64, 64, 3), dtype=np.uint16)
    return cv2.imencode(suffix, array)[1].tobytes()


def zip_bytes(**entries):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return stream.getvalue()


GIANT = [1, 30000, 30000, 30000, 1, 1, 1, 1]
BAD_FILES = {
    "empty.png": (b"", "is empty"),
    "text.png": (b"hello, this is a sentence and no picture", "not a picture or scan"),
    "text.dcm": (b"hello " * 100, "not a picture or scan"),
    "page.pdf": (b"%PDF-1.7 " * 100, "not a picture or scan"),
    "animation.gif": (picture_bytes("GIF"), "not a picture or scan"),
    "bitmap.png": (picture_bytes("BMP"), "not a picture or scan"),
    "cut.png": (picture_bytes("PNG")[:-500], "damaged or cut off"),
    "cut.jpg": (picture_bytes("JPEG")[:600], "damaged or cut off"),
    "cut.webp": (picture_bytes("WEBP")[:900], "damaged or cut off|not a picture"),
    "cut.tif": (picture_bytes("TIFF")[:-500], "damaged or cut off"),
    "cut_16.png": (deep_bytes(".png")[:-5000], "damaged or cut off"),
    "cut_16.tif": (deep_bytes(".tif")[:-5000], "damaged or cut off"),
    "head.png": (picture_bytes("PNG")[:20], "damaged or cut off"),
    "giant.png": (giant_png(), "too large"),
    "large.png": (giant_png(9000, 9000), "too large"),
    "giant.nii": (nifti_bytes(dim=[3, *GIANT[1:]]), "too large"),
    "giant.nii.gz": (gzip.compress(nifti_bytes(dim=[3, *GIANT[1:]])), "too large"),
    "negative.nii": (nifti_bytes(dim=[3, -4, 5, 6, 1, 1, 1, 1]), "no image"),
    "cut.nii": (nifti_bytes()[:-50], "damaged or cut off"),
    "cut.nii.gz": (gzip.compress(nifti_bytes(np.random.default_rng(0).random((9, 9, 9))))[:-900], "damaged"),
    "head.nii.gz": (gzip.compress(nifti_bytes())[:30], "damaged or cut off"),
    "complex.nii": (nifti_bytes(np.zeros((3, 3, 3), np.complex64)), "complex64 values"),
    "nan.nii": (nifti_bytes(np.full((3, 3, 3), np.nan, np.float32)), "no finite value"),
    "time.nii": (nifti_bytes(np.zeros((3, 3, 3, 4), np.int16)), "4 dimensions"),
    "line.nii": (nifti_bytes(dim=[1, 120, 1, 1, 1, 1, 1, 1]), "1 dimension"),
    "type.nii": (nifti_bytes(datatype=999), "damaged"),
    "offset.nii": (nifti_bytes(vox_offset=1e12), "damaged"),
    "pair.hdr": (nifti_bytes(magic=b"ni1"), "half of a NIfTI pair"),
    "text.nii.gz": (gzip.compress(b"hello " * 100), "not a NIfTI"),
    "cut.dcm": (dicom_bytes()[:-100], "damaged or cut off"),
    "head.dcm": (dicom_bytes()[:200], "holds no DICOM image|damaged"),
    "giant.dcm": (dicom_bytes(Rows=65000, Columns=65000), "too large"),
    "frames.dcm": (dicom_bytes(NumberOfFrames=2000000), "too large"),
    "lying.dcm": (dicom_bytes(Rows=2000, Columns=2000), "damaged or cut off"),
    "zero.dcm": (dicom_bytes(Rows=0), "no image"),
    "report.dcm": (dicom_bytes(PixelData=None), "without an image|damaged"),
    "bits.dcm": (dicom_bytes(BitsAllocated=13), "damaged or cut off"),
    "none.zip": (zip_bytes(), "holds no DICOM image"),
    "texts.zip": (zip_bytes(a="hello", b="again"), "holds no DICOM image"),
    "cut.zip": (zip_bytes(a=dicom_bytes())[:-30], "damaged or cut off"),
    "inner.zip": (zip_bytes(a=zip_bytes(b=dicom_bytes())), "holds no DICOM image"),
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_gets_a_sentence(tmp_path, name):
    content, sentence = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EmitDiffError, match=sentence) as caught:
        read_scan(tmp_path / name)
    assert name in str(caught.value) and str(caught.value).endswith((".", ")."))
    with pytest.raises(EmitDiffError):
        read_mask(tmp_path / name)


def test_missing_files_and_empty_folders_get_a_sentence(tmp_path):
    with pytest.raises(EmitDiffError, match="There is no file") as caught:
        read_scan(tmp_path / "nowhere.png")
    assert str(tmp_path) not in str(caught.value), "a server's folders are nobody's business"
    (tmp_path / "folder").mkdir()
    with pytest.raises(EmitDiffError, match="holds no DICOM image"):
        read_scan(tmp_path / "folder")


@pytest.mark.filterwarnings("ignore")
def test_any_damage_is_a_sentence(tmp_path):
    """Bytes changed at random: a scan or an EmitDiffError, never another exception."""
    draw = np.random.default_rng(0)
    wholes = [nifti_bytes(), dicom_bytes(), zip_bytes(a=dicom_bytes(), b=dicom_bytes())]
    wholes += [picture_bytes(kind, (16, 16)) for kind in ("PNG", "JPEG", "WEBP", "TIFF")]
    for whole in wholes:
        for _ in range(40):
            content = bytearray(whole)
            for place in draw.integers(0, min(len(content), 1500), 4):
                content[place] = draw.integers(256)
            (tmp_path / "a").write_bytes(content)
            with contextlib.suppress(EmitDiffError):
                read_scan(tmp_path / "a").image()


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom, "MAX_ARCHIVE_BYTES", 2**20)
    (tmp_path / "bomb.zip").write_bytes(zip_bytes(a=bytes(2**21)))
    with pytest.raises(EmitDiffError, match="unpacks to 1 files and 2 MiB"):
        read_scan(tmp_path / "bomb.zip")
    monkeypatch.setattr(dicom, "MAX_FILES", 3)
    (tmp_path / "many.zip").write_bytes(zip_bytes(**{str(number): b"" for number in range(4)}))
    with pytest.raises(EmitDiffError, match="4 files"):
        read_scan(tmp_path / "many.zip")


def test_a_deflated_dicom_is_refused_before_it_is_inflated(tmp_path):
    dataset = dicom_dataset(ramp())
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(EmitDiffError, match="deflated"):
        read_scan(tmp_path / "a.dcm")


def test_the_sum_of_slices_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(scans, "MAX_VOXELS", 200)
    with pytest.raises(EmitDiffError, match="too large: 8 x 6 pixels, 5 slice"):
        read_scan(write_series(tmp_path / "series"))
    Image.new("RGB", (10, 10)).save(tmp_path / "a.png")
    with pytest.raises(EmitDiffError, match="too large"):
        read_scan(tmp_path / "a.png")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited with Linux's setrlimit")
def test_giants_are_refused_in_little_memory(tmp_path):
    names = ["giant.png", "giant.nii.gz", "giant.dcm", "frames.dcm"]
    for name in names:
        (tmp_path / name).write_bytes(BAD_FILES[name][0])
    code = (
        "import resource, sys; from emitdiff import scans, dicom, nifti, pictures; from emitdiff.errors import *\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sys.argv[1:]:\n"
        "    try: scans.read_scan(path)\n"
        "    except EmitDiffError: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    arguments = [sys.executable, "-c", code, *(str(tmp_path / name) for name in names)]
    grown = subprocess.run(arguments, check=True, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": "."})
    assert int(grown.stdout) < 30_000  # KiB


def test_importing_scans_is_light():
    heavy = "torch", "pydicom", "nibabel", "gradio"
    code = f"import sys, emitdiff.scans, emitdiff.datasets; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_the_patients_sides_are_those_of_the_displayed_slice(tmp_path):
    volume = np.zeros((4, 5, 6), np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([-2.0, 2, 3, 1])), tmp_path / "lies.nii")
    axial = {"left": "R", "right": "L", "top": "A", "bottom": "P"}
    assert read_scan(tmp_path / "lies.nii").geometry.sides() == axial
    unsaid = nibabel.Nifti1Image(volume, None)
    unsaid.header["qform_code"] = unsaid.header["sform_code"] = 0
    nibabel.save(unsaid, tmp_path / "unsaid.nii")
    assert read_scan(tmp_path / "unsaid.nii").geometry.sides() == {}


def test_the_sides_of_a_sagittal_and_of_an_oblique_dicom(tmp_path):
    places = {"ImagePositionPatient": [0, 0, 0], "PixelSpacing": [1, 1], "SliceThickness": 3}
    sagittal = {**places, "ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}
    sides = read_scan(write_dicom(tmp_path / "a.dcm", ramp(), **sagittal)).geometry.sides()
    assert sides == {"left": "A", "right": "P", "top": "H", "bottom": "F"}
    oblique = {**places, "ImageOrientationPatient": [0.8, 0.6, 0, 0, 0, -1]}
    assert read_scan(write_dicom(tmp_path / "b.dcm", ramp(), **oblique)).geometry.sides()["right"] == "LP"
