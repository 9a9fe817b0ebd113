"""Small CT series on disk for tests: valid by default, spoiled by the keyword a test gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

AIR_HU, TISSUE_HU = -1000, 40


def volume_hu(slices: int = 6, size: int = 32, seed: int = 0) -> np.ndarray:
    """(slices, size, size) int16: a disc of tissue in air, a number of its own in each slice."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - size / 2
    body = np.where(x**2 + y**2 < (0.4 * size) ** 2, TISSUE_HU, AIR_HU)
    noise = rng.integers(-10, 10, (slices, size, size))
    return (body + noise + 20 * np.arange(slices)[:, None, None]).astype(np.int16)


def write_slice(path: Path, hu: np.ndarray, *, z_mm: float, number: int, series: str = "1.2.3", **changes) -> None:
    """One slice stored unsigned with intercept -1024; `changes` set attributes, None removes one."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[str(path), series])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SeriesInstanceUID, dataset.Modality, dataset.InstanceNumber = series, "CT", number
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, z_mm], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [0.8, 0.8], 2.0
    dataset.Rows, dataset.Columns = hu.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = changes.get("RescaleSlope", 1), -1024
    slope = float(dataset.RescaleSlope or 1)
    dataset.PixelData = np.rint((hu.astype(float) + 1024) / slope).astype("<u2").tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def write_series(folder: Path, volume: np.ndarray | None = None, *, step_mm: float = 2.0, **changes) -> np.ndarray:
    """A series whose file names and instance numbers run against its positions; returns its volume."""
    volume = volume_hu() if volume is None else volume
    for index, hu in enumerate(volume):
        name = f"{(7 * index) % 101:03d}.dcm"
        write_slice(folder / name, hu, z_mm=step_mm * index, number=len(volume) - index, **changes)
    return volume
