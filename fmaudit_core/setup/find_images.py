"""Recognition of folders of images, and of the columns by which a table's studies are found in an archive of any layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Final

from fmaudit_core.cohort.images import locate
from fmaudit_core.imaging.containers import DICOM_START, starts_as_dicom
from fmaudit_core.setup.recognise_columns import RecognisedTable, plain

#: fmaudit's column -> common names, in lower-case letters and digits
_KNOWN_AS: Final[Mapping[str, tuple[str, ...]]] = {
    "study_uid": ("studyuid", "studyinstanceuid", "studyinstuid"),
    "accession": (
        "accession", "accessionnumber", "accessionno", "accessionnum", "accessionnr", "accessionid", "accno", "accnum",
        "accnumber",
    ),
}  # fmt: skip
_STUDIES_LOOKED_UP: Final = 400
_FILES_LOOKED_AT: Final = 200


def holds_images(folder: Path) -> bool:
    """Return whether the names of some files below a folder are those of images."""
    names = (one.name.lower() for _, one in zip(range(2_000), folder.rglob("*"), strict=False))
    return any(name.endswith((".dcm", ".nii", ".nii.gz")) for name in names)


def folders_of_folders(top: Path) -> list[Path]:
    """Return the folders one level further in, unless there are many, which are then studies."""
    inner = [one for one in sorted(top.iterdir())[:50] if one.is_dir() and not one.name.startswith(".")]
    return inner if len(inner) <= 5 else []


def map_archive(table: RecognisedTable, images: Path, suffixes: Iterable[str]) -> bool:
    """Map the columns that name studies of an archive; return whether there are any.

    Nothing is mapped if the table names images, or the folder has one of a study's name.
    """
    ids = table.cells_of("study_id").head(_STUDIES_LOOKED_UP).to_list() if "study_id" in table.columns else []
    endings = tuple(suffixes)
    if "image" in table.columns or any(locate(images, name, endings).exists for name in ids if name):
        return False
    columns = {plain(column): column for column in reversed(table.cells.columns)}
    found = {
        ours: next((columns[name] for name in names if name in columns), None) for ours, names in _KNOWN_AS.items()
    }
    keys = {ours: theirs for ours, theirs in found.items() if theirs is not None}
    if not keys or not _holds_dicom(images):
        return False
    table.columns.update(keys)
    return True


def _holds_dicom(folder: Path) -> bool:
    """Return whether one of the first files below a folder is DICOM, whatever its name."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return any(_is_dicom(path) for path in islice(files, _FILES_LOOKED_AT))


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return starts_as_dicom(file.read(DICOM_START))
    except OSError:
        return False
