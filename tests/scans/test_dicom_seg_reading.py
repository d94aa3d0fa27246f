"""DICOM Segmentations, as highdicom writes them, as masks of their images: every segment in its place, or refused."""

from __future__ import annotations

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, RLELossless, generate_uid
from scan_files import AXIAL, dicom_dataset, several_frames, write_dicom, write_nifti, write_series

from emitdiff.errors import EmitDiffError
from emitdiff.scans.masks import read_mask, read_scan_mask, read_slice_mask
from emitdiff.scans.reading import read_scan

EMPTY = dict.fromkeys(("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
                       "ReferringPhysicianName"), "")  # fmt: skip
SAGITTAL, ON_ITS_BACK = [0, 1, 0, 0, 0, -1], [-1, 0, 0, 0, -1, 0]


def ct(folder, **elements):
    """A CT series that highdicom takes as a source; in the order of the patient, its files and this program's scan."""
    wanted = {**EMPTY, "StudyInstanceUID": generate_uid(), "FrameOfReferenceUID": generate_uid(),
              "SOPClassUID": CTImageStorage, "SliceThickness": 2.5, "SeriesNumber": 1, "Manufacturer": "x"}  # fmt: skip
    scan = read_scan(write_series(folder, **wanted | elements))
    files = {file.SOPInstanceUID: file for file in map(pydicom.dcmread, folder.glob("*.dcm"))}
    return scan, [files[instance] for _, instance, _ in scan.origin.images]


def write_seg(path, sources, pixels, kind="BINARY", segments=2, **settings):
    described = [
        highdicom.seg.SegmentDescription(
            number, f"segment {number}", codes.SCT.Tissue, codes.SCT.Tissue,
            highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number in range(1, segments + 1)
    ]  # fmt: skip
    seg = highdicom.seg.Segmentation(
        sources, pixels, kind, described, generate_uid(), 1, generate_uid(), 1, "maker", "model", "1", "1", **settings
    )
    seg.save_as(path)
    return path


def two_classes(scan):
    """Two classes on some of the slices; the first of them begins within a byte."""
    ids = np.zeros((scan.num_slices, *scan.size), np.uint8)
    ids[1, 2:4, 3:], ids[1, 0, :2], ids[3, :3] = 1, 2, 2
    return ids


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("BINARY", {}),
        ("BINARY", {"omit_empty_frames": False}),
        ("LABELMAP", {}),
        ("LABELMAP", {"transfer_syntax_uid": RLELossless}),
    ],
)
@pytest.mark.parametrize(
    "where", [{}, {"step": (2.5, 0, 0), "orientation": SAGITTAL}, {"orientation": ON_ITS_BACK}, {"step": (0, 0.9, 2.3)}]
)
def test_every_segment_is_read_where_it_lies(tmp_path, kind, settings, where):
    scan, files = ct(tmp_path / "ct", **where)
    ids = two_classes(scan)
    path = write_seg(tmp_path / "seg.dcm", files, ids, kind, **settings)
    np.testing.assert_array_equal(read_scan_mask(path, scan), ids)
    for index in range(scan.num_slices):
        np.testing.assert_array_equal(read_slice_mask(path, scan, index), ids[index])


def test_what_is_stored_from_the_other_end_and_side_is_turned(tmp_path):
    """As viewers write it: frames from head to foot, rows and columns backwards."""
    scan, files = ct(tmp_path / "ct")
    ids = two_classes(scan)
    for file in files:
        file.PixelData = np.flip(file.pixel_array).tobytes()
        corner = np.array(file.ImagePositionPatient, float) + np.array([7 * 0.75, 5 * 0.5, 0])
        file.ImagePositionPatient, file.ImageOrientationPatient = corner.tolist(), ON_ITS_BACK
    path = write_seg(tmp_path / "seg.dcm", files[::-1], np.flip(ids))
    np.testing.assert_array_equal(read_scan_mask(path, scan), ids)


def test_a_mask_of_a_series_is_laid_over_the_volume_that_was_converted_from_it(tmp_path):
    scan, files = ct(tmp_path / "ct")
    ids = two_classes(scan)
    path = write_seg(tmp_path / "seg.dcm", files, ids)
    stored = scan.geometry.to_file(np.ascontiguousarray(scan.values.astype(np.int16)))[:, ::-1]  # as dcm2niix turns it
    affine = scan.geometry.affine @ np.array([[1, 0, 0, 0], [0, -1, 0, 5], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    volume = read_scan(write_nifti(tmp_path / "ct.nii.gz", stored, affine))
    found = read_scan_mask(path, volume)
    for label in (1, 2):
        np.testing.assert_array_equal(np.unique(volume.values[found == label]), np.unique(scan.values[ids == label]))
    assert (found > 0).sum() == (ids > 0).sum()


def test_images_of_the_series_that_are_missing_do_not_matter(tmp_path):
    """One alone has its slice of the mask, with a frame or without one; others have theirs."""
    scan, files = ct(tmp_path / "ct")
    ids = two_classes(scan)
    path = write_seg(tmp_path / "seg.dcm", files, ids)
    for place in (3, 2):
        files[place].save_as(tmp_path / "one.dcm")
        np.testing.assert_array_equal(read_slice_mask(path, read_scan(tmp_path / "one.dcm"), 0), ids[place])
    (tmp_path / "some").mkdir()
    for place in (0, 3, 4):
        files[place].save_as(tmp_path / "some" / f"{place}.dcm")
    np.testing.assert_array_equal(read_scan_mask(path, read_scan(tmp_path / "some")), ids[[0, 3, 4]])


def test_a_mask_of_another_series_of_the_examination_is_refused(tmp_path):
    """The slices lie between those it was drawn on, all but one."""
    space = generate_uid()
    scan, files = ct(tmp_path / "ct", FrameOfReferenceUID=space)
    other, _ = ct(tmp_path / "other", step=(0, 0, 7.5 / 4), FrameOfReferenceUID=space)
    with pytest.raises(EmitDiffError, match="does not match"):
        read_scan_mask(write_seg(tmp_path / "seg.dcm", files, two_classes(scan)), other)


@pytest.mark.parametrize("several", [False, True])
def test_frames_without_a_place_lie_on_the_images_they_name(tmp_path, several):
    """Of an X-ray image and of an ultrasound clip, of whose frames the last and the first are drawn on."""
    identified = {**EMPTY, "SeriesInstanceUID": generate_uid(), "StudyInstanceUID": generate_uid(), "SeriesNumber": 1}
    if several:
        scan = read_scan(several_frames(tmp_path / "a.dcm", **identified))
    else:
        scan = read_scan(write_dicom(tmp_path / "a.dcm", np.zeros((6, 8), np.uint16), Modality="DX", **identified))
    ids = np.zeros((scan.num_slices, *scan.size), np.uint8)
    ids[-1, 2:4], ids[0, :1] = 1, 2
    path = scan.save_mask(ids, tmp_path, "DICOM SEG")
    np.testing.assert_array_equal(read_scan_mask(path, scan), ids)
    seg = pydicom.dcmread(path)
    order = np.arange(int(seg.NumberOfFrames))[::-1]
    frames = np.asarray(seg.pixel_array).reshape(-1, *scan.size)
    seg.PerFrameFunctionalGroupsSequence = [seg.PerFrameFunctionalGroupsSequence[int(place)] for place in order]
    seg.PixelData = pydicom.pixels.pack_bits(frames[order].ravel())
    seg.save_as(tmp_path / "backwards.dcm")
    np.testing.assert_array_equal(read_scan_mask(tmp_path / "backwards.dcm", scan), ids)
    other = read_scan(write_dicom(tmp_path / "b.dcm", np.zeros((6, 8), np.uint16), **{**identified, "Modality": "DX"}))
    with pytest.raises(EmitDiffError, match="does not match"):
        read_slice_mask(path, other, 0)


def test_class_ids_come_back_as_they_were_saved(tmp_path):
    """Segments are numbered from 1 without a gap, class ids need not be."""
    scan, _ = ct(tmp_path / "ct")
    ids = two_classes(scan) * 90
    np.testing.assert_array_equal(read_scan_mask(scan.save_mask(ids, tmp_path, "DICOM SEG"), scan), ids)


def test_alone_the_slices_are_those_that_have_a_frame(tmp_path):
    scan, files = ct(tmp_path / "ct")
    ids = two_classes(scan)
    path = write_seg(tmp_path / "seg.dcm", files[::-1], ids[::-1])
    with pytest.raises(EmitDiffError, match="2 slices"):
        read_mask(path)
    np.testing.assert_array_equal(read_mask(path, scan.size, index=1), ids[3])


@pytest.mark.parametrize("number", [0, 3])
def test_the_background_of_a_label_map_is_no_class_whatever_its_number(tmp_path, number):
    scan, files = ct(tmp_path / "ct")
    ids = two_classes(scan)
    path = write_seg(tmp_path / "seg.dcm", files, ids, "LABELMAP", omit_empty_frames=False)

    def renumber(seg):
        pixels = np.asarray(seg.pixel_array)
        seg.PixelData = np.where(pixels == 0, number, pixels).astype(pixels.dtype).tobytes()
        seg.SegmentSequence[0].SegmentNumber = number
        del seg.PixelPaddingValue

    changed(path, renumber)
    np.testing.assert_array_equal(read_scan_mask(path, scan), ids)


def name_no_series(seg):
    del seg.ReferencedSeriesSequence
    for frame in seg.PerFrameFunctionalGroupsSequence:
        del frame.DerivationImageSequence


def test_the_place_in_the_patient_is_enough(tmp_path):
    """A Segmentation that names no image lies where its frame of reference says."""
    scan, files = ct(tmp_path / "ct")
    ids = two_classes(scan)
    path = write_seg(tmp_path / "seg.dcm", files, ids)
    changed(path, name_no_series)
    np.testing.assert_array_equal(read_scan_mask(path, scan), ids)


def changed(path, change):
    seg = pydicom.dcmread(path)
    change(seg)
    seg.save_as(path)


def move(seg):
    for frame in seg.PerFrameFunctionalGroupsSequence:
        frame.PlanePositionSequence[0].ImagePositionPatient[2] += 1.25


def shrink(seg):
    seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [0.4, 0.4]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (move, "does not match.*position differ"),
        (shrink, "does not match"),
        (lambda seg: setattr(seg, "FrameOfReferenceUID", generate_uid()), "frames of reference differ"),
        (lambda seg: setattr(seg, "DimensionOrganizationType", "TILED_FULL"), "in tiles, of a whole slide"),
        (lambda seg: delattr(seg, "SegmentSequence"), "describes no segment"),
        (lambda seg: setattr(seg, "PixelData", seg.PixelData[:4]), "damaged"),
        (lambda seg: seg.PerFrameFunctionalGroupsSequence.pop(), "damaged"),
    ],
    ids=["between slices", "other pixels", "other patient", "tiles", "no segments", "cut off", "frames missing"],
)
def test_what_does_not_belong_to_the_images_is_refused(tmp_path, change, sentence):
    scan, files = ct(tmp_path / "ct")
    path = write_seg(tmp_path / "seg.dcm", files, two_classes(scan))
    changed(path, change)
    with pytest.raises(EmitDiffError, match=sentence):
        read_scan_mask(path, scan)


def test_segments_that_overlap_are_refused(tmp_path):
    scan, files = ct(tmp_path / "ct")
    ids = two_classes(scan)
    path = write_seg(tmp_path / "seg.dcm", files, np.stack([ids > 0, ids == 2], -1).astype(np.uint8))
    with pytest.raises(EmitDiffError, match="class 1 and 2 overlap"):
        read_scan_mask(path, scan)


def test_fractions_are_refused_unless_they_are_all_or_nothing(tmp_path):
    scan, files = ct(tmp_path / "ct")
    whole = (two_classes(scan) > 0).astype(float)
    path = write_seg(tmp_path / "whole.dcm", files, whole, "FRACTIONAL", 1, max_fractional_value=200)
    np.testing.assert_array_equal(read_scan_mask(path, scan), whole)
    path = write_seg(tmp_path / "half.dcm", files, whole / 2, "FRACTIONAL", 1)
    with pytest.raises(EmitDiffError, match="how probable it is.*after a threshold"):
        read_scan_mask(path, scan)


@pytest.mark.parametrize(
    ("modality", "sentence"), [("RTSTRUCT", "contours.*3D Slicer"), ("PR", "presentation state"), ("RTDOSE", "a dose")]
)
def test_what_is_drawn_on_images_but_no_mask_is_named(tmp_path, modality, sentence):
    file = dicom_dataset(np.zeros((6, 8), np.uint16), Modality=modality)
    del file.PixelData
    file.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(EmitDiffError, match=sentence):
        read_mask(tmp_path / "a.dcm")


def test_an_image_of_class_ids_is_a_mask_unless_it_was_compressed_with_loss(tmp_path):
    ids = np.arange(48, dtype=np.uint8).reshape(6, 8) % 5
    path = write_dicom(tmp_path / "a.dcm", ids, ImageOrientationPatient=AXIAL, ImagePositionPatient=[0, 0, 0])
    np.testing.assert_array_equal(read_mask(path), ids)
    write_dicom(path, ids, LossyImageCompression="01")
    with pytest.raises(EmitDiffError, match="DICOM image compressed with loss"):
        read_mask(path)
