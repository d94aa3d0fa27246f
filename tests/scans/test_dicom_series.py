"""Which DICOM files belong together, what their places and sides are, and what is said of the rest."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import generate_uid
from scan_files import AXIAL, dicom_dataset, ramp, write_dicom, write_series

from emitdiff.errors import EmitDiffError
from emitdiff.scans.geometry import Window
from emitdiff.scans.reading import read_scan

CORONAL, SAGITTAL = [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1]


def item(**elements):
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def series(folder, count=6, change=None, **elements):
    """A CT of `count` slices, 2 mm apart and filled with their number; `change` may alter each file."""
    folder.mkdir(exist_ok=True)
    uid, study = elements.pop("SeriesInstanceUID", generate_uid()), generate_uid()
    for place in range(count):
        dataset = dicom_dataset(
            np.full((6, 8), place, np.int16),
            **{
                "Modality": "CT", "SeriesInstanceUID": uid, "StudyInstanceUID": study, "InstanceNumber": place + 1,
                "ImagePositionPatient": [0, 0, 2.0 * place], "ImageOrientationPatient": AXIAL,
                "PixelSpacing": [0.5, 0.5], "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
            } | elements,
        )  # fmt: skip
        if change is not None:
            change(dataset, place)
        dataset.save_as(folder / f"{place:03d}.dcm", enforce_file_format=True)
    return folder


def turned(angle):
    """AXIAL, turned about the long axis by `angle` (radians), with the digits that a file has."""
    cos, sin = (float(f"{number:.9f}") for number in (np.cos(angle), np.sin(angle)))
    return [cos, sin, 0, -sin, cos, 0]


def numbers(scan):
    return [int(page.flat[0]) for page in scan.values]


@pytest.mark.parametrize("modality", ["SEG", "RTDOSE", "PR", "KO", "SR", "RTSTRUCT", "REG"])
def test_what_is_made_from_images_is_no_image_beside_them(tmp_path, modality):
    folder = series(tmp_path / "series", 3)
    write_dicom(folder / "derived.dcm", np.ones((9, 6, 8), np.uint8), Modality=modality, SeriesInstanceUID="1.2")
    scan = read_scan(folder)
    assert numbers(scan) == [0, 1, 2] and scan.modality == "CT"
    assert scan.warnings == (f"1 file(s) made from the images ({modality}) were left out.",)


def test_a_dose_alone_has_its_units_and_its_planes(tmp_path):
    """PS3.3 C.8.8.3: one position, the planes by their offsets."""
    grid = np.arange(3, dtype=np.uint16)[:, None, None] * np.ones((3, 6, 8), np.uint16)
    place = {"ImagePositionPatient": [1, 2, 30], "ImageOrientationPatient": AXIAL, "PixelSpacing": [2, 3]}
    for offsets in ([0, 4, 8], [30, 34, 38]):
        path = write_dicom(
            tmp_path / "dose.dcm", grid, Modality="RTDOSE", DoseGridScaling=0.25, GridFrameOffsetVector=offsets, **place
        )
        scan = read_scan(path)
        assert scan.spacing == (4, 2, 3) and scan.warnings == ()
        np.testing.assert_allclose(scan.values[:, 0, 0], [0, 0.25, 0.5])
        np.testing.assert_allclose(scan.geometry.affine[:3, 3], [-1, -2, 30])


def test_pictures_of_a_screen_do_not_take_the_place_of_images(tmp_path):
    folder = series(tmp_path / "series", 3)
    for place in range(5):
        write_dicom(folder / f"page{place}.dcm", np.zeros((6, 8), np.uint8), SeriesInstanceUID="1.2", Modality="CT")
    scan = read_scan(folder)
    assert numbers(scan) == [0, 1, 2] and "largest of 2 series" in scan.warnings[0]


@pytest.mark.parametrize("turn", [1e-7, 1e-5, 1e-4, 1e-3, 3e-3])
def test_what_rounding_turns_is_one_series(tmp_path, turn):
    def change(dataset, place):
        angle = turn * (place % 2)
        dataset.ImageOrientationPatient = turned(angle)

    scan = read_scan(series(tmp_path / "series", 6, change))
    assert numbers(scan) == list(range(6)) and scan.warnings == () and scan.spacing[0] == pytest.approx(2)


@pytest.mark.parametrize("degrees", [1, 2, 15, 90])
def test_what_is_really_turned_is_another(tmp_path, degrees):
    def change(dataset, place):
        angle = np.deg2rad(degrees) * (place >= 4)
        dataset.ImageOrientationPatient = turned(angle)

    scan = read_scan(series(tmp_path / "series", 6, change))
    assert numbers(scan) == [0, 1, 2, 3] and "largest of 2 series or orientations" in scan.warnings[0]


@pytest.mark.parametrize(("other", "kept"), [(0.50001, 6), (0.5004, 6), (0.51, 4), (0.7, 4)])
def test_pixel_sizes_are_compared_too(tmp_path, other, kept):
    def change(dataset, place):
        dataset.PixelSpacing = [0.5, 0.5] if place < 4 else [other, other]

    scan = read_scan(series(tmp_path / "series", 6, change))
    assert scan.num_slices == kept and scan.spacing[1:] == (0.5, 0.5)
    assert bool(scan.warnings) == (kept < 6)


def test_copies_are_left_out(tmp_path):
    folder = series(tmp_path / "series", 4)
    (folder / "IM2 (1).dcm").write_bytes((folder / "002.dcm").read_bytes())
    (folder / "deeper").mkdir()
    (folder / "deeper" / "again.dcm").write_bytes((folder / "000.dcm").read_bytes())
    scan = read_scan(folder)
    assert numbers(scan) == [0, 1, 2, 3] and scan.geometry is not None
    assert scan.warnings == ("2 file(s) are copies of others and were left out.",)


def test_one_identifier_for_all_slices_is_a_fault_of_the_writer_and_no_copy(tmp_path):
    scan = read_scan(series(tmp_path / "series", 4, SOPInstanceUID="1.2.3"))
    assert numbers(scan) == [0, 1, 2, 3] and scan.warnings == ()


def test_files_without_preamble_are_read_in_folders_too(tmp_path):
    folder = series(tmp_path / "series", 3)
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.file_meta, dataset.preamble = FileMetaDataset(), None
        dataset.save_as(path, implicit_vr=True, little_endian=True)
        assert path.read_bytes()[128:132] != b"DICM"
    (folder / "notes.txt").write_text("no DICOM, but longer than nothing " * 20)
    scan = read_scan(folder)
    assert numbers(scan) == [0, 1, 2] and "1 file(s) without a DICOM image" in scan.warnings[0]


@pytest.mark.parametrize("keyword", ["TemporalPositionIdentifier", "EchoTime", "DiffusionBValue", "AcquisitionNumber",
                                     "TriggerTime", "InversionTime", None])  # fmt: skip
def test_volumes_at_the_same_places_are_told_apart(tmp_path, keyword):
    folder = tmp_path / "series"
    uid = generate_uid()
    for volume in range(3):

        def change(dataset, place, volume=volume):
            dataset.PixelData = np.full((6, 8), 100 * volume + place, np.int16).tobytes()
            dataset.InstanceNumber = 1 + place + 5 * volume
            if keyword:
                setattr(dataset, keyword, 10 * (volume + 1))

        series(tmp_path / f"volume{volume}", 5, change, SeriesInstanceUID=uid)
        folder.mkdir(exist_ok=True)
        for path in (tmp_path / f"volume{volume}").iterdir():
            path.rename(folder / f"{volume}_{path.name}")
    scan = read_scan(folder)
    assert numbers(scan) == [0, 1, 2, 3, 4] and scan.geometry is not None and scan.spacing[0] == 2
    assert scan.warnings == ("It holds 3 volumes (time points, echoes or the like); the first is shown.",)
    second = read_scan(folder, time_point=1)
    assert [(each.volumes, each.volume) for each in (scan, second)] == [(3, 0), (3, 1)]
    assert numbers(second) == [100, 101, 102, 103, 104] and second.warnings == ()
    assert numbers(read_scan(folder, time_point=2, index=4))[4] == 204
    with pytest.raises(EmitDiffError, match=r"has 3 volume\(s\), counted from 0; time point 3"):
        read_scan(folder, time_point=3)


def enhanced(path, planes, **elements):
    """One file with a frame for each (orientation, position); frame i is filled with i."""
    frames = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=list(position))],
            PlaneOrientationSequence=[item(ImageOrientationPatient=orientation)],
            FrameContentSequence=[item(TemporalPositionIndex=time)],
        )
        for orientation, position, time in planes
    ]
    shared = item(PixelMeasuresSequence=[item(PixelSpacing=[1.0, 1.0], SliceThickness=5.0)])
    pixels = np.arange(len(planes), dtype=np.uint16)[:, None, None] * np.ones((1, 6, 8), np.uint16)
    return write_dicom(
        path, pixels, PerFrameFunctionalGroupsSequence=frames, SharedFunctionalGroupsSequence=[shared],
        SOPClassUID="1.2.840.10008.5.1.4.1.1.4.1", SeriesInstanceUID="1.2.3", Modality="MR", **elements,
    )  # fmt: skip


@pytest.mark.parametrize("each", [1, 3])
def test_planes_of_one_file_have_no_common_geometry(tmp_path, each):
    planes = [(orientation, np.array(normal) * step, 1)
              for orientation, normal in ((AXIAL, (0, 0, 5)), (CORONAL, (0, 5, 0)), (SAGITTAL, (5, 0, 0)))
              for step in range(each)]  # fmt: skip
    scan = read_scan(enhanced(tmp_path / "a.dcm", planes))
    assert numbers(scan) == list(range(3 * each))
    assert scan.geometry is None and scan.edge_letters() == {}
    assert "lie in 3 planes" in scan.warnings[0]
    assert scan.save_mask(np.zeros((3 * each, 6, 8), np.uint8), tmp_path / "out").suffix == ".tif"


def test_time_points_of_one_file(tmp_path):
    planes = [(AXIAL, (0, 0, 5 * step), time) for step in range(3) for time in (1, 2)]
    scan = read_scan(enhanced(tmp_path / "a.dcm", planes))
    assert numbers(scan) == [0, 2, 4] and scan.geometry is not None
    second = read_scan(tmp_path / "a.dcm", time_point=1)
    assert numbers(second) == [1, 3, 5]
    assert [(each.volumes, each.volume) for each in (scan, second)] == [(2, 0), (2, 1)]
    seg = second.save_mask(np.ones((3, 6, 8), np.uint8), tmp_path / "out", "DICOM SEG")
    sources = [
        int(frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber)
        for frame in pydicom.dcmread(seg).PerFrameFunctionalGroupsSequence
    ]
    assert sources == [2, 4, 6], "the frames of the time point that was segmented"


def test_a_film_keeps_all_its_frames(tmp_path):
    scan = read_scan(write_series(tmp_path / "cine", step=(0, 0, 0)))
    assert scan.num_slices == 5 and scan.geometry is None and "one position" in scan.warnings[0]
    assert scan.edge_letters() == {"left": "R", "right": "L", "top": "A", "bottom": "P"}


# --- one slice of many --------------------------------------------------------


def test_one_slice_is_read_as_it_is_among_all(tmp_path):
    folder = write_series(tmp_path / "series", Modality="MR")
    whole, one = read_scan(folder), read_scan(folder, index=3)
    np.testing.assert_array_equal(one.image(3), whole.image(3))
    assert one.windows == whole.windows and one.num_slices == 5 and one.only == 3
    with pytest.raises(EmitDiffError, match="slice 3 alone was read"):
        one.image(2)
    with pytest.raises(EmitDiffError, match="has no slice 5: give a number from 0 to 4"):
        read_scan(folder, index=5)
    drawn = {3: np.ones((6, 8), np.uint8)}
    saved = [scan.save_mask(drawn, tmp_path / name) for scan, name in ((whole, "a"), (one, "b"))]
    np.testing.assert_array_equal(read_scan(saved[0]).values, read_scan(saved[1]).values)


def test_a_window_that_is_known_spares_the_other_slices(tmp_path):
    folder = write_series(tmp_path / "series", shuffle=False)
    (folder / "001.dcm").write_bytes((folder / "001.dcm").read_bytes()[:-20])
    for window in (None, "lung", Window(0, 100)):
        np.testing.assert_array_equal(read_scan(folder, index=3, window=window).values[3], -724)
    with pytest.raises(EmitDiffError, match="damaged"):
        read_scan(folder, index=3, window="automatic")


# --- pixel sizes and sides ------------------------------------------------------


def region(delta, form=1, unit=3):
    return item(
        RegionSpatialFormat=form, RegionDataType=1, PhysicalUnitsXDirection=unit, PhysicalUnitsYDirection=unit,
        PhysicalDeltaX=delta[1], PhysicalDeltaY=delta[0],
    )  # fmt: skip


def test_the_pixel_size_of_ultrasound_stands_in_its_regions(tmp_path):
    """PS3.3 C.8.5.5: centimetres."""

    def read(*regions):
        path = write_dicom(tmp_path / "a.dcm", np.zeros((6, 8, 3), np.uint8), Modality="US",
                           SequenceOfUltrasoundRegions=list(regions))  # fmt: skip
        return read_scan(path)

    assert read(region((0.02, 0.03))).spacing[1:] == pytest.approx((0.2, 0.3))
    assert read(region((-0.02, 0.03)), region((0.02, 0.03))).spacing[1:] == pytest.approx((0.2, 0.3))
    spectrum = region((1.5, 0.004), form=3, unit=4)
    assert read(region((0.02, 0.02)), spectrum).spacing[1:] == pytest.approx((0.2, 0.2))
    for other in (read(region((0.02, 0.02)), region((0.05, 0.05))), read(spectrum)):
        assert other.spacing is None and "several scales, or none" in other.warnings[0]


def test_the_pixel_size_of_an_x_ray_is_that_of_the_patient(tmp_path):
    elements = {"Modality": "MG", "ImagerPixelSpacing": [0.1, 0.1]}
    assert read_scan(write_dicom(tmp_path / "a.dcm", ramp(), **elements)).spacing[1:] == (0.1, 0.1)
    elements |= {"EstimatedRadiographicMagnificationFactor": 1.25}
    assert read_scan(write_dicom(tmp_path / "b.dcm", ramp(), **elements)).spacing[1:] == pytest.approx((0.08, 0.08))


@pytest.mark.parametrize(
    ("towards", "sides"),
    [
        (["L", "F"], {"left": "R", "right": "L", "top": "H", "bottom": "F"}),
        (["R", "F"], {"left": "L", "right": "R", "top": "H", "bottom": "F"}),  # seen from behind
        (["A", "FR"], {"left": "P", "right": "A", "top": "HL", "bottom": "FR"}),  # a mammogram
        (["P", "FHA"], {}),
        (["L", "R"], {}),
        (["L", "X"], {}),
        (["L"], {}),
        ("", {}),
    ],
)
def test_sides_of_an_image_without_a_place(tmp_path, towards, sides):
    scan = read_scan(write_dicom(tmp_path / "a.dcm", ramp(), Modality="DX", PatientOrientation=towards))
    assert scan.edge_letters() == sides


@pytest.mark.parametrize(
    ("elements", "said"),
    [
        ({"ImageLaterality": "L"}, "left"),
        ({"ImageLaterality": "R", "Laterality": "L"}, "right"),
        ({"Laterality": "B"}, "both"),
        ({"ImageLaterality": "U"}, None),
        ({"ImageLaterality": ""}, None),
        ({"SharedFunctionalGroupsSequence": [item(FrameAnatomySequence=[item(FrameLaterality="R")])]}, "right"),
        ({}, None),
    ],
)
def test_which_of_a_pair_an_image_shows(tmp_path, elements, said):
    assert read_scan(write_dicom(tmp_path / "a.dcm", ramp(), Modality="MG", **elements)).laterality == said


def test_sides_by_an_orientation_alone(tmp_path):
    scan = read_scan(write_dicom(tmp_path / "a.dcm", ramp(), ImageOrientationPatient=CORONAL))
    assert scan.geometry is None and scan.edge_letters()["top"] == "H"
    skewed = read_scan(write_dicom(tmp_path / "b.dcm", ramp(), ImageOrientationPatient=[1, 0, 0, 1, 0, 0]))
    assert skewed.edge_letters() == {} and "ImageOrientationPatient" in skewed.warnings[0]
