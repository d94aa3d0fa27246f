"""DICOM: windows, series and masks in the patient's space; nobody is named."""

import gzip
import io
import pickle
import zipfile

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi_lut
from scan_files import AXIAL, dicom_dataset, ramp, write_dicom, write_series

from emitdiff.errors import EmitDiffError
from emitdiff.scans.geometry import Window
from emitdiff.scans.masks import read_mask
from emitdiff.scans.reading import read_scan


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


def test_the_sides_of_a_sagittal_and_of_an_oblique_dicom(tmp_path):
    places = {"ImagePositionPatient": [0, 0, 0], "PixelSpacing": [1, 1], "SliceThickness": 3}
    sagittal = {**places, "ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}
    sides = read_scan(write_dicom(tmp_path / "a.dcm", ramp(), **sagittal)).geometry.edge_letters()
    assert sides == {"left": "A", "right": "P", "top": "H", "bottom": "F"}
    oblique = {**places, "ImageOrientationPatient": [0.8, 0.6, 0, 0, 0, -1]}
    assert read_scan(write_dicom(tmp_path / "b.dcm", ramp(), **oblique)).geometry.edge_letters()["right"] == "LP"
