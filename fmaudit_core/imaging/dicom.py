"""One DICOM file and its defects. Frames of a file: `frames.py`; files assembled to volumes: `assembly.py`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import pydicom
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from fmaudit_core.imaging.containers import container_of
from fmaudit_core.imaging.errors import Defect, damage_is
from fmaudit_core.imaging.header import (
    SeriesHeader,
    series_header,
    text,
    value_of,
    values,
)
from fmaudit_core.imaging.kinds import image_reason
from fmaudit_core.imaging.stored import LOSSY

_CT_CLASSES: Final = {uid.CTImageStorage, uid.EnhancedCTImageStorage, uid.LegacyConvertedEnhancedCTImageStorage}


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
        return text(self.dataset, "SeriesInstanceUID")

    @cached_property
    def identity(self) -> tuple[str, str]:
        """Return patient and study, to compare files with each other; empty where not recorded."""
        return text(self.dataset, "PatientID"), text(self.dataset, "StudyInstanceUID")

    @cached_property
    def misses_uid(self) -> bool:
        """Return whether a UID that identifies class, instance or series is absent or empty."""
        return not all(text(self.dataset, name) for name in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"))

    @cached_property
    def is_ct(self) -> bool:
        """Return whether the file is CT, by SOP Class UID, else Media Storage SOP Class UID, else Modality."""
        meta = getattr(self.dataset, "file_meta", Dataset())
        for sop_class in (text(self.dataset, "SOPClassUID"), text(meta, "MediaStorageSOPClassUID")):
            if sop_class:
                return sop_class in _CT_CLASSES
        return text(self.dataset, "Modality") == "CT"

    @property
    def is_localizer(self) -> bool:
        """Return whether ImageType has the value LOCALIZER (value 3, DICOM PS3.3 C.8.2.1.1.1)."""
        return "LOCALIZER" in self.image_type

    @cached_property
    def image_type(self) -> tuple[str, ...]:
        """Return the values of ImageType in upper case."""
        return values(self.dataset, "ImageType")

    @property
    def header(self) -> SeriesHeader:
        """Return the description of the series."""
        return series_header(self.dataset)

    @cached_property
    def image_reason(self) -> str:
        """Return the reason why the image holds no HU of slices; empty if its header does not show that it does not."""
        return image_reason(self.dataset, self.image_type)

    def not_a_slice(self) -> str:
        """Return the reason why the file is no slice of any series, such as a screenshot; empty if it may be one.

        Raises
        ------
        Defect
            `unreadable`: the header is damaged.
        """
        with damage_is("unreadable"):
            reason = self.image_reason
            if not reason and not self.is_multi_frame and value_of(self.dataset, "ImagePositionPatient") in (None, ""):
                return "missing_geometry"
            return reason

    @cached_property
    def is_multi_frame(self) -> bool:
        """Return whether frames have functional groups of their own."""
        return "PerFrameFunctionalGroupsSequence" in self.dataset

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Return rows and columns; empty if the header does not define the layout of the pixels."""
        layout = [value_of(self.dataset, name) for name in ("Rows", "Columns", "BitsAllocated")]
        return () if None in layout or "" in layout else (int(layout[0]), int(layout[1]))

    @cached_property
    def transfer_syntax(self) -> str:
        """Return the Transfer Syntax UID; without file meta, the encoding detected by the parser."""
        meta = getattr(self.dataset, "file_meta", Dataset())
        transfer_syntax = text(meta, "TransferSyntaxUID")
        if transfer_syntax:
            return transfer_syntax
        implicit, little = self.dataset.original_encoding
        if implicit:
            return str(uid.ImplicitVRLittleEndian)
        return str(uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian)

    def identify(self) -> None:
        """Read the identifying attributes now, so that a damaged header is reported as unreadable and does not fail later."""
        _ = (self.series_uid, self.misses_uid, self.image_type, self.transfer_syntax, self.shape, self.identity)

    @property
    def is_lossy(self) -> bool:
        """Return whether the pixels are compressed with loss, or once were (Lossy Image Compression, 0028,2110)."""
        return self.transfer_syntax in LOSSY or text(self.dataset, "LossyImageCompression") == "01"

    @property
    def is_padded(self) -> bool:
        """Return whether the header declares a value of padding."""
        return self.dataset.get("PixelPaddingValue") not in (None, "")

    @property
    def assumes_monochrome(self) -> bool:
        """Return whether the header has no photometric interpretation."""
        return not text(self.dataset, "PhotometricInterpretation")


def read_file(path: Path) -> DicomFile:
    """Parse one file; pixels are read but not decoded.

    Raises
    ------
    Defect
        `unreadable`: empty, truncated in its header or not parseable; `dicomdir`; `not_dicom`, or the kind of container that
        it is: `archive`, `other_volume_format`.
    """
    with damage_is("unreadable"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if path.stat().st_size == 0:
            raise Defect("unreadable")
        dataset = _parsed(path)
        found = DicomFile(path, dataset, cut_short=any("end of file" in str(one.message).lower() for one in caught))
        if (
            text(getattr(dataset, "file_meta", Dataset()), "MediaStorageSOPClassUID")
            == uid.MediaStorageDirectoryStorage
        ):
            raise Defect("dicomdir")
        if not (found.is_ct or text(dataset, "SOPClassUID") or text(dataset, "Modality")):
            raise Defect("unreadable")
        found.identify()
    return found


def _parsed(path: Path) -> Dataset:
    """Return the dataset of a file; without preamble it counts as DICOM if its first elements name a SOP class."""
    try:
        return pydicom.dcmread(path)
    except InvalidDicomError as error:
        other = container_of(path)
        if other:
            raise Defect(other) from error
        try:
            dataset = pydicom.dcmread(path, force=True)
        except Exception:
            raise Defect("not_dicom") from error
        if not text(dataset, "SOPClassUID"):
            raise Defect("not_dicom") from error
        return dataset
