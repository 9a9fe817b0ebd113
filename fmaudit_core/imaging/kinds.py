"""Kinds of CT images whose values are not the HU of slices (derived maps, projections, pictures), by the header alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from pydicom.dataset import Dataset

from fmaudit_core.imaging.header import text

#: derived parametric maps of ImageType or FrameType (DICOM PS3.3 C.8.16.1.3, C.8.15.2, C.8.16.1.4)
_PARAMETRIC: Final = {"PERFUSION", "CBF", "RCBF", "CBV", "RCBV", "MTT", "RMTT", "TTP", "TMAX", "PERM", "PS"} | {
    "EFF_ATOMIC_NUM", "ELECTRON_DENSITY", "MAT_SPECIFIC", "MAT_FRACTIONAL", "MAT_REMOVED", "MAT_MODIFIED",
    "VALUE_MAP", "VELOCITY", "SUBTRACTION", "SUBTRACT", "ADDITION", "DIVISION", "MULTIPLICATION", "STD_DEVIATION",
    "STD_DEV", "QUANTITY", "PBV", "PERFUSED_BLOOD_VOLUME", "IODINE", "IODINE_MAP", "ZEFF", "EFFECTIVE_Z",
}  # fmt: skip
#: projections and renderings (C.8.16.1.4, C.8.16.2.1.4), and the words of vendors
_PROJECTION: Final = {
    "MIP", "MINIP", "MAXIP", "MAX_IP", "MIN_IP", "MAXIMUM", "MINIMUM", "MEAN", "AVERAGE", "AVERAGE_IP", "AVG", "AIP",
    "RAYSUM", "RAY_SUM", "VOLUME_RENDER", "SURFACE_RENDER", "CURVED_MPR", "VRT", "SSD",
}  # fmt: skip
_PICTURE: Final = {"SCREEN_SAVE", "SCREENSAVE", "SCREENSHOT", "DOSE_INFO", "DOSE_REPORT"}
_PROJECTION_WORDS: Final = re.compile(r"\b(?:mip|minip|max[ _-]?ip|min[ _-]?ip|aip|ave?[ _-]?ip|avg[ _-]?ip)s?\b", re.I)
_SUBTRACTION_WORDS: Final = re.compile(r"\b(?:subtraction|subtracted)\b", re.I)
#: a CT image stores 12 to 16 bits (DICOM PS3.3 C.8.2.1.1.4); 8 bits hold the greys of a window
_BITS_OF_GREY: Final = 8


def image_reason(dataset: Dataset, image_type: tuple[str, ...]) -> str:
    """Return the reason why an image holds no HU of slices; empty if its header does not show that it does not."""
    reason = frame_reason(image_type) or _described(text(dataset, "SeriesDescription"))
    if reason:
        return reason
    if frame_reason(("", "", text(dataset, "VolumeBasedCalculationTechnique").upper())):
        return "projection"
    photometric = text(dataset, "PhotometricInterpretation").upper()
    is_grey = int(dataset.get("SamplesPerPixel") or 1) == 1 and photometric in ("", "MONOCHROME1", "MONOCHROME2")
    is_grey &= int(dataset.get("BitsStored") or _BITS_OF_GREY + 1) > _BITS_OF_GREY
    return "" if is_grey else "not_hounsfield"


def frame_reason(image_type: Iterable[Any] | None) -> str:
    """Return the reason why values of ImageType or FrameType exclude HU of slices; empty if they do not.

    The first two values (ORIGINAL or DERIVED, PRIMARY or SECONDARY) exclude nothing. A value may be several words, such as
    "CT_SOM5 MIP".
    """
    further = [str(value).strip("\0 ").upper() for value in image_type or ()][2:]
    words = {value.replace(" ", "_") for value in further} | {word for value in further for word in value.split()}
    if words & (_PARAMETRIC | _PICTURE):
        return "not_hounsfield"
    return "projection" if words & _PROJECTION else ""


def _described(description: str) -> str:
    """Return the reason that a series description names; words of vendors' default names of derived series."""
    if _SUBTRACTION_WORDS.search(description):
        return "not_hounsfield"
    return "projection" if _PROJECTION_WORDS.search(description) else ""
