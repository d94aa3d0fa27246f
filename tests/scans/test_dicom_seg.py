"""Masks of DICOM sources as DICOM SEG: read back by this program, and what other programs look for in them."""

from __future__ import annotations

import shutil
import subprocess

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid
from scan_files import SECRETS, ramp, several_frames, write_dicom, write_series

from emitdiff.errors import EmitDiffError
from emitdiff.scans import dicom_seg
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


def test_of_very_many_frames_the_empty_ones_are_left_out(tmp_path, series, monkeypatch):
    scan = read_scan(series)
    classes = np.zeros((5, 6, 8), np.uint8)
    classes[1, :3], classes[2, 3:] = 2, 7
    monkeypatch.setattr(dicom_seg, "MAX_BITS", 10)
    path = scan.save_mask(classes, tmp_path, "DICOM SEG")
    assert pydicom.dcmread(path).NumberOfFrames == 2
    check_with_dciodvfy(path)
    np.testing.assert_array_equal(read_scan_mask(path, scan), classes)


TURNED = [0.9397, 0.0, -0.342, 0.117, 0.9397, 0.3214]  # some 20 degrees about two axes, in four decimals


def remove(number):
    return lambda series: (series / f"{number:03d}.dcm").unlink()


def turn_a_little(series):
    """As scanners round: the directions of every image differ in the sixth decimal, and once in the third."""
    for number, path in enumerate(sorted(series.glob("*.dcm"))):
        image = pydicom.dcmread(path)
        image.ImageOrientationPatient = [1, 1e-6 * number, 0, 0, 1, 2e-3 if number == 2 else 0]
        image.save_as(path)


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ({}, remove(3)),  # evenly spread, those between the ends would lie elsewhere
        ({"step": (0, 1.7, 4.7)}, lambda series: None),  # a tilted gantry
        ({"orientation": TURNED, "step": (0.857, -0.805, 2.2)}, lambda series: None),
        ({"step": (0, 0, -2.5), "orientation": [-1, 0, 0, 0, -1, 0]}, lambda series: None),
        ({}, turn_a_little),
        ({"count": 1}, lambda series: None),
    ],
    ids=["missing slice", "tilted", "oblique", "from the other end", "jitter", "one"],
)
def test_frames_lie_where_their_images_lie(tmp_path, where, change):
    series = write_series(tmp_path / "series", shuffle=False, **where)
    change(series)
    scan = read_scan(series)
    path = scan.save_mask(drawn_on(scan), tmp_path, "DICOM SEG")
    check_with_dciodvfy(path)
    np.testing.assert_array_equal(read_scan_mask(path, scan), drawn_on(scan))
    images = {image.SOPInstanceUID: image for image in map(pydicom.dcmread, series.glob("*.dcm"))}
    seg = highdicom.seg.segread(path)
    shared = seg.SharedFunctionalGroupsSequence[0]
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = images[frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID]
        orientation = (frame if "PlaneOrientationSequence" in frame else shared).PlaneOrientationSequence[0]
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(position, source.ImagePositionPatient, atol=1e-6)
        np.testing.assert_allclose(orientation.ImageOrientationPatient, source.ImageOrientationPatient, atol=1e-5)


def test_frames_in_several_planes_lie_each_in_its_own(tmp_path):
    """A localizer: one file with an axial, a coronal and a sagittal frame."""
    planes = [[1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1]]
    elements = placed_from_last_to_first()
    elements["SharedFunctionalGroupsSequence"][0].PlaneOrientationSequence = []
    for frame, plane in zip(elements["PerFrameFunctionalGroupsSequence"], planes, strict=True):
        frame.PlaneOrientationSequence = [pydicom.Dataset()]
        frame.PlaneOrientationSequence[0].ImageOrientationPatient = plane
    scan = read_scan(several_frames(tmp_path / "a.dcm", **elements))
    path = scan.save_mask(drawn_on(scan), tmp_path, "DICOM SEG")
    check_with_dciodvfy(path)
    frames = highdicom.seg.segread(path).PerFrameFunctionalGroupsSequence
    assert [frame.PlaneOrientationSequence[0].ImageOrientationPatient for frame in frames] == planes
    np.testing.assert_array_equal(read_scan_mask(path, scan), drawn_on(scan))


def check_with_dciodvfy(path):
    """The verifier of dicom3tools, the only one that looks at every attribute of a Segmentation."""
    verifier = shutil.which("dciodvfy")
    if verifier is None:
        pytest.fail("This test needs dciodvfy on the PATH: install it, for example `apt-get install dicom3tools`.")
    said = subprocess.run([verifier, "-new", path], capture_output=True, text=True, check=False)
    assert "Segmentation" in said.stderr, said.stderr
    assert [line for line in said.stderr.splitlines() if line.startswith("Error")] == []


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
    saved = scan.save_mask(drawn, tmp_path, "DICOM SEG")
    seg = highdicom.seg.segread(saved)
    images = [instance for _, instance, _ in scan.origin.images]
    if kind in ("series", "x-ray"):
        found = seg.get_pixels_by_source_instance(images)
    else:
        found = seg.get_pixels_by_source_frame(images[0], [frame for *_, frame in scan.origin.images])
    np.testing.assert_array_equal(found, np.stack([drawn == 1, drawn == 2], axis=-1))
    check_with_dciodvfy(saved)
    assert (seg.get_volume_geometry() is None) == (kind in ("x-ray", "clip"))


@pytest.mark.parametrize("label", ["病变", "Läsion", "поражение"])
def test_labels_keep_their_script(tmp_path, series, label):
    scan = read_scan(series)
    path = scan.save_mask(drawn_on(scan), tmp_path, "DICOM SEG", label)
    assert pydicom.dcmread(path).SegmentSequence[0].SegmentLabel == label
    assert highdicom.seg.segread(path).get_segment_description(1).segment_label == label


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("left\\right\nlung", "left/right lung"),  # a backslash would part two values
        ("  ", "class 1"),
        ("a lesion " * 9, ("a lesion " * 9)[:64].strip()),
    ],
)
def test_labels_are_such_as_the_standard_allows(tmp_path, series, label, expected):
    scan = read_scan(series)
    path = scan.save_mask(drawn_on(scan), tmp_path, "DICOM SEG", label)
    assert pydicom.dcmread(path).SegmentSequence[0].SegmentLabel == expected
    check_with_dciodvfy(path)


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
