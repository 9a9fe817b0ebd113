"""Files that hold images in a container or format that is not read, recognised by their first bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

#: first bytes of archives (zip, gzip, 7z, rar, xz, bzip2, zstandard)
_ARCHIVES: Final = (
    b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"Rar!", b"\xfd7zXZ\0", b"BZh", b"\x28\xb5\x2f\xfd",
)  # fmt: skip
#: first bytes of NRRD and of MetaImage headers
_VOLUMES: Final = (b"NRRD000", b"ObjectType =", b"ObjectType=", b"NDims =", b"\x93NUMPY")
#: a tar file names its format at this place
_TAR_AT: Final = 257
_ENOUGH: Final = 512
#: the prefix of a DICOM file, and the length of the preamble before it (DICOM PS3.10 7.1)
_PREFIX, _PREAMBLE = b"DICM", 128
#: bytes that `starts_as_dicom` needs
DICOM_START: Final = _PREAMBLE + len(_PREFIX)


def starts_as_dicom(start: bytes) -> bool:
    """Return whether the first bytes of a file are those of a DICOM file of the standard."""
    return start[_PREAMBLE:DICOM_START] == _PREFIX


def container_of(path: Path) -> str:
    """Return `archive` or `other_volume_format` if the first bytes of a file show one; empty otherwise."""
    with path.open("rb") as file:
        return kind_of_bytes(file.read(_ENOUGH))


def kind_of_bytes(start: bytes) -> str:
    """Return `archive` or `other_volume_format` if the first bytes, up to 512, show one; empty otherwise."""
    if start.startswith(_ARCHIVES) or start[_TAR_AT : _TAR_AT + 5] == b"ustar":
        return "archive"
    return "other_volume_format" if start.startswith(_VOLUMES) else ""
