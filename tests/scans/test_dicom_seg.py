"""Masks of DICOM sources as DICOM SEG: read back by this program, and what other programs look for in them."""

from __future__ import annotations

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid
from scan_files import SECRETS, ramp, write_dicom, write_series

from emitdiff.errors import EmitDiffError
from emitdiff.scans.masks import read_scan_mask
from emitdiff.scans.reading import read_scan

SAGITTAL = [0, 1, 0, 0, 0, -1]


@pytest.fixture
def series(tmp_path):
    study, space = generate_uid(), generate_uid()
    return write_series(tmp_path / "series", StudyInstanceUID=study, FrameOfReferenceUID=space)


def drawn_on(scan):
    return np.random.default_rng(0).integers(0, 2, (scan.num_slices, *scan.size)).astype(np.uint8)


@pytest.mark.parametrize("where", [{}, {"step": (3.0, 0, 0), "orientation": SAGITTAL}])
def test_what_is_written_lies_on_the_same_voxels(tmp_path, where):
    scan = read_scan(write_series(tmp_path / "series", **where))
    saved = scan.save_mask(drawn_on(scan), tmp_path, "DICOM SEG", "liver")
    again = read_scan(saved)
    np.testing.assert_array_equal(read_scan_mask(saved, scan), drawn_on(scan))
    np.testing.assert_allclose(again.geometry.display_affine(), scan.geometry.display_affine(), atol=1e-6)


def test_each_frame_names_the_image_it_belongs_to(tmp_path, series):
    scan = read_scan(series)
    seg = pydicom.dcmread(scan.save_mask({2: drawn_on(scan)[2]}, tmp_path, "DICOM SEG", "liver"))
    images = {tuple(file.ImagePositionPatient): file for file in map(pydicom.dcmread, series.glob("*.dcm"))}
    first = next(iter(images.values()))
    assert seg.StudyInstanceUID == first.StudyInstanceUID and seg.FrameOfReferenceUID == first.FrameOfReferenceUID
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == first.SeriesInstanceUID != seg.SeriesInstanceUID
    assert seg.NumberOfFrames == len(seg.PerFrameFunctionalGroupsSequence) == 5
    assert seg.SegmentSequence[0].SegmentLabel == "liver" and "Research use only" in seg.ContentDescription
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        place = tuple(frame.PlanePositionSequence[0].ImagePositionPatient)
        assert source.ReferencedSOPInstanceUID == images[place].SOPInstanceUID
    assert [bool(frame.any()) for frame in seg.pixel_array] == [False, False, True, False, False]


def test_each_class_is_a_segment(tmp_path, series):
    scan = read_scan(series)
    classes = np.zeros((5, 6, 8), np.uint8)
    classes[1, :3], classes[2, 3:] = 2, 7
    seg = pydicom.dcmread(scan.save_mask(classes, tmp_path, "DICOM SEG"))
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == ["class 2", "class 7"]
    np.testing.assert_array_equal(seg.pixel_array, np.concatenate([classes == 2, classes == 7]))


def test_frames_lie_where_their_images_lie_in_an_uneven_stack(tmp_path):
    """Slices at 0, 2.5, 5 and 10 mm: evenly spread, those between the ends would lie elsewhere."""
    series = write_series(tmp_path / "series", shuffle=False)
    (series / "003.dcm").unlink()
    scan = read_scan(series)
    path = scan.save_mask(drawn_on(scan), tmp_path, "DICOM SEG")
    heights = [frame.PlanePositionSequence[0].ImagePositionPatient[2]
               for frame in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence]  # fmt: skip
    assert heights == [30, 32.5, 35, 40]
    np.testing.assert_array_equal(read_scan_mask(path, scan), drawn_on(scan))


def several_frames(path, **elements):
    """An ultrasound clip, or, given places, an enhanced image whose frames are stored from last to first."""
    identified = {"SeriesInstanceUID": generate_uid(), "StudyInstanceUID": generate_uid(), "Modality": "US"}
    return write_dicom(path, np.zeros((3, 6, 8), np.uint8), **identified | elements)


def placed_from_last_to_first():
    shared, frames = pydicom.Dataset(), []
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [pydicom.Dataset()], [pydicom.Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence[0].PixelSpacing = [0.5, 0.75]
    for height in (4, 2, 0):
        frame = pydicom.Dataset()
        frame.PlanePositionSequence = [pydicom.Dataset()]
        frame.PlanePositionSequence[0].ImagePositionPatient = [0, 0, height]
        frames.append(frame)
    return {"SharedFunctionalGroupsSequence": [shared], "PerFrameFunctionalGroupsSequence": frames, "Modality": "MR"}


@pytest.mark.parametrize(("placed", "numbers"), [(False, [1, 2, 3]), (True, [3, 2, 1])])
def test_frames_of_one_file_are_named_by_their_number(tmp_path, placed, numbers):
    scan = read_scan(several_frames(tmp_path / "a.dcm", **placed_from_last_to_first() if placed else {}))
    seg = pydicom.dcmread(scan.save_mask(drawn_on(scan), tmp_path, "DICOM SEG"))
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1
    sources = [frame.DerivationImageSequence[0].SourceImageSequence[0]
               for frame in seg.PerFrameFunctionalGroupsSequence]  # fmt: skip
    assert [source.ReferencedFrameNumber for source in sources] == numbers
    assert {source.ReferencedSOPInstanceUID for source in sources} == {scan.origin.images[0][1]}


@pytest.mark.parametrize("kind", ["series", "x-ray", "clip", "frames"])
def test_highdicom_reads_what_was_drawn(tmp_path, kind):
    """Of each segment, by the identifiers of the images that it was drawn on."""
    identified = {"SeriesInstanceUID": generate_uid(), "StudyInstanceUID": generate_uid(), "Modality": "DX"}
    path = {
        "series": lambda: write_series(tmp_path / "series", StudyInstanceUID=generate_uid()),
        "x-ray": lambda: write_dicom(tmp_path / "a.dcm", ramp(), **identified),
        "clip": lambda: several_frames(tmp_path / "a.dcm"),
        "frames": lambda: several_frames(tmp_path / "a.dcm", **placed_from_last_to_first()),
    }[kind]()
    scan = read_scan(path)
    drawn = np.random.default_rng(1).integers(0, 3, (scan.num_slices, *scan.size)).astype(np.uint8)
    seg = highdicom.seg.segread(scan.save_mask(drawn, tmp_path, "DICOM SEG"))
    images = [instance for _, instance, _ in scan.origin.images]
    if kind in ("series", "x-ray"):
        found = seg.get_pixels_by_source_instance(images)
    else:
        found = seg.get_pixels_by_source_frame(images[0], [frame for *_, frame in scan.origin.images])
    np.testing.assert_array_equal(found, np.stack([drawn == 1, drawn == 2], axis=-1))
    assert (seg.get_volume_geometry() is None) == (kind in ("x-ray", "clip"))


@pytest.mark.parametrize("label", ["病变", "Läsion", "поражение"])
def test_labels_keep_their_script(tmp_path, series, label):
    scan = read_scan(series)
    path = scan.save_mask(drawn_on(scan), tmp_path, "DICOM SEG", label)
    assert pydicom.dcmread(path).SegmentSequence[0].SegmentLabel == label
    assert highdicom.seg.segread(path).get_segment_description(1).segment_label == label


def test_nobody_is_named_in_it(tmp_path, series):
    scan = read_scan(series)
    content = scan.save_mask(drawn_on(scan), tmp_path, "DICOM SEG").read_bytes()
    assert not any(secret.encode() in content for secret in SECRETS.values())


def test_a_picture_without_a_place_is_tied_to_its_image_alone(tmp_path):
    identified = {"SeriesInstanceUID": generate_uid(), "Modality": "DX"}
    scan = read_scan(write_dicom(tmp_path / "a.dcm", ramp(), **identified))
    assert scan.mask_forms == ("DICOM SEG", "PNG")
    saved = scan.save_mask(drawn_on(scan), tmp_path, "DICOM SEG")
    np.testing.assert_array_equal(read_scan_mask(saved, scan), drawn_on(scan))
    assert "FrameOfReferenceUID" not in pydicom.dcmread(saved)


def test_only_dicom_that_can_be_referred_to_becomes_one(tmp_path):
    scan = read_scan(write_dicom(tmp_path / "a.dcm", ramp()))
    assert scan.mask_forms == ("PNG",)
    with pytest.raises(EmitDiffError, match="cannot be DICOM SEG: choose PNG"):
        scan.save_mask(drawn_on(scan), tmp_path, "DICOM SEG")
