"""Masks of every format, over their scans or refused."""

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.ExifTags import Base
from scan_files import in_orientation, patient, write_nifti, write_series

from emitdiff.errors import EmitDiffError
from emitdiff.scans.masks import read_mask, read_scan_mask, read_slice_mask
from emitdiff.scans.reading import read_scan


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[0, 255]], np.uint8), [0, 1]),
        (np.array([[255, 255]], np.uint8), [1, 1]),
        (np.array([[0, 1]], np.uint8), [0, 1]),
        (np.array([[0, 13]], np.uint8), [0, 13]),
        (np.array([[0, 7]], np.uint16), [0, 7]),
        (np.array([[0, 65535]], np.uint16), [0, 1]),
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
        (np.arange(40, dtype=np.uint8)[None], "looks like an image"),
        (np.array([[0, 300]], np.uint16), "up to 300, which are not class ids: .* to 254.*anew from 1"),
        (np.array([[0, 1, 65535]], np.uint16), "up to 65535"),
        (np.array([[0, 1, 255]], np.uint8), "255 beside 1 other"),
        (np.array([[0, 0.5]], np.float32), "not class ids.*such as 0.5.*probabilities.*threshold"),
        (np.array([[0, 3.4]], np.float32), "not class ids.*such as 3.4.*without scaling"),
        (np.array([[0, -1]], np.float32), "negative values, down to -1"),
        (np.array([[0, np.nan]], np.float32), "NaN or infinite.*background the id 0"),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path, array, sentence):
    Image.fromarray(array).save(tmp_path / "mask.tif")
    with pytest.raises(EmitDiffError, match=sentence):
        read_mask(tmp_path / "mask.tif")


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint64, np.float64, np.uint16])
def test_a_nifti_of_any_number_type_is_a_mask(tmp_path, kind):
    ids = np.arange(24).reshape(4, 3, 2) % 5
    nibabel.save(nibabel.Nifti1Image(ids.astype(kind), np.eye(4), dtype=kind), tmp_path / "mask.nii.gz")
    nibabel.save(nibabel.Nifti1Image(ids.astype(np.int16), np.eye(4)), tmp_path / "scan.nii.gz")
    scan = read_scan(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(read_scan_mask(tmp_path / "mask.nii.gz", scan), scan.values)


@pytest.mark.parametrize(("kind", "taken"), [(np.int16, True), (np.uint8, False)])
def test_a_scaled_label_map_is_rounded_where_it_is_near_its_ids(tmp_path, kind, taken):
    """In few bits with a slope: 0.99977 is class 1; 0.91765, which 8 bits leave of it among 117, may be anything."""
    ids = np.zeros((12, 12, 3))
    ids[:4], ids[4:8], ids[9, 9, 1] = 1, 3, 117
    room = np.iinfo(kind)
    slope = 117 / (room.max - room.min)
    stored = np.rint((ids - 117 / 2 * (room.min < 0)) / slope).clip(room.min, room.max)
    image = nibabel.Nifti1Image(stored.astype(kind), np.eye(4))
    image.header.set_slope_inter(slope, 117 / 2 if room.min < 0 else 0)
    packed = bytearray(image.to_bytes())
    packed[112:120] = np.array([slope, 117 / 2 if room.min < 0 else 0], "<f4").tobytes()
    (tmp_path / "mask.nii").write_bytes(packed)
    if taken:
        assert np.unique(read_mask(tmp_path / "mask.nii", index=1)).tolist() == [0, 1, 3, 117]
    else:
        with pytest.raises(EmitDiffError, match="such as .*scl_slope 1"):
            read_mask(tmp_path / "mask.nii", index=1)


def test_a_nifti_of_several_volumes_or_with_nan_is_refused(tmp_path):
    path = write_nifti(tmp_path / "mask.nii", np.zeros((4, 5, 6, 3), np.uint8))
    with pytest.raises(EmitDiffError, match="several volumes.*one class id"):
        read_mask(path, index=1)
    values = np.zeros((4, 5, 6), np.float32)
    values[0, 0, 0] = np.nan
    with pytest.raises(EmitDiffError, match="NaN or infinite"):
        read_mask(write_nifti(path, values), index=1)


def test_a_mask_with_a_place_needs_an_image_with_one(tmp_path):
    """Which way round a NIfTI belongs over a PNG nobody can tell."""
    Image.new("L", (7, 9)).save(tmp_path / "image.png")
    path = write_nifti(tmp_path / "mask.nii", np.zeros((7, 9, 1), np.uint8))
    with pytest.raises(EmitDiffError, match="says where it lies in the patient, 'image.png' does not.*as PNG"):
        read_slice_mask(path, read_scan(tmp_path / "image.png"), 0)


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
        with pytest.raises(EmitDiffError, match="does not match"):
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


def test_tifffile_reads_the_pages_that_were_saved(tmp_path):
    scan = read_scan(write_pages(tmp_path / "scan.tif", (10, 20, 30)))
    ids = np.random.default_rng(0).integers(0, 255, (3, 6, 5), np.uint8)
    np.testing.assert_array_equal(tifffile.imread(scan.save_mask(ids, tmp_path / "out")), ids)


def test_a_mask_of_another_size_is_refused(tmp_path):
    Image.new("L", (4, 3)).save(tmp_path / "mask.png")
    with pytest.raises(EmitDiffError, match="4 x 3 pixels, its image 6 x 5"):
        read_mask(tmp_path / "mask.png", (5, 6))
    scan = read_scan(tmp_path / "mask.png")
    for wrong in (np.zeros((4, 3)), {1: np.zeros((3, 4))}, np.zeros((2, 3, 4)), np.full((3, 4), -1)):
        with pytest.raises(EmitDiffError):
            scan.save_mask(wrong, tmp_path)
