"""Masks as NIfTI, read by ITK: where it shows the images themselves, or not written at all."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK
from scan_files import in_orientation, patient, write_nifti, write_series

from emitdiff.errors import EmitDiffError
from emitdiff.scans.reading import read_scan

CT = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "FrameOfReferenceUID": "1.2.3", "SeriesNumber": 1}
STACKS = {
    "axial": {},
    "sagittal": {"step": (3, 0, 0), "orientation": [0, 1, 0, 0, 0, -1]},
    "head first": {"step": (0, 0, -2.5), "orientation": [-1, 0, 0, 0, -1, 0]},
    "oblique": {"orientation": [0.9397, 0, -0.342, 0.117, 0.9397, 0.3214], "step": (0.803, -0.855, 2.2)},
    "three decimals": {"orientation": [0.94, 0, -0.342, 0.117, 0.94, 0.321], "step": (0.8, -0.86, 2.2)},
    "tilted": {"step": (0, 1.7, 4.7)},
    "one slice": {"count": 1},
}


def one_voxel(scan):
    mask = np.zeros((scan.num_slices, *scan.size), np.uint8)
    mask[-1, 3, 5] = 7
    return mask


@pytest.mark.parametrize("stack", STACKS)
def test_itk_shows_a_mask_where_it_shows_the_series(tmp_path, stack):
    scan = read_scan(write_series(tmp_path / "series", **CT, **STACKS[stack]))
    path = scan.save_mask(one_voxel(scan), tmp_path, "NIfTI")
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "series")))
    series, mask = reader.Execute(), SimpleITK.ReadImage(str(path))
    (place,) = np.argwhere(SimpleITK.GetArrayFromImage(mask) == 7).tolist()
    np.testing.assert_allclose(
        mask.TransformIndexToPhysicalPoint(place[::-1]), point_of(series, scan, place), atol=0.05, err_msg=stack
    )


def point_of(series, scan, place):
    """Where ITK shows the voxel: its order of the slices may be the other one."""
    ends = [np.array(series.TransformIndexToPhysicalPoint((*place[:0:-1], number))) for number in (0, place[0])]
    value = SimpleITK.GetArrayFromImage(series)[place[0], 0, 0]
    return ends[1] if value == scan.values[-1, 0, 0] else ends[0]


def test_qform_and_sform_both_say_where_a_mask_lies(tmp_path):
    scan = read_scan(write_series(tmp_path / "series", **STACKS["tilted"]))
    assert any("tilted gantry" in warning for warning in scan.warnings)
    header = nibabel.load(scan.save_mask({}, tmp_path, "NIfTI")).header
    assert header["qform_code"] == header["sform_code"] == 1
    np.testing.assert_allclose(header.get_sform(), scan.geometry.affine, atol=1e-5)
    np.testing.assert_allclose(header.get_qform()[:, [0, 1, 3]], scan.geometry.affine[:, [0, 1, 3]], atol=1e-5)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PSR"])
def test_a_mask_of_nifti_lies_on_its_voxels_for_itk(tmp_path, codes):
    stored = in_orientation(patient(), codes)
    scan = read_scan(write_nifti(tmp_path / "scan.nii", np.asarray(stored.dataobj), stored.affine))
    path = scan.save_mask((scan.values == 300).astype(np.uint8), tmp_path / "out")
    image, mask = (SimpleITK.ReadImage(str(file)) for file in (tmp_path / "scan.nii", path))
    assert image.GetOrigin() == mask.GetOrigin() and image.GetDirection() == mask.GetDirection()
    assert ((SimpleITK.GetArrayFromImage(image) == 300) == SimpleITK.GetArrayFromImage(mask)).all()


def drop(number):
    return lambda series: (series / f"{number:03d}.dcm").unlink()


@pytest.mark.parametrize("count", [5, 12])
def test_slices_that_are_not_evenly_spaced_are_not_drawn_out(tmp_path, count):
    series = write_series(tmp_path / "series", count, shuffle=False)
    drop(3)(series)
    scan = read_scan(series)
    assert scan.mask_forms == ("DICOM SEG",)
    assert any("not evenly spaced" in warning and "NIfTI" in warning for warning in scan.warnings)
    with pytest.raises(EmitDiffError, match="cannot be NIfTI, which would spread its uneven slices.*choose DICOM SEG"):
        scan.save_mask(one_voxel(scan), tmp_path, "NIfTI")
    assert scan.save_mask(one_voxel(scan), tmp_path).name == "series_mask.dcm"


def test_without_identifiers_uneven_slices_become_pages(tmp_path):
    series = write_series(tmp_path / "series", shuffle=False, SOPInstanceUID="")
    drop(3)(series)
    scan = read_scan(series)
    assert scan.mask_forms == ("TIFF",) and scan.save_mask(one_voxel(scan), tmp_path).name == "series_mask.tif"
