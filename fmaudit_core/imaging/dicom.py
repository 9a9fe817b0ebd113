"""DICOM files as frames of a series, each with its position, rescale parameters and pixels in HU.

This module handles one file at a time and its defects; `series.py` assembles frames into a volume.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.pixels.decoders.base import get_decoder

from fmaudit_core.imaging.errors import Defect, damage_is
from fmaudit_core.imaging.rescale import Int16Array, IntegerArray, to_hu

Float64Array = npt.NDArray[np.float64]

_CT_CLASSES: Final = {uid.CTImageStorage, uid.EnhancedCTImageStorage, uid.LegacyConvertedEnhancedCTImageStorage}
_DIRECTORY_CLASS: Final = "1.2.840.10008.1.3.10"
#: derived parametric maps of ImageType or FrameType (DICOM PS3.3 C.8.16.1.3, C.8.15.2)
_PARAMETRIC: Final = {"PERFUSION", "CBF", "RCBF", "CBV", "RCBV", "MTT", "RMTT", "TTP", "TMAX", "PERM", "PS"} | {
    "EFF_ATOMIC_NUM", "ELECTRON_DENSITY", "MAT_SPECIFIC", "MAT_FRACTIONAL", "MAT_REMOVED", "MAT_MODIFIED",
    "VALUE_MAP", "VELOCITY",
}  # fmt: skip
_HOUNSFIELD_TYPES: Final = {"", "HU", "HU_MOD"}
_LOSSY: Final = {
    uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K,
}  # fmt: skip
#: one named decoder per compressed syntax, so that other installed decoders cannot change pixel values
_DECODERS: Final = {
    uid.RLELossless: "pylibjpeg",
    uid.JPEGBaseline8Bit: "gdcm",
    uid.JPEGExtended12Bit: "gdcm",
    uid.JPEGLossless: "gdcm",
    uid.JPEGLosslessSV1: "gdcm",
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
    uid.JPEG2000Lossless: "pylibjpeg",
    uid.JPEG2000: "pylibjpeg",
    uid.HTJ2KLossless: "pylibjpeg",
    uid.HTJ2KLosslessRPCL: "pylibjpeg",
    uid.HTJ2K: "pylibjpeg",
}
_NATIVE: Final = {
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
}


@dataclass(frozen=True)
class DicomFile:
    """One readable DICOM file."""

    path: Path
    dataset: Dataset
    #: whether the parser met a value that ended before its declared length
    cut_short: bool

    @cached_property
    def series_uid(self) -> str:
        """Return the Series Instance UID, empty if the file has none."""
        return _text(self.dataset, "SeriesInstanceUID")

    @cached_property
    def misses_uid(self) -> bool:
        """Return whether a UID that identifies class, instance or series is absent or empty."""
        return not all(_text(self.dataset, name) for name in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"))

    @cached_property
    def is_ct(self) -> bool:
        """Return whether the file is CT, by SOP Class UID, else Media Storage SOP Class UID, else Modality."""
        meta = getattr(self.dataset, "file_meta", Dataset())
        for sop_class in (_text(self.dataset, "SOPClassUID"), _text(meta, "MediaStorageSOPClassUID")):
            if sop_class:
                return sop_class in _CT_CLASSES
        return _text(self.dataset, "Modality") == "CT"

    @property
    def is_localizer(self) -> bool:
        """Return whether ImageType has the value LOCALIZER (value 3, DICOM PS3.3 C.8.2.1.1.1)."""
        return "LOCALIZER" in self.image_type

    @cached_property
    def image_type(self) -> tuple[str, ...]:
        """Return the values of ImageType in upper case."""
        return _values(self.dataset, "ImageType")

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Return rows and columns; empty if the header does not define the layout of the pixels."""
        values = [self.dataset.get(name) for name in ("Rows", "Columns", "BitsAllocated")]
        return () if None in values or "" in values else (int(values[0]), int(values[1]))

    @cached_property
    def transfer_syntax(self) -> str:
        """Return the Transfer Syntax UID; without file meta, the encoding detected by the parser."""
        meta = getattr(self.dataset, "file_meta", Dataset())
        transfer_syntax = _text(meta, "TransferSyntaxUID")
        if transfer_syntax:
            return transfer_syntax
        implicit, little = self.dataset.original_encoding
        if implicit:
            return str(uid.ImplicitVRLittleEndian)
        return str(uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian)

    def identify(self) -> None:
        """Read the identifying attributes now, so that a damaged header is reported as unreadable and does not fail later."""
        _ = (self.series_uid, self.misses_uid, self.image_type, self.transfer_syntax, self.shape)

    @property
    def is_lossy(self) -> bool:
        """Return whether the pixels were compressed with loss."""
        return self.transfer_syntax in _LOSSY


@dataclass(frozen=True)
class Frame:
    """One slice: its position, and the conversion of its stored values to HU.

    Parameters
    ----------
    index : int
        Index of the frame in the file, from 0.
    position, orientation : (3,), (6,) float, LPS mm and cosines
    spacing_mm : (row step, column step)
    """

    file: DicomFile
    index: int
    position: Float64Array
    orientation: Float64Array
    spacing_mm: tuple[float, float]
    thickness_mm: float | None
    shape: tuple[int, ...]
    slope: float
    intercept: float

    def hu(self) -> Int16Array:
        """Return the HU of this frame.

        Returns
        -------
        (rows, columns) int16: slope x stored + intercept, rounded half to even, declared padding at -1024

        Raises
        ------
        Defect
            `no_pixel_data`, `truncated_pixel_data`, `unsupported_transfer_syntax` or `hu_out_of_range`.
        """
        with damage_is("truncated_pixel_data"):
            stored = _stored_values(self.file, self.index, self.shape)
            return to_hu(stored, self.slope, self.intercept, padding=_padding(self.file.dataset))

    def let_go(self) -> None:
        """Release the stored pixels of a single-frame file, so that a series is held in memory only once."""
        if "PerFrameFunctionalGroupsSequence" not in self.file.dataset:
            self.file.dataset.pop("PixelData", None)


def read_file(path: Path) -> DicomFile:
    """Parse one file; pixels are read but not decoded.

    Raises
    ------
    Defect
        `unreadable`: empty, truncated in its header or not parseable; `not_dicom`: another kind of file; `dicomdir`.
    """
    with damage_is("unreadable"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if path.stat().st_size == 0:
            raise Defect("unreadable")
        dataset = _parsed(path)
        found = DicomFile(path, dataset, cut_short=any("end of file" in str(one.message).lower() for one in caught))
        if _text(getattr(dataset, "file_meta", Dataset()), "MediaStorageSOPClassUID") == _DIRECTORY_CLASS:
            raise Defect("dicomdir")
        if not (found.is_ct or _text(dataset, "SOPClassUID") or _text(dataset, "Modality")):
            raise Defect("unreadable")
        found.identify()
    return found


def _parsed(path: Path) -> Dataset:
    """Return the dataset of a file; without preamble it counts as DICOM if its first elements name a SOP class."""
    try:
        return pydicom.dcmread(path)
    except InvalidDicomError as error:
        try:
            dataset = pydicom.dcmread(path, force=True)
        except Exception:
            raise Defect("not_dicom") from error
        if not _text(dataset, "SOPClassUID"):
            raise Defect("not_dicom") from error
        return dataset


def frames_of(file: DicomFile) -> list[Frame]:
    """Return the frames of a CT file, single or multi-frame, in stored order.

    Raises
    ------
    Defect
        `no_pixel_data`, `truncated_pixel_data`, `missing_geometry`, `missing_rescale` or `not_hounsfield`.
    """
    with damage_is("unreadable"):
        return list(_frames(file))


def _frames(file: DicomFile) -> Iterator[Frame]:
    dataset = file.dataset
    if "PixelData" not in dataset:
        raise Defect("truncated_pixel_data" if file.cut_short else "no_pixel_data")
    if not file.shape:
        raise Defect("truncated_pixel_data" if file.cut_short else "unreadable")
    _check_hounsfield(dataset, file.image_type)
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    n_frames = int(dataset.get("NumberOfFrames") or 1)
    if n_frames != len(per_frame or [dataset]):  # a frame without its own functional group has no position
        raise Defect("missing_geometry")
    if not per_frame:
        yield _frame(file, 0, [dataset])
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])
    for index, group in enumerate(per_frame):
        yield _frame(file, index, [group, *shared, dataset])


def _frame(file: DicomFile, index: int, groups: list[Dataset]) -> Frame:
    """Return a frame with attributes looked up in its own group, then the shared group, then the dataset."""
    frame_type = _macro(groups, "CTImageFrameTypeSequence", "FrameType")
    transformation = "PixelValueTransformationSequence"
    if frame_type is not None:
        values = tuple(str(value).upper() for value in frame_type)
        if set(values) & _PARAMETRIC:
            raise Defect("not_hounsfield")
    if str(_macro(groups, transformation, "RescaleType") or "").strip().upper() not in _HOUNSFIELD_TYPES:
        raise Defect("not_hounsfield")
    position = _numbers(_macro(groups, "PlanePositionSequence", "ImagePositionPatient"), 3)
    orientation = _numbers(_macro(groups, "PlaneOrientationSequence", "ImageOrientationPatient"), 6)
    spacing = _numbers(_macro(groups, "PixelMeasuresSequence", "PixelSpacing"), 2)
    if position is None or orientation is None or spacing is None or spacing.min() <= 0:
        raise Defect("missing_geometry")
    slope = _numbers(_macro(groups, transformation, "RescaleSlope"), 1)
    intercept = _numbers(_macro(groups, transformation, "RescaleIntercept"), 1)
    if slope is None or intercept is None or slope[0] == 0:
        raise Defect("missing_rescale")
    thickness = _numbers(_macro(groups, "PixelMeasuresSequence", "SliceThickness"), 1)
    return Frame(
        file=file,
        index=index,
        position=position,
        orientation=orientation,
        spacing_mm=(float(spacing[0]), float(spacing[1])),
        thickness_mm=None if thickness is None else float(thickness[0]),
        shape=file.shape,
        slope=float(slope[0]),
        intercept=float(intercept[0]),
    )


def _check_hounsfield(dataset: Dataset, image_type: tuple[str, ...]) -> None:
    if set(image_type[2:]) & _PARAMETRIC:
        raise Defect("not_hounsfield")
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise Defect("not_hounsfield")


def _stored_values(file: DicomFile, index: int, shape: tuple[int, ...]) -> IntegerArray:
    """Return the stored values of one frame, (rows, columns), with the signedness of the header."""
    dataset = file.dataset
    if file.cut_short:
        raise Defect("truncated_pixel_data")
    syntax = file.transfer_syntax
    if syntax == uid.ExplicitVRLittleEndian or syntax == uid.ImplicitVRLittleEndian:
        plain = _native(dataset, index, shape)
        if plain is not None:
            return plain
    plugin = "" if syntax in _NATIVE else _DECODERS.get(uid.UID(syntax))
    if plugin is None:
        raise Defect("unsupported_transfer_syntax")
    decoder = get_decoder(uid.UID(syntax))
    if plugin and plugin not in decoder.available_plugins:
        raise Defect("unsupported_transfer_syntax")
    values, _ = decoder.as_array(dataset, index=index, raw=True, decoding_plugin=plugin)
    if values.shape != shape:
        raise Defect("truncated_pixel_data")
    return values


def _native(dataset: Dataset, index: int, shape: tuple[int, ...]) -> IntegerArray | None:
    """Return uncompressed 16-bit values without a copy; None if the header needs the general decoder."""
    if dataset.BitsAllocated != 16 or (dataset.get("BitsStored") != 16 and dataset.get("PixelRepresentation") == 1):
        return None
    size = shape[0] * shape[1]
    data = dataset.PixelData
    if len(data) < 2 * size * (index + 1):
        raise Defect("truncated_pixel_data")
    kind = np.dtype("<i2" if dataset.get("PixelRepresentation") == 1 else "<u2")
    values = np.frombuffer(data, dtype=kind, count=size, offset=2 * size * index)
    stored_bits = int(dataset.get("BitsStored") or 16)
    if stored_bits < 16:
        values = values & np.uint16((1 << stored_bits) - 1)
    return values.reshape(shape)


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    """Return the declared padding as a range of stored values, with the signedness of the pixels."""
    value = dataset.get("PixelPaddingValue")
    if value is None or value == "":
        return None
    signed = dataset.get("PixelRepresentation") == 1
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = sorted(_in_sign(one, signed) for one in (value, value if limit in (None, "") else limit))
    return ends[0], ends[1]


def _in_sign(value: Any, signed: bool) -> int:
    number = int.from_bytes(value[:2], "little") if isinstance(value, bytes) else int(value)
    if signed:
        return number - 65536 if number > 32767 else number
    return number + 65536 if number < 0 else number


def _macro(groups: list[Dataset], sequence: str, name: str) -> Any:
    """Return an attribute from the first group that has it, inside its functional-group macro or directly."""
    for group in groups:
        # a single-frame image, by far the most common, has no functional groups
        nested = group.get(sequence) if len(groups) > 1 else None
        if nested and _has(nested[0], name):
            return nested[0].get(name)
        value = group.get(name)
        if value not in (None, ""):
            return value
    return None


def _has(dataset: Dataset, *names: str) -> bool:
    return all(dataset.get(name) not in (None, "") for name in names)


def _numbers(value: Any, count: int) -> Float64Array | None:
    if value is None or value == "":
        return None
    try:
        # convert to plain floats first: numpy is slow on pydicom's own number class
        found = [float(one) for one in value] if isinstance(value, MultiValue) else [float(value)]
    except (TypeError, ValueError):
        return None
    return np.array(found) if len(found) == count and all(map(math.isfinite, found)) else None


def _text(dataset: Dataset, name: str) -> str:
    value = dataset.get(name)
    return "" if value is None else str(value).strip().rstrip("\0")


def _values(dataset: Dataset, name: str) -> tuple[str, ...]:
    value = dataset.get(name)
    if value is None or value == "":
        return ()
    return (value.upper(),) if isinstance(value, str) else tuple(str(one).upper() for one in value)
