"""Bytes of a delimited file: its encoding, line ends and quotation marks, checked before a lazy scan that would replace or merge.

A scan that replaces bytes turns two codes into one, and one unclosed quotation mark turns many rows into one cell. Every error
names the file and the line, never the content of a line.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final, cast

from fmaudit_core.tabular.errors import CohortError
from fmaudit_core.tabular.file_bytes import refuse_other_formats
from fmaudit_core.tabular.scan import DELIMITED

_BLOCK: Final = 16 << 20
_HEAD: Final = 1 << 16
_LIKE_DATA: Final = re.compile(r"[+-]?\d+([.,]\d+)?|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T].*)?")
_AS_UTF8: Final = (
    "Save it as UTF-8 (Excel: `CSV UTF-8`; elsewhere `iconv -f FROM -t UTF-8`). Nothing is replaced, because two codes could "
    "then become one."
)


def check_text(path: Path) -> None:
    """Refuse a delimited file whose bytes cannot be read as they were meant; other files are not read.

    Raises
    ------
    CohortError
        It is empty, not UTF-8, has line ends of CR only, or a quotation mark without a partner; with the line number.
    """
    if not path.name.lower().endswith(DELIMITED):
        return
    try:
        with _opened(path) as file:
            _check_head(file.read(_HEAD), path)
        with _opened(path) as file:
            suspicious = _check_encoding(file, path.name)
        if suspicious:
            _check_quotes(path)
    except gzip.BadGzipFile as error:
        raise CohortError(
            "is not compressed by gzip, or damaged.", where=path.name, fix="Correct its suffix, or download it again."
        ) from error
    except (OSError, EOFError) as error:  # a truncated gzip stream ends with EOFError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it ends too early"
        raise CohortError(
            f"cannot be read ({reason}).", where=path.name, fix="It may be truncated: export or download it again."
        ) from error


def header_is_data(names: Sequence[str]) -> bool:
    """Return whether names of columns are numbers or dates, so that the header is missing and they must not be shown."""
    return any(_LIKE_DATA.fullmatch(name.strip()) for name in names)


def _opened(path: Path) -> IO[bytes]:
    if path.name.lower().endswith(".gz"):
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return path.open("rb")


def _check_head(head: bytes, path: Path) -> None:
    where = path.name
    if not head.strip():
        raise CohortError("is empty.", where=where, fix="Write a header and one row per event.")
    refuse_other_formats(head, path)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or 4 * head.count(b"\0") > len(head):
        raise CohortError("line 1 is not UTF-8: the file is UTF-16 or no text.", where=where, fix=_AS_UTF8)
    if b"\r" in head and b"\n" not in head:
        raise CohortError(
            "its lines end with CR only, so it would be read as one line.",
            where=where,
            fix="Save it with line ends of LF or CR LF (Excel: `CSV UTF-8`, not `CSV (Macintosh)`).",
        )


def _check_encoding(file: IO[bytes], where: str) -> bool:
    """Check that every line is UTF-8; return whether a line has an odd number of quotation marks."""
    before, suspicious = 0, False
    while block := file.read(_BLOCK):
        block += file.readline()
        if b"\0" in block:
            line = before + block.count(b"\n", 0, block.index(b"\0")) + 1
            raise CohortError(
                f"line {line:,} holds a null byte, so the file is damaged or no text.",
                where=where,
                fix="Export or download it again.",
            )
        if not block.isascii():
            try:
                block.decode("utf-8")
            except UnicodeDecodeError as error:
                line = before + block.count(b"\n", 0, error.start) + 1
                raise CohortError(
                    f"line {line:,} is not UTF-8 (byte 0x{block[error.start]:02X}; cp1252 or latin-1, as Excel writes it?).",
                    where=where,
                    fix=_AS_UTF8,
                ) from None  # the decoder's error holds the whole block
        before += block.count(b"\n")
        if not suspicious and b'"' in block:
            suspicious = any(line.count(b'"') % 2 for line in block.split(b"\n"))
    return suspicious


def _check_quotes(path: Path) -> None:
    """Refuse a quotation mark without a partner; cells with line breaks inside a pair are valid."""
    lines = _Lines(path)
    rows = csv.reader(lines, strict=True, delimiter=lines.separator)
    done = 0
    try:
        for _ in rows:
            if rows.line_num == done + 1 and lines.last.count('"') % 2:
                raise csv.Error
            done = rows.line_num
    except csv.Error:
        raise CohortError(
            f"line {done + 1:,} has a quotation mark without a partner, so the rows after it cannot be told apart.",
            where=path.name,
            fix='Close the quotation mark or remove it; inside quotes it is doubled: "".',
        ) from None  # the library's error may quote a cell


class _Lines:
    """The lines of a file as text, with the last one kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with _opened(path) as file:
            head = file.readline(_HEAD).decode("utf-8", "replace")
        self.separator = max(("\t", ",", ";", "|"), key=head.count)
        self.last = ""

    def __iter__(self) -> Iterator[str]:
        with _opened(self._path) as file:
            for line in file:
                self.last = line.decode("utf-8")
                yield self.last
