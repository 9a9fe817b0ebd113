"""What a DICOM header gives of a series, read in one place. Pixels and geometry: `dicom.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from fmaudit_core.imaging.errors import Defect

Float64Array = npt.NDArray[np.float64]

_TEXT_LENGTH: Final = 64


@dataclass(frozen=True)
class SeriesHeader:
    """Description of a series for its choice among others; blank or None if not recorded.

    Parameters
    ----------
    image_type : str
        Values of ImageType, separated by a backslash.
    thickness_mm : float or None
        SliceThickness, if positive.
    """

    description: str = ""
    kernel: str = ""
    image_type: str = ""
    thickness_mm: float | None = None
    series_number: int | None = None


NO_HEADER: Final = SeriesHeader()


def series_header(dataset: Dataset) -> SeriesHeader:
    """Return the description of the series that a file belongs to; a value that cannot be read counts as not recorded."""
    number = whole_number(value_of(dataset, "SeriesNumber"))
    return SeriesHeader(
        description=text(dataset, "SeriesDescription")[:_TEXT_LENGTH],
        kernel=kernel(dataset),
        image_type="\\".join(values(dataset, "ImageType"))[:_TEXT_LENGTH],
        thickness_mm=positive(value_of(dataset, "SliceThickness"), "SliceThickness"),
        series_number=number,
    )


def kernel(dataset: Dataset) -> str:
    """Return the reconstruction kernel, several values separated by a backslash."""
    return "\\".join(values(dataset, "ConvolutionKernel"))[:_TEXT_LENGTH]


def positive(value: Any, name: str) -> float | None:
    """Return the number of an attribute; None if it is absent, unreadable or not positive."""
    try:
        found = numbers(value, 1, name)
    except Defect:
        return None
    return float(found[0]) if found is not None and found[0] > 0 else None


def whole_number(value: Any) -> int | None:
    """Return an integer; None if the value is absent or no integer."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def numbers(value: Any, count: int, name: str) -> Float64Array | None:
    """Return the numbers of an attribute, (count,) float; None if it is absent.

    Raises
    ------
    Defect
        `unreadable_number`: the attribute is present, but not that many finite numbers, such as "0,8" for 0.8.
    """
    if value is None or value == "":
        return None
    try:
        # convert to plain floats first: numpy is slow on pydicom's own number class
        found = [float(one) for one in value] if isinstance(value, MultiValue | list) else [float(value)]
    except (TypeError, ValueError) as error:
        raise Defect("unreadable_number", name) from error
    if len(found) != count or not all(map(math.isfinite, found)):
        raise Defect("unreadable_number", name)
    return np.array(found)


@cache
def _tag(name: str) -> BaseTag:
    return Tag(name)


def value_of(dataset: Dataset, name: str) -> Any:
    """Return the value of an attribute, None if it is absent: faster than `Dataset.get`, most of all for absent ones."""
    tag = _tag(name)
    return dataset[tag].value if tag in dataset else None


def text(dataset: Dataset, name: str) -> str:
    """Return an attribute as text without padding, several values separated by a backslash; empty if absent."""
    value = value_of(dataset, name)
    said = "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)
    return "" if value is None else _printable(said).strip("\0 \t\r\n")


def values(dataset: Dataset, name: str) -> tuple[str, ...]:
    """Return the values of an attribute in upper case without padding."""
    value = value_of(dataset, name)
    if value is None or value == "":
        return ()
    several = [value] if isinstance(value, str) else value
    return tuple(_printable(str(one)).strip("\0 ").upper() for one in several)


def _printable(found: str) -> str:
    """Return text that can be encoded: bytes of an undeclared character set become question marks."""
    return found if found.isascii() else found.encode("utf-8", "replace").decode()
