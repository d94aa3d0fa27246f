"""Masks of DICOM sources as DICOM SEG: read back by this program, and what other programs look for in them."""

from __future__ import annotations

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
