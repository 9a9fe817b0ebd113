"""How a series was acquired: the facts of its header that an audit may compare studies by. No identifier, no date but the year.

They are read from headers that are in memory anyway. A value that is absent, unreadable or may name somebody
(`impersonal.py`) is None.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, TypeVar

import polars as pl
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from fmaudit_core.imaging.header import kernel, numbers, positive, text, value_of
from fmaudit_core.imaging.impersonal import impersonal
from fmaudit_core.tables.cohort import ACQUISITION
from fmaudit_core.tabular.words import is_missing, word_key

_T = TypeVar("_T")
#: a header and the index of a frame in it; 0 of a single-frame image
Slice = tuple[Dataset, int]
#: values of ContrastBolusAgent that say that there was none, as `word_key` writes them
_NO_AGENT: Final = frozenset(
    (
        "no", "none", "non", "nein", "n", "0", "false", "no contrast", "non contrast", "noncontrast", "without",
        "without contrast", "w/o", "wo", "w/o contrast", "unenhanced", "native", "nativ", "plain", "sans", "ohne",
        "sin contraste", "not given", "not applied", "not administered",
    )
)  # fmt: skip
#: further attributes of the contrast module (DICOM PS3.3 C.7.6.4), which are filled only if an agent was given
_CONTRAST: Final = ("ContrastBolusVolume", "ContrastBolusStartTime", "ContrastFlowRate", "ContrastBolusTotalDose")
#: attribute of the exposure -> mAs per unit
_EXPOSURES: Final = {"Exposure": 1.0, "ExposureInmAs": 1.0, "ExposureInuAs": 1e-3}
#: dates of the scan, the nearest first; a series or content may be made years later
_DATES: Final = ("FrameAcquisitionDateTime", "AcquisitionDate", "AcquisitionDateTime", "StudyDate", "SeriesDate")
_YEARS: Final = range(1970, 2200)
#: the largest value of Rows, an unsigned integer of 16 bits
_MOST_ROWS: Final = 65535


@dataclass(frozen=True)
class Acquisition:
    """Facts of a series; None if not recorded.

    Parameters
    ----------
    slice_thickness, slice_spacing, pixel_spacing : float, mm
    exposure : float, mAs
        Median over the slices, because tube current follows the patient.
    contrast : bool
        Whether a contrast agent was given.
    year : int
        Of the scan.
    """

    manufacturer: str | None = None
    model: str | None = None
    kernel: str | None = None
    slice_thickness: float | None = None
    slice_spacing: float | None = None
    pixel_spacing: float | None = None
    kvp: float | None = None
    exposure: float | None = None
    contrast: bool | None = None
    body_part: str | None = None
    rows: int | None = None
    n_slices: int | None = None
    year: int | None = None

    def measured(self, shape_zyx: Sequence[int], spacing_zyx_mm: Sequence[float]) -> Acquisition:
        """Return the facts with those of the volume, which hold whatever the header says.

        Parameters
        ----------
        shape_zyx, spacing_zyx_mm : slices, rows and columns; mm
        """
        step, pixel = (round(float(mm), 4) for mm in spacing_zyx_mm[:2])
        spacing = None if shape_zyx[0] < 2 else step
        return replace(self, slice_spacing=spacing, pixel_spacing=pixel, rows=shape_zyx[1], n_slices=shape_zyx[0])


NO_FACTS: Final = Acquisition()


def acquisition_of(slices: Sequence[Slice]) -> Acquisition:
    """Return the facts of a DICOM series from the headers of its slices, single or multi-frame."""
    if not slices:
        return NO_FACTS
    with disable_value_validation():  # it would log the values that it doubts
        return _recorded(slices)


def _recorded(slices: Sequence[Slice]) -> Acquisition:
    groups = _groups(*slices[0])
    rows, spacing = _positive(groups, "Rows"), _first(groups, _pixel_spacing)
    part = _text(groups, "BodyPartExamined") or _text(_regions(groups), "CodeMeaning")

    def kept(said: str | None) -> str | None:
        return impersonal(said or "", slices[0][0])

    return Acquisition(
        manufacturer=kept(_text(groups, "Manufacturer")),
        model=kept(_text(groups, "ManufacturerModelName")),
        kernel=kept(_first(groups, kernel)),
        slice_thickness=_positive(groups, "SliceThickness"),
        pixel_spacing=spacing,
        kvp=_positive(groups, "KVP"),
        exposure=_median_exposure(slices),
        contrast=_contrast(groups),
        body_part=kept(part.upper() if part else None),
        rows=int(rows) if rows and rows <= _MOST_ROWS else None,
        year=_year(groups),
    )


def acquisition_table(studies: Mapping[str, Sequence[Mapping[str, Any]]]) -> pl.DataFrame:
    """Return the table of facts, a row per study.

    Parameters
    ----------
    studies : mapping of study_id to rows of its series
        With `used`, `reason` and `acquisition`. A study whose series were all refused has the facts of the first that has any.

    Returns
    -------
    frame of `ACQUISITION`, in the order of the studies
    """
    return ACQUISITION.frame([{"study_id": study, **_facts(series)} for study, series in studies.items()])


def _facts(series: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    nothing = asdict(NO_FACTS)
    ordered = sorted(series, key=lambda row: (not row["used"], row["reason"] == "localizer"))
    return next((row["acquisition"] for row in ordered if row.get("acquisition", nothing) != nothing), nothing)


def _groups(dataset: Dataset, frame: int) -> list[Dataset]:
    """Return where attributes of a frame may be, the most specific first: the macros of its functional groups, the dataset."""
    per_frame = _items(dataset, "PerFrameFunctionalGroupsSequence")[frame : frame + 1]
    shared = _items(dataset, "SharedFunctionalGroupsSequence")[:1]
    macros = [macro for group in (*per_frame, *shared) for tag in list(group.keys()) for macro in _items(group, tag)]
    return [*macros, dataset]


def _items(dataset: Dataset, name: str | BaseTag) -> Sequence[Dataset]:
    """Return the items of a sequence; none if it is absent, no sequence or cannot be read."""
    if name not in dataset:
        return []
    try:
        element = dataset[name]
        return element.value if element.VR == "SQ" else []
    except Exception:  # a damaged sequence is converted on access, with the parser's own errors
        return []


def _first(groups: Iterable[Dataset], read: Callable[[Dataset], _T | None]) -> _T | None:
    """Return what the first group gives that is neither absent nor blank nor unreadable."""
    for group in groups:
        try:
            value = read(group)
        except Exception:  # values are converted on access, each with its own errors
            continue
        if value is not None and value != "":
            return value
    return None


def _text(groups: Iterable[Dataset], name: str) -> str | None:
    return _first(groups, lambda group: text(group, name))


def _positive(groups: Iterable[Dataset], name: str) -> float | None:
    found = _first(groups, lambda group: positive(value_of(group, name), name))
    return None if found is None else round(found, 4)


def _pixel_spacing(group: Dataset) -> float | None:
    """Return the distance of rows in mm."""
    found = numbers(value_of(group, "PixelSpacing"), 2, "PixelSpacing")
    return round(float(found[0]), 4) if found is not None and found[0] > 0 else None


def _median_exposure(slices: Iterable[Slice]) -> float | None:
    found = [mas for one in slices if (mas := _exposure(_groups(*one))) is not None]
    return round(statistics.median(found), 4) if found else None


def _exposure(groups: Sequence[Dataset]) -> float | None:
    """Return the exposure of a slice in mAs: as recorded, else in another unit, else from tube current and time."""
    for name, mas in _EXPOSURES.items():
        if (value := _positive(groups, name)) is not None:
            return value * mas
    milliampere, milliseconds = _positive(groups, "XRayTubeCurrent"), _positive(groups, "ExposureTime")
    return milliampere * milliseconds / 1e3 if milliampere and milliseconds else None


def _contrast(groups: Sequence[Dataset]) -> bool | None:
    """Return whether a contrast agent was given; a header that does not mention one says nothing."""
    agent = word_key(_text(groups, "ContrastBolusAgent") or "").replace("-", " ")
    used = {_text([one], "ContrastBolusAgentAdministered") for one in groups} - {None}
    if agent in _NO_AGENT or (used and "YES" not in used):
        return False
    if not is_missing(agent) or any(_items(group, "ContrastBolusAgentSequence") for group in groups):
        return True
    return True if any(_positive(groups, name) is not None for name in _CONTRAST) else None


def _regions(groups: Iterable[Dataset]) -> list[Dataset]:
    return [item for group in groups for item in _items(group, "AnatomicRegionSequence")]


def _year(groups: Sequence[Dataset]) -> int | None:
    for name in _DATES:
        found = re.match(r"\d{4}", _text(groups, name) or "")
        if found and int(found.group()) in _YEARS:
            return int(found.group())
    return None
