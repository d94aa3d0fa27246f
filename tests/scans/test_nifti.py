"""NIfTI: shown as radiologists do, in every orientation, and masks that land where they were drawn."""

import nibabel
import numpy as np
import pytest
import SimpleITK
from scan_files import in_orientation, patient, write_nifti

from emitdiff.errors import EmitDiffError
from emitdiff.scans.masks import read_mask
from emitdiff.scans.reading import read_scan

ORIENTATIONS = ["RAS", "LPS", "LAS", "PIR", "SAL", "ASR", "IPL"]


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
    assert "is invalid" in scan.warnings[0]
    assert nibabel.load(scan.save_mask({}, tmp_path)).shape == (7, 9, 11)
    nibabel.save(nibabel.Nifti1Image(patient(), None), tmp_path / "b.nii")
    assert "has no orientation" in read_scan(tmp_path / "b.nii").warnings[0]


def test_the_patients_sides_are_those_of_the_displayed_slice(tmp_path):
    volume = np.zeros((4, 5, 6), np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([-2.0, 2, 3, 1])), tmp_path / "lies.nii")
    axial = {"left": "R", "right": "L", "top": "A", "bottom": "P"}
    assert read_scan(tmp_path / "lies.nii").geometry.edge_letters() == axial
    unsaid = nibabel.Nifti1Image(volume, None)
    unsaid.header["qform_code"] = unsaid.header["sform_code"] = 0
    nibabel.save(unsaid, tmp_path / "unsaid.nii")
    assert read_scan(tmp_path / "unsaid.nii").geometry.edge_letters() == {}


NUMBERS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("order", "<>")
def test_every_number_in_either_byte_order(tmp_path, kind, order):
    draw = np.random.default_rng(0)
    whole = np.dtype(kind).kind != "f"
    values = draw.integers(-100 if kind[0] == "i" else 0, 100, (5, 6, 7)) if whole else draw.normal(0, 1, (5, 6, 7))
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(kind)
    image = nibabel.Nifti1Image(values.astype(kind), np.diag([-1, -1, 1, 1]), header)
    nibabel.save(image, tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    assert scan.values.dtype == np.dtype(kind) and scan.values.dtype.isnative
    np.testing.assert_array_equal(scan.values, values.astype(kind).T)


def test_large_numbers_keep_their_digits(tmp_path):
    values = (10**9 + np.arange(5 * 6 * 7)).reshape(5, 6, 7)
    for place, array in enumerate((values.astype(np.int32), values.astype(np.float64))):
        image = read_scan(write_nifti(tmp_path / f"{place}.nii", array, np.diag([-1, -1, 1, 1]))).image(0, "full range")
        np.testing.assert_allclose(image[..., 0], (values.T[0] - 10**9) * (255 / 209), atol=0.51)


@pytest.mark.parametrize(("slope", "inter"), [(2, 5), (0.1, -3), (0, 7), (np.nan, np.nan), (np.nan, 3), (np.inf, 1)])
def test_scaling_is_applied_where_it_is_one(tmp_path, slope, inter):
    """nifti1.h: no scaling where scl_slope is 0; numbers that are none count as that."""
    content = bytearray(nibabel.Nifti1Image(patient(), np.eye(4)).to_bytes())
    header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    header["scl_slope"], header["scl_inter"] = slope, inter
    (tmp_path / "a.nii").write_bytes(header.binaryblock + bytes(content[348:]))
    expected = nibabel.load(tmp_path / "a.nii").get_fdata()
    assert set(np.unique(read_scan(tmp_path / "a.nii").values)) == set(np.unique(expected.astype(np.float32)))


@pytest.mark.parametrize("names", ["RGB", "RGBA"])
def test_colours(tmp_path, names):
    kind = np.dtype([(name, "u1") for name in names])
    colours = np.random.default_rng(0).integers(0, 256, (5, 6, 7, len(names)), np.uint8)
    nibabel.save(nibabel.Nifti1Image(colours.view(kind)[..., 0], np.diag([-1, -1, 1, 1])), tmp_path / "a.nii.gz")
    scan = read_scan(tmp_path / "a.nii.gz")
    assert scan.windows == {} and scan.size == (6, 5)
    np.testing.assert_array_equal(scan.image(2), colours[:, :, 2, :3].transpose(1, 0, 2))


def test_one_volume_of_several(tmp_path):
    values = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).astype(np.int16)
    path = write_nifti(tmp_path / "a.nii.gz", values, np.diag([-1, -1, 1, 1]))
    first = read_scan(path)
    np.testing.assert_array_equal(first.values, values[..., 0].T)
    assert first.warnings == ("It holds 5 volumes (time points, echoes or the like); the first is shown.",)
    third = read_scan(path, time_point=2)
    np.testing.assert_array_equal(third.values, values[..., 2].T)
    assert third.warnings == () and nibabel.load(third.save_mask({}, tmp_path / "out")).shape == (2, 3, 4)
    for asked in (5, -1):
        with pytest.raises(EmitDiffError, match=r"has 5 volume\(s\), counted from 0"):
            read_scan(path, time_point=asked)


@pytest.mark.parametrize("codes", ORIENTATIONS)
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_one_slice_is_the_same_as_among_all(tmp_path, codes, suffix):
    values = np.random.default_rng(0).normal(0, 1, (7, 9, 11)).astype(np.float32)
    nibabel.save(in_orientation(values, codes), tmp_path / f"a.{suffix}")
    whole = read_scan(tmp_path / f"a.{suffix}")
    for index in (0, 4, 10):
        one = read_scan(tmp_path / f"a.{suffix}", index=index)
        np.testing.assert_array_equal(one.image(index), whole.image(index))
        assert one.windows == whole.windows
    with pytest.raises(EmitDiffError, match="has no slice 11: give a number from 0 to 10"):
        read_scan(tmp_path / f"a.{suffix}", index=11)


def test_a_changed_byte_in_what_is_compressed_is_damage(tmp_path):
    """Its check sum stands behind the last voxel."""
    values = np.random.default_rng(0).integers(0, 1000, (20, 20, 20)).astype(np.int16)
    path = write_nifti(tmp_path / "a.nii.gz", values)
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(EmitDiffError, match="damaged"):
        read_scan(path)


def test_what_the_two_orientations_and_sizes_say_is_compared(tmp_path):
    image = nibabel.Nifti1Image(patient(), None)
    image.header.set_qform(np.diag([1.0, 1, 2, 1]), code=1)
    image.header.set_sform(np.diag([-1.0, 1, 2, 1]), code=1)
    nibabel.save(image, tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    assert "two orientations that differ" in scan.warnings[0] and scan.edge_letters()["left"] == "R"
    image.header.set_qform(np.diag([-1.0, 1, 2, 1]), code=1)
    image.header["pixdim"][1:4] = 1, 1, 1
    nibabel.save(image, tmp_path / "b.nii")
    content = bytearray((tmp_path / "b.nii").read_bytes())
    header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    header["pixdim"][1:4] = 1, 1, 1
    (tmp_path / "b.nii").write_bytes(header.binaryblock + bytes(content[348:]))
    scan = read_scan(tmp_path / "b.nii")
    assert scan.spacing == (2, 1, 1) and "voxel sizes in the header" in scan.warnings[-1]


@pytest.mark.parametrize(("qform", "sform"), [(1, 0), (0, 2), (1, 1), (0, 0)])
def test_either_orientation_is_enough(tmp_path, qform, sform):
    image = nibabel.Nifti1Image(patient(), None)
    image.header.set_qform(np.diag([-1.0, 1.5, 3, 1]), code=qform)
    image.header.set_sform(np.diag([-1.0, 1.5, 3, 1]), code=sform)
    nibabel.save(image, tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    assert scan.spacing == (3, 1.5, 1) and bool(scan.warnings) == (qform == sform == 0)
    assert bool(scan.edge_letters()) == (qform + sform > 0)


def turned_by(path, quaternion, image_class=nibabel.Nifti1Image):
    """A file with this rotation, which nibabel itself would not write."""
    image = image_class(patient(), np.eye(4))
    image.header["qform_code"], image.header["sform_code"] = 1, 0
    content = bytearray(image.to_bytes())
    header = image.header_class(bytes(content[: image.header.structarr.nbytes]), check=False)
    header["quatern_b"], header["quatern_c"], header["quatern_d"] = quaternion
    content[: header.structarr.nbytes] = header.binaryblock
    path.write_bytes(content)
    return path


def test_a_quaternion_a_little_too_long_is_normalised(tmp_path):
    """As rounding leaves it: 180 degrees about an axis between two others."""
    path = turned_by(tmp_path / "a.nii", (0.7072, 0.7071, 0.0002))
    with pytest.raises(ValueError, match="w2"):
        nibabel.load(path)
    expected = np.diag([-1, -1, 1]) @ np.reshape(SimpleITK.ReadImage(str(path)).GetDirection(), (3, 3))
    newer = turned_by(tmp_path / "b.nii", (0.7072, 0.7071, 0.0002), nibabel.Nifti2Image)
    for each in (path, newer):
        np.testing.assert_allclose(read_scan(each).geometry.affine[:3, :3], expected, atol=1e-3)
    with pytest.raises(EmitDiffError, match="amaged"):
        read_scan(turned_by(tmp_path / "c.nii", (1.5, 0.7071, 0.0002)))
