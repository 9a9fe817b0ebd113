"""Frames of DICOM files, each with its position, rescale parameters and pixels in HU. `assembly.py` makes volumes of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from fmaudit_core.imaging.dicom import DicomFile
from fmaudit_core.imaging.errors import Defect, damage_is
from fmaudit_core.imaging.header import Float64Array, numbers, positive, value_of
from fmaudit_core.imaging.kinds import frame_reason
from fmaudit_core.imaging.rescale import Int16Array, to_hu
from fmaudit_core.imaging.stored import stored_values

_HOUNSFIELD_TYPES: Final = {"", "HU", "HU_MOD"}
_UNSPECIFIED_TYPES: Final = {"US", "UNSPECIFIED"}


@dataclass(frozen=True)
class Frame:
    """One slice: its position, and the conversion of its stored values to HU.

    Parameters
    ----------
    index : int
        Index of the frame in the file, from 0.
    position, orientation : (3,), (6,) float, LPS mm and cosines
    spacing_mm : (row step, column step)
    unspecified : bool
        Whether RescaleType is US, so that only the values can show that they are HU.
    labels : mapping of attribute to text
        What distinguishes several volumes that share a series UID; see `volumes.py`.
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
    unspecified: bool
    labels: dict[str, str]

    def hu(self) -> Int16Array:
        """Return the HU of this frame.

        Returns
        -------
        (rows, columns) int16: slope x stored + intercept, rounded half to even, declared padding at -1024

        Raises
        ------
        Defect
            Those of `stored.stored_values`, `unreadable_number` or `hu_out_of_range`.
        """
        if self.file.cut_short:
            raise Defect("truncated_pixel_data")
        with damage_is("undecodable_pixel_data"):
            dataset = self.file.dataset
            padding = _padding(dataset)
            stored = stored_values(dataset, self.file.transfer_syntax, self.index, self.shape, padding=padding)
            return to_hu(stored, self.slope, self.intercept, padding=padding)

    def let_go(self) -> None:
        """Release the stored pixels of a single-frame file, so that a series is held in memory only once."""
        if not self.file.is_multi_frame:
            self.file.dataset.pop("PixelData", None)


def frames_of(file: DicomFile) -> list[Frame]:
    """Return the frames of a CT file, single or multi-frame, in stored order.

    Raises
    ------
    Defect
        `no_pixel_data`, `truncated_pixel_data`, `missing_geometry`, `missing_rescale`, `unreadable_number`, `projection` or
        `not_hounsfield`.
    """
    with damage_is("unreadable"):
        return list(_frames(file))


def _frames(file: DicomFile) -> Iterator[Frame]:
    dataset = file.dataset
    if "PixelData" not in dataset:
        raise Defect("truncated_pixel_data" if file.cut_short else "no_pixel_data")
    if not file.shape:
        raise Defect("truncated_pixel_data" if file.cut_short else "unreadable")
    if file.image_reason:
        raise Defect(file.image_reason)
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
    transformation, measures = "PixelValueTransformationSequence", "PixelMeasuresSequence"
    reason = frame_reason(_macro(groups, "CTImageFrameTypeSequence", "FrameType")) if len(groups) > 1 else ""
    rescale_type = str(_macro(groups, transformation, "RescaleType") or "").strip("\0 ").upper()
    if rescale_type not in _HOUNSFIELD_TYPES | _UNSPECIFIED_TYPES:
        reason = "not_hounsfield"
    if reason:
        raise Defect(reason)
    position = _numbers(groups, "PlanePositionSequence", "ImagePositionPatient", 3)
    orientation = _numbers(groups, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    spacing = _numbers(groups, measures, "PixelSpacing", 2)
    if position is None or orientation is None or spacing is None or spacing.min() <= 0:
        raise Defect("missing_geometry")
    slope = _numbers(groups, transformation, "RescaleSlope", 1)
    intercept = _numbers(groups, transformation, "RescaleIntercept", 1)
    if slope is None or intercept is None or slope[0] == 0:
        raise Defect("missing_rescale")
    return Frame(
        file=file,
        index=index,
        position=position,
        orientation=orientation,
        spacing_mm=(float(spacing[0]), float(spacing[1])),
        thickness_mm=positive(_macro(groups, measures, "SliceThickness"), "SliceThickness"),
        shape=file.shape,
        slope=float(slope[0]),
        intercept=float(intercept[0]),
        unspecified=rescale_type in _UNSPECIFIED_TYPES,
        labels=_labels(file, groups),
    )


#: attribute that distinguishes volumes -> the functional groups that hold it, and the names it has there
_LABELS: Final = {
    "kernel": ("CTReconstructionSequence", ("ConvolutionKernel",)),
    "voltage": ("CTXRayDetailsSequence", ("KVP",)),
    "time": ("FrameContentSequence", ("TemporalPositionIndex", "TemporalPositionIdentifier")),
    "phase": ("CardiacSynchronizationSequence", ("NominalPercentageOfCardiacPhase",)),
    "acquisition": ("FrameContentSequence", ("FrameAcquisitionNumber", "AcquisitionNumber")),
    "frame of reference": ("", ("FrameOfReferenceUID",)),
}


def _labels(file: DicomFile, groups: list[Dataset]) -> dict[str, str]:
    """Return what distinguishes several volumes under one series UID, as text."""
    found = {"image type": "\\".join(file.image_type)}
    for label, (sequence, names) in _LABELS.items():
        value = next((one for one in (_macro(groups, sequence, name) for name in names) if one is not None), "")
        found[label] = str(value).strip("\0 ")
    return found


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    """Return the declared padding as a range of stored values, with the signedness of the pixels."""
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if value is None or value == "":
        return None
    if isinstance(value, MultiValue | list) or isinstance(limit, MultiValue | list):
        raise Defect("unreadable_number", "PixelPaddingValue")
    signed = dataset.get("PixelRepresentation") == 1
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
        nested = value_of(group, sequence) if len(groups) > 1 and sequence else None
        if nested and value_of(nested[0], name) not in (None, ""):
            return value_of(nested[0], name)
        value = value_of(group, name)
        if value not in (None, ""):
            return value
    return None


def _numbers(groups: list[Dataset], sequence: str, name: str, count: int) -> Float64Array | None:
    return numbers(_macro(groups, sequence, name), count, name)
