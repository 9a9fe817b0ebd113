"""Reasons why a file of an archive belongs to no study of its index."""

from __future__ import annotations

from typing import Final

from fmaudit_core.imaging.reasons import REASONS

#: entries of a folder that are not read
NOT_READ: Final = {
    "hidden": "hidden files and folders: their names start with a dot",
    "link_to_folder": "links to folders are not followed: give the folder they point to",
    "link_outside": "links to files outside the folder",
    "broken_link": "links to nothing, or to themselves",
    "not_a_file": "pipes, sockets and devices",
    "folder_not_listed": "folders without permission to read",
    "not_opened": "no permission to read, or gone while the index was made; tried again next time",
}
PASSED_OVER: Final = {
    **{name: REASONS[name] for name in ("unreadable", "not_dicom", "dicomdir", "archive", "other_volume_format")},
    "no_study_uid": "DICOM objects without a Study Instance UID",
    "nifti": "NIfTI files, which name no study: list them in the table's column `image`",
    **NOT_READ,
}
