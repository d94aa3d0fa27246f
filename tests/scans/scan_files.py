"""Scans written by a program, of every kind that is read."""

import nibabel
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

AXIAL = [1, 0, 0, 0, 1, 0]
SECRETS = {"PatientName": "Secret^Name", "PatientID": "Secret-4711", "InstitutionName": "Secret Hospital"}


def ramp(height=20, width=30, top=4000):
    return np.linspace(0, top, height * width).reshape(height, width).astype(np.uint16)


def dicom_dataset(pixels, **elements):
    """A real DICOM data set around grey (H, W), (F, H, W) or colour (H, W, 3) pixels."""
    pixels = np.ascontiguousarray(pixels)
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.Modality = "OT"
    dataset.Rows, dataset.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    if pixels.ndim == 3 and not colour:
        dataset.NumberOfFrames = len(pixels)
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for keyword, value in (SECRETS | elements).items():
        setattr(dataset, keyword, value)
    return dataset


def write_dicom(path, pixels, **elements):
    dicom_dataset(pixels, **elements).save_as(path, enforce_file_format=True)
    return path


def write_series(folder, count=5, step=(0, 0, 2.5), orientation=AXIAL, shuffle=True, **elements):
    """Slice i is filled with 100 * i; the numbers in the files and their names are in another order than space."""
    folder.mkdir(exist_ok=True)
    series = generate_uid()
    order = np.random.default_rng(0).permutation(count) if shuffle else np.arange(count)
    for number, place in enumerate(order):
        write_dicom(
            folder / f"{number:03d}.dcm",
            np.full((6, 8), 100 * place, np.int16),
            **{
                "Modality": "CT",
                "SeriesInstanceUID": series,
                "InstanceNumber": number + 1,
                "ImagePositionPatient": list(np.array([10.0, 20.0, 30.0]) + place * np.array(step)),
                "ImageOrientationPatient": orientation,
                "PixelSpacing": [0.5, 0.75],
                "RescaleSlope": 1,
                "RescaleIntercept": -1024,
            }
            | elements,
        )
    return folder


def several_frames(path, **elements):
    """An ultrasound clip, or, given places, an enhanced image whose frames are stored from last to first."""
    identified = {"SeriesInstanceUID": generate_uid(), "StudyInstanceUID": generate_uid(), "Modality": "US",
                  "SOPClassUID": "1.2.840.10008.5.1.4.1.1.3.1"}  # fmt: skip
    return write_dicom(path, np.zeros((3, 6, 8), np.uint8), **identified | elements)


def write_nifti(path, array, affine=None, image_class=nibabel.Nifti1Image):
    nibabel.save(image_class(array, np.eye(4) if affine is None else affine), path)
    return path


def patient(shape=(7, 9, 11)):
    """RAS+ voxels: bright at the patient's right, brighter at the front, brightest at the head."""
    values = np.zeros(shape, np.int16)
    values[-2:], values[:, -2:], values[:, :, -1] = 100, 200, 300
    return values


def in_orientation(values, codes, affine=None):
    """The same patient, stored with the axes that `codes` name."""
    image = nibabel.Nifti1Image(values, np.diag([1.0, 1.5, 3.0, 1.0]) if affine is None else affine)
    target = nibabel.orientations.axcodes2ornt(codes)
    return image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), target))
