"""What the index keeps of one file: the identifiers of its study, series and object, read without its other attributes."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import data_element_generator, read_partial
from pydicom.multival import MultiValue

from fmaudit_core.imaging import nifti
from fmaudit_core.imaging.containers import DICOM_START, kind_of_bytes, starts_as_dicom
from fmaudit_core.imaging.errors import Defect, damage_is
from fmaudit_core.imaging.header import text
from fmaudit_core.storage.bucket import Bucket
from fmaudit_core.storage.object_file import ObjectFile

#: attributes of the index and those that identify a DICOM object, by tag
_NAMES: Final = {
    0x00080016: "SOPClassUID",
    0x00080018: "SOPInstanceUID",
    0x00080050: "AccessionNumber",
    0x00080060: "Modality",
    0x0020000D: "StudyInstanceUID",
    0x0020000E: "SeriesInstanceUID",
}
_LAST: Final = max(_NAMES)
_META_GROUP, _SYNTAX, _MEDIA_CLASS = 0x0002, 0x00020010, 0x00020002
_START: Final = 512
#: bytes of an object that one request asks for: nearly all headers begin with what is kept here
_REQUESTED: Final = 16_384


class FileHeader(NamedTuple):
    """Identifiers of a file, empty if not recorded; and why the file belongs to no study, empty if it does."""

    study_uid: str = ""
    series_uid: str = ""
    sop_uid: str = ""
    accession: str = ""
    modality: str = ""
    reason: str = ""


def file_header(path: Path) -> FileHeader:
    """Return the identifiers of a file, or the reason why it belongs to no study.

    Raises
    ------
    OSError
        The file cannot be opened or read.
    """
    if nifti.is_nifti(path):
        return FileHeader(reason="nifti")
    with path.open("rb") as file:
        return _header(file)


def object_header(bucket: Bucket, name: str, n_bytes: int) -> FileHeader:
    """Return the identifiers of an object, or the reason why it belongs to no study. Only its start is read.

    Raises
    ------
    StoreError
        The bucket does not answer or refuses.
    """
    if nifti.is_named_nifti(name):
        return FileHeader(reason="nifti")
    file = ObjectFile(bucket, name, n_bytes)
    with io.BufferedReader(file, _REQUESTED) as buffered:
        found = _header(buffered)
    if file.failures:
        raise file.failures[0]
    return found


def _header(file: BinaryIO) -> FileHeader:
    try:
        with damage_is("unreadable"):
            return _read(file)
    except Defect as defect:
        if isinstance(defect.__cause__, OSError) and defect.__cause__.errno:
            raise defect.__cause__ from None
        return FileHeader(reason=defect.reason)


def _read(file: BinaryIO) -> FileHeader:
    found = _plain_values(file)
    if found is None:
        found = _parsed_values(file)
    if not (found["SOPClassUID"] or found["MediaStorageSOPClassUID"] or found["Modality"]):
        raise Defect("unreadable")
    header = FileHeader(
        study_uid=found["StudyInstanceUID"],
        series_uid=found["SeriesInstanceUID"],
        sop_uid=found["SOPInstanceUID"],
        accession=found["AccessionNumber"],
        modality=found["Modality"],
    )
    return header if header.study_uid else header._replace(reason="no_study_uid")


def _plain_values(file: BinaryIO) -> dict[str, str] | None:
    """Return the values of a file as the standard describes it, in ASCII; None if anything is unusual.

    Four times faster than to make datasets: an archive has millions of files.
    """
    if not starts_as_dicom(file.read(DICOM_START)):
        return None
    meta = _elements(file, (_SYNTAX, _MEDIA_CLASS), implicit=False, after=(_META_GROUP << 16) | 0xFFFF)
    if meta.get(_MEDIA_CLASS) == uid.MediaStorageDirectoryStorage:
        raise Defect("dicomdir")
    syntax = meta.get(_SYNTAX, "")
    if not syntax or syntax in (uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian):
        return None
    found = _elements(file, _NAMES, implicit=syntax == uid.ImplicitVRLittleEndian, after=_LAST)
    values = {name: found.get(tag, "") for tag, name in _NAMES.items()}
    if not (values["SOPClassUID"] and values["StudyInstanceUID"] and values["SeriesInstanceUID"]):
        return None
    values["MediaStorageSOPClassUID"] = meta.get(_MEDIA_CLASS, "")
    return values if all(one.isascii() and "\\" not in one for one in values.values()) else None


def _elements(file: BinaryIO, tags: Iterable[int], *, implicit: bool, after: int) -> dict[int, str]:
    """Return the values of elements as text, up to a tag; bytes beyond ASCII make it other than ASCII."""
    elements = data_element_generator(
        file, implicit, True, stop_when=lambda tag, _vr, _length: int(tag) > after, specific_tags=list(tags)
    )
    values = ((int(one.tag), one.value) for one in elements)
    return {tag: value.decode("latin-1").strip("\0 \t\r\n") for tag, value in values if isinstance(value, bytes)}


def _parsed_values(file: BinaryIO) -> dict[str, str]:
    """Return the values of a file that is not as the standard describes it, by the rules of `dicom.read_file`."""
    dataset = _parsed(file, ordered=True)
    if not (text(dataset, "StudyInstanceUID") and text(dataset, "SeriesInstanceUID")):
        whole = _parsed(file, ordered=False)  # elements may be out of order
        dataset = whole if text(whole, "StudyInstanceUID") or text(whole, "SeriesInstanceUID") else dataset
    values = {name: text(dataset, name) for name in _NAMES.values()}
    accession = dataset.get("AccessionNumber")
    if isinstance(accession, MultiValue):
        values["AccessionNumber"] = "\\".join(str(one).strip() for one in accession)
    values["MediaStorageSOPClassUID"] = text(getattr(dataset, "file_meta", Dataset()), "MediaStorageSOPClassUID")
    return values


def _parsed(file: BinaryIO, *, ordered: bool) -> Dataset:
    def stop(tag: Any, _vr: str | None, _length: int) -> bool:
        return ordered and int(tag) > _LAST

    file.seek(0, os.SEEK_SET)
    try:
        return read_partial(file, stop, specific_tags=list(_NAMES))
    except InvalidDicomError as error:
        file.seek(0, os.SEEK_SET)
        start = file.read(_START)
        if not start:
            raise Defect("unreadable") from error
        if other := kind_of_bytes(start):
            raise Defect(other) from error
        file.seek(0, os.SEEK_SET)
        try:
            dataset = read_partial(file, stop, force=True, specific_tags=list(_NAMES))
        except OSError:
            raise
        except Exception:
            raise Defect("not_dicom") from error
        if not text(dataset, "SOPClassUID"):
            raise Defect("not_dicom") from error
        return dataset
