"""DICOM's values and their display, against pydicom's own look-ups and against what the standard says."""

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing
from pydicom.uid import HTJ2K, HTJ2KLossless, JPEG2000Lossless, JPEGExtended12Bit, JPEGLosslessSV1, JPEGLSLossless
from scan_files import dicom_dataset, ramp, write_dicom

from emitdiff.errors import EmitDiffError
from emitdiff.scans.geometry import Window
from emitdiff.scans.reading import read_scan

WIDE = ramp(64, 48, 4095)


def shown(path, index=0, window=None):
    return read_scan(path).image(index, window)[..., 0]


def grey(values, low, high):
    """P-values from `low` (black) to `high` (white) as grey levels."""
    return np.rint((values - low) / (high - low) * 255)


def table(entries, first=0, bits=16, vr="US", **elements):
    item = Dataset()
    item.LUTDescriptor = [len(entries) % 65536, first, bits]
    item.LUTData = list(entries) if vr == "US" else np.asarray(entries, "<u2").tobytes()
    item["LUTData"].VR = vr
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


# --- windows -------------------------------------------------------------------


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(2048, 4096), (100, 50), (2000, 3), (2000.5, 2), (1000, 1)])
def test_windows_on_whole_numbers_are_those_of_the_standard(tmp_path, function, centre, width):
    elements = {"WindowCenter": centre, "WindowWidth": width, "Modality": "MR"}
    elements |= {"VOILUTFunction": function} if function else {}
    path = write_dicom(tmp_path / "a.dcm", WIDE, **elements)
    expected = grey(apply_windowing(WIDE, pydicom.dcmread(path)), 0, 65535)
    assert np.abs(shown(path) - expected).max() <= 1


def test_own_windows_reach_from_end_to_end(tmp_path):
    values = np.arange(256, dtype=np.uint16).reshape(16, 16)
    image = shown(write_dicom(tmp_path / "a.dcm", values), window="full range")
    np.testing.assert_array_equal(image, values)
    ct = write_dicom(tmp_path / "b.dcm", values, Modality="CT")
    np.testing.assert_allclose(shown(ct, window="brain"), np.clip(values * (255 / 80), 0, 255), atol=0.5)
    np.testing.assert_allclose(shown(ct, window=Window(50, 100)), np.clip(values * 2.55, 0, 255), atol=0.5)


@pytest.mark.parametrize("top", [1e-6, 0.4, 1.5, 3e5])
@pytest.mark.parametrize("double", [False, True])
def test_maps_of_real_numbers_are_shown_from_end_to_end(tmp_path, top, double):
    values = np.linspace(0, top, 64 * 48).reshape(64, 48)
    dataset = dicom_dataset(WIDE, Modality="MR")
    for keyword in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        del dataset[keyword]
    if double:
        dataset.DoubleFloatPixelData, dataset.BitsAllocated = values.tobytes(), 64
    else:
        dataset.FloatPixelData, dataset.BitsAllocated = values.astype("<f4").tobytes(), 32
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_allclose(shown(tmp_path / "a.dcm", window="full range"), values * (255 / top), atol=0.51)
    dataset.WindowCenter, dataset.WindowWidth = float(f"{top / 2:.4g}"), float(f"{top:.4g}")
    dataset.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    np.testing.assert_allclose(shown(tmp_path / "b.dcm"), values * (255 / top), atol=0.6)


def test_double_numbers_keep_their_digits(tmp_path):
    values = 1e9 + np.linspace(0, 1, 64 * 48).reshape(64, 48)
    dataset = dicom_dataset(WIDE)
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    dataset.DoubleFloatPixelData, dataset.BitsAllocated = values.tobytes(), 64
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_allclose(shown(tmp_path / "a.dcm", window="full range"), (values - 1e9) * 255, atol=0.51)


def test_a_small_slope_makes_real_numbers(tmp_path):
    elements = {"RescaleSlope": 0.001, "RescaleIntercept": 0, "WindowCenter": 0.5, "WindowWidth": 1, "Modality": "PT"}
    path = write_dicom(tmp_path / "a.dcm", WIDE, **elements)
    np.testing.assert_allclose(read_scan(path).values[0], WIDE * 0.001, rtol=1e-6)
    np.testing.assert_allclose(shown(path), np.clip(WIDE * 0.255, 0, 255), atol=0.51)


def test_every_slice_has_its_own_window(tmp_path):
    """A series may bring another window with each of its files."""
    for place, width in enumerate((100, 1000, 4000)):
        write_dicom(
            tmp_path / f"{place}.dcm", WIDE, SeriesInstanceUID="1.2.3", InstanceNumber=place, Modality="MR",
            WindowCenter=width / 2, WindowWidth=width,
        )  # fmt: skip
    scan = read_scan(tmp_path)
    for place, width in enumerate((100, 1000, 4000)):
        dataset = dicom_dataset(WIDE, WindowCenter=width / 2, WindowWidth=width)
        expected = grey(apply_windowing(WIDE, dataset), 0, 65535)
        assert np.abs(scan.image(place)[..., 0] - expected).max() <= 1


@pytest.mark.parametrize("vr", ["US", "OW"])
@pytest.mark.parametrize(("first", "bits"), [(0, 16), (100, 12), (-50, 10)])
def test_voi_tables(tmp_path, vr, first, bits):
    entries = np.rint(np.linspace(0, 1, 900) ** 2 * (2**bits - 1)).astype(int)
    stored = (WIDE // 4).astype(np.int16) - 60
    item = table(entries, first, bits, vr)
    item["LUTDescriptor"].VR = "SS"
    for modality in ("DX", "CT"):
        path = write_dicom(tmp_path / "a.dcm", stored, VOILUTSequence=[item], Modality=modality)
        expected = grey(apply_voi(stored, pydicom.dcmread(path)).astype(float), 0, 2**bits - 1)
        assert np.abs(shown(path) - expected).max() <= 1
    assert "soft tissue" in read_scan(path).windows, "the table of a CT does not take the place of Hounsfield units"


# --- values --------------------------------------------------------------------


@pytest.mark.parametrize("slope", [1, 2, 0.5, -1, 1.5e-4])
@pytest.mark.parametrize("intercept", [0, -1024, 0.25, 1e5])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
def test_rescaled_values(tmp_path, slope, intercept, dtype):
    stored = (WIDE % 256).astype(dtype) if dtype == np.uint8 else (WIDE - 1000 * (dtype == np.int16)).astype(dtype)
    path = write_dicom(tmp_path / "a.dcm", stored, RescaleSlope=slope, RescaleIntercept=intercept, Modality="CT")
    np.testing.assert_allclose(read_scan(path).values[0], apply_modality_lut(stored, pydicom.dcmread(path)), rtol=1e-6)


@pytest.mark.parametrize("vr", ["US", "OW"])
@pytest.mark.parametrize("first", [0, 200])
def test_modality_tables(tmp_path, vr, first):
    item = table(np.arange(1000) ** 2 // 20, first, 16, vr, ModalityLUTType="US")
    path = write_dicom(tmp_path / "a.dcm", WIDE, ModalityLUTSequence=[item])
    np.testing.assert_array_equal(read_scan(path).values[0], apply_modality_lut(WIDE, pydicom.dcmread(path)))


@pytest.mark.parametrize(("stored", "high"), [(12, 15), (12, 13), (8, 15), (10, 9), (12, 11)])
@pytest.mark.parametrize("signed", [False, True])
def test_bits_that_lie_anywhere_in_their_word(tmp_path, stored, high, signed):
    """PS3.5, 8.1.1: HighBit says where the value lies; what lies beside it, an overlay for example, does not count."""
    true = WIDE.astype(np.int64) % 2**stored - (2 ** (stored - 1) if signed else 0)
    shift = high + 1 - stored
    word = (true & (2**stored - 1)) << shift
    noise = np.random.default_rng(0).integers(0, 2**16, true.shape)
    word |= noise & ~(((1 << stored) - 1) << shift) & 0xFFFF
    dataset = dicom_dataset(word.astype(np.uint16))
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = stored, high, int(signed)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_scan(tmp_path / "a.dcm").values[0], true)


@pytest.mark.parametrize("dtype", [np.uint32, np.int32])
def test_wide_whole_numbers(tmp_path, dtype):
    values = (WIDE.astype(np.int64) * 500_000 + 7).astype(dtype)
    scan = read_scan(write_dicom(tmp_path / "a.dcm", values))
    np.testing.assert_array_equal(scan.values[0], values)


@pytest.mark.parametrize(("value", "limit"), [(65535, None), (0, None), (65535, 65000), (65000, 65535)])
def test_padding_does_not_count_in_the_window(tmp_path, value, limit):
    """PS3.3 C.7.5.1.1.2."""
    stored = (3000 + WIDE // 10).astype(np.uint16)
    stored[:10], stored[0, 0] = value, limit or value
    elements = {"PixelPaddingValue": value} | ({"PixelPaddingRangeLimit": limit} if limit else {})
    dataset = dicom_dataset(stored, Modality="DX", **elements)
    for keyword in elements:
        dataset[keyword].VR = "US"
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    image = shown(tmp_path / "a.dcm", window="full range")
    np.testing.assert_allclose(
        image[10:], grey(stored[10:].astype(float), stored[10:].min(), stored[10:].max()), atol=1
    )


def test_signed_padding_of_a_ct(tmp_path):
    stored = (WIDE // 4).astype(np.int16)
    stored[:10] = -2000
    dataset = dicom_dataset(stored, Modality="MR", PixelPaddingValue=63536)  # as it comes from files that call it US
    dataset["PixelPaddingValue"].VR = "US"
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert read_scan(tmp_path / "a.dcm").windows["full range"] == Window(
        (stored[10:].min() + stored[10:].max()) / 2, stored[10:].max() - stored[10:].min()
    )


def test_inverse_presentation_is_inverted_once(tmp_path):
    values = np.array([[0, 100, 255]], np.uint8)
    for colours, shape in (("MONOCHROME1", "INVERSE"), ("MONOCHROME2", "INVERSE"), ("MONOCHROME1", None)):
        elements = {"PhotometricInterpretation": colours} | ({"PresentationLUTShape": shape} if shape else {})
        path = write_dicom(tmp_path / "a.dcm", values, **elements)
        assert shown(path)[0].tolist() == [255, 155, 0]


# --- colours -------------------------------------------------------------------


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_rgb_of_every_depth(tmp_path, planar, bits):
    colours = np.random.default_rng(0).integers(0, 2**bits, (20, 30, 3)).astype(np.uint8 if bits == 8 else np.uint16)
    dataset = dicom_dataset(colours)
    dataset.PlanarConfiguration, dataset.BitsStored, dataset.HighBit = planar, bits, bits - 1
    dataset.PixelData = (np.moveaxis(colours, -1, 0) if planar else colours).tobytes()
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_scan(tmp_path / "a.dcm").image(), colours >> (bits - 8))


def test_ybr_full_422(tmp_path):
    """PS3.3 C.7.6.3.1.2: two pixels share one pair of colours."""
    dataset = dicom_dataset(np.zeros((2, 4, 3), np.uint8), PhotometricInterpretation="YBR_FULL_422")
    dataset.PixelData = bytes([50, 100, 128, 128] * 2 + [76, 150, 85, 255] * 2)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    image = read_scan(tmp_path / "a.dcm").image()
    assert image[0].tolist() == [[50] * 3, [100] * 3] * 2
    assert np.abs(image[1, 0].astype(int) - [254, 0, 0]).max() <= 2


def test_a_palette_of_bytes_that_is_said_to_have_16_bits(tmp_path):
    elements = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name in ("Red", "Green", "Blue"):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        elements[f"{name}PaletteColorLookupTableData"] = np.array([0, 80, 160, 240], "<u2").tobytes()
    path = write_dicom(tmp_path / "a.dcm", np.array([[0, 1, 2, 3]], np.uint8), **elements)
    assert shown(path)[0].tolist() == [0, 80, 160, 240]


# --- compression -----------------------------------------------------------------

SMOOTH = (np.add.outer(np.arange(64) * 60, np.arange(48) * 5) % 4096).astype(np.uint16)
CODECS = {
    "12-bit JPEG": (JPEGExtended12Bit, lambda values: imagecodecs.jpeg8_encode(values, level=98, bitspersample=12)),
    "HTJ2K lossless": (HTJ2KLossless, imagecodecs.htj2k_encode),
    "HTJ2K": (HTJ2K, imagecodecs.htj2k_encode),
    "JPEG-LS": (JPEGLSLossless, imagecodecs.jpegls_encode),
    "lossless JPEG": (JPEGLosslessSV1, lambda values: imagecodecs.ljpeg_encode(values, bitspersample=12)),
}


def compressed(path, values, codec, bits=12, signed=False, pages=1):
    syntax, encode = CODECS[codec]
    dataset = dicom_dataset(values if pages == 1 else np.stack([values] * pages))
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, int(signed)
    dataset.PixelData = pydicom.encaps.encapsulate([encode(values)] * pages)
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec(tmp_path, codec):
    scan = read_scan(compressed(tmp_path / "a.dcm", SMOOTH, codec, pages=3))
    decoded = SMOOTH if "12-bit" not in codec else imagecodecs.jpeg8_decode(CODECS[codec][1](SMOOTH))
    for place in range(3):
        np.testing.assert_array_equal(scan.values[place], decoded)


@pytest.mark.parametrize("codec", ["12-bit JPEG", "HTJ2K lossless", "JPEG-LS", "lossless JPEG"])
def test_a_sign_is_kept_through_compression(tmp_path, codec):
    """Codecs without a sign store the bits; the file says that they have one."""
    scan = read_scan(compressed(tmp_path / "a.dcm", SMOOTH, codec, signed=True))
    decoded = SMOOTH if "12-bit" not in codec else imagecodecs.jpeg8_decode(CODECS[codec][1](SMOOTH))
    np.testing.assert_array_equal(scan.values[0], decoded.astype(int) - 4096 * (decoded >= 2048))


def jpeg2000(path, values, **elements):
    dataset = dicom_dataset(values, **elements)
    stream = imagecodecs.jpeg2k_encode(values, level=0, codecformat="j2k", mct=values.ndim == 3)
    dataset.PixelData = pydicom.encaps.encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_jpeg_2000_that_contradicts_its_file_is_refused(tmp_path):
    """Decoders believe the one or the other, and a value of -1 becomes 65535, or a grey pixel green."""
    signed = SMOOTH.astype(np.int16) - 2000
    scan = read_scan(jpeg2000(tmp_path / "a.dcm", signed, PixelRepresentation=1))
    np.testing.assert_array_equal(scan.values[0], signed)
    with pytest.raises(EmitDiffError, match="a sign in its JPEG 2000.*PixelRepresentation"):
        read_scan(jpeg2000(tmp_path / "b.dcm", signed, PixelRepresentation=0)).image(0)
    colour = np.stack([np.full((16, 24), grey, np.uint8) for grey in (200, 100, 30)], axis=-1)
    for name in ("YBR_RCT", "RGB"):
        read = read_scan(jpeg2000(tmp_path / "c.dcm", colour, PhotometricInterpretation=name)).image(0)
        np.testing.assert_array_equal(read, colour)
    with pytest.raises(EmitDiffError, match="turns its colours in its JPEG 2000.*YBR_FULL"):
        read_scan(jpeg2000(tmp_path / "d.dcm", colour, PhotometricInterpretation="YBR_FULL")).image(0)


# --- what is refused, and why ------------------------------------------------------

REFUSED = {
    "HSV": ({"PhotometricInterpretation": "HSV"}, "gives its colours as HSV"),
    "samples": ({"SamplesPerPixel": 4}, "4 sample"),
    "one sample": ({"PhotometricInterpretation": "RGB"}, "1 sample"),
    "bits stored": ({"BitsStored": 20}, "stores 20 bits of 16"),
    "high bit": ({"BitsStored": 12, "HighBit": 8}, "stores 12 bits of 16 up to bit 8"),
    "slope": ({"RescaleSlope": 0, "RescaleIntercept": 5}, "RescaleSlope that is no usable number"),
    "sign": ({"PixelRepresentation": 7}, "PixelRepresentation"),
    "RCT": ({"PhotometricInterpretation": "YBR_RCT", "SamplesPerPixel": 3, "PlanarConfiguration": 0}, "YBR_RCT"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_shown_rightly_is_refused_with_the_reason(tmp_path, what):
    elements, reason = REFUSED[what]
    with pytest.raises(EmitDiffError, match=f"'a.dcm' .*{reason}") as caught:
        read_scan(write_dicom(tmp_path / "a.dcm", WIDE, **elements))
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("keyword", ["BitsStored", "HighBit", "PixelRepresentation",
                                     "PhotometricInterpretation", "SamplesPerPixel"])  # fmt: skip
def test_what_is_lacking_is_named(tmp_path, keyword):
    dataset = dicom_dataset(WIDE)
    del dataset[keyword]
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(EmitDiffError, match=f"lacks the DICOM element {keyword}"):
        read_scan(tmp_path / "a.dcm")


def test_a_video_is_called_one(tmp_path):
    dataset = dicom_dataset(np.zeros((2, 4, 6, 3), np.uint8)[0])
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"  # MPEG-4
    dataset.PixelData = pydicom.encaps.encapsulate([bytes(100)])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(EmitDiffError, match="MPEG-4.*a video, which is not read"):
        read_scan(tmp_path / "a.dcm")


def broken(dataset, **texts):
    """Elements with a text that is no number, which pydicom would not write."""
    for keyword, text in texts.items():
        tag = pydicom.datadict.tag_for_keyword(keyword)
        dataset[tag] = pydicom.dataelem.RawDataElement(tag, "DS", len(text), text, 0, False, True)
    return dataset


def test_a_decimal_comma_is_said_and_left_out(tmp_path):
    dataset = dicom_dataset(WIDE, Modality="CT")
    dataset = broken(
        dataset, SliceThickness=b"2,5 ", WindowCenter=b"40,0", WindowWidth=b"400 ", PixelSpacing=b"0,5\\0,5 "
    )
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    scan = read_scan(tmp_path / "a.dcm")
    np.testing.assert_array_equal(scan.values[0], WIDE)
    said = "hold no usable value were left out: PixelSpacing, SliceThickness, WindowCenter."
    assert said in scan.warnings[-1] and scan.spacing is None
    with pytest.raises(EmitDiffError, match="RescaleSlope that is no usable number"):
        broken(dataset, RescaleSlope=b"1,0 ").save_as(tmp_path / "b.dcm", enforce_file_format=True)
        read_scan(tmp_path / "b.dcm")


def test_what_is_cut_off_is_damaged(tmp_path):
    for place, pixels in enumerate((WIDE, np.stack([WIDE] * 3))):
        path = write_dicom(tmp_path / f"{place}.dcm", pixels)
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(EmitDiffError, match="damaged or truncated"):
            read_scan(path)


@pytest.mark.parametrize("wrong", [{"NumberOfFrames": None}, {"NumberOfFrames": 2}, {"Rows": 32}])
def test_more_pixels_than_the_header_announces_are_refused(tmp_path, wrong):
    dataset = dicom_dataset(np.stack([WIDE] * 3))
    for keyword, value in wrong.items():
        setattr(dataset, keyword, value) if value else delattr(dataset, keyword)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(EmitDiffError, match="bytes of pixels; its header announces.*Correct NumberOfFrames"):
        read_scan(tmp_path / "a.dcm").image(0)


def test_a_few_bytes_behind_the_pixels_are_padding(tmp_path):
    dataset = dicom_dataset(WIDE)
    dataset.PixelData += b"\0" * 512
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_scan(tmp_path / "a.dcm").values[0], WIDE)
