"""The bytes of a text file in one pass: its encoding, line ends and quotation marks."""

from __future__ import annotations

import codecs
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fmaudit_core.tabular.errors import CohortError

#: fits into a processor cache, so that several searches of it are cheap
_CHUNK: Final = 1 << 18
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
#: beginning of a file of another format -> what it is, and what to do
_OTHER_FORMATS: Final = (
    (b"PK", "an Excel workbook or a ZIP archive", "In Excel, save the sheet as `CSV UTF-8`; unpack an archive first."),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook", "In Excel, save the sheet as `CSV UTF-8`."),
    (b"\x1f\x8b", "compressed by gzip", "Decompress it first: gunzip FILE."),
    (b"PAR1", "Parquet", "Give the file the suffix .parquet."),
    (b"ARROW1", "an Arrow file", "Write it as Parquet or CSV."),
    (b"%PDF", "PDF", "Export the table as CSV."),
    (b"{\\rtf", "RTF", "Save the table as plain text in CSV."),
    (b"{", "JSON", "Write the table as CSV or Parquet."),
    (b"[{", "JSON", "Write the table as CSV or Parquet."),
    (b"<", "HTML or XML", "Download the file itself, or export the table as CSV."),
    (b"version https://git-lfs", "a pointer of Git LFS", "Get the file itself: git lfs pull."),
)
_SAVE_AS: Final = "Save it as UTF-8; Excel calls this format `CSV UTF-8`."


@dataclass(frozen=True)
class FileBytes:
    """What a text file contains.

    Parameters
    ----------
    quotes : bool
        It has a quotation mark.
    lone_returns : bool
        It has a carriage return that no line feed follows.
    blanks : bool
        It has white space, or characters that are not ASCII, so that cells may need trimming.
    """

    quotes: bool
    lone_returns: bool
    blanks: bool


def refuse_other_formats(head: bytes, table: Path) -> None:
    """Refuse a file whose first bytes are those of another format than delimited text."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise CohortError("is not UTF-8 text but UTF-32.", where=table.name, fix=_SAVE_AS)
    for start, what, fix in _OTHER_FORMATS:
        if head.startswith(start):
            raise CohortError(f"is not CSV but {what}.", where=table.name, fix=fix)


def inspect_bytes(table: Path, separator: str) -> FileBytes:
    """Read a file once, in chunks.

    Raises
    ------
    CohortError
        The file is not UTF-8 text; gives the line.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    quotes = lone = blanks = False
    at, last = 0, b""
    spaces = [one for one in (b" ", b"\t") if one != separator.encode()]
    with table.open("rb") as file:
        while chunk := file.read(_CHUNK):
            if not last and (chunk.startswith(_UTF_16) or 4 * chunk.count(b"\0") > len(chunk)):
                raise CohortError("is not UTF-8 text but UTF-16, from line 1 on.", where=table.name, fix=_SAVE_AS)
            if b"\0" in chunk:
                line = _line(table, at + chunk.index(b"\0"))
                raise CohortError(
                    f"line {line} holds a null byte, so the file is damaged or no text.",
                    where=table.name,
                    fix="Export or download it again.",
                )
            if not chunk.isascii() or decoder.getstate()[0]:
                blanks = True
                _decoded(decoder, chunk, at, table)
            quotes = quotes or b'"' in chunk
            lone = lone or (last == b"\r" and chunk[:1] != b"\n")
            lone = lone or (b"\r" in chunk and chunk[:-1].count(b"\r") != chunk.count(b"\r\n"))
            blanks = blanks or any(one in chunk for one in spaces)
            at, last = at + len(chunk), chunk[-1:]
    if decoder.getstate()[0]:
        raise CohortError(f"line {_line(table, at)} is not UTF-8 text.", where=table.name, fix=_SAVE_AS)
    return FileBytes(quotes, lone or last == b"\r", blanks)


def count_byte(table: Path, byte: str) -> int:
    """Return how often an ASCII character occurs in a file."""
    with table.open("rb") as file:
        return sum(chunk.count(byte.encode()) for chunk in iter(lambda: file.read(_CHUNK), b""))


def ends_with(table: Path, byte: str) -> bool:
    """Return whether the last byte of a file that is not empty is an ASCII character."""
    with table.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == byte.encode()


def _decoded(decoder: codecs.IncrementalDecoder, chunk: bytes, at: int, table: Path) -> None:
    """Decode the chunk at a byte position, or refuse the file."""
    try:
        decoder.decode(chunk)
    except UnicodeDecodeError as error:
        line = _line(table, at + len(chunk) - len(error.object) + error.start)
        raise CohortError(f"line {line} is not UTF-8 text.", where=table.name, fix=_SAVE_AS) from error


def _line(table: Path, position: int) -> int:
    """Return the line of a byte."""
    with table.open("rb") as file:
        return 1 + file.read(position).count(b"\n")
