"""Writer of a drawn study as a CT Image Storage series (DICOM PS3.3 A.3), in the transfer syntax of its scanner."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from fmaudit_core.cohort.phantom.anatomy import FIELD_OF_VIEW_MM, HEIGHT_MM
from fmaudit_core.cohort.phantom.plan import StudyPlan
from fmaudit_core.cohort.phantom.scanners import MANUFACTURER, Syntax

Int16Array = npt.NDArray[np.int16]

_INTERCEPT: Final = -1024
_PADDING: Final = -2000
_COMPRESSED: Final[dict[Syntax, tuple[uid.UID, str]]] = {
    "rle": (uid.RLELossless, "pylibjpeg"),
    "jpeg2000": (uid.JPEG2000Lossless, "pylibjpeg"),
    "jpegls": (uid.JPEGLSLossless, "pyjpegls"),
}


def write_series(folder: Path, study: StudyPlan, volume_hu: Int16Array) -> None:
    """Write one file per slice. File names and instance numbers are not a reliable slice order.

    Parameters
    ----------
    volume_hu : (slices, rows, columns) int16, axes (z, y, x) growing to Superior, Posterior and Left
    """
    folder.mkdir(parents=True)
    common = _common(study, volume_hu.shape)
    for index, hu in enumerate(volume_hu):
        name = hashlib.sha256(f"{study.study_seed}/{index}".encode()).hexdigest()[:12]
        _slice(common, study, hu, index, len(volume_hu)).save_as(folder / f"{name}.dcm", enforce_file_format=True)


def _common(study: StudyPlan, shape: tuple[int, ...]) -> Dataset:
    """Return the attributes common to all slices of a series."""
    scanner, when = study.scanner, study.time
    spacing = FIELD_OF_VIEW_MM / shape[2]
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = uid.CTImageStorage
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = when.strftime("%Y%m%d")
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = when.strftime("%H%M%S")
    dataset.AccessionNumber = ""
    dataset.Modality = "CT"
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = scanner.machine.model
    dataset.ConvolutionKernel = scanner.machine.kernel
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "SYNTHETIC CT PULMONARY ANGIOGRAM"
    dataset.PatientName = study.patient_id.replace("-", "^")
    dataset.PatientID = study.patient_id
    dataset.PatientBirthDate = study.birth.strftime("%Y%m%d")
    dataset.PatientSex = "F" if study.sex == "female" else "M"
    dataset.PatientAge = f"{study.age:03d}Y"
    dataset.KVP = scanner.kvp
    dataset.PatientPosition = "FFS" if scanner.feet_first else "HFS"
    dataset.StudyInstanceUID = _uid(study, "study")
    dataset.SeriesInstanceUID = _uid(study, "series")
    dataset.FrameOfReferenceUID = _uid(study, "frame of reference")
    dataset.StudyID = "1"
    dataset.SeriesNumber = 2
    dataset.AcquisitionNumber = 1
    dataset.PositionReferenceIndicator = ""
    dataset.ContrastBolusAgent = "iodinated contrast"
    dataset.Rows, dataset.Columns = shape[1], shape[2]
    dataset.PixelSpacing = [spacing, spacing]
    dataset.SliceThickness = round(HEIGHT_MM / max(shape[0] - 1, 1), 4)
    # for feet-first, columns run to the right and the slice normal points to the feet
    dataset.ImageOrientationPatient = [-1, 0, 0, 0, 1, 0] if scanner.feet_first else [1, 0, 0, 0, 1, 0]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = int(scanner.signed_with_padding)
    dataset.RescaleIntercept = 0 if scanner.signed_with_padding else _INTERCEPT
    dataset.RescaleSlope = 1 if scanner.signed_with_padding else scanner.slope
    dataset.RescaleType = "HU"
    dataset.WindowCenter, dataset.WindowWidth = 100, 700
    if scanner.signed_with_padding:
        dataset.PixelPaddingValue = _PADDING
    return dataset


def _slice(common: Dataset, study: StudyPlan, hu: Int16Array, index: int, n_slices: int) -> Dataset:
    scanner = study.scanner
    dataset = Dataset(common)
    dataset.SOPInstanceUID = _uid(study, f"slice {index}")
    dataset.InstanceNumber = n_slices - index if scanner.numbered_backwards else index + 1
    step = HEIGHT_MM / max(n_slices - 1, 1)
    half = FIELD_OF_VIEW_MM / 2
    left = half if scanner.feet_first else -half
    dataset.ImagePositionPatient = [left, -half, round(-700 + step * index, 4)]
    dataset.PixelData = _stored(hu[:, ::-1] if scanner.feet_first else hu, study).tobytes()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = uid.CTImageStorage
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.ImplementationClassUID = uid.UID("2.25.273141592653589793238462643383279502884")
    meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if scanner.syntax == "implicit" else uid.ExplicitVRLittleEndian
    dataset.file_meta = meta
    if scanner.syntax in _COMPRESSED:
        syntax, plugin = _COMPRESSED[scanner.syntax]
        dataset.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
    return dataset


def _stored(hu: Int16Array, study: StudyPlan) -> npt.NDArray[np.generic]:
    """Return the stored values. In a signed series, voxels outside the scanned circle are padding."""
    if not study.scanner.signed_with_padding:
        return np.rint((hu.astype(np.float64) - _INTERCEPT) / study.scanner.slope).astype("<u2")
    rows, columns = np.ogrid[: hu.shape[0], : hu.shape[1]]
    middle = (np.array(hu.shape) - 1) / 2
    outside = (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 >= (hu.shape[1] / 2) ** 2
    return np.where(outside, _PADDING, hu).astype("<i2")


def _uid(study: StudyPlan, part: str) -> uid.UID:
    """Return a unique identifier from the seed (2.25 and 128 bits, DICOM PS3.5 B.2), independent of clock and machine."""
    bits = hashlib.sha256(f"{study.study_seed}/{part}".encode()).digest()[:16]
    return uid.UID(f"2.25.{int.from_bytes(bits, 'big')}")
