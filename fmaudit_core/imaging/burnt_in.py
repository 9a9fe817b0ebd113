"""Whether images may have text burnt into their pixels, such as a name or a date: what may is never shown.

Slices of a series are free of it if every image either says so (BurnedInAnnotation NO, DICOM PS3.3 C.7.6.1) or is the original
that a scanner reconstructed, and none is a capture of a screen, a projection or another picture. Volumes without a header may
hold anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pydicom
from pydicom.dataset import Dataset

from fmaudit_core.imaging.dicom import DicomFile
from fmaudit_core.imaging.header import text
from fmaudit_core.imaging.kinds import image_reason

#: attributes of the module of secondary captures (C.8.6.1)
_CAPTURED: Final = ("ConversionType", "SecondaryCaptureDeviceManufacturer", "SecondaryCaptureDeviceID")
_ORIGINAL: Final = ("ORIGINAL", "PRIMARY")


def is_free_of_text(files: Iterable[Path], series_uid: str) -> bool:
    """Return whether no image of a series can hold burnt-in text; False if there is none, or no UID to know it by."""
    headers = [header for path in files if (header := _header(path)) is not None and header.series_uid == series_uid]
    return bool(series_uid and headers) and all(map(_is_free, headers))


def _header(path: Path) -> DicomFile | None:
    """Return the header of a file; None if it is no DICOM file, and so no image of a series with a UID."""
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    except Exception:  # a damaged file raises the parser's own errors
        return None
    return DicomFile(path, dataset, cut_short=False)


def _is_free(image: DicomFile) -> bool:
    dataset: Dataset = image.dataset
    said = text(dataset, "BurnedInAnnotation").upper()
    captured = any(text(dataset, name) for name in _CAPTURED)
    if (
        said not in ("", "NO")
        or captured
        or not image.is_ct
        or image.is_localizer
        or image_reason(dataset, image.image_type)
    ):
        return False
    return said == "NO" or image.image_type[:2] == _ORIGINAL
