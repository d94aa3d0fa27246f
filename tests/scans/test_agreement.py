"""The readers against those of others, on files that hypothesis makes up and on files that are damaged byte by byte.

Either both read the same values, or the reader says in a sentence why it does not. Oracles: tifffile, pydicom's own
look-ups, nibabel, SimpleITK (ITK's readers).
"""

import io
import warnings

import imagecodecs
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
import tifffile
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.pixels import apply_modality_lut, apply_windowing
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, HTJ2KLossless, ImplicitVRLittleEndian, RLELossless
from scan_files import dicom_dataset

from emitdiff.errors import EmitDiffError
from emitdiff.scans.reading import read_scan

QUICK, MANY = 25, 400


def agreement(count):
    """The same cases on every machine, and no folder of cases beside the tests."""
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much]
    return settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=quiet
    )  # fmt: skip


def both(test):
    """A test of QUICK cases, and a slow one of MANY."""
    quick = agreement(QUICK)(test)

    def make(count):
        def inner(tmp_path):
            agreement(count)(test)(tmp_path)

        return inner

    return quick, pytest.mark.slow(make(MANY))


def numbers(draw, dtype, shape):
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if np.dtype(dtype).kind == "f":
        return random.normal(0, draw(st.sampled_from([1e-3, 1, 1e4])), shape).astype(dtype)
    span = np.iinfo(dtype)
    return random.integers(span.min, span.max, shape, dtype=dtype, endpoint=True)


# --- TIFF ---------------------------------------------------------------------


@st.composite
def tiff_files(draw):
    """Arguments of tifffile.imwrite, and the pixels as (pages, H, W) or (pages, H, W, 3) that they show."""
    dtype = draw(st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]))
    colour = draw(st.booleans())
    pages, height, width = draw(st.integers(1, 3)), draw(st.integers(1, 40)), draw(st.integers(1, 40))
    array = numbers(draw, dtype, (pages, height, width, *([3] if colour else [])))
    compression = draw(st.sampled_from([None, "lzw", "zlib", "packbits", "zstd", "lzma"]))
    how = {
        "byteorder": draw(st.sampled_from("<>")),
        "bigtiff": draw(st.booleans()),
        "compression": compression,
        "photometric": "rgb" if colour else draw(st.sampled_from(["minisblack", "miniswhite"])),
        "predictor": compression not in {None, "packbits"} and dtype not in {"f2", "i8", "u8"} and draw(st.booleans()),
        "metadata": None,
    }
    if draw(st.booleans()):
        how["tile"] = (16 * draw(st.integers(1, 3)), 16 * draw(st.integers(1, 3)))
    else:
        how["rowsperstrip"] = draw(st.integers(1, 50))
    stored = array
    if colour and draw(st.booleans()):
        stored, how["planarconfig"] = np.moveaxis(array, -1, 1), "separate"
    elif colour:
        how["planarconfig"] = "contig"
    shown = array
    if how["photometric"] == "miniswhite":
        shown = -array if array.dtype.kind == "f" else ~array
    return stored, how, shown


@given(file=tiff_files())
def _tiff(tmp_path, file):
    stored, how, shown = file
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=how.pop("byteorder"), bigtiff=how.pop("bigtiff")) as writer:
        for page in stored:
            writer.write(page, contiguous=False, **how)
    read = read_scan(tmp_path / "a.tif").values
    np.testing.assert_array_equal(read, shown)
    with tifffile.TiffFile(tmp_path / "a.tif") as other:
        pages = np.stack([page.asarray() for page in other.pages])
    pages = np.moveaxis(pages, 1, -1) if how.get("planarconfig") == "separate" else pages
    np.testing.assert_array_equal(pages if how["photometric"] != "miniswhite" else shown, read)


test_tiff_as_tifffile_reads_it, test_more_tiff_as_tifffile_reads_it = both(_tiff)


# --- DICOM --------------------------------------------------------------------


@st.composite
def dicom_files(draw):
    """A data set, and its pixels as stored (frames, H, W), by arithmetic alone."""
    allocated = draw(st.sampled_from([8, 16, 32]))
    stored = draw(st.integers(max(1, allocated // 2 - 3), allocated))
    high = draw(st.integers(stored - 1, allocated - 1))
    signed = draw(st.booleans())
    frames, height, width = draw(st.integers(1, 3)), draw(st.integers(1, 12)), 2 * draw(st.integers(1, 8))
    word = numbers(draw, f"u{allocated // 8}", (frames, height, width)).astype(np.int64)  # other bits are noise
    true = (word >> (high + 1 - stored)) & (2**stored - 1)
    true = np.where(true >= 2 ** (stored - 1), true - 2**stored, true) if signed else true
    elements = {"Modality": draw(st.sampled_from(["MR", "CT", "DX", "US"]))}
    if draw(st.booleans()):
        elements["RescaleSlope"] = draw(st.sampled_from([1, 2, -1, 0.5, 1.25e-3, 7]))
        elements["RescaleIntercept"] = draw(st.sampled_from([0, -1024, 0.5, 12]))
    if draw(st.booleans()):
        elements["WindowCenter"] = draw(st.integers(-200, 4000)) / draw(st.sampled_from([1, 2]))
        elements["WindowWidth"] = draw(st.sampled_from([1, 2, 3, 80, 400, 4096, 2.5]))
        elements["VOILUTFunction"] = draw(st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]))
    dataset = dicom_dataset(word.astype(f"u{allocated // 8}"), **elements)
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = stored, high, int(signed)
    dataset.PhotometricInterpretation = draw(st.sampled_from(["MONOCHROME1", "MONOCHROME2"]))
    syntax = draw(st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]))
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = word.astype(f">u{allocated // 8}").tobytes()
    dataset["PixelData"].VR = "OW" if allocated > 8 or syntax == ImplicitVRLittleEndian else "OB"
    return dataset, true


@given(file=dicom_files())
def _dicom(tmp_path, file):
    dataset, true = file
    little = dataset.file_meta.TransferSyntaxUID != ExplicitVRBigEndian
    implicit = dataset.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    dataset.save_as(tmp_path / "a.dcm", implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    other = pydicom.dcmread(tmp_path / "a.dcm")
    values = apply_modality_lut(true, other)
    scan = read_scan(tmp_path / "a.dcm")
    np.testing.assert_allclose(scan.values, values, rtol=1e-6, atol=1e-6)
    if "WindowCenter" not in other:
        return
    whole = float(other.get("RescaleSlope", 1)) % 1 == float(other.get("RescaleIntercept", 0)) % 1 == 0
    if other.VOILUTFunction == "LINEAR" and not whole:
        other.VOILUTFunction = "LINEAR_EXACT"  # whose whole numbers LINEAR counts
    grey = grey_levels(values, other)
    for place in range(len(true)):
        shown = scan.image(place)[..., 0].astype(int)
        expected = 255 - grey[place] if other.PhotometricInterpretation == "MONOCHROME1" else grey[place]
        assert np.abs(shown - expected).max() <= 1


def grey_levels(values, dataset):
    """By pydicom's windows, in the range of 8 bits instead of that of the bits stored."""
    shown = pydicom.Dataset()
    for keyword in ("WindowCenter", "WindowWidth", "VOILUTFunction"):
        setattr(shown, keyword, dataset.get(keyword))
    shown.PhotometricInterpretation, shown.PixelRepresentation, shown.BitsStored = "MONOCHROME2", 0, 8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.rint(apply_windowing(values, shown))


test_dicom_as_pydicom_reads_it, test_more_dicom_as_pydicom_reads_it = both(_dicom)


@st.composite
def series(draw):
    """Direction cosines, corner, spacing and count of a stack, and the order of its files."""
    angles = [draw(st.floats(-3, 3)) for _ in range(3)]
    turn = nibabel.eulerangles.euler2mat(*angles)
    spacing = [draw(st.sampled_from([0.3, 0.7, 1.0, 2.5, 5.0])) for _ in range(3)]
    corner = [draw(st.integers(-300, 300)) + 0.25 for _ in range(3)]
    count = draw(st.integers(2, 6))
    return turn, spacing, corner, draw(st.permutations(range(count)))


@given(stack=series())
def _places(tmp_path, stack):
    turn, (row, column, apart), corner, order = stack
    folder = tmp_path / "series"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for number, place in enumerate(order):
        dataset = dicom_dataset(
            np.full((4, 6), 10 * place, np.int16), Modality="CT", SeriesInstanceUID="1.2.3", InstanceNumber=number + 1,
            ImageOrientationPatient=[f"{one:.8f}" for one in (*turn[:, 0], *turn[:, 1])],
            ImagePositionPatient=[f"{one:.6f}" for one in np.array(corner) + place * apart * turn[:, 2]],
            PixelSpacing=[row, column], SOPClassUID="1.2.840.10008.5.1.4.1.1.2", StudyInstanceUID="1.2",
        )  # fmt: skip
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    scan = read_scan(folder)
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    other = SimpleITK.ReadImage(names)
    np.testing.assert_array_equal(scan.values, SimpleITK.GetArrayFromImage(other))
    for place in ((0, 0, 0), (len(order) - 1, 3, 5), (1, 2, 1)):  # slice, row, column
        there = other.TransformIndexToPhysicalPoint(place[::-1])
        here = scan.geometry.display_affine() @ (*place, 1)
        np.testing.assert_allclose(here[:3] * (-1, -1, 1), there, atol=1e-3)  # the affine is RAS+, ITK LPS+


test_places_as_itk_reads_them, test_more_places_as_itk_reads_them = both(_places)


# --- NIfTI --------------------------------------------------------------------


@st.composite
def nifti_files(draw):
    dtype = draw(st.sampled_from(["i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"]))
    shape = tuple(draw(st.integers(2, 7)) for _ in range(3))
    header = (nibabel.Nifti1Header if draw(st.booleans()) else nibabel.Nifti2Header)(
        endianness=draw(st.sampled_from("<>"))
    )
    header.set_data_dtype(dtype)
    header.set_xyzt_units("mm")
    turn = nibabel.eulerangles.euler2mat(*[draw(st.floats(-3, 3)) for _ in range(3)])
    sizes = np.array([draw(st.sampled_from([0.5, 1.0, 3.0])) for _ in range(3)])
    sizes[0] *= draw(st.sampled_from([1, -1]))
    affine = nibabel.affines.from_matvec(turn @ np.diag(sizes), [draw(st.integers(-90, 90)) for _ in range(3)])
    slope = draw(st.sampled_from([None, (2, 5), (0.01, -3), (-1, 0)]))
    return numbers(draw, dtype, shape), affine, header, slope


@given(file=nifti_files())
def _nifti(tmp_path, file):
    array, affine, header, slope = file
    image = (nibabel.Nifti1Image if isinstance(header, nibabel.Nifti1Header) and header["sizeof_hdr"] == 348
             else nibabel.Nifti2Image)(array, affine, header)  # fmt: skip
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    stream = bytearray(image.to_bytes())
    if slope is not None:  # as scanners do it: nibabel would rescale the numbers
        size = int(image.header["sizeof_hdr"])
        changed = type(image.header)(bytes(stream[:size]), check=False)
        changed["scl_slope"], changed["scl_inter"] = slope
        stream[:size] = changed.binaryblock
    (tmp_path / "a.nii").write_bytes(stream)
    scan = read_scan(tmp_path / "a.nii")
    expected = nibabel.load(tmp_path / "a.nii").get_fdata()
    assert scan.values.size == expected.size
    first = image.header["sizeof_hdr"] == 348
    other = SimpleITK.ReadImage(str(tmp_path / "a.nii")) if first else None  # ITK reads no NIfTI-2
    to_voxel = np.linalg.inv(affine)
    for place in np.ndindex(*(min(2, length) for length in scan.values.shape)):
        here = scan.geometry.display_affine() @ (*place, 1)
        voxel = tuple(np.rint((to_voxel @ here)[:3]).astype(int))
        np.testing.assert_allclose(scan.values[place], expected[voxel], rtol=1e-5, atol=1e-5)
        if other is not None:
            there = other.TransformPhysicalPointToIndex((here[:3] * (-1, -1, 1)).tolist())
            assert there == tuple(map(int, voxel)), "ITK finds the same voxel at the same place"


test_nifti_as_nibabel_and_itk_read_it, test_more_nifti_as_nibabel_and_itk_read_it = both(_nifti)


# --- damage -------------------------------------------------------------------


def _plain(kind):
    random = np.random.default_rng(1)
    grey = random.integers(0, 4000, (24, 32), dtype=np.uint16)
    stream = io.BytesIO()
    if kind.startswith("tif"):
        tifffile.imwrite(stream, grey, photometric="minisblack", rowsperstrip=8, metadata=None,
                         compression="zlib" if kind == "tif packed" else None)  # fmt: skip
    elif kind.startswith("dicom"):
        dataset = dicom_dataset(grey, Modality="MR", RescaleSlope=2, RescaleIntercept=-7)
        if kind == "dicom rle":
            dataset.compress(RLELossless)
        elif kind == "dicom htj2k":
            dataset.PixelData = pydicom.encaps.encapsulate([imagecodecs.htj2k_encode(grey)])
            dataset["PixelData"].VR = "OB"
            dataset.file_meta.TransferSyntaxUID = HTJ2KLossless
        dataset.save_as(stream, enforce_file_format=True)
    elif kind == "nifti":
        return nibabel.Nifti1Image(grey.T[..., None].astype(np.int16), np.diag([-1, -1, 1, 1])).to_bytes()
    else:
        Image.fromarray((grey // 16).astype(np.uint8)).save(stream, kind)
    return stream.getvalue()


def _others(kind, path):
    """The values as somebody else reads them, or None where they cannot."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind.startswith("dicom"):
                dataset = pydicom.dcmread(path, force=True)
                return apply_modality_lut(dataset.pixel_array, dataset)
            if kind == "nifti":
                return np.asarray(nibabel.load(path).dataobj)
            if kind.startswith("tif"):
                return tifffile.imread(path, key=0)
            return np.asarray(Image.open(path))
    except Exception:
        return None


KINDS = ["tif", "tif packed", "dicom", "dicom rle", "dicom htj2k", "nifti", "PNG", "JPEG", "WEBP"]


@given(
    kind=st.sampled_from(KINDS),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=3),
    cut=st.one_of(st.none(), st.floats(0.05, 0.999)),
)
def _damaged(tmp_path, kind, changes, cut):
    whole = _plain(kind)
    content = bytearray(whole)
    for place, byte in changes:
        content[int(place * len(content))] = byte
    if cut is not None:
        del content[int(cut * len(content)) :]
    suffix = {"nifti": ".nii"}.get(kind, "")
    (tmp_path / f"a{suffix}").write_bytes(content)
    try:
        scan = read_scan(tmp_path / f"a{suffix}")
        scan.image(scan.middle)
    except EmitDiffError as error:
        assert str(error).endswith((".", ").", "`."))
        return
    theirs = _others(kind, tmp_path / f"a{suffix}")
    assume(theirs is not None and np.squeeze(theirs).size == np.squeeze(scan.values).size)
    ours = np.sort(scan.values.ravel().astype(np.float64))
    theirs = np.sort(np.ravel(theirs).astype(np.float64))
    finite = np.isfinite(theirs)
    if finite.all():
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


test_damage_is_refused_or_read_as_others_do, test_more_damage_is_refused_or_read_as_others_do = both(_damaged)
