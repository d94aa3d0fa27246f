"""Whatever is wrong with a file is a sentence, in little time and memory."""

import contextlib
import gzip
import io
import os
import struct
import subprocess
import sys
import zipfile
import zlib

import cv2
import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from scan_files import dicom_dataset, ramp, write_series

from emitdiff.errors import EmitDiffError
from emitdiff.scans import decoding, dicom_files
from emitdiff.scans.masks import read_mask
from emitdiff.scans.reading import read_scan


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def giant_png(width=60000, height=60000):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + pixels + png_chunk(b"IEND", b"")


def nifti_bytes(array=None, **fields):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16) if array is None else array, np.eye(4))
    content = bytearray(image.to_bytes())
    header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + bytes(content[348:])


def dicom_bytes(**elements):
    stream = io.BytesIO()
    dicom_dataset(ramp(), **elements).save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def picture_bytes(kind, size=(64, 64)):
    stream = io.BytesIO()
    Image.effect_noise(size, 80).save(stream, kind)
    return stream.getvalue()


def deep_bytes(suffix):
    array = np.random.default_rng(0).integers(0, 4000, (64, 64, 3), dtype=np.uint16)
    return cv2.imencode(suffix, array)[1].tobytes()


def zip_bytes(**entries):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return stream.getvalue()


GIANT = [1, 30000, 30000, 30000, 1, 1, 1, 1]
BAD_FILES = {
    "empty.png": (b"", "is empty"),
    "text.png": (b"hello, this is a sentence and no picture", "not a picture or scan"),
    "text.dcm": (b"hello " * 100, "not a picture or scan"),
    "page.pdf": (b"%PDF-1.7 " * 100, "not a picture or scan"),
    "animation.gif": (picture_bytes("GIF"), "not a picture or scan"),
    "bitmap.png": (picture_bytes("BMP"), "not a picture or scan"),
    "cut.png": (picture_bytes("PNG")[:-500], "damaged or truncated"),
    "cut.jpg": (picture_bytes("JPEG")[:600], "damaged or truncated"),
    "cut.webp": (picture_bytes("WEBP")[:900], "damaged or truncated|not a picture"),
    "cut.tif": (picture_bytes("TIFF")[:-500], "damaged or truncated"),
    "cut_16.png": (deep_bytes(".png")[:-5000], "damaged or truncated"),
    "cut_16.tif": (deep_bytes(".tif")[:-5000], "damaged or truncated"),
    "head.png": (picture_bytes("PNG")[:20], "damaged or truncated"),
    "giant.png": (giant_png(), "too large"),
    "large.png": (giant_png(9000, 9000), "too large"),
    "giant.nii": (nifti_bytes(dim=[3, *GIANT[1:]]), "too large"),
    "giant.nii.gz": (gzip.compress(nifti_bytes(dim=[3, *GIANT[1:]])), "too large"),
    "negative.nii": (nifti_bytes(dim=[3, -4, 5, 6, 1, 1, 1, 1]), "no image"),
    "cut.nii": (nifti_bytes()[:-50], "damaged or truncated"),
    "cut.nii.gz": (gzip.compress(nifti_bytes(np.random.default_rng(0).random((9, 9, 9))))[:-900], "damaged"),
    "head.nii.gz": (gzip.compress(nifti_bytes())[:30], "damaged or truncated"),
    "complex.nii": (nifti_bytes(np.zeros((3, 3, 3), np.complex64)), "complex64 values"),
    "nan.nii": (nifti_bytes(np.full((3, 3, 3), np.nan, np.float32)), "no finite value"),
    "vectors.nii": (nifti_bytes(np.zeros((3, 3, 3, 1, 4), np.int16)), "5 dimensions"),
    "bits.nii": (nifti_bytes(datatype=1), "single bits"),
    "intercept.nii": (nifti_bytes(scl_slope=2, scl_inter=np.nan), "scl_inter"),
    "analyze.hdr": (nifti_bytes(magic=b""), "Analyze file, which does not tell left from right"),
    "line.nii": (nifti_bytes(dim=[1, 120, 1, 1, 1, 1, 1, 1]), "1 dimension"),
    "type.nii": (nifti_bytes(datatype=999), "damaged"),
    "offset.nii": (nifti_bytes(vox_offset=1e12), "damaged"),
    "pair.hdr": (nifti_bytes(magic=b"ni1"), "half of a NIfTI pair"),
    "text.nii.gz": (gzip.compress(b"hello " * 100), "not a NIfTI"),
    "cut.dcm": (dicom_bytes()[:-100], "damaged or truncated"),
    "head.dcm": (dicom_bytes()[:200], "holds no DICOM image|damaged"),
    "giant.dcm": (dicom_bytes(Rows=65000, Columns=65000), "too large"),
    "frames.dcm": (dicom_bytes(NumberOfFrames=2000000), "too large"),
    "lying.dcm": (dicom_bytes(Rows=2000, Columns=2000), "damaged or truncated"),
    "zero.dcm": (dicom_bytes(Rows=0), "no image"),
    "report.dcm": (dicom_bytes(PixelData=None), "without an image|damaged"),
    "bits.dcm": (dicom_bytes(BitsAllocated=13), "takes 13 bits a pixel, which is not read"),
    "none.zip": (zip_bytes(), "holds no DICOM image"),
    "texts.zip": (zip_bytes(a="hello", b="again"), "holds no DICOM image"),
    "cut.zip": (zip_bytes(a=dicom_bytes())[:-30], "damaged or truncated"),
    "inner.zip": (zip_bytes(a=zip_bytes(b=dicom_bytes())), "holds no DICOM image"),
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_gets_a_sentence(tmp_path, name):
    content, sentence = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EmitDiffError, match=sentence) as caught:
        read_scan(tmp_path / name)
    assert name in str(caught.value) and str(caught.value).endswith((".", ")."))
    with pytest.raises(EmitDiffError):
        read_mask(tmp_path / name)


def test_missing_files_and_empty_folders_get_a_sentence(tmp_path):
    with pytest.raises(EmitDiffError, match="There is no file") as caught:
        read_scan(tmp_path / "nowhere.png")
    assert str(tmp_path) not in str(caught.value), "a server's folders are nobody's business"
    (tmp_path / "folder").mkdir()
    with pytest.raises(EmitDiffError, match="holds no DICOM image"):
        read_scan(tmp_path / "folder")


@pytest.mark.filterwarnings("ignore")
def test_any_damage_is_a_sentence(tmp_path):
    """Bytes changed at random: a scan or an EmitDiffError, never another exception."""
    draw = np.random.default_rng(0)
    wholes = [nifti_bytes(), dicom_bytes(), zip_bytes(a=dicom_bytes(), b=dicom_bytes())]
    wholes += [picture_bytes(kind, (16, 16)) for kind in ("PNG", "JPEG", "WEBP", "TIFF")]
    for whole in wholes:
        for _ in range(40):
            content = bytearray(whole)
            for place in draw.integers(0, min(len(content), 1500), 4):
                content[place] = draw.integers(256)
            (tmp_path / "a").write_bytes(content)
            with contextlib.suppress(EmitDiffError):
                read_scan(tmp_path / "a").image()


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_files, "MAX_ARCHIVE_BYTES", 2**20)
    (tmp_path / "bomb.zip").write_bytes(zip_bytes(a=bytes(2**21)))
    with pytest.raises(EmitDiffError, match="unpacks to 1 files and 2 MiB"):
        read_scan(tmp_path / "bomb.zip")
    monkeypatch.setattr(dicom_files, "MAX_FILES", 3)
    (tmp_path / "many.zip").write_bytes(zip_bytes(**{str(number): b"" for number in range(4)}))
    with pytest.raises(EmitDiffError, match="4 files"):
        read_scan(tmp_path / "many.zip")


def test_a_deflated_dicom_is_refused_before_it_is_inflated(tmp_path):
    dataset = dicom_dataset(ramp())
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(EmitDiffError, match="deflated"):
        read_scan(tmp_path / "a.dcm")


@pytest.mark.parametrize(
    ("syntax", "words"),
    [("1.2.840.10008.1.2.8.1", "deflated frame by frame"), ("1.2.840.10008.1.2.99", "not known here")],
)
@pytest.mark.parametrize("elements", [{}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4", "Modality": "SEG"}])
def test_an_encoding_newer_than_the_reader_is_no_damage(tmp_path, syntax, words, elements):
    dataset = dicom_dataset(ramp(), **elements)
    packer = zlib.compressobj(wbits=-15)
    dataset.PixelData = pydicom.encaps.encapsulate([packer.compress(dataset.PixelData) + packer.flush()])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(tmp_path / "a.dcm", implicit_vr=False, little_endian=True, force_encoding=True)
    for read in (read_mask,) if elements else (read_scan, read_mask):
        with pytest.raises(EmitDiffError, match=f"{words}.*{syntax}"):
            read(tmp_path / "a.dcm")


def test_the_sum_of_slices_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_VOXELS", 200)
    with pytest.raises(EmitDiffError, match="too large: 8 x 6 pixels, 5 slice"):
        read_scan(write_series(tmp_path / "series"))
    Image.new("RGB", (10, 10)).save(tmp_path / "a.png")
    with pytest.raises(EmitDiffError, match="too large"):
        read_scan(tmp_path / "a.png")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited with Linux's setrlimit")
def test_giants_are_refused_in_little_memory(tmp_path):
    names = ["giant.png", "giant.nii.gz", "giant.dcm", "frames.dcm"]
    for name in names:
        (tmp_path / name).write_bytes(BAD_FILES[name][0])
    code = (
        "import resource, sys\nfrom emitdiff.errors import *\n"
        "from emitdiff.scans import dicom, nifti, pictures, reading\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sys.argv[1:]:\n"
        "    try: reading.read_scan(path)\n"
        "    except EmitDiffError: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    arguments = [sys.executable, "-c", code, *(str(tmp_path / name) for name in names)]
    grown = subprocess.run(arguments, check=True, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": "."})
    assert int(grown.stdout) < 30_000  # KiB


def test_importing_scans_is_light():
    heavy = "torch", "pydicom", "nibabel", "gradio"
    code = f"import sys, emitdiff.scans.masks, emitdiff.datasets.folder; print(sys.modules.keys() & set({heavy}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("mask.seg.nrrd", b"NRRD0005\ntype: unsigned char\n", "an NRRD file.*NIfTI.*3D Slicer"),
        ("mask.mha", b"ObjectType = Image\nNDims = 3\n", "a MetaImage file"),
        ("mask.npy", b"\x93NUMPY\1\0", "an array of NumPy.*PNG"),
        ("mask.json", b'\xef\xbb\xbf\n{"shapes": []}', "text .JSON., not pixels.*into a PNG"),
        ("mask.xml", b"<?xml version='1.0'?>", "text .XML or SVG., not pixels"),
        ("mask.heic", b"\0\0\0\x18ftypheic" + bytes(60), "a HEIF or AVIF picture.*as PNG"),
        ("mask.nii.bz2", b"BZh91AY&SY", "compressed with bzip2"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("mask.") else "",
)
def test_formats_of_the_field_that_are_not_read_are_named(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    for read in (read_scan, read_mask):
        with pytest.raises(EmitDiffError, match=f"'{name}' is {sentence}"):
            read(tmp_path / name)
