"""Free text of a header that is kept only if it names nobody: its author may have typed a patient or a date anywhere."""

from __future__ import annotations

import re
from typing import Final

from pydicom.dataset import Dataset

from fmaudit_core.imaging.header import text
from fmaudit_core.tabular.words import is_missing

_TEXT_LENGTH: Final = 64
#: attributes of people, whose words no text may contain
_NAMES: Final = (
    "PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "ResponsiblePerson",
    "ReferringPhysicianName", "PerformingPhysicianName", "NameOfPhysiciansReadingStudy", "PhysiciansOfRecord",
    "RequestingPhysician", "OperatorsName",
)  # fmt: skip
#: attributes that no text may contain as a whole
_IDENTIFIERS: Final = (
    "PatientID", "OtherPatientIDs", "AccessionNumber", "InstitutionName", "InstitutionalDepartmentName", "InstitutionAddress",
)  # fmt: skip
_NAME_LENGTH, _IDENTIFIER_LENGTH = 3, 4
#: a name as DICOM writes it or an address; a number as long as a record's; a date; a UID
_PERSONAL: Final = re.compile(
    r"[\^@]|\d{6}|\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?!\d)|(?<!\d)\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}(?!\d)|\d+(\.\d+){3}"
)


def impersonal(said: str, header: Dataset) -> str | None:
    """Return a text of a header in one spelling; None if it means "not recorded" or may identify somebody.

    It may if it holds a date, a long number or a name in DICOM's form, or what the header records of people and places.
    """
    shown = "".join(one for one in said if one.isprintable() or one.isspace())
    spelled = " ".join(shown.split()).strip("\\/ ")[:_TEXT_LENGTH].strip()
    return None if is_missing(spelled) or _PERSONAL.search(spelled) or _is_named(spelled, header) else spelled


def _is_named(spelled: str, header: Dataset) -> bool:
    words, whole = _words(spelled), "".join(_words(spelled))
    named = {word for name in _NAMES for word in _words(_recorded(header, name)) if len(word) >= _NAME_LENGTH}
    identifiers = {"".join(_words(_recorded(header, name))) for name in _IDENTIFIERS}
    return not named.isdisjoint(words) or any(one in whole for one in identifiers if len(one) >= _IDENTIFIER_LENGTH)


def _words(said: str) -> list[str]:
    return re.findall(r"[^\W_]+", said.casefold())


def _recorded(header: Dataset, name: str) -> str:
    try:
        return text(header, name)
    except Exception:  # values are converted on access, each with its own errors
        return ""
