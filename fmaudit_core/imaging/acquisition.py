"""How a series was acquired: the facts of its header that an audit may compare studies by. No identifier, no date but the year.

They are read from headers that are in memory anyway. A value that is absent or cannot be read is None.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import polars as pl
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from fmaudit_core.tables.cohort import ACQUISITION

_TEXT_LENGTH: Final = 64
#: agents that say that there was none
_NO_AGENT: Final = {
    "no",
    "none",
    "non",
    "nein",
    "n",
    "0",
    "no contrast",
    "without",
    "without contrast",
    "w/o",
    "native",
    "nativ",
}
_NO_AGENT_TEXT: Final = {"", "na", "n/a", "unknown", "unk"}
#: further attributes of the contrast module (DICOM PS3.3 C.7.6.4), which are filled only if an agent was given
_CONTRAST: Final = ("ContrastBolusVolume", "ContrastBolusStartTime", "ContrastFlowRate", "ContrastBolusTotalDose")
_DATES: Final = ("AcquisitionDate", "AcquisitionDateTime", "SeriesDate", "StudyDate", "ContentDate")
_YEARS: Final = range(1970, 2200)


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


def acquisition_of(slices: Sequence[Dataset]) -> Acquisition:
    """Return the facts of a DICOM series from the headers of its files, single or multi-frame."""
    with disable_value_validation():  # it would log the values that it doubts
        return _recorded(slices)


def _recorded(slices: Sequence[Dataset]) -> Acquisition:
    first = next(iter(slices), Dataset())
    groups = list(_groups(first))
    spacing = _numbers(_found(groups, "PixelSpacing"))
    rows = _number(_found(groups, "Rows"))
    return Acquisition(
        manufacturer=_text(_found(groups, "Manufacturer")),
        model=_text(_found(groups, "ManufacturerModelName")),
        kernel=_text(_found(groups, "ConvolutionKernel")),
        slice_thickness=_positive(_found(groups, "SliceThickness")),
        pixel_spacing=round(spacing[0], 4) if spacing and spacing[0] > 0 else None,
        kvp=_positive(_found(groups, "KVP")),
        exposure=_median_exposure(slices),
        contrast=_contrast(groups),
        body_part=_body_part(groups),
        rows=int(rows) if rows else None,
        year=_year(groups),
    )


def acquisition_table(studies: Mapping[str, Sequence[Mapping[str, Any]]]) -> pl.DataFrame:
    """Return the table of facts, a row per study.

    Parameters
    ----------
    studies : mapping of study_id to rows of its series
        With `used` and `acquisition`. A study whose series were all refused has the facts of the first that has any.

    Returns
    -------
    frame of `ACQUISITION`, in the order of the studies
    """
    return ACQUISITION.frame([{"study_id": study, **_facts(series)} for study, series in studies.items()])


def _facts(series: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    nothing = asdict(NO_FACTS)
    ordered = sorted(series, key=lambda row: not row["used"])
    return next((row["acquisition"] for row in ordered if row.get("acquisition", nothing) != nothing), nothing)


def _groups(dataset: Dataset) -> Iterator[Dataset]:
    """Yield the dataset, and of a multi-frame image its shared groups and those of the first frame, with the macros in them."""
    yield dataset
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in _items(dataset, name)[:1]:
            for tag in group.keys():  # noqa: SIM118, a dataset iterates over elements, and converts each
                yield from _items(group, tag)[:1]


def _items(dataset: Dataset, name: str | BaseTag) -> list[Dataset]:
    """Return the items of a sequence; none of another attribute, or one that cannot be read."""
    try:
        element = dataset[name]
        return list(element.value) if element.VR == "SQ" else []
    except Exception:  # a damaged sequence is converted on access, with the parser's own errors
        return []


def _found(groups: Iterable[Dataset], name: str) -> Any:
    """Return the first value of an attribute that is not blank; None if there is none, or it cannot be read."""
    for group in groups:
        try:
            value = group.get(name)
        except Exception:  # values are converted on access, each with its own errors
            return None
        if value is not None and value != "":
            return value
    return None


def _text(value: Any) -> str | None:
    """Return a value in one spelling: without padding and repeated blanks, several values separated by a slash."""
    several = value if isinstance(value, MultiValue | list) else [value]
    said = "/".join(" ".join(_printable(str(one)).split()) for one in several if one is not None)
    return said.strip("/ ")[:_TEXT_LENGTH] or None


def _printable(text: str) -> str:
    return "".join(one for one in text.encode("utf-8", "replace").decode() if one.isprintable() or one.isspace())


def _numbers(value: Any) -> list[float]:
    try:
        found = [float(one) for one in value] if isinstance(value, MultiValue | list) else [float(value)]
    except (TypeError, ValueError, OverflowError):
        return []
    return found if all(-1e12 < one < 1e12 for one in found) else []


def _number(value: Any) -> float | None:
    found = _numbers(value)
    return round(found[0], 4) if len(found) == 1 else None


def _positive(value: Any) -> float | None:
    found = _number(value)
    return found if found is not None and found > 0 else None


def _median_exposure(slices: Sequence[Dataset]) -> float | None:
    found = [mas for one in slices if (mas := _exposure(one)) is not None]
    return round(statistics.median(found), 4) if found else None


def _exposure(dataset: Dataset) -> float | None:
    """Return the exposure of a slice in mAs: as recorded, else in another unit, else from tube current and time."""
    groups = list(_groups(dataset)) if "SharedFunctionalGroupsSequence" in dataset else [dataset]
    for name, mas in (("Exposure", 1.0), ("ExposureInmAs", 1.0), ("ExposureInuAs", 1e-3)):
        if (value := _positive(_found(groups, name))) is not None:
            return value * mas
    milliampere, milliseconds = (_positive(_found(groups, name)) for name in ("XRayTubeCurrent", "ExposureTime"))
    return milliampere * milliseconds / 1e3 if milliampere and milliseconds else None


def _contrast(groups: Sequence[Dataset]) -> bool | None:
    """Return whether a contrast agent was given.

    The contrast module is required if one was (PS3.3 A.3.3), so a header without its first attribute says no; a header without a
    manufacturer was stripped, and says nothing.
    """
    top = groups[0]
    agent = (_text(_found(groups, "ContrastBolusAgent")) or "").lower()
    if agent in _NO_AGENT:
        return False
    if agent not in _NO_AGENT_TEXT or _items(top, "ContrastBolusAgentSequence"):
        return True
    if any(_found(groups, name) not in (None, 0, "0") for name in _CONTRAST):
        return True
    given = "ContrastBolusAgent" in top
    return None if given or _found(groups, "Manufacturer") is None else False


def _body_part(groups: Sequence[Dataset]) -> str | None:
    part = _text(_found(groups, "BodyPartExamined"))
    if part is None:
        regions = [item for group in groups for item in _items(group, "AnatomicRegionSequence")]
        part = _text(_found(regions, "CodeMeaning"))
    return part.upper() if part else None


def _year(groups: Sequence[Dataset]) -> int | None:
    for name in _DATES:
        found = re.match(r"\d{4}", str(_found(groups, name) or ""))
        if found and int(found.group()) in _YEARS:
            return int(found.group())
    return None
